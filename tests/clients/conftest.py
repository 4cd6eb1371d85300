"""A server with the hard messages, plain, with STLS and as POP3S."""

from urllib.parse import quote, urlsplit

import pytest

from pop3hub.server.server import PopServer
from tests.clients.host import LISTENERS, Host
from tests.support.authority import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """The authority that the clients trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def certificate(authority):
    """The server's certificate, for localhost."""
    return authority.issue("localhost")


@pytest.fixture(params=LISTENERS)
def security(request):
    """How the connection is secured, each way in turn."""
    return request.param


@pytest.fixture
def asks_certificate():
    """Whether the server asks clients for certificates; a test that needs it says so."""
    return False


@pytest.fixture
async def host(security, tmp_path, authority, certificate, asks_certificate):
    """A server that offers all that it has, with the hard messages in mia's maildrop."""
    url = LISTENERS[security].format(cert=quote(certificate))
    if asks_certificate:
        url += f"&client_ca={quote(authority.path)}"
    host = Host(security, tmp_path, authority.path)
    server = PopServer(
        backend=host.store,
        plugins=[host],
        listen=url,
        apop=True,
        cram_md5=True,
        failure_delay=0,
        bcrypt_cost=4,
    )
    async with server:
        host.port = urlsplit(server.addresses[0]).port
        yield host


@pytest.fixture
def stranger(tmp_path_factory):
    """The file of an authority that did not sign the server's certificate."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger").path
