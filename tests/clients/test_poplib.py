"""Python's poplib fetches and deletes."""

import asyncio
import poplib
import ssl

import pytest

from tests.clients.host import NAME, PASSWORD, PATIENCE
from tests.clients.mailbox import ARRIVING, unlike

pytestmark = pytest.mark.clients


@pytest.fixture(autouse=True)
def _long_lines(monkeypatch):
    """poplib raises at lines of more than 2048 octets (Python 3.11)."""
    monkeypatch.setattr(poplib, "_MAXLINE", 2**20)


def connect(host, ca):
    context = ssl.create_default_context(cafile=ca)
    if host.security == "POP3S":
        return poplib.POP3_SSL("localhost", host.port, timeout=PATIENCE, context=context)
    client = poplib.POP3("localhost", host.port, timeout=PATIENCE)
    if host.security == "STLS":
        client.stls(context)
    return client


def fetch(host, ca, mechanism):
    client = connect(host, ca)
    if mechanism == "APOP":
        client.apop(NAME, PASSWORD)
    else:
        client.user(NAME)
        client.pass_(PASSWORD)
    arrived = []
    for n in range(client.stat()[0]):
        lines = client.retr(n + 1)[1]
        arrived.append(b"".join(line + b"\r\n" for line in lines))
        client.dele(n + 1)
    client.quit()
    return arrived


@pytest.mark.parametrize("mechanism", ["USER", "APOP"])
async def test_poplib_gets_what_was_stored_and_deletes_it(host, mechanism):
    arrived = await asyncio.to_thread(fetch, host, host.ca, mechanism)

    assert [] == unlike(ARRIVING.values(), arrived)
    assert host.saw(mechanism) == host.logins
    assert {} == host.maildrop


@pytest.mark.parametrize("security", ["STLS", "POP3S"])
async def test_poplib_verifies_the_certificate(host, stranger):
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(fetch, host, stranger, "USER")

    assert [] == host.logins
