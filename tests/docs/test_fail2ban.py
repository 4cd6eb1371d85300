"""fail2ban reads what a real server logs, and no user's name can pretend to be an address."""

import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.program import PATIENCE, ROOT, Client

FILTER = ROOT / "docs" / "fail2ban" / "pop3hub.conf"
JAIL = ROOT / "docs" / "fail2ban" / "jail.conf"
REGEX = shutil.which("fail2ban-regex")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.clients,
    pytest.mark.skipif(
        REGEX is None and not os.environ.get("CI"), reason="fail2ban is not installed"
    ),
]

TRICKS = [
    "luke",
    "",
    "luke skywalker",
    "luke peer=203.0.113.9 session=x user=",
    "'luke' peer=203.0.113.9 session=x",
    "\\' \\\" luke",
    '"luke", "mechanism": "USER", "event": "login.failed", "peer": "203.0.113.9',
    '\\", "peer": "203.0.113.9", "user": "x", "mechanism": "USER", "event": "login.failed',
    '{"session": "x", "peer": "203.0.113.9", "user": "luke"}',
    "[warning  ] login.failed mechanism=USER peer=203.0.113.9 session=x user=luke",
    "2001-01-01T00:00:00.000000Z [warning  ] login.failed mechanism=USER peer=203.0.113.9",
    '"timestamp": "2001-01-01T00:00:00.000000Z"}',
    "host pop3hub[1]: peer=203.0.113.9",
    "203.0.113.9",
    "lüke ☃",
    "luke\r\n2001-01-01T00:00:00.000000Z [warning  ] login.failed mechanism=X peer=203.0.113.9",
    "luke\u2028\x1b[31m\x85peer=203.0.113.9",
]
PEERS = ["192.0.2.7", "2001:db8::7"]


@pytest.fixture(scope="module", params=["console", "json"])
def log(request, tmp_path_factory):
    """The log of a real server, on which every trick was tried from both peers."""
    path = tmp_path_factory.mktemp("log") / "pop3hub.log"
    arguments = ["--backend", "memory", "--memory-user", "luke:hello", "--allow-plaintext"]
    limits = ["--failure-delay", "0", "--max-failed-logins-per-address", "0"]
    limits += ["--bcrypt-cost", "4"]
    listen = ["--listen", "pop3://127.0.0.1:0?proxy=127.0.0.0/8", "--log-format", request.param]
    with path.open("wb") as stderr:
        server = subprocess.Popen(
            [sys.executable, "-m", "pop3hub", *arguments, *limits, *listen],
            stderr=stderr,
            cwd=ROOT,
        )
    try:
        port = wait_for_port(server, path)
        for peer in PEERS:
            for trick in TRICKS:
                fail(port, peer, trick)
    finally:
        server.terminate()
        server.wait(PATIENCE)
    return path


def wait_for_port(server, path):
    """Return the port that the server was given, once it says so."""
    for _ in range(int(PATIENCE / 0.05)):
        line = next((line for line in path.read_text().splitlines() if "//127.0.0.1" in line), None)
        if line is not None:
            return int(line.partition("//127.0.0.1:")[2].split('"')[0].split()[0])
        try:
            code = server.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"the server ended with {code}: {path.read_text()}")
    pytest.fail("the server does not listen")
    return 0


def fail(port, peer, name):
    """Fail to log in as `name`; a name that no line can hold goes into AUTH PLAIN."""
    family, here = ("TCP6", "::1") if ":" in peer else ("TCP4", "127.0.0.1")
    with Client(("127.0.0.1", port)) as client:
        client.socket.sendall(f"PROXY {family} {peer} {here} 5000 110\r\n".encode())
        assert client.line().startswith(b"+OK")
        if name and name.isascii() and name.isprintable():
            client.say(b"USER " + name.encode())
            answer = client.say(b"PASS wrong")
        else:
            plain = base64.b64encode(f"\0{name}\0wrong".encode())
            answer = client.say(b"AUTH PLAIN " + plain)
        assert answer.startswith(b"-ERR [AUTH]"), answer


def found(path, *options):
    """Return the addresses that fail2ban finds in a log, in its order."""
    outcome = subprocess.run(
        [str(REGEX), *options, "--out", "ip", str(path), str(FILTER)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return outcome.stdout.split()


def test_every_failure_is_found_under_its_address_and_no_other(log):
    assert [peer for peer in PEERS for _ in TRICKS] == found(log)


def test_the_time_of_a_failure_is_that_of_its_line(log):
    outcome = subprocess.run(
        [str(REGEX), "--out", "time", str(log), str(FILTER)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert len(PEERS) * len(TRICKS) == len(outcome.stdout.split())
    assert "2001" not in outcome.stdout


def test_lines_are_found_behind_what_the_journal_puts_before_them(log, tmp_path):
    path = tmp_path / "journal.log"
    before = "2026-11-23T06:50:39.500000Z mail pop3hub[4711]: "
    path.write_text("".join(before + line + "\n" for line in log.read_text().splitlines()))

    assert [peer for peer in PEERS for _ in TRICKS] == found(path)


def test_other_lines_are_none_of_its_business(log, tmp_path):
    path = tmp_path / "others.log"
    others = [line for line in log.read_text().splitlines() if "login.failed" not in line]
    path.write_text("\n".join(others) + "\n")

    assert others
    assert [] == found(path)


def test_fail2ban_takes_the_jail(tmp_path):
    configuration = tmp_path / "fail2ban"
    shutil.copytree("/etc/fail2ban", configuration)
    shutil.copy(FILTER, configuration / "filter.d" / "pop3hub.conf")
    shutil.copy(JAIL, configuration / "jail.d" / "pop3hub.conf")

    outcome = subprocess.run(
        ["fail2ban-client", "-c", str(configuration), "-d"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == outcome.returncode, outcome.stderr
    assert "['set', 'pop3hub', 'maxretry', 10]" in outcome.stdout
    assert outcome.stdout.count("login\\\\.failed") == 2


def test_the_page_about_it_shows_both_files():
    page = Path(ROOT / "docs" / "fail2ban.md").read_text("utf-8")

    for path in (FILTER, JAIL):
        assert f"fail2ban/{path.name}" in page
