"""Perl's Net::POP3 fetches and deletes."""

from pathlib import Path

import pytest

from tests.clients.host import NAME, PASSWORD, need
from tests.clients.mailbox import ARRIVING, unlike

pytestmark = pytest.mark.clients

SCRIPT = Path(__file__).with_name("fetch.pl")
MODULES = "-MNet::POP3", "-MIO::Socket::SSL", "-MAuthen::SASL", "-MDigest::HMAC_MD5"


@pytest.fixture(autouse=True, scope="module")
def _perl():
    need("perl", "perl", *MODULES, "-e", "1")


async def fetch(host, ca, mechanism):
    """Retrieve and delete all messages; return how the script ended."""
    return await host.run(
        *("perl", SCRIPT, host.security, str(host.port), ca),
        *(mechanism, NAME, PASSWORD, host.delivered),
    )


def as_perl_delivers(host, octets):
    """Return what Net::POP3 3.14 gives: CRLF comes out as LF, but not under TLS."""
    return octets.replace(b"\r\n", b"\n") if host.security == "plain" else octets


@pytest.mark.parametrize("mechanism", ["USER", "APOP", "PLAIN", "LOGIN", "CRAM-MD5"])
async def test_perl_gets_what_was_stored_and_deletes_it(host, mechanism):
    done = await fetch(host, host.ca, mechanism)

    assert (0, "") == (done.returncode, done.stderr)
    assert [] == unlike(
        (as_perl_delivers(host, each) for each in ARRIVING.values()), host.arrived()
    )
    assert host.saw(mechanism) == host.logins
    assert {} == host.maildrop


@pytest.mark.parametrize("security", ["STLS", "POP3S"])
async def test_perl_verifies_the_certificate(host, stranger):
    done = await fetch(host, stranger, "USER")

    assert "certificate verify failed" in done.stderr
    assert ([], []) == (host.arrived(), host.logins)
