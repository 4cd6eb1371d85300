"""For tests of backends, plugins and clients: sessions without sockets, and a backend's suite.

`Dialogue` is a real session on a real server that listens nowhere. `BackendContract` is the suite
that every backend passes. May import all but cli; nothing else of pop3hub imports it.
"""

from __future__ import annotations

import importlib
from typing import Any

from pop3hub.testing.dialogue import LOCAL, Dialogue

__all__ = ["LOCAL", "Dialogue"]  # and BackendContract, which needs pytest


def __getattr__(name: str) -> Any:
    """Import the contract when it is asked for: it needs pytest, which dialogues do without."""
    if name != "BackendContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    pytest = importlib.import_module("pytest")
    pytest.register_assert_rewrite("pop3hub.testing.contract")
    return importlib.import_module("pop3hub.testing.contract").BackendContract
