"""The server that is checked, and the sessions with it.

By default nothing is changed on the server: `Probe.mark` is the only place that sends DELE outside
of the scratch checks, and a session whose marks did not go away is cut off, never ended by QUIT.
"""

from __future__ import annotations

import base64
import contextlib
import re
import secrets
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from pop3hub.check.client import Client, Exchange, NoReply, Reply, Unreachable
from pop3hub.check.outcomes import Failure, Skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SAMPLE_MESSAGES = 5  # how many messages are retrieved where any will do
READ_MESSAGES = 100  # how many are read in search of one with a certain feature
READ_OCTETS = 4 * 1024 * 1024  # and how much of them, by LIST's sizes and by what comes
LOGIN_WAIT = 30.0  # seconds in which a login should be answered
LOCK_WAIT = 5.0  # seconds in which the lock of a connection that was cut should be gone
LOCK_RETRY = 0.2  # seconds

TRANSIENT = (b"IN-USE", b"LOGIN-DELAY", b"SYS/TEMP")  # a login that another time may succeed

_LISTING = re.compile(rb"([0-9]+) ([0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server to check, and what may be done to it.

    security: "plain", "stls" or "tls" (implicit). context: how certificates are verified.
    user, password: None leaves out what needs a login. timeout: seconds for one reply.
    scratch: the mailbox may lose mail, and the server may be annoyed.
    """

    host: str
    port: int
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    security: str = "plain"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout: float = 10.0
    scratch: bool = False

    def hide(self, text: str) -> str:
        """Return text with the password taken out."""
        return text.replace(self.password, "***") if self.password else text

    def show(self, octets: bytes, limit: int = 200) -> str:
        """Return octets as a Python literal, shortened, with the password taken out."""
        if self.password:
            raw = self.password.encode()
            plain = f"\0{self.user}\0{self.password}".encode()
            for secret in (base64.b64encode(plain), base64.b64encode(raw), raw):
                octets = octets.replace(secret, b"***")
        if len(octets) > limit:
            half = limit // 2
            return f"{octets[:half]!r}...{octets[-half:]!r} ({len(octets)} octets)"
        return repr(octets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """How the one failed login went; `password` is None when USER was refused already."""

    user: Reply
    password: Reply | None


class Probe:
    """Sessions with the target, opened when a check wants one and shared where that is safe."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.log: list[Exchange] = []
        self.login_refused = ""
        self._clients: list[Client] = []
        self._shared: Client | None = None
        self._tables: dict[str, dict[str, str] | None] = {}
        self._failed: Failed | None = None
        self._messages: dict[int, Reply] = {}

    # Sessions

    def dial(self) -> Client:
        """Return a connection as the port has it, whatever its greeting says."""
        client = self._client()
        client.open(tls=self.target.security == "tls")
        return client

    def connect_at_once(self, count: int) -> None:
        """Open some connections before any greeting is read; the greetings go to the log.

        A server may refuse some of them: then the greetings are fewer.
        """
        clients = [self._client() for _ in range(count)]
        for client in clients:
            with contextlib.suppress(Unreachable):
                client.connect()
        for client in clients:
            if not client.closed:
                with contextlib.suppress(Unreachable):
                    client.greet(tls=self.target.security == "tls")

    def _client(self) -> Client:
        target = self.target
        client = Client(
            target.host, target.port, timeout=target.timeout, context=target.context, log=self.log
        )
        self._clients.append(client)
        return client

    def connect(self) -> Client:
        """Return a connection that was greeted well, before any STLS."""
        client = self.dial()
        if client.greeting[:3].upper() != b"+OK":
            raise Unreachable(f"the server greeted with {client.greeting!r}")
        return client

    def secure(self) -> Client:
        """Return a connection in AUTHORIZATION, with TLS if the target says so."""
        client = self.connect()
        if self.target.security == "stls":
            reply = client.ask("STLS")
            if not reply.ok:
                raise Unreachable(f"STLS was refused: {self.target.show(reply.line)}")
            try:
                client.handshake()
            except OSError as exc:
                raise Unreachable(f"the handshake after STLS failed: {exc}") from exc
        return client

    def login(self, *, utf8: bool = False) -> Client:
        """Return a new session in TRANSACTION; a refusal is never followed by another try.

        utf8: in UTF-8 mode (RFC 6856 s2.1); the server must have announced it.
        """
        if self.login_refused:
            raise Skip(self.login_refused)

        def begin() -> Client:
            client = self.secure()
            if utf8 and not client.ask("UTF8").ok:
                raise Skip("UTF8 was refused")
            return client

        # The maildrop may still be locked by a session that was cut off a moment ago.
        deadline = time.monotonic() + min(self.target.timeout, LOCK_WAIT)
        client = begin()
        reply = self.authenticate(client)
        while reply.code == b"IN-USE" and time.monotonic() < deadline:
            client.close()
            time.sleep(LOCK_RETRY)
            client = begin()
            reply = self.authenticate(client)
        if not reply.ok:
            if reply.code not in TRANSIENT:
                self.login_refused = "login refused"
            raise Skip(f"login refused: {self.target.show(reply.line)}")
        return client

    def another_login(self) -> None:
        """End the shared session for a check that logs in itself, if the server allows that."""
        if self.login_refused:
            raise Skip(self.login_refused)
        if self.capabilities().get("LOGIN-DELAY", "0").partition(" ")[0] != "0":
            raise Skip("LOGIN-DELAY allows no second login yet")
        self.finish()

    def authenticate(self, client: Client) -> Reply:
        """Log in by USER and PASS, or by AUTH PLAIN where only that is announced."""
        user, password = self.target.user or "", self.target.password or ""
        listed = self.capabilities()
        mechanisms = listed.get("SASL", "").upper().split()
        if listed and "USER" not in listed and "PLAIN" in mechanisms:
            reply = client.ask("AUTH PLAIN")
            if reply.line[:1] != b"+" or reply.ok:
                return reply
            plain = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
            return self.ask_to_log_in(client, plain, shown="***")
        reply = client.ask(f"USER {user}")
        if not reply.ok:
            return reply
        return self.ask_to_log_in(client, f"PASS {password}", shown="PASS ***")

    def ask_to_log_in(self, client: Client, command: str | bytes, *, shown: str) -> Reply:
        """Send what decides a login, and wait longer for the reply than for others.

        Servers wait for a locked maildrop (Dovecot: 10 s), or delay the answer to a wrong password.
        """
        client.timeout = max(self.target.timeout, LOGIN_WAIT)
        try:
            return client.ask(command, shown=shown)
        except NoReply as exc:
            if not exc.closed:
                self.login_refused = f"a login was not answered within {client.timeout:g} s"
            raise
        finally:
            client.timeout = self.target.timeout

    def session(self) -> Client:
        """Return the shared session in TRANSACTION, with nothing marked."""
        if self._shared is None or self._shared.closed:
            self.share(self.login())
        return cast("Client", self._shared)

    def session_is_open(self) -> bool:
        """Tell whether there is a shared session; one that the server has closed is given up."""
        if self._shared is not None and self._shared.lost():
            self._shared.close()
            self._shared = None
        return self._shared is not None

    def share(self, client: Client) -> None:
        """Keep a session in TRANSACTION for the checks that need one."""
        self._clients.remove(client)
        self._shared = client

    def drop_session(self) -> None:
        """Cut the shared session off: its state, and what it retrieved, is not to be trusted."""
        self._messages.clear()
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def tidy(self) -> None:
        """End what the last check opened, without UPDATE: only `finish` sends QUIT after login."""
        for client in self._clients:
            client.close()
        self._clients.clear()

    def finish(self, client: Client | None = None) -> None:
        """End a session, the shared one if none is given, by RSET and QUIT."""
        client = client or self._shared
        if client is None:
            return
        with contextlib.suppress(NoReply):
            if not client.closed and client.ask("RSET").ok:
                client.ask("QUIT")
                client.read_to_end()
        client.close()

    # Facts

    def capabilities(self, state: str = "secure") -> dict[str, str]:
        """Return tag to parameters as CAPA has them; empty where it is not implemented.

        state: "clear" before STLS, "secure" before login, "login" after it.
        """
        return self.table(state) or {}

    def table(self, state: str) -> dict[str, str] | None:
        """Return the capabilities of a state, None where CAPA is not implemented."""
        if state not in self._tables:
            if state == "login":
                reply = self.session().ask("CAPA", multi=True)
            else:
                client = self.connect() if state == "clear" else self.secure()
                reply = client.ask("CAPA", multi=True)
            self._tables[state] = None if reply.lines is None else capabilities(reply)
        return self._tables[state]

    def offers(self, tag: str) -> bool:
        """Tell whether the server has the commands of a capability.

        Where CAPA is not implemented, TOP and UIDL are found out by trying (RFC 2449 s5).
        """
        table = self.table("secure")
        if table is not None:
            # Announced in any state: that it is not in both is another check's business.
            return tag in table or (tag in {"TOP", "UIDL"} and tag in self.capabilities("login"))
        if tag == "UIDL":
            return self.session().ask("UIDL", multi=True).ok
        if tag == "TOP":
            numbers = self.listing()
            return bool(numbers) and self.session().ask(f"TOP {min(numbers)} 0", multi=True).ok
        return False

    def failed_login(self) -> Failed:
        """Try a name that nobody has with a random password: the one failed login of a run."""
        if self.login_refused:
            raise Skip("the given user's login failed, and one failed login is enough")
        if self._failed is None:
            listed = self.table("secure")
            if listed and "USER" not in listed:
                raise Skip("USER is not announced")
            client = self.secure()
            user = client.ask(f"USER no-such-user-{secrets.token_hex(4)}")
            password = None
            if user.ok:
                guess = f"PASS {secrets.token_hex(8)}"
                password = self.ask_to_log_in(client, guess, shown="PASS ***")
            self._failed = Failed(user=user, password=password)
        return self._failed

    def stat(self, client: Client | None = None) -> tuple[int, int]:
        """Return STAT's count and octets."""
        reply = (client or self.session()).ask("STAT")
        found = _LISTING.match(reply.text)
        if not reply.ok or not found:
            raise Failure(sent=reply, expected="+OK nn mm", came=reply)
        return int(found[1]), int(found[2])

    def listing(self, client: Client | None = None) -> dict[int, int]:
        """Return LIST as number to size."""
        reply = (client or self.session()).ask("LIST", multi=True)
        return {int(n): int(size) for n, size in pairs(reply, _LISTING, "n size")}

    def unique_ids(self, client: Client | None = None) -> dict[int, bytes]:
        """Return UIDL as number to unique-id; the ids are not judged here."""
        reply = (client or self.session()).ask("UIDL", multi=True)
        return {int(n): uid for n, uid in pairs(reply, re.compile(rb"([0-9]+) (.*)"), "n uid")}

    def sample(self) -> list[int]:
        """Return the numbers of a few small messages."""
        return sorted(self.by_size()[:SAMPLE_MESSAGES])

    def by_size(self, client: Client | None = None) -> list[int]:
        """Return the numbers of the messages to read, smallest first, within both limits."""
        numbers: list[int] = []
        total = 0
        for size, number in sorted((size, n) for n, size in self.listing(client).items()):
            total += size
            if total > READ_OCTETS or len(numbers) == READ_MESSAGES:
                break
            numbers.append(number)
        if not numbers:
            raise Skip(f"the maildrop has no message of up to {READ_OCTETS} octets")
        return numbers

    def message(self, number: int) -> Reply | None:
        """Return RETR's reply, None if the message is refused with [UTF8] (RFC 6856 s5)."""
        if number not in self._messages:
            self._may_retrieve()
            reply = self.session().ask(f"RETR {number}", multi=True)
            if reply.err and reply.code == b"UTF8":
                return None
            if not reply.ok:
                raise Failure(sent=reply, expected="+OK and the message", came=reply)
            self._messages[number] = reply
        return self._messages[number]

    def messages(
        self, wanted: Callable[[Reply], bool] | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """Yield number and RETR's reply of a few messages, smallest first.

        `wanted` says whether a message has what the check is about: more messages are read until
        one has, up to READ_MESSAGES and READ_OCTETS.
        """
        seen = wanted is None
        left = READ_OCTETS
        for count, number in enumerate(self.by_size()):
            if count >= SAMPLE_MESSAGES and (seen or left <= 0):
                return
            reply = self.message(number)
            if reply is not None:
                yield number, reply
                seen = seen or wanted is None or wanted(reply)
                left -= sum(map(len, reply.lines or ()))

    def read(self, client: Client, *, headers: bool) -> Iterator[tuple[int, Reply]]:
        """Yield number and reply of messages in another session, by TOP n 0 if `headers`."""
        if not headers:
            self._may_retrieve()
        left = READ_OCTETS
        for number in self.by_size(client):
            command = f"TOP {number} 0" if headers else f"RETR {number}"
            reply = client.ask(command, multi=True)
            if not reply.ok:
                raise Failure(sent=reply, expected="+OK and the message", came=reply)
            yield number, reply
            left -= sum(map(len, reply.lines or ()))
            if left <= 0:
                return

    def _may_retrieve(self) -> None:
        before, after = self.capabilities().get("EXPIRE", ""), self.capabilities("login")
        if "0" in {before.partition(" ")[0], after.get("EXPIRE")} and not self.target.scratch:
            raise Skip("EXPIRE 0: a retrieved message may be deleted (RFC 2449 s6.7)")

    @contextlib.contextmanager
    def mark(self) -> Iterator[tuple[Client, int]]:
        """Mark one message as deleted in the shared session, and take the mark away afterwards.

        If the mark stays, the session is cut off: QUIT would delete the message.
        """
        numbers = self.listing()
        if not numbers:
            raise Skip("the maildrop is empty")
        client, number = self.session(), min(numbers)
        before = self.stat()
        reply = client.ask(f"DELE {number}")
        if not reply.ok:
            raise Failure(sent=reply, expected="+OK", came=reply)
        try:
            yield client, number
        except BaseException:
            with contextlib.suppress(NoReply):
                client.say("RSET")
            self.drop_session()
            raise
        try:
            client.ask("RSET")
            unmarked = self.stat() == before
        except (NoReply, Failure):
            unmarked = False
        if not unmarked:
            self.drop_session()

    def each(
        self, commands: Sequence[str], start: Callable[[], Client]
    ) -> Iterator[tuple[Client, Reply]]:
        """Yield the reply to each command.

        A server may close after some bad commands: then the next one gets a new connection.
        """
        client = start()
        fresh = True
        for command in commands:
            try:
                reply = client.ask(command)
            except NoReply as exc:
                if fresh or not exc.closed:
                    raise
                client.close()
                client = start()
                reply = client.ask(command)
            fresh = False
            yield client, reply


def capabilities(reply: Reply) -> dict[str, str]:
    """Return tag in upper case to parameters."""
    lines = (line.decode("latin-1").partition(" ") for line in reply.body)
    return {tag.upper(): parameters for tag, _, parameters in lines}


def pairs(reply: Reply, form: re.Pattern[bytes], shape: str) -> list[tuple[bytes, bytes]]:
    """Return the two fields of each line of a listing."""
    if reply.lines is None:
        raise Failure(sent=reply, expected=f"+OK, lines of '{shape}', and '.'", came=reply)
    found = []
    for line in reply.body:
        match = form.match(line)
        if match is None:
            raise Failure(sent=reply, expected=f"lines of the form '{shape}'", came=line)
        found.append((match[1], match[2]))
    return found


def end_in_sync(client: Client) -> None:
    """Check that QUIT is answered next, and that nothing follows."""
    reply = client.ask("QUIT")
    if not reply.ok:
        raise Failure(sent=reply, expected="+OK: one reply to each command", came=reply)
    try:
        rest = client.read_to_end()
    except NoReply as exc:  # that the connection stays open is another rule's business
        rest = exc.received
    if rest:
        raise Failure(sent=reply, expected="one reply to each command", came=rest)
