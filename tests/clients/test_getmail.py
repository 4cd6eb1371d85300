"""getmail6 fetches and deletes, over plain connections and POP3S; it has no STLS."""

import pytest

from tests.clients.host import NAME, PASSWORD, need
from tests.clients.mailbox import ARRIVING, unlike

pytestmark = pytest.mark.clients


@pytest.fixture(autouse=True, scope="module")
def _getmail():
    need("getmail")


@pytest.fixture(params=["plain", "POP3S"])
def security(request):
    return request.param


async def fetch(host, ca, mechanism):
    """Retrieve and delete all messages; return how getmail ended."""
    secured = host.security == "POP3S"
    configuration = f"""
[retriever]
type = {"SimplePOP3SSLRetriever" if secured else "SimplePOP3Retriever"}
server = localhost
port = {host.port}
username = {NAME}
password = {PASSWORD}
use_apop = {mechanism == "APOP"}
{f"ca_certs = {ca}" if secured else ""}

[destination]
type = MDA_external
path = /bin/sh
arguments = ("-c", "exec cat > {host.delivered}/$$")
allow_root_commands = true

[options]
delete = true
delivered_to = false
received = false
"""
    host.write("getmailrc", configuration)
    return await host.run("getmail", "--getmaildir", host.home, "--rcfile", "getmailrc")


def as_getmail_delivers(octets):
    """Return what getmail 6.18.11 hands to a program: LF, a field more, and an ended header."""
    ended = octets if b"\r\n\r\n" in b"\r\n" + octets else octets + b"\r\n"
    return b"Return-Path: <unknown>\n" + ended.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("mechanism", ["USER", "APOP"])
async def test_getmail_gets_what_was_stored_and_deletes_it(host, mechanism):
    done = await fetch(host, host.ca, mechanism)

    assert (0, "") == (done.returncode, done.stderr)
    assert [] == unlike(map(as_getmail_delivers, ARRIVING.values()), host.arrived())
    assert host.saw(mechanism) == host.logins
    assert {} == host.maildrop


@pytest.mark.parametrize("security", ["POP3S"])
async def test_getmail_verifies_the_certificate(host, stranger):
    done = await fetch(host, stranger, "USER")

    assert "certificate verify failed" in done.stderr + done.stdout
    assert ([], []) == (host.arrived(), host.logins)
