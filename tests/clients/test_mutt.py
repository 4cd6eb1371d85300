"""mutt fetches and deletes, on a terminal that `script` makes."""

from urllib.parse import quote

import pytest

from tests.clients.host import NAME, PASSWORD, need
from tests.clients.mailbox import ARRIVING, unlike

pytestmark = pytest.mark.clients

TLS = {
    "plain": "set ssl_force_tls=no ssl_starttls=no",
    "STLS": "set ssl_force_tls=yes ssl_ca_certificates_file={ca}",
    "POP3S": "set ssl_force_tls=yes ssl_ca_certificates_file={ca}",
}


@pytest.fixture(autouse=True, scope="module")
def _mutt():
    need("mutt")
    need("script")


async def fetch(host, mechanism, ca):
    """Retrieve all messages into a Maildir and delete them; return how mutt ended."""
    for folder in ("new", "cur", "tmp"):
        (host.delivered / folder).mkdir()
    scheme = "pops" if host.security == "POP3S" else "pop"
    configuration = f"""
        set mbox_type=Maildir folder="{host.home}" spoolfile="{host.delivered}"
        set sleep_time=0 delete=yes quit=yes
        set pop_host="{scheme}://{quote(NAME)}@localhost:{host.port}" pop_pass="{PASSWORD}"
        set pop_authenticators={mechanism.lower()} pop_delete=yes
        {TLS[host.security].format(ca=ca)}
        push "<fetch-mail><exit>"
    """
    path = host.write("muttrc", configuration)
    return await host.run("script", "--quiet", "--return", "--command", f"mutt -F {path}", "log")


def as_mutt_delivers(octets):
    """Return what mutt 2.2.12 writes into a Maildir."""
    return octets.replace(b"\r\n", b"\n")


@pytest.mark.parametrize(
    "mechanism", ["USER", "PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "APOP"]
)
async def test_mutt_gets_what_was_stored_and_deletes_it(host, mechanism):
    done = await fetch(host, mechanism, host.ca)
    arrived = [each.read_bytes() for each in host.delivered.glob("*/*")]

    assert 0 == done.returncode, done.stdout
    assert [] == unlike(map(as_mutt_delivers, ARRIVING.values()), arrived)
    assert host.saw(mechanism) == host.logins
    assert {} == host.maildrop
