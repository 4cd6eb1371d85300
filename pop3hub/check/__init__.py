"""Checks whether a POP3 server, any server, keeps to the RFCs: what `pop3hub check` runs.

The checks see a server from the outside only. So this package imports nothing else of pop3hub,
and a fault of our own server cannot hide in code that both share.

`run_checks(Target(...))` returns a `Result` for each of `CHECKS`. It raises `Unreachable` if there
is no server to check. It blocks: call it in a thread beside an event loop.
"""

from pop3hub.check.client import Unreachable
from pop3hub.check.probe import Target
from pop3hub.check.rules import MAY, MUST, POLICY, SHOULD, Check
from pop3hub.check.runner import CHECKS, FAIL, OK, SKIP, WARN, Result, run_checks

__all__ = [
    "CHECKS",
    "FAIL",
    "MAY",
    "MUST",
    "OK",
    "POLICY",
    "SHOULD",
    "SKIP",
    "WARN",
    "Check",
    "Result",
    "Target",
    "Unreachable",
    "run_checks",
]
