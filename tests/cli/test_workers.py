"""The parent of several workers: it shares out connections, and replaces who dies."""

import os
import resource
import signal
import socket
import sys

import bcrypt
import pytest

from pop3hub.auth.users import PopUser
from pop3hub.cli import workers
from pop3hub.errors import ConfigurationError
from pop3hub.server import listeners
from tests.support.filed_store import FiledBackend
from tests.support.program import ROOT, Client, Process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SO_REUSEPORT shares out on Linux")

HELLO = bcrypt.hashpw(b"hello", bcrypt.gensalt(4)).decode()


@pytest.fixture
def start(filed):
    """Return a function that starts workers on a store that has luke."""
    backend = FiledBackend()
    backend.configure({"filed_path": filed.path})
    backend.store_user(PopUser("luke", HELLO), replace=False)
    path = os.pathsep.join([str(filed.path.parent / "site"), str(ROOT)])

    def start(*arguments, count=2, **more):
        options = (*filed.options, "--workers", count, *arguments)
        return Process(*options, env={"PYTHONPATH": path} | more.pop("env", {}), **more)

    return start


def served(service, count=2):
    """Wait until all workers are ready; return where they serve, and their pids."""
    address = service.serve()
    return address, [service.event("worker.ready")["pid"] for _ in range(count)]


def log_in(client):
    """Read the greeting and log in."""
    assert client.line().startswith(b"+OK"), "no greeting"
    client.say(b"USER luke")
    return client.say(b"PASS hello")


def is_running(pid):
    """Whether the process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - procfs
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_the_end_of(pid):
    """Wait until a process that is no child has ended."""
    descriptor = os.pidfd_open(pid) if is_running(pid) else None
    if descriptor is not None:
        import select  # noqa: PLC0415 - Linux

        assert select.select([descriptor], [], [], 20)[0], f"{pid} goes on"
        os.close(descriptor)


def test_all_workers_serve_one_port(start):
    with start() as service:
        address, pids = served(service)

        for _ in range(30):
            with Client(address) as client:
                assert log_in(client).startswith(b"+OK")
                client.say(b"QUIT")

        assert 2 == len({*pids, service.pid} - {service.pid})
        service.signal(signal.SIGTERM)
        assert 0 == service.wait()
        assert not any(map(is_running, pids))


def test_sigterm_reaches_every_worker_and_lets_sessions_end(start):
    with start() as service:
        address, _ = served(service)
        with Client(address) as client:
            log_in(client)
            service.signal(signal.SIGTERM)
            for _ in range(2):
                service.event("server.stopping")
            assert client.say(b"QUIT").startswith(b"+OK")
        assert 0 == service.wait()


@pytest.mark.slow
def test_the_parent_rests_while_a_worker_drains(start):
    """One worker has ended and the other waits for its session: that takes the parent no work."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with start("--drain", 6) as service:
        address, _ = served(service)
        with Client(address) as client:
            log_in(client)
            service.signal(signal.SIGTERM)
            assert 0 == service.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 4


def test_a_worker_that_dies_is_replaced_and_who_waited_is_served(start):
    """The parent keeps the socket: connections queued in it outlive the worker."""
    with start() as service:
        address, pids = served(service)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        clients = [Client(address) for _ in range(20)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

        died = [service.event("worker.died") for _ in range(2)]
        assert {*pids} == {each["pid"] for each in died}
        for client in clients:
            with client:
                assert log_in(client).startswith(b"+OK")
                client.say(b"QUIT")
        service.signal(signal.SIGTERM)
        assert 0 == service.wait()


def test_sighup_reaches_every_worker_and_those_that_start_later(start, tmp_path):
    file = tmp_path / "pop3hub.toml"
    file.write_text("")
    with start("--config", file) as service:
        _, pids = served(service)
        file.write_text("max_bad_commands = 1\n")

        service.signal(signal.SIGHUP)
        for _ in range(2):
            service.event("server.reloaded")
        os.kill(pids[0], signal.SIGKILL)

        service.event("worker.died")
        service.event("server.reloaded")


def test_workers_end_when_their_parent_is_gone(start):
    with start() as service:
        _, pids = served(service)

        service.signal(signal.SIGKILL)

        for pid in pids:
            wait_for_the_end_of(pid)


def test_what_hinders_the_first_worker_is_said_once(start):
    with start("--tls-cert", "/nonexistent.pem", count=3) as service:
        assert 1 == service.wait()
        with pytest.raises(AssertionError):
            service.event("worker.ready")

    assert ["pop3hub: certificate /nonexistent.pem: No such file or directory\n"] == service.lines


def test_ready_is_told_once_by_the_parent(start, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        with start(env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as service:
            served(service)
            assert b"READY=1\nSTATUS=2 workers" == manager.recv(4096)
            service.signal(signal.SIGTERM)
            assert b"STOPPING=1" == manager.recv(4096)
            assert 0 == service.wait()


# Sockets


def test_a_port_that_another_program_has_is_an_error():
    """Sockets with SO_REUSEPORT would share it without a word."""
    place = listeners.parse("pop3://127.0.0.1:0")
    [[[first]]] = workers.bind([place], [[]], 1)
    with first:
        first.listen()
        taken = listeners.parse(f"pop3://127.0.0.1:{first.getsockname()[1]}")

        with pytest.raises(ConfigurationError, match="can't listen on"):
            workers.bind([taken], [[]], 2)


def test_each_worker_has_its_own_socket_of_one_port():
    shares = workers.bind([listeners.parse("pop3://127.0.0.1:0")], [[]], 3)

    bound = [each for share in shares for sockets in share for each in sockets]
    assert 3 == len({each.fileno() for each in bound})
    assert 1 == len({each.getsockname() for each in bound})
    for each in bound:
        each.close()


def test_inherited_sockets_are_shared_by_all():
    with socket.create_server(("127.0.0.1", 0)) as bound:
        assert [[[bound]], [[bound]]] == workers.bind([None], [[bound]], 2)


def test_a_worker_that_keeps_dying_is_started_again_more_and_more_seldom(monkeypatch):
    supervisor = workers.Supervisor(1, lambda *_: 0, None)
    worker = workers.Worker(1, [])
    now = 1000.0
    monkeypatch.setattr("pop3hub.cli.workers.time.monotonic", lambda: now)
    pauses = []
    for _ in range(9):
        worker.began = now
        supervisor._put_off(worker, 1, -9)
        pauses.append(worker.due - now)

    assert [0, 1, 2, 4, 8, 16, 32, 60, 60] == pauses
    now += workers.MIN_LIFE
    supervisor._put_off(worker, 1, -9)
    assert now == worker.due


def test_workers_count_failed_logins_together(start):
    header = b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 110\r\n"
    limits = ("--max-failed-logins-per-address", 6, "--failure-delay", 0, "--bcrypt-cost", 4)
    listen = "pop3://127.0.0.1:0?proxy=127.0.0.1"
    with start(*limits, "--allow-plaintext", listen=listen) as service:
        address, _ = served(service)
        for _ in range(6):
            with Client(address) as client:
                client.socket.sendall(header)
                client.line()
                client.say(b"USER luke")
                assert client.say(b"PASS wrong").startswith(b"-ERR [AUTH]")
        for _ in range(12):
            with Client(address) as client:
                client.socket.sendall(header)
                assert b"-ERR [SYS/TEMP] too many failed logins\r\n" == client.line()
