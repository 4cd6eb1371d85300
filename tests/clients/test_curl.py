"""curl fetches and deletes: one connection, the mechanism that it is told."""

import pytest

from tests.clients.host import NAME, PASSWORD, TOKEN, need
from tests.clients.mailbox import ARRIVING, unlike

pytestmark = pytest.mark.clients

OPTIONS = {
    "CRAM-MD5": ("--login-options", "AUTH=CRAM-MD5"),
    "PLAIN": ("--login-options", "AUTH=PLAIN"),
    "PLAIN at once": ("--login-options", "AUTH=PLAIN", "--sasl-ir"),
    "LOGIN": ("--login-options", "AUTH=LOGIN"),
    "APOP": ("--login-options", "AUTH=+APOP"),
    "the strongest": (),
}
AS_CURL_WRITES = ARRIVING | {"nothing": b"\r\n"}
"""curl 7.88.1 makes an empty line of an empty message."""
SEEN = {"PLAIN at once": "PLAIN", "the strongest": "CRAM-MD5"}


@pytest.fixture(autouse=True, scope="module")
def _curl():
    need("curl")


def access(host, ca, *options):
    """Return the options of a transfer; --next forgets them."""
    secured = {"plain": (), "STLS": ("--ssl-reqd",), "POP3S": ()}[host.security]
    return "--silent", "--show-error", "--cacert", ca, *secured, *options


def urls(host):
    scheme = "pop3s" if host.security == "POP3S" else "pop3"
    return [f"{scheme}://localhost:{host.port}/{n + 1}" for n in range(len(host.maildrop))]


async def fetch(host, *options):
    """Retrieve all messages and delete them on the same connection; return how curl ended."""
    outputs = [("--output", host.delivered / str(n), url) for n, url in enumerate(urls(host))]
    return await host.run(
        *("curl", "--disable"),
        *access(host, host.ca, *options),
        *(argument for output in outputs for argument in output),
        *("--next", "--head", "--request", "DELE"),
        *access(host, host.ca, *options),
        *urls(host),
    )


@pytest.mark.parametrize("mechanism", OPTIONS)
async def test_curl_gets_what_was_stored_and_deletes_it(host, mechanism):
    done = await fetch(host, "--user", f"{NAME}:{PASSWORD}", *OPTIONS[mechanism])

    assert (0, "") == (done.returncode, done.stderr)
    assert [] == unlike(AS_CURL_WRITES.values(), host.arrived())
    assert host.saw(SEEN.get(mechanism, mechanism)) == host.logins
    assert {} == host.maildrop


async def test_curl_logs_in_with_a_bearer_token(host):
    options = ("--login-options", "AUTH=OAUTHBEARER", "--oauth2-bearer", TOKEN)
    done = await fetch(host, "--user", f"{NAME}:", *options)

    assert (0, "") == (done.returncode, done.stderr)
    assert [] == unlike(AS_CURL_WRITES.values(), host.arrived())
    assert host.saw("OAUTHBEARER") == host.logins
    assert {} == host.maildrop


@pytest.mark.parametrize("security", ["STLS", "POP3S"])
async def test_curl_verifies_the_certificate(host, stranger):
    done = await host.run("curl", "--disable", *access(host, stranger), urls(host)[0])

    assert (60, []) == (done.returncode, host.logins)
