"""What a fuzzer feeds with octets: parsers and encoders, each with what must hold whatever comes.

benchmarks/fuzz.py runs them; tests/protocol/corpus has what reached something new, which
test_corpus.py replays. The first octet of an input says how it is cut into pieces.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pop3hub.auth.users import PopUser
from pop3hub.errors import CommandError
from pop3hub.maildrop import PopMessage
from pop3hub.protocol.downgrade import Downgrader
from pop3hub.protocol.framing import Framer, LineNeverEnds, split_command
from pop3hub.protocol.message import MessageEncoder, wire_form
from pop3hub.protocol.proxy import ProxyError, missing, parse
from pop3hub.server.server import PopServer
from pop3hub.testing.dialogue import Dialogue

if TYPE_CHECKING:
    from collections.abc import Callable

CORPUS = Path(__file__).parents[1] / "protocol" / "corpus"
LONGEST = 4096
"""Octets of an input at most."""
LIMIT = 255
AUTH_LIMIT, SWALLOW_LIMIT = 512, 1024
REPLY = re.compile(rb"(\+OK|-ERR|\+ ).*\r\n", re.DOTALL)


def pieces(octets: bytes) -> list[bytes]:
    """Return the octets behind the first one, cut as that one says."""
    if not octets:
        return []
    size = octets[0] % 32 or LONGEST
    return [octets[start : start + size] for start in range(1, len(octets), size)]


def lines_of(parts: list[bytes]) -> list[bytes | None]:
    """Return what the framer makes of the parts, up to a line that never ends."""
    framer = Framer(auth_limit=AUTH_LIMIT, swallow_limit=SWALLOW_LIMIT)
    found = []
    for part in parts:
        framer.feed(part)
        try:
            while (taken := framer.take(LIMIT)) is not None:
                found.append(taken[0])
        except LineNeverEnds:
            break
        assert len(framer) <= AUTH_LIMIT + LONGEST
    return found


def framer(octets: bytes) -> None:
    """Lines are the same at every split, without CR LF at their ends; keywords have no control."""
    parts = pieces(octets)
    lines = lines_of(parts)
    whole = lines_of([b"".join(parts)])
    assert whole[: len(lines)] == lines[: len(whole)]
    for line in lines:
        if line is None:
            continue
        assert b"\n" not in line
        try:
            keyword, rest = split_command(line)
        except CommandError:
            continue
        assert keyword == keyword.upper()
        assert not re.search(rb"[\x00-\x1f\x7f ]", keyword)
        assert line.startswith(b" ") or line[: len(keyword)].upper() == keyword
        assert not re.search(rb"[\x00-\x1f\x7f]", rest)


def encoder(octets: bytes) -> None:
    """A client that takes the dots off has the message in wire form, or its beginning for TOP."""
    parts = pieces(octets)
    contents = b"".join(parts)
    whole = _sent(MessageEncoder(), parts)
    assert whole == wire_form(contents)
    lines = octets[0] // 32 if octets else 0
    top = _sent(MessageEncoder(lines), parts)
    assert whole.startswith(top.removesuffix(b"\r\n"))


def _sent(made: MessageEncoder, parts: list[bytes]) -> bytes:
    out = b"".join(made.feed(part) for part in parts) + made.end()
    assert out == b".\r\n" or out.endswith(b"\r\n.\r\n")
    assert not re.search(rb"(?<!\r)\n", out)
    body = out.removesuffix(b".\r\n")
    assert b"\r\n.\r\n" not in b"\r\n" + body
    plain = re.sub(rb"(?m)^\.(?=\.)", b"", body)
    assert made.octets == len(plain)
    return plain


def downgrader(octets: bytes) -> None:
    """A surrogate is the same at every split, has the size that is told, and can be done again."""

    def surrogate(parts: list[bytes]) -> bytes:
        made = Downgrader()
        out = b"".join([*map(bytes, map(made.feed, parts)), bytes(made.end())])
        assert made.size == len(wire_form(out))
        return out

    parts = pieces(octets)
    whole = surrogate([b"".join(parts)])
    assert whole == surrogate(parts)
    if b"".join(parts).isascii():
        assert whole == b"".join(parts)


def proxy(octets: bytes) -> None:
    """A header is refused, or read to its end and never beyond; what it says can be logged."""
    head = b""
    try:
        while more := missing(head):
            assert more > 0
            if len(head) + more > len(octets):
                return
            head = octets[: len(head) + more]
        header = parse(head)
    except ProxyError:
        return
    for text in (header.host or "", header.tls_version or "", header.tls_cipher):
        assert text.isprintable()
    assert 0 <= header.port < 1 << 16


class Talk:
    """Sessions on one server that stays; its store has two messages."""

    def __init__(self) -> None:
        mail = [PopMessage("a", 11, b"one\r\n.two\r\n"), PopMessage("b", 0, b"")]
        self.runner = asyncio.Runner()
        self.server = PopServer(
            get_user=lambda name: PopUser(name, "", secret="s") if name == "u" else None,
            compare_password=lambda raw, _hash: raw == "p",
            receive_messages=lambda _user: list(mail),
            delete_messages=len,
            listen=(),
            apop=True,
            cram_md5=True,
            failure_delay=0,
            bcrypt_cost=4,
        )
        self.runner.run(self.server.start())

    def __call__(self, octets: bytes) -> None:
        """Say the lines; each is answered."""
        self.runner.run(self._talk(octets))

    def close(self) -> None:
        """Stop the server."""
        self.runner.run(self.server.stop())
        self.runner.close()

    async def _talk(self, octets: bytes) -> None:
        async with Dialogue(self.server) as dialogue:
            lines = octets.split(b"\n")[:40]
            if octets[:1] == b"\0":  # go straight to TRANSACTION
                lines[:1] = [b"USER u", b"PASS p"]
            for line in lines:
                if dialogue.closed:
                    break
                said = await dialogue.say(line.removesuffix(b"\r"))
                assert REPLY.fullmatch(said), (line, said)


TARGETS: dict[str, Callable[[], Callable[[bytes], None]]] = {
    "framer": lambda: framer,
    "encoder": lambda: encoder,
    "downgrader": lambda: downgrader,
    "proxy": lambda: proxy,
    "dialogue": Talk,
}
"""How to make what takes the octets."""


def kept(name: str) -> list[Path]:
    """Return the inputs of a target that were kept."""
    return sorted((CORPUS / name).iterdir())
