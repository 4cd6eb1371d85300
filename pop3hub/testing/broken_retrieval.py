"""Broken servers: what RETR and TOP send, and the sizes that LIST has for it.

Some are wrong only where a message has a certain feature, which the smallest ones do not have.
"""

# ruff: noqa: D102  # a class says what is wrong, its methods are those of Honest
from __future__ import annotations

from pop3hub.testing.faults import broken
from pop3hub.testing.honest import Honest


@broken("size-counts-lf", "retr-size", sees="fewer octets in LIST than RETR sends")
class CountsLf(Honest):
    """LIST counts a line end as one octet."""

    def size(self, uid: str) -> int:
        return super().size(uid) - self.server.drop[uid].count(b"\r\n")


@broken("size-counts-stuffing", "retr-size", sees="one octet too many in LIST for each stuffed dot")
class CountsStuffing(Honest):
    """LIST counts the dots that dot-stuffing adds."""

    def size(self, uid: str) -> int:
        return sum(len(self.stuff(line)) + 2 for line in self.lines(uid))


@broken(
    "size-of-utf8",
    "retr-size",
    status="warn",
    sees="a longer message than LIST says, without UTF8",
)
class Utf8Sizes(Honest):
    """LIST has the sizes of UTF-8 mode in any mode."""

    def lines(self, uid: str) -> list[bytes]:
        lines = super().lines(uid)
        return lines if self.utf8 else [b"Subject: =?utf-8?q?=C5=BE?=", *lines]

    def size(self, uid: str) -> int:
        return len(self.server.drop[uid])


@broken(
    "size-without-last-line-end",
    "retr-size",
    status="warn",
    sees="two octets more by RETR than LIST says",
)
class NoFinalLine(Honest):
    """LIST does not count the last line end."""

    def size(self, uid: str) -> int:
        return super().size(uid) - 2


@broken(
    "dot-unstuffed",
    "dot-stuffing",
    sees="'.hidden' with one dot, and a message that ends at a line of one dot",
)
class StuffsNothing(Honest):
    """Lines that begin with a dot are sent without a second dot."""

    def stuff(self, line: bytes) -> bytes:
        return line


@broken("dot-stuffed-alone", "dot-stuffing", sees="'.hidden' with one dot")
class StuffsLoneDots(Honest):
    """Only a line of one dot gets a second dot."""

    def stuff(self, line: bytes) -> bytes:
        return b".." if line == b"." else line


@broken(
    "dot-lone-unstuffed",
    "dot-stuffing",
    sees="a message that ends too early, and its rest as replies",
)
class StuffsNoLoneDot(Honest):
    """A line of one dot is sent as it is, which ends the message."""

    def stuff(self, line: bytes) -> bytes:
        return line if line == b"." else super().stuff(line)


@broken("top-zero-is-all", "top-headers", sees="the whole message in reply to TOP n 0")
class TopZeroIsAll(Honest):
    """TOP with 0 lines sends the body too."""

    def end(self, lines: list[bytes], count: int) -> int:
        return super().end(lines, count) if count else len(lines)


@broken("top-counts-headers", "top-lines", sees="no body in reply to TOP n 2")
class CountsHeaders(Honest):
    """TOP counts the lines of the headers too."""

    def end(self, lines: list[bytes], count: int) -> int:
        return count or super().end(lines, 0)


@broken("top-cut", "top-whole", sees="three lines of body in reply to TOP n 99999999")
class ShortTop(Honest):
    """TOP sends three lines of the body at most."""

    def end(self, lines: list[bytes], count: int) -> int:
        return super().end(lines, min(count, 3))


@broken("top-unstuffed", "top-whole", sees="'.hidden' with one dot in reply to TOP")
class TopUnstuffed(Honest):
    """TOP sends lines that begin with a dot as they are; RETR does not."""

    def setup(self) -> None:
        super().setup()
        self.topping = False

    def do_top(self, number: str, count: str) -> None:
        self.topping = True
        super().do_top(number, count)
        self.topping = False

    def stuff(self, line: bytes) -> bytes:
        return line if self.topping and line != b"." else super().stuff(line)


@broken("headers-in-utf8", "utf8-surrogate", sees="UTF-8 in all headers, without UTF8")
class RawHeaders(Honest):
    """Every message has a header in UTF-8, in any mode."""

    def lines(self, uid: str) -> list[bytes]:
        return ["Subject: ž".encode(), *super().lines(uid)]


@broken("headers-as-stored", "utf8-surrogate", sees="UTF-8 in some headers, without UTF8")
class NoSurrogate(Honest):
    """A header in UTF-8 is sent as it is stored, in any mode."""

    def lines(self, uid: str) -> list[bytes]:
        return self.server.drop[uid].split(b"\r\n")[:-1]


@broken("top-headers-as-stored", "utf8-surrogate", sees="UTF-8 in reply to TOP, without UTF8")
class TopNoSurrogate(Honest):
    """TOP sends a header in UTF-8 as it is stored, in any mode; RETR does not."""

    def do_top(self, number: str, count: str) -> None:
        utf8, self.utf8 = self.utf8, True
        super().do_top(number, count)
        self.utf8 = utf8
