"""What a check is, and the ways it can end.

A check is a function over a `Probe`, registered in a `Checks` table with the rule that it is for.
It returns a note or None when the rule is kept, and raises `Failure`, `Remark` or `Skip` otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pop3hub.check.client import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from pop3hub.check.probe import Probe

MUST = "MUST"
SHOULD = "SHOULD"
MAY = "MAY"
POLICY = "policy"  # good practice that no RFC asks for


class Failure(Exception):
    """The rule is not held."""

    def __init__(self, *, sent: bytes | Reply, expected: str, came: bytes | Reply) -> None:
        super().__init__(expected)
        self.sent = sent.sent if isinstance(sent, Reply) else sent
        self.expected = expected
        self.came = came.line if isinstance(came, Reply) else came


class Remark(Exception):
    """Nothing that the rule forbids, but something that an administrator wants to know."""


class Skip(Exception):
    """The rule does not apply here, or cannot be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A registered check. `needs` is a capability without which it is skipped."""

    name: str
    rfc: str
    level: str
    summary: str
    function: Callable[[Probe], str | None]
    login: bool = False
    scratch: bool = False
    needs: str | None = None


class Checks(list[Check]):
    """A table of checks in the order in which they run."""

    def add(
        self,
        name: str,
        rfc: str,
        level: str,
        *,
        login: bool = False,
        scratch: bool = False,
        needs: str | None = None,
    ) -> Callable[[Callable[[Probe], str | None]], Callable[[Probe], str | None]]:
        """Register the decorated function; its docstring's first line is the rule."""

        def register(function: Callable[[Probe], str | None]) -> Callable[[Probe], str | None]:
            summary = (function.__doc__ or "").partition("\n")[0]
            self.append(
                Check(
                    name=name,
                    rfc=rfc,
                    level=level,
                    summary=summary,
                    function=function,
                    login=login or scratch,
                    scratch=scratch,
                    needs=needs,
                )
            )
            return function

        return register


def refuse(reply: Reply, why: str) -> None:
    """Raise unless the reply is negative."""
    if not reply.err:
        raise Failure(sent=reply, expected=f"-ERR: {why}", came=reply)


def refuse_login(reply: Reply, why: str) -> None:
    """Raise unless the login failed; [IN-USE] says that only the maildrop was not free."""
    if not reply.err or reply.code == b"IN-USE":
        raise Failure(sent=reply, expected=f"-ERR: {why}", came=reply)
