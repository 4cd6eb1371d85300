"""A small POP3 server that keeps to the rules, for the conformance checks to be tried on."""

import base64
import contextlib
import itertools
import re
import socket
import socketserver

USER, PASSWORD = "luke", "tatooine 2"
HARD = b"Subject: dots\r\n\r\none\r\n.hidden\r\n.\r\n..two\r\nlast\r\n"
MESSAGES = {
    "uid-one": HARD,
    "uid-two": b"Subject: two\r\nTo: a@example.com\r\n\r\n" + b"line\r\n" * 9,
    "uid-three": b"Subject: three\r\n\r\n",
}
NUMBER = re.compile(r"[0-9]{1,10}")
TRANSACTION = {"stat", "list", "retr", "dele", "noop", "rset", "top", "uidl"}
AUTHORIZATION = {"user", "pass", "auth", "stls", "utf8"}


class Honest(socketserver.BaseRequestHandler):
    """A small POP3 server that keeps to the rules; the broken ones override one thing."""

    OK, ERR, END = "+OK", "-ERR", "\r\n"
    AUTH = "[AUTH] "
    CAPA = (
        *("TOP", "USER", "UIDL", "SASL PLAIN", "RESP-CODES", "AUTH-RESP-CODE"),
        *("PIPELINING", "UTF8", "LANG", "STLS"),
    )
    stamps = itertools.count()

    def setup(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.user, self.name = b"", None, None
        self.tls, self.open, self.utf8 = False, True, False

    def handle(self):
        with contextlib.suppress(OSError):
            self.greet()
            while self.open and (line := self.read()) is not None:
                self.run(line)

    def finish(self):
        self.leave()
        self.request.close()

    def greet(self):
        self.say(f"+OK ready <{next(self.stamps)}@example.com>")

    def receive(self):
        return self.request.recv(65536)

    def read(self):
        while b"\n" not in self.buffer:
            if not (chunk := self.receive()):
                return None
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.rstrip(b"\r").decode("latin-1")

    def say(self, line):
        self.request.sendall(line.encode() + self.END.encode())

    def ok(self, text=""):
        self.say(f"{self.OK} {text}".rstrip())

    def err(self, text="no"):
        self.say(f"{self.ERR} {text}")

    def many(self, lines):
        self.request.sendall(b"".join(self.stuff(line) + b"\r\n" for line in lines) + b".\r\n")

    def stuff(self, line):
        return b"." + line if line.startswith(b".") else line

    def verb(self, word):
        return word.lower()

    def run(self, line):
        word, _, rest = line.partition(" ")
        verb = self.verb(word)
        method = getattr(self, f"do_{verb}", None)
        refused = TRANSACTION if self.user is None else AUTHORIZATION
        if len(line) > 1000 or method is None or self.refuses(verb, refused):
            return self.err("unknown, or not now")
        with contextlib.suppress(LookupError, ValueError, TypeError):
            return method(rest) if verb in {"user", "pass"} else method(*rest.split())
        return self.err("no such message")

    def refuses(self, verb, refused):
        return verb in refused

    # AUTHORIZATION

    def capa(self):
        return [tag for tag in self.CAPA if tag != "STLS" or not (self.tls or self.user)]

    def do_capa(self):
        self.ok("list")
        self.many(tag.encode() for tag in self.capa())

    def do_quit(self):
        if self.user:
            for uid in self.marked:
                del self.server.drop[uid]
        self.leave()
        self.ok("bye")
        self.open = False

    def do_user(self, name):
        self.name = name
        self.ok()

    def do_pass(self, password):
        name, self.name = self.name, None
        if name is None:
            return self.err("USER first")
        return self.enter(name, password)

    def enter(self, name, password):
        if (name, password) != (USER, PASSWORD):
            return self.err(f"{self.AUTH}wrong name or password")
        if self.server.lock:
            return self.err("[IN-USE] busy")
        self.server.lock = self.locked = True
        self.user = name
        self.begin()
        return self.ok("welcome")

    def begin(self):
        self.uids, self.marked = list(self.server.drop), set()

    def leave(self):
        if getattr(self, "locked", False):
            self.server.lock = self.locked = False

    def do_stls(self):
        if self.tls:
            return self.err("TLS is active")
        self.ok("begin")
        self.buffer = self.kept()
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        self.tls, self.name = True, self.forget()
        return None

    def kept(self):
        return b""

    def forget(self):
        return None

    def do_auth(self, mechanism):
        if mechanism.upper() != "PLAIN":
            return self.err("unknown mechanism")
        self.challenge()
        line = self.read()
        if line == "*":
            return self.err("cancelled")
        _, name, password = self.decode(line).split(b"\0")
        return self.enter(name.decode(), password.decode())

    def challenge(self):
        self.say("+ ")

    def decode(self, line):
        return base64.b64decode(line, validate=True)

    def do_utf8(self):
        self.ok()

    def do_lang(self, tag=None):
        if tag is None:
            self.ok()
            self.many([b"en English", "fr Français".encode()])
        elif tag.lower() in {"en", "fr", "*"}:
            self.ok(f"{'en' if tag == '*' else tag.lower()} language changed")
        else:
            self.err("language")

    # TRANSACTION

    def number(self, text):
        if not NUMBER.fullmatch(text) or int(text) == 0:
            raise ValueError(text)
        uid = self.uids[int(text) - 1]
        if uid in self.marked:
            raise LookupError(uid)
        return int(text), uid

    def present(self):
        return [(n, uid) for n, uid in enumerate(self.uids, 1) if uid not in self.marked]

    def size(self, uid):
        return len(self.server.drop[uid])

    def do_stat(self):
        sizes = [self.size(uid) for _, uid in self.present()]
        self.ok(f"{len(sizes)} {sum(sizes)}")

    def do_list(self, number=None):
        if number is not None:
            n, uid = self.number(number)
            return self.ok(f"{n} {self.size(uid)}")
        self.ok()
        return self.many(b"%d %d" % (n, self.size(uid)) for n, uid in self.present())

    def uid(self, uid):
        return uid

    def do_uidl(self, number=None):
        if number is not None:
            n, uid = self.number(number)
            return self.ok(f"{n} {self.uid(uid)}")
        self.ok()
        return self.many(f"{n} {self.uid(uid)}".encode() for n, uid in self.present())

    def lines(self, uid):
        return self.server.drop[uid].split(b"\r\n")[:-1]

    def do_retr(self, number):
        _, uid = self.number(number)
        self.ok()
        self.many(self.lines(uid))

    def do_top(self, number, count):
        _, uid = self.number(number)
        if not NUMBER.fullmatch(count):
            raise ValueError(count)
        self.ok()
        lines = self.lines(uid)
        self.many(lines[: self.end(lines, int(count))])

    def end(self, lines, count):
        return lines.index(b"") + 1 + count

    def do_dele(self, number):
        self.marked.add(self.number(number)[1])
        self.ok()

    def do_noop(self):
        self.ok()

    def do_rset(self):
        self.marked.clear()
        self.ok()


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, handler, context):
        super().__init__(("127.0.0.1", 0), handler)
        self.context, self.drop, self.lock = context, dict(MESSAGES), False

    def handle_error(self, request, client_address):
        """A client that goes away in a handshake is no news."""
