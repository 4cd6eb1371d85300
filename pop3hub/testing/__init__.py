"""For tests of backends, plugins and clients: sessions without sockets, a suite, broken servers.

`Dialogue` is a real session on a real server that listens nowhere. `BackendContract` is the suite
that every backend passes. `BrokenServer(name)` is a POP3 server with one fault, `catalogue()` lists
them, and `HonestServer` has none. May import all but cli; nothing else of pop3hub imports it.
"""

from __future__ import annotations

import importlib
from typing import Any

from pop3hub.testing.broken import BrokenServer, catalogue
from pop3hub.testing.dialogue import LOCAL, Dialogue
from pop3hub.testing.honest import HonestServer

__all__ = ["LOCAL", "BrokenServer", "Dialogue", "HonestServer", "catalogue"]
# and BackendContract, which needs pytest


def __getattr__(name: str) -> Any:
    """Import the contract when it is asked for: it needs pytest, which dialogues do without."""
    if name != "BackendContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    pytest = importlib.import_module("pytest")
    pytest.register_assert_rewrite(
        *(f"pop3hub.testing.contract{part}" for part in ("", "_base", "_store"))
    )
    return importlib.import_module("pop3hub.testing.contract").BackendContract
