"""pop3hub passes the conformance checks that it brings for others."""

import asyncio
import ssl

import pytest

from pop3hub import PopMessage, PopServer, PopUser
from pop3hub.check import CHECKS, Target, run_checks
from pop3hub.testing.honest import MESSAGES, PASSWORD, USER


class Store:
    """The callbacks of a mail store for one user."""

    def __init__(self):
        self.drop = dict(MESSAGES)

    def get_user(self, name):
        return PopUser(name, password="", secret=PASSWORD) if name == USER else None

    def receive_messages(self, _session, user):
        assert user.name == USER
        return [PopMessage(uid, len(octets), octets) for uid, octets in self.drop.items()]

    def delete_messages(self, _session, messages):
        for message in messages:
            del self.drop[message.uid]


@pytest.mark.parametrize("security", ["plain", "stls", "tls"])
async def test_pop3hub_passes_every_check(certificate, security):
    store = Store()
    scheme = "pop3s" if security == "tls" else "pop3"
    server = PopServer(
        get_user=store.get_user,
        compare_password=lambda raw, _: raw == PASSWORD,
        receive_messages=store.receive_messages,
        delete_messages=store.delete_messages,
        listen=f"{scheme}://127.0.0.1:0",
        tls_cert=() if security == "plain" else str(certificate),
        tls_key=() if security == "plain" else str(certificate.with_name("key.pem")),
        apop=True,
        failure_delay=0.0,
    )
    async with server:
        target = Target(
            host="127.0.0.1",
            port=int(server.addresses[0].rpartition(":")[2]),
            security=security,
            context=ssl.create_default_context(cafile=certificate),
            user=USER,
            password=PASSWORD,
            scratch=True,
        )
        results = await asyncio.to_thread(run_checks, target)

    bad = [result for result in results if result.status not in {"ok", "skip"}]
    assert [] == bad
    skipped = {result.name for result in results if result.status == "skip"}
    by_stls = {check.name for check in CHECKS if check.name.startswith("stls")}
    assert (
        skipped
        == {
            "plain": by_stls,
            "stls": set(),
            "tls": {"stls", "stls-injection", "stls-forgets-user"},
        }[security]
    )
    assert len(MESSAGES) - 1 == len(store.drop)
