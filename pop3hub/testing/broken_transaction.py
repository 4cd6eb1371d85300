"""Broken servers: STAT, LIST, UIDL, DELE, RSET, QUIT and NOOP."""

# ruff: noqa: D102, ARG002  # a class says what is wrong, its methods are those of Honest
from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pop3hub.testing.faults import broken
from pop3hub.testing.honest import Honest

if TYPE_CHECKING:
    from collections.abc import Sequence

# The state


@broken("user-after-login", "state-transaction", sees="+OK to USER after login")
class UserAgain(Honest):
    """USER is accepted after login."""

    def refuses(self, verb: str, refused: frozenset[str]) -> bool:
        return verb in refused - {"user"}


@broken("noop-refused", "noop", sees="-ERR to NOOP")
class NoNoop(Honest):
    """NOOP is refused."""

    def do_noop(self) -> None:
        self.err()


@broken("capa-drops-sasl", "capa-both-states", sees="SASL in CAPA before login only")
class DropsSasl(Honest):
    """SASL is not announced after login."""

    def capa(self) -> Sequence[str]:
        return [t for t in super().capa() if not (self.user and t.startswith("SASL"))]


@broken(
    "capa-shrinks-sasl",
    "capa-both-states",
    sees="SASL PLAIN in CAPA before login, SASL alone after it",
)
class ShrinksSasl(Honest):
    """SASL is announced without mechanisms after login."""

    def capa(self) -> Sequence[str]:
        return [t.partition(" ")[0] if self.user else t for t in super().capa()]


@broken("capa-late-top", "capa-before-login", status="warn", sees="TOP in CAPA after login only")
class LateTop(Honest):
    """TOP is announced after login only."""

    def capa(self) -> Sequence[str]:
        return [t for t in super().capa() if self.user or t != "TOP"]


@broken("stls-announced-after-login", "capa-stls", status="warn", sees="STLS in CAPA after login")
class StlsInside(Honest):
    """STLS is announced after login, where it is refused."""

    def capa(self) -> Sequence[str]:
        return [*super().capa(), "STLS"] if self.user else super().capa()


# Listings


@broken("stat-words", "stat", sees="+OK 3 messages")
class WordyStat(Honest):
    """STAT does not say how many octets there are."""

    def do_stat(self) -> None:
        self.ok("3 messages")


@broken("stat-more", "stat", status="warn", sees="+OK 3 300 octets")
class ChattyStat(Honest):
    """STAT has text after the octets, which is discouraged."""

    def do_stat(self) -> None:
        sizes = [self.size(uid) for _, uid in self.present()]
        self.ok(f"{len(sizes)} {sum(sizes)} octets")


@broken("stat-octets", "stat-octets", status="warn", sees="1 octet in STAT, hundreds in LIST")
class RoughStat(Honest):
    """STAT's octets are not the sum of LIST's sizes."""

    def do_stat(self) -> None:
        self.ok(f"{len(self.present())} 1")


@broken("list-hides-message", "list", sees="one message fewer in LIST than in STAT")
class ListsNewest(Honest):
    """LIST leaves out the first message."""

    def do_list(self, number: str | None = None) -> None:
        if number is None:
            self.ok()
            self.many(b"%d %d" % (n, self.size(uid)) for n, uid in self.present()[1:])
        else:
            super().do_list(number)


class OneListing(Honest):
    """A base: what `one` says is the reply to LIST with a number."""

    def one(self, number: int, size: int) -> str:
        return f"{number} {size}"

    def do_list(self, number: str | None = None) -> None:
        if number is None:
            super().do_list()
        else:
            n, uid = self.number(number)
            self.ok(self.one(n, self.size(uid)))


@broken("list-one-words", "list-one", sees="+OK one message")
class WordyList(OneListing):
    """LIST with a number says neither number nor size."""

    def one(self, number: int, size: int) -> str:
        return "one message"


@broken("list-one-more", "list-one", status="warn", sees="+OK 1 79 octets")
class ChattyList(OneListing):
    """LIST with a number has text after the size, which is discouraged."""

    def one(self, number: int, size: int) -> str:
        return f"{number} {size} octets"


@broken("list-one-estimate", "list-one", status="warn", sees="other sizes in LIST n than in LIST")
class RoughSizes(OneListing):
    """LIST with a number has another size than LIST; where UTF8 is announced, a SHOULD."""

    def one(self, number: int, size: int) -> str:
        return f"{number} {size + 20}"


@broken("list-one-wrong", "list-one", sees="other sizes in LIST n than in LIST, without UTF8")
class OtherSizes(RoughSizes):
    """LIST with a number has another size than LIST."""

    CAPA = tuple(tag for tag in Honest.CAPA if tag != "UTF8")


@broken("number-zero", "numbers", sees="the first message in reply to RETR 0")
class Zero(Honest):
    """Message 0 is the first message."""

    def number(self, text: str) -> tuple[int, str]:
        return super().number("1" if text == "0" else text)


@broken("number-loose", "numbers", sees="+OK to LIST 1x")
class LooseNumbers(Honest):
    """Whatever follows the digits of a number is ignored."""

    def number(self, text: str) -> tuple[int, str]:
        return super().number(re.sub(r"(?<=[0-9])[^0-9].*", "", text))


@broken("top-without-number", "numbers", sees="the first message in reply to TOP without arguments")
class TopAlone(Honest):
    """TOP is accepted without arguments."""

    def do_top(self, number: str = "1", count: str = "0") -> None:
        super().do_top(number, count)


@broken("number-sign", "number-sign", status="warn", sees="+OK to LIST +1")
class Signs(Honest):
    """A number may have a plus sign."""

    def number(self, text: str) -> tuple[int, str]:
        return super().number(text.removeprefix("+"))


@broken("uid-long", "uidl", sees="unique-ids of more than 70 characters")
class LongUid(Honest):
    """Unique-ids are too long."""

    def uid(self, uid: str) -> str:
        return uid + "x" * 70


@broken("uid-space", "uidl", sees="unique-ids with a space in them")
class SpacedUid(Honest):
    """A unique-id has a space in it."""

    def uid(self, uid: str) -> str:
        return uid + " x"


@broken("uid-same", "uidl-unique", status="warn", sees="the same unique-id for every message")
class SameUid(Honest):
    """All messages have the same unique-id."""

    def uid(self, uid: str) -> str:
        return "same"


@broken("uid-one-other", "uidl-one", sees="another unique-id in UIDL n than in UIDL")
class OtherUid(Honest):
    """UIDL with a number has another unique-id than UIDL alone."""

    def do_uidl(self, number: str | None = None) -> None:
        if number is None:
            super().do_uidl()
        else:
            self.ok(f"{self.number(number)[0]} other")


@broken("uid-of-session", "uidl-persistent", sees="all messages as new, in each session")
class SessionUids(Honest):
    """Unique-ids change from session to session."""

    def setup(self) -> None:
        super().setup()
        self.session = next(self.stamps)

    def uid(self, uid: str) -> str:
        return f"{self.session}-{uid}"


# DELE, RSET and QUIT


@broken("dele-twice", "dele-twice", sees="+OK to the second DELE of a message")
class DeleAgain(Honest):
    """DELE of a message that is marked is accepted."""

    def do_dele(self, number: str) -> None:
        self.marked.discard(self.uids[int(number) - 1])
        super().do_dele(number)


@broken("deleted-retrieved", "deleted-refused", sees="a deleted message in reply to RETR")
class RetrDeleted(Honest):
    """RETR sends messages that are marked as deleted."""

    def do_retr(self, number: str) -> None:
        marked, self.marked = self.marked, set()
        super().do_retr(number)
        self.marked = marked


@broken("deleted-listed", "deleted-unlisted", sees="deleted messages in STAT, LIST and UIDL")
class ListsDeleted(Honest):
    """Messages that are marked as deleted are still listed."""

    def present(self) -> list[tuple[int, str]]:
        return list(enumerate(self.uids, 1))


@broken("deleted-renumbers", "deleted-unlisted", sees="other numbers in LIST after DELE")
class Renumbers(Honest):
    """After DELE the messages that follow get new numbers."""

    def present(self) -> list[tuple[int, str]]:
        return list(enumerate((uid for uid in self.uids if uid not in self.marked), 1))


@broken("rset-ignored", "rset", sees="messages that stay deleted after RSET")
class NoRset(Honest):
    """RSET does nothing."""

    def do_rset(self) -> None:
        self.ok()


@broken("drop-deletes", "drop-keeps", sees="mail gone after a lost connection")
class DeletesOnDrop(Honest):
    """A lost connection deletes what was marked."""

    def finish(self) -> None:
        for uid in self.marked:
            self.server.drop.pop(uid, None)
        super().finish()


@broken("quit-keeps", "quit-deletes", sees="deleted messages again in the next session")
class KeepsAll(Honest):
    """QUIT deletes nothing."""

    def do_quit(self) -> None:
        self.marked = set()
        super().do_quit()


@broken("quit-deletes-all", "quit-deletes", sees="an empty maildrop after one DELE and QUIT")
class DeletesAll(Honest):
    """QUIT deletes messages that were not marked."""

    def do_quit(self) -> None:
        if self.user and self.marked:
            self.server.drop.clear()
            self.marked = set()
        super().do_quit()
