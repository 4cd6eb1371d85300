"""The PROXY protocol: octets to what they say of the client."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pop3hub.protocol.proxy import SIGNATURE, V1_LIMIT, V2_LIMIT, Header, ProxyError, missing, parse


def v2(kind=0x11, body=b"", command=0x21):
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body)) + body


def tlv(number, value):
    return struct.pack("!BH", number, len(value)) + value


def tls(version=b"TLSv1.3", cipher=b"TLS_AES_256_GCM_SHA384", flags=1):
    return tlv(0x20, struct.pack("!BI", flags, 0) + tlv(0x21, version) + tlv(0x23, cipher))


TCP4 = bytes([192, 0, 2, 7, 127, 0, 0, 1]) + struct.pack("!HH", 5000, 110)
TCP6 = bytes.fromhex("20010db8000000000000000000000007") * 2 + struct.pack("!HH", 5000, 995)
UNIX = b"/run/client".ljust(108, b"\0") * 2

GOOD = {
    b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 110\r\n": Header("192.0.2.7", 5000),
    b"PROXY TCP6 2001:DB8::7 ::1 5000 110\r\n": Header("2001:db8::7", 5000),
    b"PROXY TCP6 ::ffff:192.0.2.7 ::1 0 65535\r\n": Header("192.0.2.7", 0),
    b"PROXY UNKNOWN\r\n": Header(),
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n": Header(),
    b"PROXY UNKNOWN " + b"x" * (V1_LIMIT - 16) + b"\r\n": Header(),
    v2(0x11, TCP4): Header("192.0.2.7", 5000),
    v2(0x21, TCP6): Header("2001:db8::7", 5000),
    v2(0x11, TCP4, command=0x20): Header(),
    v2(0x00, b"", command=0x20): Header(),
    v2(0x00, b"anything"): Header(),
    v2(0x31, UNIX): Header(),
    v2(0x31, UNIX + tls()): Header(None, 0, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
    v2(0x11, TCP4 + tlv(4, bytes(5)) + tls()): Header(
        "192.0.2.7", 5000, "TLSv1.3", "TLS_AES_256_GCM_SHA384"
    ),
    v2(0x11, TCP4 + tls(flags=0)): Header("192.0.2.7", 5000),
    v2(0x11, TCP4 + tlv(4, bytes(V2_LIMIT - 31))): Header("192.0.2.7", 5000),
}

BAD = [
    b"USER luke\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n",
    b"PROXY TCP4 ::1 ::1 5000 110\r\n",
    b"PROXY TCP6 192.0.2.7 ::1 5000 110\r\n",
    b"PROXY TCP4 192.0.2.7 ::1 5000 110\r\n",
    b"PROXY TCP4 192.0.2.777 127.0.0.1 5000 110\r\n",
    b"PROXY TCP4 192.0.2.7 127.0.0.1 65536 110\r\n",
    b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 65536\r\n",
    b"PROXY TCP4 192.0.2.7 127.0.0.1 -1 110\r\n",
    b"PROXY TCP4 192.0.2.7  127.0.0.1 5000 110\r\n",
    b"PROXY TCP4 192.0.2.7 127.0.0.1 5000\r\n",
    b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 110 \r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 5000 110\r\n",
    b"PROXY UNKNOWN \n x\r\n",
    b"PROXY \r\nUSER luke\r\n",
    b"PROXY UNKNOWN " + b"x" * (V1_LIMIT - 15) + b"\r\n",
    v2(0x12, TCP4),
    v2(0x41, TCP4),
    v2(0x11, TCP4[:-1]),
    v2(0x21, TCP4),
    v2(0x11, TCP4, command=0x11),
    v2(0x11, TCP4, command=0x22),
    v2(0x11, TCP4 + b"\x04\x00"),
    v2(0x11, TCP4 + b"\x04\x00\x02x"),
    v2(0x11, TCP4 + tlv(0x20, b"\x01\0\0\0")),
    v2(0x11, TCP4 + tlv(0x20, b"\x01\0\0\0\0\x21\0\x09TLS")),
    v2(0x11, TCP4 + tls(version=b"TLS\nx")),
    v2(0x11, TCP4 + tls(cipher="ä".encode())),
    v2(0x11, TCP4 + tlv(4, bytes(V2_LIMIT - 30))),
]


def read(stream, sizes=()):
    """Return the header at the beginning of a stream, read as its first octets come in."""
    head, sizes = b"", iter(sizes)
    while more := missing(head):
        taken = stream[len(head) : len(head) + min(more, next(sizes, more))]
        if not taken:
            raise ProxyError("the stream has ended")
        head += taken
    return head


@pytest.mark.parametrize("header", GOOD, ids=lambda header: repr(header[:40]))
def test_a_header_says_who_the_client_is(header):
    assert GOOD[header] == parse(header)


@pytest.mark.parametrize("header", BAD, ids=lambda header: repr(header[:40]))
def test_what_is_no_header_is_refused(header):
    with pytest.raises(ProxyError):
        parse(read(header))


@given(
    st.sampled_from(sorted(GOOD)),
    st.binary(max_size=20),
    st.lists(st.integers(1, 50), max_size=200),
)
def test_the_header_is_read_to_its_last_octet_and_not_one_further(header, behind, sizes):
    assert header == read(header + behind, sizes)


@given(
    st.sampled_from(sorted(GOOD)).flatmap(
        lambda header: st.integers(0, len(header) - 1).map(lambda cut: header[:cut])
    )
)
def test_half_a_header_wants_more(header):
    assert missing(header) > 0


octets = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=300).map(lambda rest: b"PROXY " + rest),
    st.text("TCPUNKOW46 .:019af\r\n", max_size=120).map(lambda rest: b"PROXY " + rest.encode()),
    st.builds(v2, st.sampled_from([0, 0x11, 0x21, 0x31]), st.binary(max_size=300)),
    st.builds(lambda rest: v2(0x11, TCP4 + tlv(0x20, rest)), st.binary(max_size=60)),
)


@given(octets)
@example(b"")
@example(SIGNATURE)
def test_any_octets_give_a_header_or_the_one_error(octets):
    for use in (parse, missing, read):
        try:
            found = use(octets)
        except ProxyError:
            continue
        assert found is not None


@given(octets)
def test_no_stream_makes_it_read_beyond_its_limits(octets):
    try:
        head = read(octets + bytes(2 * V2_LIMIT))
    except ProxyError:
        return
    assert len(head) <= (V2_LIMIT if head.startswith(SIGNATURE) else V1_LIMIT)
