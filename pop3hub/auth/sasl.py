"""SASL mechanisms, the server's side (RFC 5034): coroutines over an exchange of octets.

A mechanism asks its `Exchange` for responses, users and comparisons; it returns the user or raises.
What a client did wrong in form is a CommandError without a code; every other refusal is an
AuthenticationFailed, [AUTH] (RFC 3206 s5). Sockets, locks and states are the session's.

SCRAM is done here. The library scramp 1.5.0 was tried and found wanting for a server: it refuses
`a=user` in the GS2 header, salts under 12 octets and user names with code points newer than Unicode
3.2, all of which RFC 5802 allows; its look-up of the user is no coroutine; and one that finds
nobody ends the exchange early, which tells that there is no such user.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pop3hub.auth.scram import SCRAM_HASHES, SCRAM_ITERATIONS, SCRAM_SALT, ScramKeys
from pop3hub.auth.users import UnknownHash, new_stamp, prepare, prepare_name, shared_secret
from pop3hub.errors import AuthenticationFailed, CommandError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from pop3hub.auth.users import PopUser

# The standard library takes `AAAA=` too, even when it is told to be strict.
_RESPONSE = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
# saslname, authzid, nonce and extensions of RFC 5802 s7; `m=`, which must be refused, fits nowhere.
_SASLNAME = r"(?:[^,=\0]|=2C|=3D)+"
_NONCE = r"[!-+\--~]+"
_EXTENSIONS = r"(?:,(?![mp]=)[A-Za-z]=[^,\0]+)*"
_BASE64 = r"[A-Za-z0-9+/]+={0,2}"
_CLIENT_FIRST = re.compile(
    rf"(?P<gs2>[ny],(?:a=(?P<authzid>{_SASLNAME}))?,)"
    rf"(?P<bare>n=(?P<name>{_SASLNAME}),r=(?P<nonce>{_NONCE}){_EXTENSIONS})"
)
_CLIENT_FINAL = re.compile(
    rf"(?P<bare>c=(?P<gs2>{_BASE64}),r=(?P<nonce>{_NONCE}){_EXTENSIONS}),p=(?P<proof>{_BASE64})"
)
_PAIRS = r"(?P<pairs>(?:[A-Za-z]+=[^\0\x01]*\x01)*)\x01"  # RFC 7628 s3.1
_OAUTHBEARER = re.compile(rf"[ny],(?:a=(?P<name>{_SASLNAME}))?,\x01{_PAIRS}")
_XOAUTH2 = re.compile(rf"user=(?P<name>[^\0\x01]*)\x01{_PAIRS}")
_BEARER = re.compile(r"bearer +(?P<token>[A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)  # RFC 6750 s2.1


class Authenticator(Protocol):
    """What an exchange asks of its session: the hooks, with the session's errors and log."""

    async def get_user(self, name: str) -> PopUser | None:
        """Return the user of this name, or None."""

    async def compare_password(self, raw: str, user: PopUser | None) -> bool:
        """Return whether the password is the user's; for None False, in the same time."""

    async def verify_token(self, name: str, token: str) -> PopUser | None:
        """Return the user whom the token stands for; `name` is "" where the client gave none."""


class Exchange:
    """One run of a mechanism, from the AUTH command to its end.

    mechanism: its name, in upper case.
    initial: the decoded initial response; None where the client sent none, b"" for "=".
    certificate: the client's, verified, as `getpeercert` returns it; empty without one.
    host: the name of this server, for CRAM-MD5's challenge.
    discovery: members for the JSON that refuses a token, such as `scope` and `openid-configuration`
        (RFC 7628 s3.2.2).
    name: who the client says it is, once it has said so, prepared: for the log. It may be anybody.
    """

    __slots__ = (
        "_ask",
        "_authenticator",
        "_salt_key",
        "certificate",
        "discovery",
        "host",
        "initial",
        "mechanism",
        "name",
    )

    def __init__(
        self,
        *,
        mechanism: str,
        ask: Callable[[bytes], Awaitable[bytes]],
        authenticator: Authenticator,
        salt_key: bytes,
        certificate: Mapping[str, Any] | None = None,
        initial: bytes | None = None,
        host: str = "localhost",
        discovery: Mapping[str, str] | None = None,
    ) -> None:
        """Take what a mechanism works with, and what it can't reach but through the methods.

        ask: sends a challenge, already in base64, as `+ challenge`, and returns the client's line
            without its line end.
        salt_key: what unknown users' SCRAM salts are made of, a secret. A key that changes with
            each start, or differs between workers, changes these salts alone: then they tell who
            is unknown.
        """
        self.mechanism = mechanism
        self.initial = initial
        self.certificate = certificate or {}
        self.host = host
        self.discovery = discovery or {}
        self.name = ""
        self._ask = ask
        self._authenticator = authenticator
        self._salt_key = salt_key

    def __repr__(self) -> str:
        return f"<Exchange {self.mechanism} {self.name!r}>"

    def nobodys_salt(self) -> bytes:
        """Return the SCRAM salt of a user who is unknown: it looks like any, and stays the same."""
        seed = f"{self.mechanism} {self.name}".encode()
        return hmac.digest(self._salt_key, seed, "sha256")[:SCRAM_SALT]

    async def challenge(self, data: bytes) -> bytes:
        """Send a challenge and return the response, both as plain octets.

        Raises CommandError when the client cancels with `*` or answers what is no base64.
        """
        line = await self._ask(base64.b64encode(data))
        if line.strip() == b"*":
            raise CommandError("authentication-cancelled")
        return decode_response(line)

    async def first(self) -> bytes:
        """Return the first response; ask for it by an empty challenge if AUTH came without."""
        return await self.challenge(b"") if self.initial is None else self.initial

    def identify(self, name: str) -> str:
        """Note who the client says it is; return that name as `prepare_name` makes it."""
        self.name = prepare_name(name)
        return self.name

    def authorize(self, authzid: str | None) -> None:
        """Refuse an authorization identity that is another than the user's own; none is fine."""
        try:
            same = not authzid or prepare(authzid) == self.name
        except ValueError:
            same = False
        if not same:
            raise AuthenticationFailed

    async def get_user(self, name: str) -> PopUser | None:
        """Return the user of this name, or None; None must not show in what follows."""
        return await self._authenticator.get_user(name)

    async def compare_password(self, raw: str, user: PopUser | None) -> bool:
        """Return whether the password is the user's; False for None, in the same time."""
        return await self._authenticator.compare_password(raw, user)

    async def verify_token(self, name: str, token: str) -> PopUser | None:
        """Return the user whom the token stands for, or None."""
        return await self._authenticator.verify_token(name, token)


Need = Literal["shared-secret", "scram-keys", "token-verifier", "client-certificate"]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A mechanism, and what decides whether it is offered.

    plaintext: it gives away a password or token, so it needs TLS (RFC 5034 s4).
    server_first: the server speaks first, so an initial response is an error (RFC 5034 s4).
    needs: what the server, or for a certificate the connection, must have for it; None for nothing.
    """

    name: str
    function: Callable[[Exchange], Awaitable[PopUser]]
    plaintext: bool = False
    server_first: bool = False
    needs: Need | None = None

    async def run(self, exchange: Exchange) -> PopUser:
        """Authenticate the client; raise PopError, or UnknownHash for damaged keys in the store."""
        if self.server_first and exchange.initial is not None:
            raise CommandError("initial-response-unexpected")
        return await self.function(exchange)


# Octets


def decode_initial(argument: str) -> bytes:
    """Return the octets of an initial response, in which "=" stands for none (RFC 5034 s4)."""
    return b"" if argument == "=" else decode_response(argument.encode())


def decode_response(line: bytes) -> bytes:
    """Return the octets of a response line; an empty line is an empty response.

    Spaces at the end are passed over. Raises CommandError for what is not exactly base64.
    """
    line = line.rstrip(b" \t\r")
    if not _RESPONSE.fullmatch(line):
        raise CommandError("base64-invalid")
    return base64.b64decode(line)


def _text(response: bytes) -> str:
    try:
        return response.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError("exchange-malformed") from None


def _match(pattern: re.Pattern[str], response: bytes) -> re.Match[str]:
    match = pattern.fullmatch(_text(response))
    if match is None:
        raise CommandError("exchange-malformed")
    return match


def _unescape(saslname: str | None) -> str:
    return (saslname or "").replace("=2C", ",").replace("=3D", "=")


# Passwords in clear


async def plain(exchange: Exchange) -> PopUser:
    """PLAIN (RFC 4616)."""
    parts = _text(await exchange.first()).split("\0")
    if len(parts) != 3:  # noqa: PLR2004 - authzid, authcid, passwd
        raise CommandError("exchange-malformed")
    authzid, name, password = parts
    name = exchange.identify(name)
    exchange.authorize(authzid)
    return await _log_in(exchange, name, password)


async def login(exchange: Exchange) -> PopUser:
    """LOGIN, which never became an RFC. Some clients know it by exactly these challenges."""
    name = exchange.initial
    if name is None:
        name = await exchange.challenge(b"Username:")
    password = await exchange.challenge(b"Password:")
    return await _log_in(exchange, exchange.identify(_text(name)), _text(password))


async def _log_in(exchange: Exchange, name: str, password: str) -> PopUser:
    user = await exchange.get_user(name)
    if not await exchange.compare_password(password, user) or user is None:
        raise AuthenticationFailed
    return user


# Proofs of a secret


async def cram_md5(exchange: Exchange) -> PopUser:
    """CRAM-MD5 (RFC 2195)."""
    challenge = new_stamp(exchange.host).encode()
    response = await exchange.challenge(challenge)
    name, space, digest = response.rpartition(b" ")
    if not space:
        raise CommandError("exchange-malformed")
    user = await exchange.get_user(exchange.identify(_text(name)))
    secret = shared_secret(user)
    expected = hmac.new(secret.encode(), challenge, "md5").hexdigest()
    same = hmac.compare_digest(expected.encode(), digest.lower())
    if not same or not secret or user is None:
        raise AuthenticationFailed
    return user


async def scram(exchange: Exchange) -> PopUser:
    """SCRAM without channel binding, over the hash of its name (RFC 5802, RFC 7677).

    An unknown user, or one without keys, is given a salt that looks like anybody's and stays the
    same, and fails at the proof. Raises UnknownHash at that same place where stored keys are
    damaged.
    """
    algorithm = SCRAM_HASHES[exchange.mechanism]
    first = _match(_CLIENT_FIRST, await exchange.first())
    name = exchange.identify(_unescape(first["name"]))
    exchange.authorize(_unescape(first["authzid"]))
    user = await exchange.get_user(name)
    keys, damage = _scram_keys(exchange, user, algorithm)

    nonce = first["nonce"] + secrets.token_urlsafe(18)
    salt = base64.b64encode(keys.salt).decode("ascii")
    server_first = f"r={nonce},s={salt},i={keys.iterations}"
    final = _match(_CLIENT_FINAL, await exchange.challenge(server_first.encode()))

    message = f"{first['bare']},{server_first},{final['bare']}".encode()
    proof = decode_response(final["proof"].encode())
    signature = hmac.digest(keys.stored_key, message, algorithm)
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=False))
    proven = hmac.compare_digest(hashlib.new(algorithm, client_key).digest(), keys.stored_key)
    proven = proven and len(proof) == len(signature)
    bound = decode_response(final["gs2"].encode()) == first["gs2"].encode()
    if damage:
        raise damage
    if not (proven and bound and final["nonce"] == nonce) or user is None:
        raise AuthenticationFailed
    # +OK carries no data, so the server's signature is one more challenge (RFC 5034 s4).
    if await exchange.challenge(
        b"v=" + base64.b64encode(hmac.digest(keys.server_key, message, algorithm))
    ):
        raise CommandError("exchange-malformed")
    return user


def _scram_keys(
    exchange: Exchange, user: PopUser | None, algorithm: str
) -> tuple[ScramKeys, UnknownHash | None]:
    damage = None
    stored = user.scram.get(exchange.mechanism) if user else None
    if stored:
        try:
            return ScramKeys.parse(stored, exchange.mechanism), None
        except UnknownHash as exc:
            damage = exc
    salt = exchange.nobodys_salt()
    nobody = secrets.token_bytes(hashlib.new(algorithm).digest_size)
    return ScramKeys(SCRAM_ITERATIONS, salt, nobody, nobody), damage


# Bearer tokens


async def oauthbearer(exchange: Exchange) -> PopUser:
    """OAUTHBEARER (RFC 7628). Keys other than `auth` are passed over, host and port too."""
    match = _match(_OAUTHBEARER, await exchange.first())
    return await _bearer(exchange, match, {"status": "invalid_token", **exchange.discovery})


async def xoauth2(exchange: Exchange) -> PopUser:
    """XOAUTH2, as Google and Microsoft describe it; no RFC."""
    match = _match(_XOAUTH2, await exchange.first())
    return await _bearer(
        exchange, match, {"status": "400", "schemes": "Bearer", **exchange.discovery}
    )


async def _bearer(exchange: Exchange, match: re.Match[str], refusal: Mapping[str, str]) -> PopUser:
    given = _unescape(match["name"]) if exchange.mechanism == "OAUTHBEARER" else match["name"]
    name = exchange.identify(given) if given else ""
    pairs = dict(pair.split("=", 1) for pair in match["pairs"].split("\x01") if pair)
    if "auth" not in pairs:
        raise CommandError("exchange-malformed")
    bearer = _BEARER.fullmatch(pairs["auth"])
    user = await exchange.verify_token(name, bearer["token"]) if bearer else None
    if user is None:
        # The client answers with one octet 0x01, with nothing or with `*`. It all means the same.
        with suppress(CommandError):
            await exchange.challenge(json.dumps(refusal, separators=(",", ":")).encode())
        raise AuthenticationFailed(text_id="token-invalid")
    return user


# Certificates


async def external(exchange: Exchange) -> PopUser:
    """EXTERNAL: the client's certificate, verified in the TLS handshake (RFC 4422 appendix A)."""
    authzid = _text(await exchange.first())
    names = certificate_names(exchange.certificate)
    name = exchange.identify(authzid or next(iter(names), ""))
    user = await exchange.get_user(name) if name in names else None
    if user is None:
        raise AuthenticationFailed
    return user


def certificate_names(certificate: Mapping[str, Any]) -> list[str]:
    """Return a certificate's user names, mail addresses or else CNs; it is `getpeercert`'s dict."""
    addresses = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "email"]
    names = addresses or [
        value
        for part in certificate.get("subject", ())
        for kind, value in part
        if kind == "commonName"
    ]
    prepared = []
    for name in names:
        with suppress(ValueError):
            prepared.append(prepare(name))
    return [name for name in prepared if name]


MECHANISMS: Mapping[str, Mechanism] = {
    mechanism.name: mechanism
    for mechanism in (
        Mechanism("PLAIN", plain, plaintext=True),
        Mechanism("LOGIN", login, plaintext=True),
        Mechanism("SCRAM-SHA-256", scram, needs="scram-keys"),
        Mechanism("SCRAM-SHA-1", scram, needs="scram-keys"),
        Mechanism("OAUTHBEARER", oauthbearer, plaintext=True, needs="token-verifier"),
        Mechanism("XOAUTH2", xoauth2, plaintext=True, needs="token-verifier"),
        Mechanism("EXTERNAL", external, needs="client-certificate"),
        Mechanism("CRAM-MD5", cram_md5, server_first=True, needs="shared-secret"),
    )
}
"""pop3hub's own mechanisms by name, in the order in which they are listed."""
