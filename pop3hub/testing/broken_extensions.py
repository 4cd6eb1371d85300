"""Broken servers: STLS, AUTH, LANG and UTF8."""

# ruff: noqa: D102, ARG002  # a class says what is wrong, its methods are those of Honest
from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from pop3hub.testing.faults import broken
from pop3hub.testing.honest import Honest

if TYPE_CHECKING:
    from collections.abc import Sequence

# STLS


@broken("stls-greets-again", "stls", tls=True, sees="a second greeting after the handshake")
class GreetsAgain(Honest):
    """The server greets again once TLS is active."""

    def do_stls(self) -> None:
        super().do_stls()
        self.greet()


@broken(
    "stls-keeps-buffer",
    "stls-injection",
    tls=True,
    sees="a reply inside TLS to a command sent in the clear",
)
class KeepsClearText(Honest):
    """Commands sent in the clear after STLS are executed inside TLS (CVE-2011-0411)."""

    def kept(self) -> bytes:
        return self.buffer


@broken("stls-twice", "stls-twice", tls=True, sees="+OK to STLS inside TLS")
class StlsAgain(Honest):
    """STLS is accepted when TLS is active."""

    def do_stls(self) -> None:
        if self.tls:
            self.ok()
        else:
            super().do_stls()


@broken(
    "stls-announced-in-tls",
    "stls-announced",
    status="warn",
    tls=True,
    sees="STLS in CAPA inside TLS",
)
class StlsInTls(Honest):
    """STLS is announced when TLS is active."""

    def capa(self) -> Sequence[str]:
        return [*super().capa(), "STLS"] if self.tls and not self.user else super().capa()


@broken(
    "stls-keeps-user",
    "stls-forgets-user",
    status="warn",
    tls=True,
    sees="+OK to PASS after STLS, where USER came before it",
)
class KeepsName(Honest):
    """The name that was given before STLS counts after it."""

    def forget(self) -> str | None:
        return self.name


# AUTH


@broken("auth-any-mechanism", "auth-unknown", sees="a challenge to AUTH NO-SUCH-MECHANISM")
class AnyMechanism(Honest):
    """AUTH with an unknown mechanism is taken for PLAIN."""

    def do_auth(self, mechanism: str) -> None:
        super().do_auth("PLAIN")


@broken("auth-challenge-bare", "auth-challenge", sees="'+' without a space as the empty challenge")
class NoSpace(Honest):
    """The empty challenge has no space."""

    def challenge(self) -> None:
        self.say("+")


@broken("auth-cancel-accepted", "auth-cancel", sees="+OK to '*'")
class NoCancel(Honest):
    """'*' does not cancel AUTH."""

    def cancel(self) -> None:
        self.ok()


@broken("auth-loose-base64", "auth-base64", sees="another challenge in reply to '!!!!'")
class LooseBase64(Honest):
    """Octets that are not base64 are ignored in a response."""

    def do_auth(self, mechanism: str) -> None:
        if mechanism.upper() != "PLAIN":
            self.err("unknown mechanism")
            return
        self.challenge()
        line = self.read() or "*"
        if line == "*":
            self.cancel()
        elif base64.b64decode(line).count(b"\0") < 2:  # noqa: PLR2004
            self.challenge()
        else:
            self.err("wrong")


@broken(
    "auth-line-without-limit",
    "endless-line",
    status="warn",
    silent=True,
    sees="no reply in AUTH, however much is sent without a line end",
)
class TakesAllInAuth(Honest):
    """The response to a challenge is kept until its end comes."""

    def challenge(self) -> None:
        super().challenge()
        line = bytearray()
        while not line.endswith(b"\n") and (chunk := self.receive()):
            line += chunk
        self.buffer = bytes(line)


@broken("nul-ends-response", "nul", sees="+OK to the right response to AUTH PLAIN and NUL")
class EndsResponseAtNul(Honest):
    """The response to a challenge ends at NUL."""

    challenged = False

    def challenge(self) -> None:
        super().challenge()
        self.challenged = True

    def read(self) -> str | None:
        line = super().read()
        if line and self.challenged:
            self.challenged = False
            return line.partition("\0")[0]
        return line


# LANG and UTF8


@broken("lang-list-colon", "lang-list", sees="'en: English' in the list of languages")
class ColonListing(Honest):
    """LANG lists tags followed by a colon."""

    def do_lang(self, tag: str | None = None) -> None:
        if tag is None:
            self.ok()
            self.many([b"en: English"])
        else:
            super().do_lang(tag)


@broken("lang-no-tag", "lang-tag", "lang-unknown", sees="+OK changing language to 'nl'.")
class NoTag(Honest):
    """LANG accepts any tag, and its reply does not begin with one."""

    def do_lang(self, tag: str | None = None) -> None:
        if tag is None:
            super().do_lang()
        else:
            self.ok("changing language to 'nl'.")


class ExactTags(Honest):
    """A base: tags are compared as they are written."""

    exact = frozenset({"en", "fr"})

    def do_lang(self, tag: str | None = None) -> None:
        if tag is None or tag == "*" or tag in self.exact:
            super().do_lang(tag)
        else:
            self.err("language")


@broken("lang-case", "lang-case", sees="-ERR to LANG EN, although LANG lists en")
class LowerCaseTags(ExactTags):
    """LANG understands tags in lower case only."""


@broken("lang-mixed-case", "lang-case", sees="-ERR to LANG Fr, although LANG FR is accepted")
class OneCaseTags(ExactTags):
    """LANG understands tags in lower and in upper case, but not in mixed case."""

    exact = frozenset({"en", "fr", "EN", "FR"})


@broken("lang-default-no-tag", "lang-default", sees="+OK 'en' to LANG *")
class NoDefaultTag(Honest):
    """The reply to LANG * has no tag."""

    def do_lang(self, tag: str | None = None) -> None:
        if tag == "*":
            self.ok("'en'")
        else:
            super().do_lang(tag)


@broken("utf8-refused", "utf8", status="warn", sees="UTF8 in CAPA, -ERR to UTF8")
class Utf8Refused(Honest):
    """UTF8 is announced and refused."""

    def do_utf8(self) -> None:
        self.err()
