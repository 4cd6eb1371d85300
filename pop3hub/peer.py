"""Who is at the other end of a connection: addresses, what counts as one, and the facts of TLS.

Values and pure functions; nothing of ours is imported.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Return whether a host, an address or `localhost`, is this machine's loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def network_of(host: str) -> str:
    """Return what counts as one address: IPv4 as it is, IPv6 by its /64, which one customer has."""
    if ":" not in host:
        return host
    try:
        return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False))
    except ValueError:
        return host


def host_and_port(host: str, port: int) -> str:
    """Return `HOST:PORT`, with IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_host_and_port(text: str) -> tuple[str, int]:
    """Return the parts of `HOST:PORT`, IPv6 in brackets. Raises ValueError."""
    parts = urlsplit(f"//{text}")
    host, port = parts.hostname, parts.port
    if not host or port is None or parts.netloc != text or parts.username is not None:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:9110")
    return host, port


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a connection comes from: an address without brackets, and a port.

    known: False where a proxy does not say whom it speaks for; the address is the proxy's then.
    """

    host: str
    port: int
    known: bool = True

    @property
    def is_local(self) -> bool:
        """Whether it is this machine's loopback."""
        return self.known and is_loopback(self.host)

    def counted_as(self, exempt: Iterable[Network] = ()) -> str:
        """Return what limits by address count this peer by.

        That is `network_of` its address, or "" where it is not limited: this machine, an unknown
        client behind a proxy, and the networks of `exempt`.
        """
        if self.is_local or not self.known:
            return ""
        if exempt:
            with suppress(ValueError):  # not an address: the socket had none
                address = ipaddress.ip_address(self.host)
                if any(address in network for network in exempt):
                    return ""
        return network_of(self.host)

    def __str__(self) -> str:
        return host_and_port(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Tls:
    """The facts of a TLS connection; `peer_certificate` is what `getpeercert` returns."""

    version: str
    cipher: str
    peer_certificate: Mapping[str, Any] | None = None
