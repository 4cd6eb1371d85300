"""Broken servers: the form of every reply."""

# ruff: noqa: D102  # a class says what is wrong, its methods are those of Honest
from __future__ import annotations

from typing import TYPE_CHECKING

from pop3hub.testing.faults import broken
from pop3hub.testing.honest import Honest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SAID = ("unknown-command", "login")  # checks with a negative and with a positive reply


@broken("lf", "crlf", said_in=SAID, sees="LF without CR at the end of each reply")
class BareLf(Honest):
    """Replies end in a bare LF."""

    END = "\n"


@broken("lf-in-message", "crlf", said_in=["retr-size"], sees="LF without CR in messages")
class BareLfInMessages(Honest):
    """The lines of a multi-line reply end in a bare LF."""

    def many(self, lines: Iterable[bytes]) -> None:
        self.request.sendall(b"".join(self.stuff(x) + b"\n" for x in lines) + b".\r\n")


@broken("status-missing", "status", said_in=SAID, sees="a reply that begins with '?'")
class NoStatus(Honest):
    """A negative reply does not begin with -ERR."""

    ERR = "?"


@broken("status-lower-case", "status-case", said_in=SAID, sees="+ok")
class LowerCase(Honest):
    """The status is in lower case."""

    OK = "+ok"


@broken("reply-long", "response-length", said_in=SAID, sees="-ERR and more than 512 octets")
class LongReply(Honest):
    """A reply is longer than 512 octets."""

    def err(self, text: str = "no") -> None:
        super().err(text + "x" * 512)


@broken("reply-not-ascii", "ascii", said_in=SAID, sees="-ERR no, né, without LANG or UTF8")
class Accents(Honest):
    """A reply is in UTF-8, though the client did not ask for it."""

    def err(self, text: str = "no") -> None:
        super().err(f"{text}, né")


@broken("code-unclosed", "response-code-form", said_in=SAID, sees="-ERR [no idea")
class Brackets(Honest):
    """A text begins with '[' and is not a response code."""

    def err(self, text: str = "no") -> None:
        super().err(text if text.startswith("[") else "[no idea")


@broken(
    "bracket-unannounced",
    "response-code-form",
    status="warn",
    said_in=SAID,
    sees="-ERR [no idea, and no RESP-CODES in CAPA",
)
class BracketsUnannounced(Brackets):
    """A text begins with '[', though RESP-CODES is not announced."""

    def capa(self) -> Sequence[str]:
        return [tag for tag in super().capa() if tag != "RESP-CODES"]


@broken(
    "code-unregistered", "response-code-registered", status="warn", said_in=SAID, sees="-ERR [NOPE]"
)
class OwnCode(Honest):
    """A response code is not registered."""

    def err(self, text: str = "no") -> None:
        super().err(text if text.startswith("[") else f"[NOPE] {text}")


@broken(
    "codes-unannounced",
    "response-code-announced",
    status="warn",
    said_in=["failed-login"],
    sees="-ERR [AUTH], and no RESP-CODES in CAPA",
)
class NoRespCodes(Honest):
    """Response codes are sent, but RESP-CODES is not announced."""

    def capa(self) -> Sequence[str]:
        return [tag for tag in super().capa() if tag != "RESP-CODES"]
