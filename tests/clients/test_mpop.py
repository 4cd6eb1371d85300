"""mpop fetches and deletes, commands pipelined; it has every mechanism that pop3hub has."""

import pytest

from tests.clients.host import NAME, PASSWORD, TOKEN, need
from tests.clients.mailbox import ARRIVING, unlike

pytestmark = pytest.mark.clients

MECHANISMS = [
    "USER",
    "PLAIN",
    "LOGIN",
    "CRAM-MD5",
    "SCRAM-SHA-1",
    "SCRAM-SHA-256",
    "APOP",
    "OAUTHBEARER",
    "XOAUTH2",
]
TLS = {
    "plain": "tls off",
    "STLS": "tls on\ntls_starttls on\ntls_trust_file {ca}",
    "POP3S": "tls on\ntls_starttls off\ntls_trust_file {ca}",
}


@pytest.fixture(autouse=True, scope="module")
def _mpop():
    need("mpop")


async def fetch(host, mechanism, ca, *lines):
    """Retrieve and delete all messages; return how mpop ended.

    The exchange delivery is the one that keeps CRLF.
    """
    configuration = f"""
        account example
        host localhost
        port {host.port}
        {TLS[host.security].format(ca=ca)}
        auth {mechanism.lower()}
        user {NAME}
        password "{TOKEN if mechanism in {"OAUTHBEARER", "XOAUTH2"} else PASSWORD}"
        keep off
        received_header off
        uidls_file {host.home / "uidls"}
        delivery exchange {host.delivered}
    """
    path = host.write("mpoprc", "\n".join([configuration, *lines]))
    return await host.run("mpop", "--file", path, "example")


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_mpop_gets_what_was_stored_and_deletes_it(host, mechanism):
    done = await fetch(host, mechanism, host.ca)

    assert (0, "") == (done.returncode, done.stderr)
    assert [] == unlike(ARRIVING.values(), host.arrived())
    assert host.saw(mechanism) == host.logins
    assert {} == host.maildrop


@pytest.mark.parametrize("security", ["STLS", "POP3S"])
@pytest.mark.parametrize("asks_certificate", [True])
async def test_mpop_logs_in_with_a_certificate(host, authority):
    mine = authority.issue(mail=NAME)
    lines = f"tls_cert_file {mine}", f"tls_key_file {mine}"
    done = await fetch(host, "EXTERNAL", host.ca, *lines)

    assert (0, "") == (done.returncode, done.stderr)
    assert [] == unlike(ARRIVING.values(), host.arrived())
    assert host.saw("EXTERNAL") == host.logins
    assert {} == host.maildrop


@pytest.mark.parametrize("security", ["STLS", "POP3S"])
async def test_mpop_verifies_the_certificate(host, stranger):
    done = await fetch(host, "PLAIN", stranger)

    assert "certificate verification failed" in done.stderr
    assert ([], []) == (host.arrived(), host.logins)
