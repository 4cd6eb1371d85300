"""fetchmail fetches and deletes, by TOP or by RETR, for a delivery agent that writes files."""

import re

import pytest

from tests.clients.host import NAME, PASSWORD, need
from tests.clients.mailbox import ARRIVING, unlike

pytestmark = pytest.mark.clients

PROTOCOLS = {
    "USER": "protocol POP3 auth password",
    "CRAM-MD5": "protocol POP3 auth cram-md5",
    "APOP": "protocol APOP",
}
TLS = {
    "plain": "sslproto ''",
    "STLS": "sslproto TLS1.2+ sslcertck sslcertfile {ca}",
    "POP3S": "ssl sslproto TLS1.2+ sslcertck sslcertfile {ca}",
}


@pytest.fixture(autouse=True, scope="module")
def _fetchmail():
    need("fetchmail")


async def fetch(host, mechanism, ca, *, by="TOP"):
    """Retrieve and delete all messages; return how fetchmail ended."""
    configuration = f"""
        set invisible
        set no bouncemail
        poll localhost service {host.port} {PROTOCOLS[mechanism]}
        user "{NAME}" password "{PASSWORD}" is "nobody" here
        {TLS[host.security].format(ca=ca)}
        nokeep {"fetchall" if by == "RETR" else ""} norewrite no stripcr
        mda "/bin/sh -c 'exec cat > {host.delivered}/$$'"
    """
    path = host.write("fetchmailrc", configuration)
    return await host.run(
        "fetchmail", "--fetchmailrc", path, "--nodetach", "--verbose", "--pidfile", "pid"
    )


def as_fetchmail_delivers(octets):
    """Return what fetchmail 6.4.37 makes of a message, but for its own header where none is.

    It leaves doubled dots in header lines as they are, and ends every header.
    """
    header, empty, body = re.fullmatch(rb"((?:[^\r]+\r\n)*)(\r\n)?(.*)", octets, re.DOTALL).groups()
    return re.sub(rb"^\.", b"..", header, flags=re.MULTILINE) + (empty or b"\r\n") + body


def without_its_own_header(octets):
    return re.sub(rb"\AFrom: FETCHMAIL-DAEMON\r\n(?:[^\r]+\r\n)*", b"", octets)


@pytest.mark.parametrize("by", ["TOP", "RETR"])
@pytest.mark.parametrize("mechanism", PROTOCOLS)
async def test_fetchmail_gets_what_was_stored_and_deletes_it(host, mechanism, by):
    """fetchmail 6.4.37 spoils lines of 8192 octets and more, and starts no TLS for APOP."""
    done = await fetch(host, mechanism, host.ca, by=by)
    assert 0 == done.returncode, done.stderr
    arrived = host.arrived()
    expected = [
        as_fetchmail_delivers(octets) for name, octets in ARRIVING.items() if name != "long lines"
    ]
    (spoiled,) = (each for each in arrived if each.startswith(b"Subject: long lines\r\n"))
    arrived.remove(spoiled)
    has_tls = host.security == "POP3S" or (host.security == "STLS" and mechanism != "APOP")

    assert f"POP3> {by} 1" in done.stdout
    assert [] == unlike(expected, map(without_its_own_header, arrived))
    assert [(mechanism, has_tls)] == host.logins
    assert {} == host.maildrop


@pytest.mark.parametrize("security", ["STLS", "POP3S"])
async def test_fetchmail_verifies_the_certificate(host, stranger):
    done = await fetch(host, "USER", stranger)

    assert "certificate verify failed" in done.stderr
    assert ([], []) == (host.arrived(), host.logins)
