"""The ways a check can end other than well, and what raises them."""

from __future__ import annotations

from pop3hub.check.client import Reply


class Failure(Exception):
    """The server breaks the rule."""

    def __init__(self, *, sent: bytes | Reply, expected: str, came: bytes | Reply) -> None:
        super().__init__(expected)
        self.sent = sent.sent if isinstance(sent, Reply) else sent
        self.expected = expected
        self.came = came.line if isinstance(came, Reply) else came


class Remark(Exception):
    """The rule does not forbid it, but an administrator wants to know."""


class Skip(Exception):
    """The rule does not apply here, or could not be checked."""


def refuse(reply: Reply, why: str) -> None:
    """Raise unless the reply is negative."""
    if not reply.err:
        raise Failure(sent=reply, expected=f"-ERR: {why}", came=reply)


def refuse_login(reply: Reply, why: str) -> None:
    """Raise unless the login failed; [IN-USE] says that only the maildrop was not free."""
    if not reply.err or reply.code == b"IN-USE":
        raise Failure(sent=reply, expected=f"-ERR: {why}", came=reply)
