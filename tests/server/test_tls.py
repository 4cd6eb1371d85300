"""TLS as its clients see it: versions, names, renewal, certificates of their own (RFC 8314)."""

import asyncio
import base64
import ssl
import warnings
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit

import pytest

from pop3hub import ConfigurationError, Limits, PopServer, PopUser, hookimpl
from tests.support.authority import Authority


class Store:
    @hookimpl
    def get_user(self, name):
        return PopUser(name, "hello") if name.startswith("luke") else None

    @hookimpl
    def compare_password(self, raw, hash):
        return raw == hash

    @hookimpl
    def receive_messages(self):
        return []

    @hookimpl
    def delete_messages(self, messages):
        return len(messages)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@asynccontextmanager
async def serving(*urls, **settings):
    async with PopServer(backend=Store(), listen=urls, failure_delay=0, **settings) as server:
        yield server


@asynccontextmanager
async def connected(server, context, name="localhost"):
    url = urlsplit(server.addresses[0])
    reader, writer = await asyncio.open_connection(
        url.hostname, url.port, ssl=context, server_hostname=name
    )

    async def say(line):
        writer.write(line.encode() + b"\r\n")
        return await reader.readuntil(b"\r\n")

    try:
        yield reader, writer.get_extra_info("ssl_object"), say
    finally:
        writer.close()


def secure(cert, **query):
    extra = "".join(f"&{key}={quote(value)}" for key, value in query.items())
    return f"pop3s://127.0.0.1:0?cert={quote(cert)}{extra}"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(authority, version):
    """RFC 8314 s4.1."""
    context = authority.client()
    context.minimum_version = context.maximum_version = version
    async with (
        serving(secure(authority.issue("localhost"))) as server,
        connected(server, context) as (reader, tls, _),
    ):
        assert b"+OK pop3hub at your service" in await reader.readuntil(b"\r\n")
        assert version.name == tls.version().replace(".", "_")


def old_client(authority):
    context = authority.client()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1
    return context


async def test_tls_1_0_is_refused(authority):
    """RFC 8996."""
    async with serving(secure(authority.issue("localhost"))) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with connected(server, old_client(authority)):
                pass


async def test_tls_1_0_is_spoken_on_a_listener_with_the_legacy_profile(authority):
    url = secure(authority.issue("localhost"), profile="legacy")
    async with (
        serving(url) as server,
        connected(server, old_client(authority)) as (reader, tls, _),
    ):
        assert b"+OK" in await reader.readuntil(b"\r\n")
        assert "TLSv1" == tls.version()


async def test_alpn_is_pop3(authority):
    context = authority.client()
    context.set_alpn_protocols(["pop3"])
    async with (
        serving(secure(authority.issue("localhost"))) as server,
        connected(server, context) as (_, tls, _),
    ):
        assert "pop3" == tls.selected_alpn_protocol()


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("one.example", "one.example"),
        ("TWO.example", "two.example"),
        ("mail.wild.example", "*.wild.example"),
        ("a.mail.wild.example", "one.example"),
        ("unknown.example", "one.example"),
    ],
)
async def test_the_certificate_is_chosen_by_the_name_that_is_asked_for(authority, asked, shown):
    """RFC 6066 s3; an unknown name gets the first one, and no abort."""
    files = [authority.issue(name) for name in ("one.example", "two.example", "*.wild.example")]
    context = authority.client()
    context.check_hostname = False
    async with (
        serving("pop3s://127.0.0.1:0", tls_cert=files) as server,
        connected(server, context, asked) as (_, tls, _),
    ):
        names = dict(pair for part in tls.getpeercert()["subject"] for pair in part)

    assert shown == names["commonName"]


async def test_a_reload_shows_new_connections_the_new_certificate_and_drops_none(authority):
    path = authority.issue("localhost", file="renewed.pem")
    context = authority.client()
    async with (
        serving(secure(path)) as server,
        connected(server, context) as (reader, first, say),
    ):
        await reader.readuntil(b"\r\n")
        authority.issue("localhost", file="renewed.pem")
        server.reload()
        async with connected(server, context) as (_, second, _):
            assert first.getpeercert()["serialNumber"] != second.getpeercert()["serialNumber"]
        assert b"+OK pop3hub signing off.\r\n" == await say("QUIT")


async def test_a_reload_of_a_broken_file_changes_nothing(authority, tmp_path):
    path = tmp_path / "cert.pem"
    authority.issue("localhost", file=path)
    async with serving(secure(str(path))) as server:
        path.write_bytes(b"not a certificate")

        with pytest.raises(ConfigurationError, match=r"cert\.pem"):
            server.reload()

        async with connected(server, authority.client()) as (reader, _, _):
            assert b"+OK" in await reader.readuntil(b"\r\n")


@pytest.mark.parametrize("missing", ["nowhere.pem", "empty.pem"])
def test_a_file_that_cannot_be_used_is_one_clear_error(tmp_path, missing):
    (tmp_path / "empty.pem").write_bytes(b"")
    server = PopServer(backend=Store(), listen=secure(str(tmp_path / missing)))

    with pytest.raises(ConfigurationError, match=missing):
        asyncio.run(server.start())


async def test_a_client_certificate_logs_in_by_external_and_is_offered_only_then(authority):
    """RFC 4422 appendix A; after the handshake the state is AUTHORIZATION all the same."""
    url = secure(authority.issue("localhost"), client_ca=authority.path)
    own = authority.client(authority.issue(mail="luke@example.com"))
    async with serving(url) as server:
        async with connected(server, own) as (reader, _, say):
            await reader.readuntil(b"\r\n")
            assert b"-ERR log in first\r\n" == await say("STAT")
            assert b"+OK pass accepted, welcome 'luke@example.com'.\r\n" == await say(
                "AUTH EXTERNAL ="
            )
        async with connected(server, authority.client()) as (reader, _, say):
            await reader.readuntil(b"\r\n")
            assert b"-ERR this mechanism is not available\r\n" == await say("AUTH EXTERNAL =")


async def test_a_client_certificate_of_somebody_else_is_refused(authority):
    url = secure(authority.issue("localhost"), client_ca=authority.path)
    own = authority.client(authority.issue(mail="luke@example.com"))
    other = base64.b64encode(b"luke@elsewhere.example").decode()
    async with serving(url) as server, connected(server, own) as (reader, _, say):
        await reader.readuntil(b"\r\n")

        assert b"-ERR [AUTH] wrong user name or password\r\n" == await say(f"AUTH EXTERNAL {other}")


async def test_a_handshake_that_never_comes_is_given_up(authority):
    limits = Limits(handshake=0.1)
    async with serving(secure(authority.issue("localhost")), limits=limits) as server:
        url = urlsplit(server.addresses[0])
        reader, writer = await asyncio.open_connection(url.hostname, url.port)

        assert b"" == await asyncio.wait_for(reader.read(), 10)
        writer.close()


async def test_clear_text_on_the_tls_port_harms_nobody(authority):
    async with serving(secure(authority.issue("localhost"))) as server:
        url = urlsplit(server.addresses[0])
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(b"USER luke\r\n")
        received = await asyncio.wait_for(reader.read(), 10)
        writer.close()

        assert b"+OK" not in received
        async with connected(server, authority.client()) as (reader, _, _):
            assert b"+OK" in await reader.readuntil(b"\r\n")


@pytest.mark.parametrize("octets", [b"this is no ClientHello\r\n", b""])
async def test_a_handshake_that_fails_behind_stls_leaves_nothing_behind(authority, octets):
    url = f"pop3://127.0.0.1:0?cert={quote(authority.issue('localhost'))}"
    async with serving(url) as server:
        address = urlsplit(server.addresses[0])
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        await reader.readuntil(b"\r\n")
        writer.write(b"STLS\r\n")
        assert b"+OK begin TLS negotiation\r\n" == await reader.readuntil(b"\r\n")
        writer.write(octets)
        writer.write_eof()

        await asyncio.wait_for(server.state.wait_until_empty(), 10)
        writer.close()
