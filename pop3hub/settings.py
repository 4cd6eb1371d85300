"""What an operator may choose: limits and policy, each with its default. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every bound of a server; sizes in octets, times in seconds, 0 means no limit where said."""

    idle: float = 600.0
    """Silence after which a session is closed; at least 600 by RFC 1939 s3."""
    login: float = 600.0
    """From the greeting to a successful login."""
    handshake: float = 30.0
    """A TLS handshake."""
    stall: float = 300.0
    """No progress in sending while the client owes us reading."""
    hook: float = 30.0
    """One awaited hook call."""
    failed_logins: int = 3
    """Failed logins before the connection is closed."""
    bad_commands: int = 20
    """Bad commands in a row before the connection is closed."""
    auth_line: int = 32 * KIB
    """A line that begins with AUTH: RFC 5034 says 255, bearer tokens are longer."""
    sasl_response: int = 64 * KIB
    """One response in a SASL exchange (RFC 5034 s4)."""
    swallowed_line: int = 64 * KIB
    """What is read of an over-long line before the connection is closed."""
    write_buffer: int = 256 * KIB
    """Unread output at which a session waits for its client."""
    sessions: int = 10_000
    """Sessions at once; 0 for no limit."""
    sessions_per_address: int = 100
    """Sessions at once from one address, IPv6 by its /64; 0 for no limit; loopback is exempt."""
    connections_per_minute: int = 300
    """New connections from one address, counted likewise; 0 for no limit."""
    failed_logins_per_address: int = 30
    """Failed logins in the window below that lock an address out, counted likewise; 0 for never."""
    failed_logins_per_user: int = 100
    """Those that lock a user out, but where they logged in before; 0 for never."""
    failed_logins_window: float = 600.0
    """Time in which so many failures are forgotten again, one after the other."""
    lockout: float = 900.0
    """How long a lockout lasts."""
    proxy_header: float = 5.0
    """From a proxy's connection to the end of its PROXY header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The policy of a server."""

    name: str = "pop3hub"
    """How the server calls itself in its greeting and in the APOP stamp."""
    apop: bool = False
    """Offer APOP, which needs users with a `secret` (RFC 1939 s7)."""
    cram_md5: bool = False
    """Offer AUTH CRAM-MD5, which needs one too (RFC 2195)."""
    scram: bool | None = None
    """Offer SCRAM, which needs users with SCRAM keys; None: if the backend says it keeps them."""
    allow_plaintext: bool = False
    """Take clear-text passwords without TLS from anywhere, not only over loopback."""
    failure_delay: float = 2.0
    """Seconds from a login's last line to the answer that it failed, whatever the reason."""
    password_cache: float = 300.0
    """Seconds for which a password that bcrypt found right is remembered; 0 for never."""
    login_delay: int = 0
    """Seconds between logins of one user (RFC 2449 s6.5); 0 for none."""
    expire: int | None = None
    """Days that messages are kept (RFC 2449 s6.7); 0: until they are retrieved; None: for ever."""
    internationalized: Literal["downgrade", "reject", "raw"] = "downgrade"
    """Messages with UTF-8 headers, for clients that did not say UTF8 (RFC 6856 s2.1, RFC 6858)."""
    exempt: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks without limits by address: a webmail server, say, from which all users come."""
    limits: Limits = field(default_factory=Limits)


class SettingArguments(TypedDict, total=False):
    """The fields of `Settings` as keywords of `PopServer`."""

    name: str
    apop: bool
    cram_md5: bool
    scram: bool | None
    allow_plaintext: bool
    failure_delay: float
    password_cache: float
    login_delay: int
    expire: int | None
    internationalized: Literal["downgrade", "reject", "raw"]
    exempt: tuple[IPv4Network | IPv6Network, ...]
    limits: Limits
