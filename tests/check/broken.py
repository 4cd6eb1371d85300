"""Broken POP3 servers, each breaking the rule of one conformance check."""

import base64
from dataclasses import dataclass

import pytest

from tests.check.honest import PASSWORD, USER, Honest

FAULTS = []


@dataclass(frozen=True)
class Fault:
    """A server and how its check ends.

    only: more checks to run, for what is said in them. waits: the finding is a reply that is
    missing, so the time-out may be short.
    """

    check: str
    status: str
    only: tuple[str, ...]
    server: type[Honest]
    waits: bool


def fault(check, status="FAIL", *, only=(), waits=False):
    """Register a class as a server that breaks the rule of one check."""

    def register(cls):
        FAULTS.append(
            pytest.param(Fault(check, status, only, cls, waits), id=f"{check}-{cls.__name__}")
        )
        return cls

    return register


@fault("greeting")
class TwoStamps(Honest):
    def greet(self):
        self.say("+OK <1@a> <2@a>")


@fault("greeting")
class LongGreeting(Honest):
    def greet(self):
        self.say("+OK " + "x" * 512)


@fault("greeting")
class NegativeGreeting(Honest):
    def greet(self):
        self.say("-ERR too many connections")


@fault("greeting-timestamp")
class OneStamp(Honest):
    def greet(self):
        self.say("+OK <1@example.com>")


@fault("unknown-command")
class Yes(Honest):
    def do_xyzw(self):
        self.ok()


@fault("unknown-command", "warn")
class Touchy(Honest):
    def do_xyzw(self):
        self.err()
        self.open = False


@fault("command-case")
class UpperCaseOnly(Honest):
    def verb(self, word):
        return word.lower() if word.isupper() else "nothing"


@fault("quit-authorization", waits=True)
class NeverCloses(Honest):
    def do_quit(self):
        self.ok()


@fault("state-authorization")
class EarlyNoop(Honest):
    def refuses(self, verb, refused):
        return verb in refused - {"noop"}


@fault("segments")
class SegmentIsCommand(Honest):
    def read(self):
        return self.receive().rstrip(b"\r\n").decode() or None


@fault("command-length")
class SmallBuffer(Honest):
    def run(self, line):
        for start in range(0, max(len(line), 1), 128):
            super().run(line[start : start + 128])


@fault("line-too-long", "warn")
class CutsLines(Honest):
    def run(self, line):
        for start in range(0, max(len(line), 1), 1024):
            super().run(line[start : start + 1024])


@fault("pipelining", waits=True)
class LosesTheRest(Honest):
    def read(self):
        line = super().read()
        self.buffer = b""
        return line


@fault("capa")
class DottedTag(Honest):
    def capa(self):
        return [*super().capa(), "X-1.0"]


@fault("capa")
class LongCapability(Honest):
    def capa(self):
        return [*super().capa(), "IMPLEMENTATION " + "x" * 512]


@fault("capa-registered", "warn")
class ListsCapa(Honest):
    def capa(self):
        return ["CAPA", *super().capa()]


@fault("capa-user", "warn")
class RefusesUser(Honest):
    def do_user(self, name):
        self.err("TLS first")


@fault("user-argument")
class NamelessUser(Honest):
    def do_user(self, name):
        self.name = name
        self.ok()


@fault("pass-without-user")
class PassAlone(Honest):
    def do_pass(self, password):
        self.ok()


@fault("login")
class NoLogin(Honest):
    def enter(self, name, password):
        self.err("[AUTH] no")


@fault("failed-login")
class OpenDoor(Honest):
    def enter(self, name, password):
        super().enter(USER, PASSWORD)


@fault("auth-resp-code")
class NoCode(Honest):
    AUTH = ""


@fault("auth-resp-code-announced", "warn")
class UnannouncedAuth(Honest):
    def capa(self):
        return [tag for tag in super().capa() if tag != "AUTH-RESP-CODE"]


@fault("stls")
class GreetsAgain(Honest):
    def do_stls(self):
        super().do_stls()
        self.greet()


@fault("stls-injection")
class KeepsClearText(Honest):
    def kept(self):
        return self.buffer


@fault("stls-twice")
class StlsAgain(Honest):
    def do_stls(self):
        if self.tls:
            self.ok()
        else:
            super().do_stls()


@fault("stls-announced", "warn")
class StlsInTls(Honest):
    def capa(self):
        return self.CAPA


@fault("stls-forgets-user", "warn")
class KeepsName(Honest):
    def forget(self):
        return self.name


@fault("auth-unknown")
class AnyMechanism(Honest):
    def do_auth(self, mechanism):
        super().do_auth("PLAIN")


@fault("auth-challenge")
class NoSpace(Honest):
    def challenge(self):
        self.say("+")


@fault("auth-cancel")
class NoCancel(Honest):
    def do_auth(self, mechanism):
        self.challenge()
        self.read()
        self.ok()


@fault("auth-base64")
class LenientBase64(Honest):
    def do_auth(self, mechanism):
        self.challenge()
        base64.b64decode(self.read())
        self.challenge()


@fault("lang-list")
class ColonListing(Honest):
    def do_lang(self, tag=None):
        self.ok()
        self.many([b"en: English"])


class NoTag(Honest):
    def do_lang(self, tag=None):
        if tag is None:
            super().do_lang()
        else:
            self.ok("changing language to 'nl'.")


for _name in ("lang-tag", "lang-unknown"):
    fault(_name)(NoTag)


@fault("lang-case")
class ExactTags(Honest):
    def do_lang(self, tag=None):
        if tag in {None, "en", "fr", "*"}:
            super().do_lang(tag)
        else:
            self.err("language")


@fault("lang-default")
class NoDefaultTag(Honest):
    def do_lang(self, tag=None):
        self.ok("'en'")


@fault("utf8", "warn")
class Utf8Refused(Honest):
    def do_utf8(self):
        self.err()
