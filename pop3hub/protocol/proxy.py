"""The PROXY protocol, versions 1 and 2: what a proxy says of the client it speaks for.

Sans-IO. Behind the header comes what the client itself sent, a ClientHello perhaps, so that not one
octet too many may be read: `missing` says how many surely still belong to the header.
Source: proxy-protocol.txt of HAProxy.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1_LIMIT = 107
"""Octets of a header of version 1 with its CRLF, by its specification."""
V2_LIMIT = 16 * 1024
"""Octets of a header of version 2; its specification knows no limit under 64 KiB."""

_PREFIX = b"PROXY "
_V1_LEAST = len(b"PROXY UNKNOWN\r\n")
_V2_FIXED = 16
_V1 = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|TCP(?P<family>[46]) (?P<source>[0-9A-Fa-f.:]+)"
    rb" (?P<target>[0-9A-Fa-f.:]+) (?P<port>\d{1,5}) (?P<target_port>\d{1,5}))\r\n"
)
_ADDRESSES = {0x11: (4, 12), 0x21: (16, 36), 0x31: (0, 216)}
"""By family and kind: octets of the source's address, and of all that is said of addresses."""
_UNSPEC = 0x00
_LOCAL, _PROXY = 0x20, 0x21
_SSL, _SSL_VERSION, _SSL_CIPHER = 0x20, 0x21, 0x23
_SSL_USED = 0x01
_SSL_FIXED = 5
_LAST_PORT = 0xFFFF


class ProxyError(ValueError):
    """This is no PROXY header, or one that its specification does not allow."""


@dataclass(frozen=True, slots=True)
class Header:
    """The client that a proxy speaks for.

    host: None where the proxy speaks for itself (a health check), or doesn't know for whom.
    tls_version: of the TLS that ended at the proxy, such as `TLSv1.3`; None where there was none.
    """

    host: str | None = None
    port: int = 0
    tls_version: str | None = None
    tls_cipher: str = ""


def missing(head: bytes) -> int:
    """Return how many more octets must belong to the header that begins so; 0 once it is whole."""
    if SIGNATURE.startswith(head[: len(SIGNATURE)]):
        if len(head) < _V2_FIXED:
            return (_V2_FIXED if head else _V1_LEAST) - len(head)
        whole = _V2_FIXED + int.from_bytes(head[14:16], "big")
        if whole > V2_LIMIT:
            raise ProxyError(f"a header of {whole} octets")
        return max(0, whole - len(head))
    if not _PREFIX.startswith(head[: len(_PREFIX)]):
        raise ProxyError("no PROXY header")
    if head.endswith(b"\r\n"):
        return 0
    more = max(_V1_LEAST - len(head), 1 if head.endswith(b"\r") else 2)
    if len(head) + more > V1_LIMIT:
        raise ProxyError("a header without an end")
    return more


def parse(head: bytes) -> Header:
    """Return what a whole header says. Raises ProxyError."""
    return _parse_v2(head) if head.startswith(SIGNATURE) else _parse_v1(head)


def _parse_v1(head: bytes) -> Header:
    match = _V1.fullmatch(head)
    if match is None:
        raise ProxyError("a malformed header")
    if match["family"] is None:
        return Header()
    version = int(match["family"])
    _address(match["target"].decode("ascii"), version)
    _port(match["target_port"])
    return _header(_address(match["source"].decode("ascii"), version), _port(match["port"]))


def _parse_v2(head: bytes) -> Header:
    if (
        len(head) < _V2_FIXED
        or missing(head)
        or len(head) != _V2_FIXED + int.from_bytes(head[14:16], "big")
    ):
        raise ProxyError("a header of another length than it says")
    command, kind = head[12], head[13]
    if command == _LOCAL or (command == _PROXY and kind == _UNSPEC):
        return Header()
    if command != _PROXY or kind not in _ADDRESSES:
        raise ProxyError(f"command {command:#04x} for {kind:#04x}")
    size, addresses = _ADDRESSES[kind]
    rest = head[_V2_FIXED:]
    if len(rest) < addresses:
        raise ProxyError("addresses cut short")
    tls = _tls(_values(rest[addresses:]).get(_SSL))
    if not size:  # a socket in the file system
        return Header(None, 0, *tls)
    source = ipaddress.ip_address(rest[:size])
    return _header(source, int.from_bytes(rest[2 * size : 2 * size + 2], "big"), *tls)


def _header(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    port: int,
    tls_version: str | None = None,
    tls_cipher: str = "",
) -> Header:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return Header(str(mapped or address), port, tls_version, tls_cipher)


def _address(text: str, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as exc:
        raise ProxyError("no address") from exc
    if address.version != version:
        raise ProxyError("an address of another family than it says")
    return address


def _port(digits: bytes) -> int:
    port = int(digits)
    if port > _LAST_PORT:
        raise ProxyError("a port beyond 65535")
    return port


def _values(octets: bytes) -> dict[int, bytes]:
    """Return the values of a list of types, lengths and values."""
    found = {}
    while octets:
        end = 3 + int.from_bytes(octets[1:3], "big")
        if len(octets) < end:
            raise ProxyError("a value cut short")
        found[octets[0]] = octets[3:end]
        octets = octets[end:]
    return found


def _tls(value: bytes | None) -> tuple[str | None, str]:
    if value is None:
        return None, ""
    if len(value) < _SSL_FIXED:
        raise ProxyError("a value cut short")
    facts = _values(value[_SSL_FIXED:])
    if not value[0] & _SSL_USED:
        return None, ""
    return _word(facts.get(_SSL_VERSION, b"")), _word(facts.get(_SSL_CIPHER, b""))


def _word(octets: bytes) -> str:
    """Return what goes into the log."""
    text = octets.decode("latin-1")
    if not (text.isascii() and text.isprintable()):
        raise ProxyError("a TLS version or cipher that is no word")
    return text
