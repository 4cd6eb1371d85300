"""Broken POP3 servers, for tests of clients and of checkers: each breaks one rule.

    with BrokenServer("dot-unstuffed") as server:
        client = poplib.POP3(server.host, server.port)

`catalogue()` says which there are. Standard library only.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from pop3hub.testing import (
    broken_authorization,
    broken_extensions,
    broken_replies,
    broken_retrieval,
    broken_transaction,
)
from pop3hub.testing.faults import FAULTS, Fault
from pop3hub.testing.honest import HonestServer

if TYPE_CHECKING:
    import ssl

MODULES = (
    broken_authorization,
    broken_extensions,
    broken_transaction,
    broken_retrieval,
    broken_replies,
)
"""Importing these filled `FAULTS`."""


def catalogue() -> tuple[Fault, ...]:
    """Return every broken server there is, by what part of POP3 it breaks."""
    return tuple(FAULTS.values())


class BrokenServer(HonestServer):
    """A broken POP3 server in a thread of its own: a context manager, used as `HonestServer` is.

    name: one of `catalogue()`. tls: a server's context, with which STLS is announced.
    Raises ValueError for a name that is not in the catalogue, and without `tls` for a server whose
    fault is in STLS.
    """

    def __init__(self, name: str, *, tls: ssl.SSLContext | None = None) -> None:
        fault = FAULTS.get(name)
        if fault is None:
            near = difflib.get_close_matches(name, FAULTS, 1)
            hint = f"do you mean {near[0]!r}?" if near else "catalogue() has the names"
            raise ValueError(f"there is no broken server {name!r}: {hint}")
        if fault.needs_tls and tls is None:
            raise ValueError(f"the fault of {name!r} is in STLS: pass a server's context as tls=")
        super().__init__(fault.handler, tls=tls)
        self.fault = fault
