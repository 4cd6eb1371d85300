"""pop3hub as a service: signals, readiness, inherited sockets, the log."""

import asyncio
import errno
import inspect
import json
import logging
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest
import structlog

from pop3hub.cli import logs
from pop3hub.cli.serve import LoopErrors, assign
from pop3hub.errors import ConfigurationError
from pop3hub.server import listeners
from tests.support.program import ROOT, Client, Process

STORE = (
    "--backend",
    "memory",
    "--memory-user",
    "luke:hello",
    "--memory-mail",
    "examples/sample_mail",
)


@pytest.fixture
def service(tmp_path):
    """A server that has luke's sample mail."""
    with Process(*STORE) as process:
        yield process


def log_in(client):
    """Read the greeting and log in."""
    client.line()
    client.say(b"USER luke")
    return client.say(b"PASS hello")


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_in_order(service, number):
    service.serve()

    service.signal(number)

    assert 0 == service.wait()


def test_sigterm_lets_sessions_end_and_takes_no_new_ones(service):
    address = service.serve()
    with Client(address) as client:
        assert log_in(client).startswith(b"+OK")
        assert client.say(b"DELE 1").startswith(b"+OK")
        service.signal(signal.SIGTERM)
        service.event("server.stopping")

        while logged_in(address):  # it is about to close its port
            pass
        assert client.say(b"QUIT").startswith(b"+OK")
    assert 0 == service.wait()


def test_a_second_sigterm_cuts_the_sessions_that_are_left(service):
    with Client(service.serve()) as client:
        log_in(client)
        service.signal(signal.SIGTERM)
        service.event("server.stopping")
        assert client.say(b"NOOP").startswith(b"+OK")

        service.signal(signal.SIGTERM)

        assert b"" == client.line()
    assert 0 == service.wait()


def test_the_end_of_the_drain_cuts_them_too():
    with Process(*STORE, "--drain", "0.2") as service, Client(service.serve()) as client:
        log_in(client)

        service.signal(signal.SIGTERM)

        assert b"" == client.line()
        assert 0 == service.wait()


# Reloading


def test_sighup_takes_limits_from_the_file_and_drops_no_session(tmp_path):
    file = tmp_path / "pop3hub.toml"
    file.write_text("max_bad_commands = 20\n")
    with Process(*STORE, "--config", file) as service:
        address = service.serve()
        with Client(address) as client:
            log_in(client)
            file.write_text("max_bad_commands = 1\nname = 'later'\n")

            service.signal(signal.SIGHUP)

            assert ["name"] == service.event("server.reloaded")["after_a_restart"]
            assert client.say(b"STAT").startswith(b"+OK 3 ")
            assert client.say(b"NONSENSE").startswith(b"-ERR")
            assert b"" == client.line()


def test_a_file_that_went_wrong_changes_nothing(tmp_path):
    file = tmp_path / "pop3hub.toml"
    file.write_text("")
    with Process(*STORE, "--config", file) as service, Client(service.serve()) as client:
        log_in(client)
        file.write_text("max_bad_commands = 'few'\n")

        service.signal(signal.SIGHUP)

        assert "--max-bad-commands" in service.event("server.reload_failed")["error"]
        assert client.say(b"STAT").startswith(b"+OK 3 ")


# The service manager


def test_readiness_is_told_as_systemd_wants_it(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        with Process(*STORE, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as service:
            _, port = service.serve()
            assert f"READY=1\nSTATUS=pop3://127.0.0.1:{port}" == manager.recv(4096).decode()
            service.signal(signal.SIGHUP)
            reloading = manager.recv(4096).decode()
            assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(4096).startswith(b"READY=1\n")
            service.signal(signal.SIGTERM)
            assert b"STOPPING=1" == manager.recv(4096)
            assert 0 == service.wait()


INHERIT = """
import os, sys
fd = int(sys.argv[1])
os.dup2(fd, 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.executable, [sys.executable, "-m", "pop3hub", *sys.argv[2:]])
"""


def test_a_socket_that_is_handed_over_is_served_and_outlives_the_server():
    """Who connects while the server restarts waits, and is not refused."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        words = [str(bound.fileno()), *STORE, "--listen", f"pop3://127.0.0.1:{port}"]
        for _ in range(2):
            with Client(("127.0.0.1", port)) as client:  # before the server is there
                process = subprocess.Popen(
                    [sys.executable, "-c", INHERIT, *words],
                    cwd=ROOT,
                    pass_fds=[bound.fileno()],
                    stderr=subprocess.DEVNULL,
                )
                assert log_in(client).startswith(b"+OK")
                client.say(b"QUIT")
            process.terminate()
            assert 0 == process.wait(20)


def test_a_socket_that_no_listener_names_stops_the_start():
    with socket.create_server(("127.0.0.1", 0)) as bound:
        place = listeners.parse("pop3://127.0.0.1:1110")

        with pytest.raises(ConfigurationError, match="no --listen has it"):
            assign([bound], [place])


def test_each_socket_goes_to_the_listener_of_its_port():
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        places = [listeners.parse(f"pop3://127.0.0.1:{p}") for p in (1110, port)]

        assert [[], [bound]] == assign([bound], places)


def test_two_sockets_of_one_port_go_to_the_listeners_of_their_addresses():
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with socket.create_server(("127.0.0.2", port)) as second:
            places = [listeners.parse(f"pop3://127.0.0.{n}:{port}") for n in (1, 2)]

            assert [[first], [second]] == assign([second, first], places)


def test_a_port_in_use_is_one_line_and_1():
    with socket.create_server(("127.0.0.1", 0)) as bound:
        url = f"pop3://127.0.0.1:{bound.getsockname()[1]}"
        with Process(*STORE, listen=url) as service:
            assert 1 == service.wait()
            with pytest.raises(AssertionError):
                service.event("server.listening")
    assert 1 == len(service.lines), service.lines
    assert f"can't listen on {url}: " in service.lines[0]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_both_event_loops_serve(loop):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    with Process(*STORE, "--loop", loop) as service:
        with Client(service.serve()) as client:
            log_in(client)
            assert client.say(b"RETR 1").startswith(b"+OK")
        service.signal(signal.SIGTERM)
        assert 0 == service.wait()


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_descriptors_that_run_out_are_logged_once_and_served_again_later(loop):
    with Process("--loop", loop, *STORE, preexec_fn=few_descriptors) as service:
        address = service.serve()
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(Client(address))
            if loop == "asyncio":  # uvloop closes what it can't keep
                service.event("connection.not_accepted")
        while not (line := logged_in(address)):
            pass
        assert line.startswith(b"+OK")
        service.signal(signal.SIGTERM)
        assert 0 == service.wait()
    assert 2 > sum("connection.not_accepted" in line for line in service.lines)


def few_descriptors():
    """Leave room for some forty files."""
    import resource  # noqa: PLC0415 - in the child alone

    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))


def logged_in(address):
    """Log in over a new connection; return b"" if it isn't served."""
    try:
        with Client(address) as client:
            return log_in(client)
    except ConnectionError:
        return b""


def test_a_lack_of_descriptors_is_logged_at_a_bounded_rate(monkeypatch):
    with structlog.testing.capture_logs() as lines:
        handler = LoopErrors(structlog.get_logger())
        now = 1000.0
        monkeypatch.setattr("pop3hub.cli.serve.time.monotonic", lambda: now)
        error = OSError(errno.EMFILE, "Too many open files")
        for _ in range(100):
            handler(None, {"message": "socket.accept()", "exception": error})
        now += 11
        handler(None, {"message": "socket.accept()", "exception": error})
        handler(None, {"message": "another", "exception": ValueError("x")})

    assert ["connection.not_accepted"] * 2 + ["loop.error"] == [line["event"] for line in lines]
    assert 99 == lines[1]["since_then"]


# The log


@pytest.fixture
def configured(capsys):
    """Return a function that sets the log up and takes it down again."""
    yield logs.configure
    structlog.reset_defaults()
    logging.basicConfig(force=True, handlers=[])


def test_json_lines_are_whole_for_libraries_too(configured, capsys):
    configured(style="json")

    structlog.get_logger().info("session.login", user="luke")
    logging.getLogger("pymongo").warning("slow %s", "server")

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [("session.login", "info"), ("slow server", "warning")] == [
        (line["event"], line["level"]) for line in lines
    ]
    assert "pymongo" == lines[1]["logger"]


def test_a_client_that_leaves_before_its_answers_fills_no_log(configured, capsys):
    """asyncio warns of each write to it; sslproto.py and selector_events.py have the words."""
    configured(style="json")
    for module in (asyncio.sslproto, asyncio.selector_events):
        source = inspect.getsource(module)
        assert any(f"logger.warning('{words}')" in source for words in logs.NO_NEWS)

    for words in (*logs.NO_NEWS, "another"):
        logging.getLogger("asyncio").warning(words)

    assert ["another"] == [
        json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()
    ]


def test_names_are_hashed_alike_and_not_told(configured, capsys):
    configured(style="json", names_key=b"key")

    for name in ("luke", "Luke", "leia"):
        structlog.get_logger().info("session.login", user=name)

    first, second, third = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first["user"] == second["user"] != third["user"]
    assert "luke" not in str(first).lower()


def test_a_name_can_not_begin_a_line_or_steer_a_terminal(configured, capsys):
    configured()

    structlog.get_logger().warning("login.failed", user="x\nlogin.failed user=y\x1b[2J")

    err = capsys.readouterr().err
    assert 1 == err.count("\n")
    assert "\x1b[2J" not in err


def test_what_is_below_the_level_is_not_written(configured, capsys):
    configured(level="warning")

    structlog.get_logger().info("session.login")

    assert "" == capsys.readouterr().err
