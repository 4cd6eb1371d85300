"""Where a server listens: URLs in, listeners out.

`pop3://HOST:PORT` speaks in clear and offers STLS where there is a certificate, `pop3s://HOST:PORT`
begins with TLS (RFC 8314). A query holds what is one listener's own, such as `?cert=FILE`.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from pop3hub.errors import ConfigurationError
from pop3hub.peer import Network, host_and_port, is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

PORTS = {"pop3": 110, "pop3s": 995}
_KEYS = ("cert", "key", "client_ca", "plaintext", "profile", "proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One address to listen on, and what is its own.

    certs, keys: PEM files, the first pair is the default one; no key: it is in the cert's file.
    client_ca: PEM file of the authorities whose client certificates are taken (AUTH EXTERNAL).
    plaintext: passwords in clear are taken from anywhere; None leaves that to the server's setting.
    profile: `modern` (TLS 1.2 and up) or `legacy` (TLS 1.0 and up, for old devices).
    proxies: networks whose connections begin with a PROXY header; others are refused then.
    """

    host: str
    port: int
    implicit_tls: bool = False
    certs: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    client_ca: str | None = None
    plaintext: bool | None = None
    profile: str = "modern"
    proxies: tuple[Network, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    def url(self, port: int | None = None) -> str:
        """Return the listener as a URL, with the port it was given if it asked for any."""
        scheme = "pop3s" if self.implicit_tls else "pop3"
        return f"{scheme}://{host_and_port(self.host, port or self.port)}"


def parse(url: str, *, certs: Sequence[str] = (), keys: Sequence[str] = ()) -> Listener:
    """Return the listener of a URL; `certs` and `keys` are the server's, used where it has none.

    Raises ConfigurationError.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ConfigurationError(f"--listen {url}: {exc}") from exc
    if parts.scheme not in PORTS or not parts.hostname:
        raise ConfigurationError(
            f"--listen {url}: write it as pop3://HOST:PORT or pop3s://HOST:PORT"
        )
    if parts.path.strip("/") or parts.username is not None or parts.fragment:
        raise ConfigurationError(f"--listen {url}: nothing but ?key=value may follow HOST:PORT")
    query = parse_qs(parts.query, keep_blank_values=True)
    for key, values in query.items():
        if key not in _KEYS:
            raise ConfigurationError(
                f"--listen {url}: unknown key {key!r}, there are {', '.join(_KEYS)}"
            )
        if key not in {"cert", "key", "proxy"} and len(values) > 1:
            raise ConfigurationError(f"--listen {url}: {key} is given twice")
    own = query.get("cert")
    listener = Listener(
        host=parts.hostname,
        port=PORTS[parts.scheme] if port is None else port,
        implicit_tls=parts.scheme == "pop3s",
        certs=tuple(own or certs),
        keys=tuple(query.get("key", ()) if own else keys),
        client_ca=query.get("client_ca", [None])[0],
        plaintext=_flag(url, "plaintext", query.get("plaintext")),
        profile=query.get("profile", ["modern"])[0],
        proxies=tuple(
            _network(url, text) for text in ",".join(query.get("proxy", ())).split(",") if text
        ),
    )
    if listener.profile not in {"modern", "legacy"}:
        raise ConfigurationError(f"--listen {url}: profile is modern or legacy")
    if listener.implicit_tls and not listener.certs:
        raise ConfigurationError(
            f"--listen {url}: POP3S needs a certificate: give --tls-cert FILE, or ?cert=FILE here"
        )
    return listener


def check_usable(listener: Listener, *, allow_plaintext: bool) -> None:
    """Raise ConfigurationError for a listener on which nobody could log in, with the remedy."""
    plaintext = allow_plaintext if listener.plaintext is None else listener.plaintext
    if not (listener.is_local or listener.certs or plaintext or listener.proxies):
        raise ConfigurationError(
            f"nobody could log in on {listener.url()}: it is off loopback and has no TLS; give "
            "--tls-cert and --tls-key, or --allow-plaintext if passwords may cross the net in clear"
        )


def _flag(url: str, key: str, values: list[str] | None) -> bool | None:
    if values is None:
        return None
    if values[0] not in {"yes", "no"}:
        raise ConfigurationError(f"--listen {url}: {key} is yes or no")
    return values[0] == "yes"


def _network(url: str, text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError as exc:
        raise ConfigurationError(f"--listen {url}: proxy: {exc}") from exc
