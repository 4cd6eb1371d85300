"""The units of docs/systemd and certbot's hook, with systemd's own tools and a real server."""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.clients.host import need
from tests.support.authority import Authority
from tests.support.program import PATIENCE, Client, Process

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "docs/systemd"
HOOK = ROOT / "docs/certbot/deploy-hook"
INSTALLED = "/opt/pop3hub/bin/pop3hub"
"""The program, where the unit has it; a test puts one that exists in its place."""
OK = 4.0
"""The exposure from which on `systemd-analyze security` no longer says OK."""
STORE = ("--backend", "memory", "--memory-user", "luke:hello")


@pytest.fixture
def units(tmp_path):
    """The units, with a program that exists."""
    for unit in UNITS.iterdir():
        text = unit.read_text().replace(INSTALLED, sys.executable)
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def analyze(*arguments, folder):
    """Run systemd-analyze; return its exit code and what it said."""
    need("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def settings(name):
    """The settings of a unit, each with its values."""
    found = {}
    for line in (UNITS / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


# The units


def test_systemd_finds_nothing_wrong_with_the_units(units):
    names = [f"./{unit.name}" for unit in UNITS.iterdir()]

    assert (0, "") == analyze("verify", "--recursive-errors=no", *names, folder=units)


def test_verify_would_find_a_misspelt_setting(units):
    service = units / "pop3hub.service"
    service.write_text(service.read_text().replace("ExecReload=", "ExecReloads="))

    assert "ExecReloads" in analyze("verify", "--recursive-errors=no", service, folder=units)[1]


def test_systemd_calls_the_exposure_of_the_service_ok(units):
    code, said = analyze(
        *("security", "--offline=yes", "--no-pager", f"--threshold={OK * 10:.0f}"),
        "./pop3hub.service",
        folder=units,
    )

    assert 0 == code, said
    found = re.search(
        r"Overall exposure level for pop3hub\.service: ([\d.]+) (?:OK|SAFE|PERFECT)", said
    )
    assert found, said
    assert OK > float(found[1])


def test_the_service_is_told_of_by_itself_and_reloads_by_sighup():
    service = settings("pop3hub.service")

    assert (["notify"], ["/bin/kill -HUP $MAINPID"]) == (service["Type"], service["ExecReload"])


def test_a_stop_signals_the_main_process_alone_and_waits_longer_than_the_drain():
    """Workers have their signals from it; one that got two SIGTERM would cut its sessions."""
    service = settings("pop3hub.service")

    assert ["mixed"] == service["KillMode"]
    assert float(service["TimeoutStopSec"][0]) > drain_default()


def drain_default():
    said = subprocess.run(
        [sys.executable, "-m", "pop3hub", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return float(re.search(r"--drain.*?default:\s*([\d.]+)", said, re.DOTALL)[1])


def test_the_configuration_of_the_page_is_good_and_has_the_ports_of_the_socket(tmp_path, pop3hub):
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    file = tmp_path / "pop3hub.toml"
    file.write_text(re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1])

    assert (0, f"{file}: good\n") == pop3hub("config", "check", file)[:2]
    listen = tomllib.loads(file.read_text())["listen"]
    assert sorted(settings("pop3hub.socket")["ListenStream"]) == sorted(
        url.partition("://")[2] for url in listen
    )


# What systemd does with them


def free_port():
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def activated(tmp_path, *arguments, listen):
    """Return the command by which systemd's own tool starts a server at the first connection."""
    need("systemd-socket-activate")
    words = ["systemd-socket-activate", *(w for where in listen for w in ("-l", where))]
    words += [f"--setenv=NOTIFY_SOCKET={tmp_path / 'notify'}", f"--setenv=PYTHONPATH={ROOT}"]
    return [*words, sys.executable, "-m", "pop3hub", *STORE, *arguments]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_first_connection_to_a_socket_of_systemd_starts_the_server_and_is_served(
    loop, tmp_path
):
    port = free_port()
    url = f"pop3://127.0.0.1:{port}"
    command = activated(
        tmp_path, "--listen", url, "--loop", loop, listen=[url.removeprefix("pop3://")]
    )
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        subprocess.Popen(command, stderr=subprocess.DEVNULL) as process,
    ):
        try:
            manager.bind(str(tmp_path / "notify"))
            manager.settimeout(PATIENCE)
            with connected(port, process) as client:
                assert client.line().startswith(b"+OK")
                assert client.say(b"USER luke").startswith(b"+OK")
                assert client.say(b"PASS hello").startswith(b"+OK")
                assert f"READY=1\nSTATUS={url}" == manager.recv(4096).decode()

                process.send_signal(signal.SIGHUP)  # as ExecReload does
                assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
                assert manager.recv(4096).startswith(b"READY=1\n")
                assert client.say(b"NOOP").startswith(b"+OK")

                process.send_signal(signal.SIGTERM)
                assert b"STOPPING=1" == manager.recv(4096)
                assert client.say(b"QUIT").startswith(b"+OK")
            assert 0 == process.wait(PATIENCE)
        finally:
            process.kill()


def connected(port, process):
    """Return a client of a port that is about to be opened."""
    while process.poll() is None:
        try:
            return Client(("127.0.0.1", port))
        except ConnectionRefusedError:
            os.sched_yield()
    raise AssertionError(f"it ended with {process.returncode}")


# certbot


def renewed(tmp_path, authority):
    """Put a new certificate where certbot keeps the one of localhost."""
    pair = Path(authority.issue("localhost")).read_text()
    cert, key = pair.split("-----BEGIN PRIVATE KEY-----")
    lineage = tmp_path / "live/localhost"
    lineage.mkdir(parents=True, exist_ok=True)
    (lineage / "fullchain.pem").write_text(cert)
    (lineage / "privkey.pem").write_text("-----BEGIN PRIVATE KEY-----" + key)
    return lineage


def deploy(tmp_path, lineage, reload="true", is_active="true"):
    """Run the hook as certbot does, with a stand-in for systemctl, which does these."""
    stand_in = tmp_path / "bin/systemctl"
    stand_in.parent.mkdir(exist_ok=True)
    stand_in.write_text(
        f'#!/bin/sh\nif [ "$1" = reload ]; then echo "$2" >> {tmp_path}/reloaded; {reload}\n'
        f"else {is_active}; fi\n"
    )
    stand_in.chmod(0o755)
    group = subprocess.run(["id", "-gn"], capture_output=True, text=True, check=True).stdout.strip()
    environment = {
        "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
        "POP3HUB_GROUP": group,
        "POP3HUB_TLS": str(tmp_path / "tls"),
    }
    if lineage:
        environment["RENEWED_LINEAGE"] = str(lineage)
    return subprocess.run(
        [HOOK], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def certificate(address, context):
    """Return the certificate that a server shows."""
    with (
        socket.create_connection(address, PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True))


def test_a_renewed_certificate_is_shown_and_no_session_ends(tmp_path):
    authority = Authority(tmp_path)
    lineage = renewed(tmp_path, authority)
    assert 0 == deploy(tmp_path, lineage).returncode
    pair = tmp_path / "tls/localhost.pem"
    with Process(*STORE, "--tls-cert", pair, listen="pop3s://127.0.0.1:0") as service:
        address = service.serve()
        first = certificate(address, authority.client())
        with authority.client().wrap_socket(
            socket.create_connection(address, PATIENCE), server_hostname="localhost"
        ) as session:
            session.recv(512)
            renewed(tmp_path, authority)

            done = deploy(tmp_path, lineage, reload=f"kill -HUP {service.pid}")

            assert (0, "") == (done.returncode, done.stderr)
            service.event("server.reloaded")
            session.sendall(b"NOOP\r\n")
            assert session.recv(512).startswith(b"-ERR")
            second = certificate(address, authority.client())
    assert first != second == (lineage / "fullchain.pem").read_text()


def test_the_key_is_for_the_service_alone(tmp_path):
    deploy(tmp_path, renewed(tmp_path, Authority(tmp_path)))

    assert 0o640 == (tmp_path / "tls/localhost.pem").stat().st_mode & 0o777
    assert 0o750 == (tmp_path / "tls").stat().st_mode & 0o777
    assert ["localhost.pem"] == [path.name for path in (tmp_path / "tls").iterdir()]


def test_a_renewal_that_lacks_its_key_changes_nothing_and_reloads_nothing(tmp_path):
    lineage = renewed(tmp_path, Authority(tmp_path))
    deploy(tmp_path, lineage)
    before = (tmp_path / "tls/localhost.pem").read_bytes()
    (lineage / "privkey.pem").unlink()

    done = deploy(tmp_path, lineage)

    assert 0 != done.returncode
    assert before == (tmp_path / "tls/localhost.pem").read_bytes()
    assert ["localhost.pem"] == [path.name for path in (tmp_path / "tls").iterdir()]
    assert ["pop3hub.service"] == (tmp_path / "reloaded").read_text().splitlines()


def test_the_first_certificate_comes_before_the_service(tmp_path):
    done = deploy(tmp_path, renewed(tmp_path, Authority(tmp_path)), is_active="exit 3")

    assert (0, "") == (done.returncode, done.stderr)
    assert (tmp_path / "tls/localhost.pem").exists()
    assert not (tmp_path / "reloaded").exists()


def test_the_hook_says_what_it_misses(tmp_path):
    done = deploy(tmp_path, None)

    assert 0 != done.returncode
    assert "RENEWED_LINEAGE: certbot sets it" in done.stderr


def test_the_hook_is_a_program():
    assert os.access(HOOK, os.X_OK)
    if shutil.which("dash"):
        subprocess.run(["dash", "-n", HOOK], check=True)
