"""A small POP3 server that keeps the rules, in a thread: what the broken ones are made from.

`Honest` handles one connection. A broken server overrides one of its methods. Standard library
only, and nothing of pop3hub: a fault of our own server cannot hide in the test of a client.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import re
import socket
import socketserver
import threading
from email.header import Header
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator, Sequence

USER, PASSWORD = "luke", "tatooine 2"
DOTS = b"Subject: dots\r\n\r\none\r\n.hidden\r\n.\r\n..two\r\nlast\r\n" + b"line\r\n" * 20
I18N = "Subject: žluťoučký kůň\r\n\r\nžluťoučký kůň\r\n".encode() + b"line\r\n" * 30
# The smallest ones can show little: a check has to look further for dots and for UTF-8.
MESSAGES = {
    "uid-one": b"Subject: one\r\nTo: a@example.com\r\n\r\n" + b"line\r\n" * 9,
    "uid-two": b"Subject: two\r\n\r\n",
    "uid-three": b"Subject: three\r\n\r\n",
    "uid-four": b"Subject: four\r\n\r\nline\r\n",
    "uid-five": b"Subject: five\r\n\r\n",
    "uid-dots": DOTS,
    "uid-i18n": I18N,
}
MAX_COMMAND = 1000  # octets; a longer line is refused
MAX_LINE = 65536  # octets; the connection is closed after that
_NUMBER = re.compile(r"[0-9]{1,10}")
_TRANSACTION = frozenset({"stat", "list", "retr", "dele", "noop", "rset", "top", "uidl"})
_AUTHORIZATION = frozenset({"user", "pass", "auth", "stls", "utf8"})


class Honest(socketserver.BaseRequestHandler):
    """One connection to a POP3 server that keeps the rules; `do_*` are its commands."""

    OK, ERR, END = "+OK", "-ERR", "\r\n"
    AUTH = "[AUTH] "
    CAPA: ClassVar[Sequence[str]] = (
        *("TOP", "USER", "UIDL", "SASL PLAIN", "RESP-CODES", "AUTH-RESP-CODE"),
        *("PIPELINING", "UTF8", "LANG", "STLS"),
    )
    stamps: ClassVar[Iterator[int]] = itertools.count()
    server: Server
    request: socket.socket

    # The connection

    def setup(self) -> None:
        """Begin in AUTHORIZATION."""
        self.server.handlers.add(self)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.user: str | None = None
        self.name: str | None = None
        self.tls, self.open, self.utf8, self.locked = False, True, False, False
        self.uids: list[str] = []
        self.marked: set[str] = set()

    def handle(self) -> None:
        """Greet, and answer command lines until the connection closes."""
        with contextlib.suppress(OSError):
            if not self.server.closing:
                self.greet()
            while self.open and not self.server.closing and (line := self.read()) is not None:
                self.run(line)

    def finish(self) -> None:
        """Release the maildrop, and delete nothing."""
        self.leave()
        self.request.close()
        self.server.handlers.discard(self)

    def greet(self) -> None:
        """Send the greeting."""
        self.say(f"+OK ready <{next(self.stamps)}@example.com>")

    def receive(self) -> bytes:
        """Return what arrived; nothing after the connection closed."""
        return self.request.recv(65536)

    def read(self) -> str | None:
        """Return a command line, or None if there is none any more."""
        while b"\n" not in self.buffer:
            chunk = self.receive()
            if not chunk:
                return None
            self.buffer += chunk
            if len(self.buffer) > MAX_LINE:
                self.err("the line is too long")
                return None
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.rstrip(b"\r").decode("latin-1")

    def say(self, line: str) -> None:
        """Send one line."""
        self.request.sendall(line.encode() + self.END.encode())

    def ok(self, text: str = "") -> None:
        """Send a positive reply."""
        self.say(f"{self.OK} {text}".rstrip())

    def err(self, text: str = "no") -> None:
        """Send a negative reply."""
        self.say(f"{self.ERR} {text}")

    def many(self, lines: Iterable[bytes]) -> None:
        """Send the lines of a multi-line reply, and its last line."""
        self.request.sendall(b"".join(self.stuff(line) + b"\r\n" for line in lines) + b".\r\n")

    def stuff(self, line: bytes) -> bytes:
        """Return a line with one more dot where it begins with one."""
        return b"." + line if line.startswith(b".") else line

    def verb(self, word: str) -> str:
        """Return the keyword in lower case."""
        return word.lower()

    def run(self, line: str) -> None:
        """Answer one command line."""
        word, _, rest = line.partition(" ")
        verb = self.verb(word)
        method = getattr(self, f"do_{verb}", None)
        refused = _TRANSACTION if self.user is None else _AUTHORIZATION
        if self.refuses_line(line) or method is None or self.refuses(verb, refused):
            self.err("unknown, or not now")
            return
        try:
            if verb in {"user", "pass"}:
                method(rest)
            else:
                method(*rest.split())
        except (LookupError, ValueError, TypeError):
            self.err("no such message")

    def refuses_line(self, line: str) -> bool:
        """Tell whether the line cannot be a command."""
        return len(line) > MAX_COMMAND or "\0" in line

    def refuses(self, verb: str, refused: frozenset[str]) -> bool:
        """Tell whether a command is for the other state."""
        return verb in refused

    # AUTHORIZATION

    def capa(self) -> Sequence[str]:
        """Return the capabilities."""
        stls = self.server.context is not None and not (self.tls or self.user)
        return [tag for tag in self.CAPA if tag != "STLS" or stls]

    def do_capa(self) -> None:
        """List the capabilities."""
        self.ok("list")
        self.many(tag.encode() for tag in self.capa())

    def do_quit(self) -> None:
        """Delete what is marked, and end."""
        if self.user:
            for uid in self.marked:
                del self.server.drop[uid]
        self.leave()
        self.ok("bye")
        self.open = False

    def do_user(self, name: str) -> None:
        """Keep the name for PASS."""
        if name:
            self.name = name
            self.ok()
        else:
            self.err("USER needs a name")

    def do_pass(self, password: str) -> None:
        """Log in by the name of the USER before, which counts once."""
        name, self.name = self.name, None
        if name is None:
            self.err("USER first")
        else:
            self.enter(name, password)

    def enter(self, name: str, password: str) -> None:
        """Log in and lock the maildrop, or refuse."""
        if (name, password) != (USER, PASSWORD):
            self.err(f"{self.AUTH}wrong name or password")
        elif self.server.lock:
            self.err("[IN-USE] busy")
        else:
            self.server.lock = self.locked = True
            self.user = name
            self.uids, self.marked = list(self.server.drop), set()
            self.ok("welcome")

    def leave(self) -> None:
        """Unlock the maildrop if it is ours."""
        if self.locked:
            self.server.lock = self.locked = False

    def do_stls(self) -> None:
        """Start TLS."""
        if self.tls or self.server.context is None:
            self.err("TLS is active, or not set up")
            return
        self.ok("begin")
        self.buffer = self.kept()
        # The handshake comes after, so that `HonestServer` can close the socket meanwhile.
        self.request = self.server.context.wrap_socket(
            self.request, server_side=True, do_handshake_on_connect=False
        )
        self.request.do_handshake()
        self.tls, self.name = True, self.forget()

    def kept(self) -> bytes:
        """Return what is left of the clear text after the handshake."""
        return b""

    def forget(self) -> str | None:
        """Return the name that counts after the handshake."""
        return None

    def do_auth(self, mechanism: str) -> None:
        """Log in by PLAIN."""
        if mechanism.upper() != "PLAIN":
            self.err("unknown mechanism")
            return
        self.challenge()
        line = self.read()
        if line is None or line == "*":
            self.cancel()
            return
        _, name, password = base64.b64decode(line, validate=True).split(b"\0")
        self.enter(name.decode(), password.decode())

    def cancel(self) -> None:
        """Answer to '*'."""
        self.err("cancelled")

    def challenge(self) -> None:
        """Ask for the response of PLAIN."""
        self.say("+ ")

    def do_utf8(self) -> None:
        """Send headers in UTF-8 from now on."""
        self.utf8 = True
        self.ok()

    def do_lang(self, tag: str | None = None) -> None:
        """List the languages, or change to one."""
        if tag is None:
            self.ok()
            self.many([b"en English", "fr Français".encode()])
        elif tag.lower() in {"en", "fr", "*"}:
            self.ok(f"{'en' if tag == '*' else tag.lower()} language changed")
        else:
            self.err("language")

    # TRANSACTION

    def number(self, text: str) -> tuple[int, str]:
        """Return number and unique-id of a message that is not marked as deleted."""
        if not _NUMBER.fullmatch(text) or int(text) == 0:
            raise ValueError(text)
        uid = self.uids[int(text) - 1]
        if uid in self.marked:
            raise LookupError(uid)
        return int(text), uid

    def present(self) -> list[tuple[int, str]]:
        """Return number and unique-id of all messages that are not marked as deleted."""
        return [(n, uid) for n, uid in enumerate(self.uids, 1) if uid not in self.marked]

    def lines(self, uid: str) -> list[bytes]:
        """Return a message's lines; without UTF8 a Subject in UTF-8 is encoded (RFC 2047)."""
        lines = self.server.drop[uid].split(b"\r\n")[:-1]
        if not self.utf8 and not lines[0].isascii():
            subject = lines[0].decode().removeprefix("Subject: ")
            lines[0] = b"Subject: " + Header(subject, "utf-8").encode().encode()
        return lines

    def size(self, uid: str) -> int:
        """Return the octets of a message as RETR sends it, before dot-stuffing."""
        return sum(len(line) + 2 for line in self.lines(uid))

    def uid(self, uid: str) -> str:
        """Return the unique-id that UIDL shows."""
        return uid

    def do_stat(self) -> None:
        """Count messages and octets."""
        sizes = [self.size(uid) for _, uid in self.present()]
        self.ok(f"{len(sizes)} {sum(sizes)}")

    def do_list(self, number: str | None = None) -> None:
        """List sizes."""
        if number is not None:
            n, uid = self.number(number)
            self.ok(f"{n} {self.size(uid)}")
        else:
            self.ok()
            self.many(b"%d %d" % (n, self.size(uid)) for n, uid in self.present())

    def do_uidl(self, number: str | None = None) -> None:
        """List unique-ids."""
        if number is not None:
            n, uid = self.number(number)
            self.ok(f"{n} {self.uid(uid)}")
        else:
            self.ok()
            self.many(f"{n} {self.uid(uid)}".encode() for n, uid in self.present())

    def do_retr(self, number: str) -> None:
        """Send a message."""
        _, uid = self.number(number)
        self.ok()
        self.many(self.lines(uid))

    def do_top(self, number: str, count: str) -> None:
        """Send the headers of a message, and some lines of its body."""
        _, uid = self.number(number)
        if not _NUMBER.fullmatch(count):
            raise ValueError(count)
        self.ok()
        lines = self.lines(uid)
        self.many(lines[: self.end(lines, int(count))])

    def end(self, lines: list[bytes], count: int) -> int:
        """Return how many lines TOP sends."""
        return lines.index(b"") + 1 + count

    def do_dele(self, number: str) -> None:
        """Mark a message as deleted."""
        self.marked.add(self.number(number)[1])
        self.ok()

    def do_noop(self) -> None:
        """Do nothing."""
        self.ok()

    def do_rset(self) -> None:
        """Take the marks away."""
        self.marked.clear()
        self.ok()


class Server(socketserver.ThreadingTCPServer):
    """The listener, the maildrop, and the lock of the maildrop."""

    request_queue_size = 64

    def __init__(self, handler: type[Honest], context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.context = context
        self.drop = dict(MESSAGES)
        self.lock = False
        self.handlers: set[Honest] = set()
        self.closing = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a client that leaves during a handshake is common."""

    def server_close(self) -> None:
        """Close the listener and every connection, and wait for their threads."""
        self.closing = True
        for handler in tuple(self.handlers):
            with contextlib.suppress(OSError):
                handler.request.shutdown(socket.SHUT_RDWR)
        super().server_close()


class HonestServer:
    """A POP3 server that keeps the rules, in a thread of its own: a context manager.

    tls: a server's context, with which STLS is announced; without it there is no TLS.
    handler: what each connection does; a subclass of `Honest` breaks a rule on purpose.

    Inside `with`, it listens at `host` and `port` (127.0.0.1, a free port). `user` and `password`
    can log in; `drop` is the maildrop, unique-id to octets, and may be changed between sessions.
    """

    user, password = USER, PASSWORD

    def __init__(
        self, handler: type[Honest] = Honest, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._handler = handler
        self._tls = tls
        self._running: tuple[Server, threading.Thread] | None = None

    @property
    def host(self) -> str:
        """The address to connect to."""
        return str(self._server.server_address[0])

    @property
    def port(self) -> int:
        """The port to connect to."""
        return self._server.server_address[1]

    @property
    def drop(self) -> dict[str, bytes]:
        """The maildrop: unique-id to octets, lines ending in CRLF and not dot-stuffed."""
        return self._server.drop

    @property
    def _server(self) -> Server:
        if self._running is None:
            raise RuntimeError(f"{type(self).__name__} is not running: use it by `with`")
        return self._running[0]

    def __enter__(self) -> Self:
        server = Server(self._handler, self._tls)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        self._running = server, thread
        thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._running is None:
            return
        server, thread = self._running
        server.shutdown()
        thread.join()
        server.server_close()
        self._running = None
