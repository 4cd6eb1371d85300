"""Messages that servers have stumbled over, and how to read what a server makes of them."""
# ruff: noqa: S101 - for a suite: it asserts

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SHORT = b"Subject: hello\r\n\r\nHello world!\r\n"

HARD: Mapping[str, bytes] = {
    "CRLF": SHORT,
    "LF": b"Subject: hello\n\nHello world!\n",
    "mixed line ends": b"Subject: hello\r\n\nHello\r\nworld!\n",
    "no final line end": b"Subject: hello\r\n\r\nHello",
    "a final CR": b"Subject: hello\r\n\r\nHello\r",
    "empty": b"",
    "no body": b"Subject: hello\r\n",
    "dots": b".first\r\n\r\n.\r\n..\r\n.hidden\r\ntail.",
    "LF and dots": b".first\n\n.\n..\n.hidden\n",
    "8-bit": b"Subject: hello\r\n\r\n\xe9\xff\x00\xfe\r\n",
    "lone CR": b"Subject: hello\r\n\r\none\rtwo\r\n",
    "long line": b"Subject: hello\r\n\r\n" + b"x" * 100_000 + b"\r\n",
    "1 MiB": b"Subject: hello\r\n\r\n" + b".234567\r\n" * (1024 * 1024 // 9),
    "1 MiB of LF": b"Subject: hello\n\n" + b"1234567\n" * (1024 * 1024 // 8),
}
"""Messages that servers have stumbled over, by what is hard about them."""


def on_the_wire(contents: bytes) -> bytes:
    """Return a message as a client sees it, the stuffed dots taken off (RFC 1939 s3)."""
    wire = contents.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return wire if not wire or wire.endswith(b"\r\n") else wire + b"\r\n"


def body(reply: bytes) -> bytes:
    """Return what a multi-line reply holds between its first line and the final dot."""
    first, _, rest = reply.partition(b"\r\n")
    assert first.startswith(b"+OK"), reply[:200]
    assert rest == b".\r\n" or rest.endswith(b"\r\n.\r\n"), reply[-200:]
    lines = rest[:-3].replace(b"\r\n.", b"\r\n")
    return lines[1:] if lines.startswith(b".") else lines


def listing(reply: bytes) -> list[str]:
    """Return the second column of LIST or UIDL; the first is checked to count from 1."""
    rows = [line.split(" ") for line in body(reply).decode("ascii").splitlines()]
    assert [str(n) for n in range(1, len(rows) + 1)] == [row[0] for row in rows]
    return [row[1] for row in rows]
