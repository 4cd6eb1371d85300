"""The hard messages that every client fetches, and what must arrive of them."""

from collections import Counter

STORED = {
    "plain": b"From: a@example.com\r\nSubject: plain\r\n\r\nHello.\r\n",
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n...\r\n.hidden\r\n. spaced\r\nlast.\r\n.\r\n",
    "only a dot": b"Subject: only a dot\r\n\r\n.\r\n",
    "looks like POP3": b"Subject: replies\r\n\r\n-ERR no\r\n.\r\n+OK\r\nQUIT\r\n",
    "dots in the header": b"Subject: dots in the header\r\n.One: 1\r\n..Two: 2\r\n\r\nbody\r\n",
    "From": b"Subject: From\r\n\r\nFrom here on\r\n>From there\r\n",
    "no header": b"\r\n.no header\r\n",
    "nothing": b"",
    "no final line end": b"Subject: no final line end\r\n\r\nthe end",
    "no final line end after a dot": b"Subject: no final line end\r\n\r\n.",
    "empty body": b"Subject: empty body\r\n\r\n",
    "header only": b"Subject: header only\r\n",
    "empty lines at the end": b"Subject: empty lines\r\n\r\n\r\n\r\ntext\r\n\r\n\r\n\r\n",
    "latin-1": b"Subject: latin-1\r\n\r\nCaf\xe9, na\xefve, \x80\xff.\r\n.\xe9\r\n",
    "UTF-8": "Subject: UTF-8\r\n\r\nPříliš žluťoučký kůň, 世界 🙂.\r\n".encode(),
    "LF only": b"Subject: LF only\n\n.one\n\n..two\n.\nthree\n",
    "5 MB": b"Subject: 5 MB\r\n\r\n"
    + b"".join(b"%s%069d\r\n" % (b"." * (n % 3), n) for n in range(70_000)),
    "long lines": b"Subject: long lines\r\n\r\n"
    + (b"x" * 100_000 + b"\r\n" + b"." * 100_000 + b"\r\n") * 2,
}
ARRIVING = STORED | {
    "no final line end": b"Subject: no final line end\r\n\r\nthe end\r\n",
    "no final line end after a dot": b"Subject: no final line end\r\n\r\n.\r\n",
    "LF only": b"Subject: LF only\r\n\r\n.one\r\n\r\n..two\r\n.\r\nthree\r\n",
}
"""What a client receives: lines end in CRLF, the last one too (RFC 1939 s3, s5)."""


def unlike(expected, arrived):
    """Return the messages that are missing and those that are too many, in short; [] for none."""
    wanted, found = Counter(expected), Counter(arrived)
    return [
        f"{word} {len(octets)} octets: {octets[:60]!r} ... {octets[-20:]!r}"
        for word, messages in (("missing", wanted - found), ("unexpected", found - wanted))
        for octets in messages.elements()
    ]
