"""Password guessing: failures slow the answers down, then lock out; nobody else feels it."""

import ipaddress
import os
import time
from contextlib import asynccontextmanager

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3hub import ConfigurationError, PopServer, TemporaryFailure, hookimpl
from pop3hub.auth.throttle import KNOWN_FOR, MINUTE, SLOWEST, WAYS, Guard, Table
from pop3hub.cli import options
from pop3hub.cli.context import CliContext
from pop3hub.cli.main import Program
from pop3hub.peer import Peer
from pop3hub.settings import Limits, Settings
from pop3hub.testing.dialogue import Dialogue
from tests.support.serving import Client

ADDRESS = Peer("192.0.2.7", 5000)
HOME = Peer("198.51.100.1", 5000)
WRONG = b"-ERR [AUTH] wrong user name or password\r\n"


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def guard(clock):
    return Guard(clock)


def fail(guard, times, name="luke", peer=ADDRESS, settings=None):
    for _ in range(times):
        guard.record_failure(name, peer, settings or Settings())


# Addresses


def test_an_address_is_locked_out_at_its_limit_and_for_its_time(guard, clock):
    settings = Settings(limits=Limits(failed_logins_per_address=5, lockout=60.0))
    fail(guard, 4, settings=settings)
    assert guard.refusal(ADDRESS, settings) is None

    fail(guard, 1, settings=settings)

    assert "too-many-failed-logins" == guard.refusal(ADDRESS, settings)
    assert guard.is_locked_out("leia", ADDRESS, settings)
    assert guard.refusal(HOME, settings) is None
    clock.now += 61
    assert guard.refusal(ADDRESS, settings) is None
    assert not guard.is_locked_out("leia", ADDRESS, settings)


def test_whoever_goes_on_after_a_lockout_is_locked_out_again_at_once(guard, clock):
    fail(guard, 30)
    clock.now += Limits().lockout + 1

    fail(guard, 1)

    assert guard.refusal(ADDRESS, Settings()) is not None


def test_what_is_tried_in_a_lockout_makes_it_no_longer(guard, clock):
    fail(guard, 30)
    clock.now += Limits().lockout - 1
    fail(guard, 100)
    clock.now += 2

    assert guard.refusal(ADDRESS, Settings()) is None


def test_failures_are_forgotten_one_after_the_other(guard, clock):
    for _ in range(300):  # a limit of 30 in 600 s is one in 20 s
        fail(guard, 1)
        clock.now += 20

    assert guard.refusal(ADDRESS, Settings()) is None


def test_an_ipv6_customer_is_one_address(guard):
    for number in range(30):
        fail(guard, 1, peer=Peer(f"2001:db8::{number:x}", 5000))

    assert guard.refusal(Peer("2001:db8::ffff:1", 5000), Settings()) is not None
    assert guard.refusal(Peer("2001:db8:0:1::1", 5000), Settings()) is None


@pytest.mark.parametrize(
    "peer",
    [
        Peer("127.0.0.1", 1),
        Peer("::1", 1),
        Peer("192.0.2.7", 1, known=False),
        Peer("203.0.113.9", 1),
        Peer("2001:db8::9", 1),
    ],
    ids=str,
)
def test_loopback_and_what_stands_for_many_is_not_counted_by_address(guard, peer):
    networks = map(ipaddress.ip_network, ("203.0.113.0/24", "2001:db8::/32"))
    settings = Settings(exempt=tuple(networks), limits=Limits(connections_per_minute=1))
    fail(guard, 99, peer=peer, settings=settings)

    assert [None] * 9 == [guard.refusal(peer, settings) for _ in range(9)]
    assert not guard.is_locked_out("leia", peer, settings)


def test_what_is_no_address_is_counted_as_it_is():
    settings = Settings(exempt=(ipaddress.ip_network("203.0.113.0/24"),))

    assert "unknown" == Peer("unknown", 0).counted_as(settings.exempt)


def test_0_is_no_limit(guard):
    limits = Limits(failed_logins_per_address=0, failed_logins_per_user=0, connections_per_minute=0)
    settings = Settings(limits=limits)
    fail(guard, 1000, settings=settings)

    assert not guard.is_locked_out("luke", ADDRESS, settings)
    assert [None] * 999 == [guard.refusal(ADDRESS, settings) for _ in range(999)]


def test_connections_of_an_address_have_a_rate(guard, clock):
    settings = Settings(limits=Limits(connections_per_minute=10))
    answers = [guard.refusal(ADDRESS, settings) for _ in range(12)]

    assert [*[None] * 10, *["connections-too-many-from-address"] * 2] == answers
    assert guard.refusal(HOME, settings) is None
    clock.now += MINUTE / 10
    assert guard.refusal(ADDRESS, settings) is None
    assert guard.refusal(ADDRESS, settings) is not None


# Users


def addresses(count):
    return [Peer(f"10.0.{number // 250}.{number % 250}", 1) for number in range(count)]


def test_a_user_is_locked_out_for_many_addresses_but_for_their_own(guard, clock):
    guard.record_login("luke", HOME, Settings())
    for peer in addresses(100):
        fail(guard, 1, peer=peer)

    assert guard.is_locked_out("luke", ADDRESS, Settings())
    assert guard.is_locked_out("LUKE", ADDRESS, Settings())
    assert not guard.is_locked_out("luke", HOME, Settings())
    assert not guard.is_locked_out("leia", ADDRESS, Settings())
    clock.now += Limits().lockout + 1
    assert not guard.is_locked_out("luke", ADDRESS, Settings())


def test_a_known_address_is_forgotten_in_the_end(guard, clock):
    guard.record_login("luke", HOME, Settings())
    clock.now += KNOWN_FOR
    for peer in addresses(100):
        fail(guard, 1, peer=peer)

    assert guard.is_locked_out("luke", HOME, Settings())


def test_a_known_address_that_guesses_is_locked_out_all_the_same(guard):
    guard.record_login("luke", HOME, Settings())
    fail(guard, 30, peer=HOME)

    assert guard.is_locked_out("luke", HOME, Settings())


def test_an_answer_comes_later_with_every_failure(guard):
    times = [guard.record_failure("luke", ADDRESS, Settings()) for _ in range(31)]

    assert sorted(set(times[:30])) == times[:30]
    assert 1 < times[0] < 1.5
    assert [SLOWEST, SLOWEST] == times[29:]


# Memory


@given(st.lists(st.tuples(st.text(max_size=3), st.floats(1, 1e9)), max_size=200))
def test_a_table_answers_what_was_put_or_nothing(writes):
    table, last = Table(rows=2), {}
    for key, value in writes:
        table.put(key, value)
        last[key] = value
        assert value == table.get(key)

    assert all(table.get(key) in {0.0, value} for key, value in last.items())


def test_a_full_table_forgets_the_earliest_first():
    table = Table(rows=1)
    for number in range(WAYS + 3):
        table.put(str(number), 100.0 + number)

    assert [0.0] * 3 == [table.get(str(number)) for number in range(3)]
    assert 100.0 + WAYS + 2 == table.get(str(WAYS + 2))


def test_a_flood_of_names_does_not_free_who_is_locked_out(clock):
    guard = Guard(clock, rows=4)
    fail(guard, 30)
    for number in range(2000):
        fail(guard, 1, name=str(number), peer=Peer(f"10.1.{number // 250}.{number % 250}", 1))

    assert guard.refusal(ADDRESS, Settings()) is not None


def test_processes_that_were_forked_count_together():
    guard = Guard()
    for _ in range(3):
        pid = os.fork()
        if not pid:
            fail(guard, 10)
            os._exit(0)
        os.waitpid(pid, 0)

    assert guard.refusal(ADDRESS, Settings()) is not None


# Sessions


@asynccontextmanager
async def guarded(store, clock, plugins=(), **settings):
    settings = {"failure_delay": 0, "bcrypt_cost": 4, "listen": ()} | settings
    server = PopServer(
        backend=store, plugins=plugins, guard=Guard(clock), allow_plaintext=True, **settings
    )
    async with server:
        yield server


async def log_in(server, peer, name="luke", password="hello"):
    async with Dialogue(server, peer=peer) as dialogue:
        return await dialogue.login(name, password)


async def test_a_locked_out_user_hears_what_a_wrong_password_does(store, clock):
    limits = Limits(failed_logins_per_user=3, failed_logins_per_address=0)
    async with guarded(store, clock, limits=limits) as server:
        assert b"+OK" == (await log_in(server, HOME))[:3]
        for peer in addresses(3):
            assert WRONG == await log_in(server, peer, password="wrong")
        store.calls.clear()

        assert WRONG == await log_in(server, ADDRESS)
        assert WRONG == await log_in(server, ADDRESS, name="Luke")
        assert ["get_user", "get_user"] == store.calls
        assert b"+OK" == (await log_in(server, HOME))[:3]
        assert b"+OK" == (await log_in(server, ADDRESS, "user", "pencil"))[:3]


async def test_somebody_who_does_not_exist_is_locked_out_likewise(store, clock):
    limits = Limits(failed_logins_per_user=3, failed_logins_per_address=0)
    async with guarded(store, clock, limits=limits) as server:
        answers = [await log_in(server, peer, name="nobody") for peer in addresses(5)]

    assert [WRONG] * 5 == answers


async def test_a_right_password_that_was_on_its_way_at_the_lockout_is_refused(store, clock):
    """As many guesses as there are connections could be under way at once."""

    class Meanwhile:
        @hookimpl
        def get_user(self, session):
            server.context.guard.record_failure("leia", ADDRESS, session.settings)

    limits = Limits(failed_logins_per_address=1)
    async with guarded(store, clock, [Meanwhile()], limits=limits) as server:
        assert WRONG == await log_in(server, ADDRESS)


async def test_a_locked_out_user_waits_as_long_as_others(store, clock):
    failure_delay = 0.02
    limits = Limits(failed_logins_per_user=2, failed_logins_per_address=0)
    async with guarded(store, clock, limits=limits, failure_delay=failure_delay) as server:
        for peer in addresses(2):
            await log_in(server, peer, password="wrong")
        took = []
        for password in ("hello", "wrong"):
            began = time.monotonic()
            await log_in(server, ADDRESS, password=password)
            took.append(time.monotonic() - began)

    assert min(took) >= failure_delay * SLOWEST


@pytest.mark.parametrize("name", ["luke", "nobody"])
async def test_a_locked_out_guess_costs_no_bcrypt(store, clock, monkeypatch, name):
    compared = []
    compare = bcrypt.checkpw

    def checkpw(raw, stored):
        compared.append(raw)
        return compare(raw, stored)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    limits = Limits(failed_logins_per_user=2, failed_logins_per_address=0)
    async with guarded(store, clock, limits=limits) as server:
        for peer in addresses(5):
            assert WRONG == await log_in(server, peer, name, "wrong")

    assert [b"wrong", b"wrong"] == compared


async def test_a_locked_out_address_is_refused_when_it_connects(store, clock, monkeypatch):
    monkeypatch.setattr("pop3hub.server.connection.peer_of", lambda _name: ADDRESS)
    limits = Limits(failed_logins_per_address=2)
    async with guarded(store, clock, limits=limits, listen="pop3://127.0.0.1:0") as server:
        client = await Client.connect(server.addresses[0])
        await client.lines(1)
        await client.say(b"USER luke")
        assert WRONG == await client.say(b"PASS wrong")
        await client.say(b"USER luke")
        assert WRONG == await client.say(b"PASS wrong")
        await client.say(b"USER luke")
        assert b"-ERR [AUTH] too many failed logins\r\n" == await client.say(b"PASS hello")
        await client.close()

        client = await Client.connect(server.addresses[0])
        assert b"-ERR [SYS/TEMP] too many failed logins\r\n" == await client.rest()
        await client.close()
        assert 1 == server.stats.refused


# Nodes


class Shared:
    """What an extension does that counts for several nodes."""

    def __init__(self, raises=None):
        self.heard = []
        self.raises = raises

    @hookimpl
    async def count_failed_login(self, name, address, window):
        self.heard.append((name, address, window))
        if self.raises:
            raise self.raises
        return (
            sum(name == other for other, _, _ in self.heard),
            sum(address == other for _, other, _ in self.heard),
        )


async def test_nodes_count_together_by_a_hook(store, clock):
    shared, limits = Shared(), Limits(failed_logins_per_address=3)
    async with (
        guarded(store, clock, [shared], limits=limits) as first,
        guarded(store, clock, [shared], limits=limits) as second,
    ):
        for _ in range(2):
            assert WRONG == await log_in(first, ADDRESS, "Luke", "wrong")
        assert WRONG == await log_in(second, ADDRESS, "leia", "wrong")
        await log_in(second, HOME)

        assert first.context.guard.refusal(ADDRESS, first.settings) is None
        assert second.context.guard.refusal(ADDRESS, second.settings) is not None

    window = limits.failed_logins_window
    assert [("luke", ADDRESS.host, window)] * 2 + [("leia", ADDRESS.host, window)] == shared.heard


@pytest.mark.parametrize("error", [TemporaryFailure(), ValueError("a defect")], ids=repr)
async def test_a_hook_that_fails_leaves_each_node_its_own_counters(store, clock, error):
    limits = Limits(failed_logins_per_address=2)
    async with guarded(store, clock, [Shared(error)], limits=limits) as server:
        for _ in range(2):
            assert WRONG == await log_in(server, ADDRESS, password="wrong")

        assert server.context.guard.refusal(ADDRESS, server.settings) is not None


# The operator's words


def test_exempt_networks_are_told_on_the_command_line():
    values = Program([], CliContext(), []).parse(
        ["--exempt", "192.0.2.0/24", "--exempt", "::1"], {}
    )

    exempt = options.server_arguments(values.params)["exempt"]

    assert [ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("::1")] == list(exempt)


def test_what_is_no_network_is_refused():
    values = Program([], CliContext(), []).parse(["--exempt", "webmail"], {})

    with pytest.raises(ConfigurationError, match="--exempt: 'webmail'"):
        options.server_arguments(values.params)
