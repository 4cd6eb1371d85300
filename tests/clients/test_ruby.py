"""Ruby's net/pop fetches and deletes, over plain connections and POP3S; it has no STLS."""

from pathlib import Path

import pytest

from tests.clients.host import NAME, PASSWORD, need
from tests.clients.mailbox import ARRIVING, unlike

pytestmark = pytest.mark.clients

SCRIPT = Path(__file__).with_name("fetch.rb")


@pytest.fixture(autouse=True, scope="module")
def _ruby():
    need("ruby", "ruby", "-rnet/pop", "-e", "1")


@pytest.fixture(params=["plain", "POP3S"])
def security(request):
    return request.param


async def fetch(host, ca, mechanism):
    """Retrieve and delete all messages; return how the script ended."""
    return await host.run(
        *("ruby", SCRIPT, host.security, str(host.port), ca),
        *(mechanism, NAME, PASSWORD, host.delivered),
    )


@pytest.mark.parametrize("mechanism", ["USER", "APOP"])
async def test_ruby_gets_what_was_stored_and_deletes_it(host, mechanism):
    done = await fetch(host, host.ca, mechanism)

    assert (0, "") == (done.returncode, done.stderr)
    assert [] == unlike(ARRIVING.values(), host.arrived())
    assert host.saw(mechanism) == host.logins
    assert {} == host.maildrop


@pytest.mark.parametrize("security", ["POP3S"])
async def test_ruby_verifies_the_certificate(host, stranger):
    done = await fetch(host, stranger, "USER")

    assert "certificate verify failed" in done.stderr
    assert ([], []) == (host.arrived(), host.logins)
