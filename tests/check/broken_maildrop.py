"""Broken POP3 servers for the checks after the login, and for those over all replies."""

import re

from tests.check.broken import FAULTS, LosesTheRest, fault
from tests.check.honest import USER, Honest

__all__ = ["FAULTS"]


@fault("state-transaction")
class UserAgain(Honest):
    def refuses(self, verb, refused):
        return verb in refused - {"user"}


@fault("unknown-transaction")
class YesInside(Honest):
    def do_xyzw(self):
        self.ok()


@fault("noop")
class NoNoop(Honest):
    def do_noop(self):
        self.err()


@fault("capa-both-states")
class DropsSasl(Honest):
    def capa(self):
        return [t for t in super().capa() if not (self.user and t.startswith("SASL"))]


@fault("capa-both-states")
class ShrinksSasl(Honest):
    def capa(self):
        return [t.partition(" ")[0] if self.user else t for t in super().capa()]


@fault("capa-before-login", "warn")
class LateTop(Honest):
    def capa(self):
        return [t for t in super().capa() if self.user or t != "TOP"]


@fault("capa-stls", "warn")
class StlsInside(Honest):
    def capa(self):
        return self.CAPA


@fault("stat")
class WordyStat(Honest):
    def do_stat(self):
        self.ok("3 messages")


@fault("stat", "warn")
class ChattyStat(Honest):
    def do_stat(self):
        self.ok("3 300 octets")


@fault("list")
class ListsNewest(Honest):
    def do_list(self, number=None):
        self.ok()
        self.many([b"2 10", b"3 10"])


@fault("stat-octets", "warn")
class RoughStat(Honest):
    def do_stat(self):
        self.ok("3 1")


@fault("list-one")
class MultiLineList(Honest):
    def do_list(self, number=None):
        if number is None:
            super().do_list()
        else:
            self.ok("one message")


@fault("list-one", "warn")
class ChattyList(Honest):
    def do_list(self, number=None):
        if number is None:
            super().do_list()
        else:
            self.ok(f"{number} {self.size(self.number(number)[1])} octets")


@fault("numbers")
class Zero(Honest):
    def number(self, text):
        return super().number("1" if text == "0" else text)


@fault("numbers")
class LooseNumbers(Honest):
    def number(self, text):
        return super().number(re.match("[0-9]*", text)[0])


@fault("numbers")
class TopAlone(Honest):
    def do_top(self, number="1", count="0"):
        super().do_top(number, count)


@fault("number-sign", "warn")
class Signs(Honest):
    def number(self, text):
        return super().number(text.removeprefix("+"))


@fault("uidl")
class LongUid(Honest):
    def uid(self, uid):
        return uid + "x" * 70


@fault("uidl")
class SpacedUid(Honest):
    def uid(self, uid):
        return uid + " x"


@fault("uidl-unique", "warn")
class SameUid(Honest):
    def uid(self, uid):
        return "same"


@fault("uidl-one")
class OtherUid(Honest):
    def do_uidl(self, number=None):
        if number is None:
            super().do_uidl()
        else:
            self.ok(f"{number} other")


@fault("uidl-persistent")
class SessionUids(Honest):
    def uid(self, uid):
        return f"{id(self)}-{uid}"


@fault("retr-size")
class CountsLf(Honest):
    def size(self, uid):
        return super().size(uid) - self.server.drop[uid].count(b"\r\n")


class SurrogateSizes(Honest):
    """LIST has the sizes of UTF-8 mode always."""

    def lines(self, uid):
        return super().lines(uid) if self.utf8 else [b"Subject: surrogate", *super().lines(uid)]

    def size(self, uid):
        return len(self.server.drop[uid])


fault("retr-size", "warn")(SurrogateSizes)


class RoughSizes(Honest):
    def do_list(self, number=None):
        if number is None:
            super().do_list()
        else:
            self.ok(f"{number} {self.size(self.number(number)[1]) + 20}")


fault("list-one", "warn")(RoughSizes)


@fault("list-one")
class OtherSizes(RoughSizes):
    CAPA = tuple(tag for tag in Honest.CAPA if tag != "UTF8")


@fault("retr-size", "warn")
class NoFinalLine(Honest):
    def size(self, uid):
        return super().size(uid) - 2


@fault("dot-stuffing")
class StuffsLoneDots(Honest):
    def stuff(self, line):
        return b".." if line == b"." else line


@fault("dot-stuffing")
class StuffsNoLoneDot(Honest):
    def stuff(self, line):
        return line if line == b"." else super().stuff(line)


@fault("top-headers")
class TopZeroIsAll(Honest):
    def end(self, lines, count):
        return super().end(lines, count) if count else len(lines)


@fault("top-lines")
class CountsHeaders(Honest):
    def end(self, lines, count):
        return count or super().end(lines, 0)


@fault("top-whole")
class ShortTop(Honest):
    def end(self, lines, count):
        return super().end(lines, min(count, 3))


@fault("utf8-surrogate")
class RawHeaders(Honest):
    def lines(self, uid):
        return ["Subject: ž".encode(), *super().lines(uid)]


@fault("dele-twice")
class DeleAgain(Honest):
    def do_dele(self, number):
        self.marked.discard(self.uids[int(number) - 1])
        super().do_dele(number)


@fault("deleted-refused")
class RetrDeleted(Honest):
    def do_retr(self, number):
        marked, self.marked = self.marked, set()
        super().do_retr(number)
        self.marked = marked


@fault("deleted-unlisted")
class ListsDeleted(Honest):
    def present(self):
        return list(enumerate(self.uids, 1))


@fault("deleted-unlisted")
class Renumbers(Honest):
    def present(self):
        return list(enumerate((uid for uid in self.uids if uid not in self.marked), 1))


@fault("rset")
class NoRset(Honest):
    def do_rset(self):
        self.ok()


@fault("second-session", "warn")
class NoInUse(Honest):
    def enter(self, name, password):
        if self.server.lock:
            return self.err("[SYS/TEMP] busy")
        return super().enter(name, password)


for _name in ("pipelining-transaction", "pipelining-login"):
    fault(_name, waits=True)(LosesTheRest)


@fault("quit-transaction", waits=True)
class StaysOpen(Honest):
    def do_quit(self):
        self.ok()


@fault("drop-keeps")
class DeletesOnDrop(Honest):
    def finish(self):
        for uid in getattr(self, "marked", ()):
            self.server.drop.pop(uid, None)
        super().finish()


@fault("quit-deletes")
class KeepsAll(Honest):
    def do_quit(self):
        self.marked = set()
        super().do_quit()


@fault("quit-deletes")
class DeletesAll(Honest):
    def do_quit(self):
        if self.user and self.marked:
            self.server.drop.clear()
            self.marked = set()
        super().do_quit()


@fault("login-refusal", "warn")
class TellsNames(Honest):
    def enter(self, name, password):
        if name != USER:
            return self.err("[AUTH] nobody has this name")
        return super().enter(name, password)


@fault("nul")
class SkipsNul(Honest):
    def run(self, line):
        return self.ok() if "\0" in line else super().run(line)


@fault("bad-commands", "warn")
class Tires(Honest):
    count = 0

    def run(self, line):
        self.count += 1
        return self.ok() if self.count > 9 else super().run(line)


@fault("endless-line", "warn", waits=True)
class TakesAll(Honest):
    def read(self):
        parts = [self.buffer]
        while b"\n" not in parts[-1]:
            parts.append(self.receive())
            if not parts[-1]:
                return None
        line, _, self.buffer = b"".join(parts).partition(b"\n")
        return line.rstrip(b"\r").decode("latin-1")


@fault("pass-after-failure")
class RemembersUser(Honest):
    def do_pass(self, password):
        name = self.name
        super().do_pass(password)
        self.name = name


SAID = ("unknown-command", "login")


@fault("crlf", only=SAID)
class BareLf(Honest):
    END = "\n"


@fault("crlf", only=("retr-size",))
class BareLfInMessages(Honest):
    def many(self, lines):
        self.request.sendall(b"".join(self.stuff(x) + b"\n" for x in lines) + b".\r\n")


@fault("status", only=SAID)
class NoStatus(Honest):
    ERR = "?"


@fault("status-case", only=SAID)
class LowerCase(Honest):
    OK = "+ok"


@fault("response-length", only=SAID)
class LongReply(Honest):
    def err(self, text="no"):
        super().err(text + "x" * 512)


@fault("ascii", only=SAID)
class Accents(Honest):
    def err(self, text="no"):
        super().err("né")


@fault("response-code-form", only=SAID)
class Brackets(Honest):
    def err(self, text="no"):
        super().err("[no idea")


@fault("response-code-form", "warn", only=SAID)
class BracketsUnannounced(Brackets):
    def capa(self):
        return [tag for tag in super().capa() if tag != "RESP-CODES"]


@fault("response-code-registered", "warn", only=SAID)
class OwnCode(Honest):
    def err(self, text="no"):
        super().err("[NOPE] no")


@fault("response-code-announced", "warn", only=("failed-login",))
class NoRespCodes(Honest):
    def capa(self):
        return [tag for tag in super().capa() if tag != "RESP-CODES"]
