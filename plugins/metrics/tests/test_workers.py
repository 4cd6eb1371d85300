"""Workers of `pop3hub --workers`: whichever answers, it tells the sum of all."""

from __future__ import annotations

import json
import os
import poplib
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.slow

SESSIONS = 24
PATIENCE = 20.0


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class Service:
    """A pop3hub with two workers that serve a Maildir, and the lines that it logs."""

    def __init__(self, folder):
        self.pop3, self.http = free_port(), free_port()
        (folder / "users").write_text("luke:{PLAIN}hello\n")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pop3hub", "--backend", "maildir", "--workers", "2"),
                *("--maildir", str(folder / "{user}"), "--maildir-passwd", str(folder / "users")),
                *("--listen", f"pop3://127.0.0.1:{self.pop3}", "--log-format", "json"),
                *("--metrics", f"127.0.0.1:{self.http}", "--drain", "0"),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )

    def await_log(self, event):
        """Return the next line of this event."""
        for text in self.process.stderr:
            line = json.loads(text)
            if line["event"] == event:
                return line
        raise AssertionError(f"it ended before {event}")

    def hold_session(self):
        client = poplib.POP3("127.0.0.1", self.pop3, timeout=10)
        client.user("luke")
        client.pass_("hello")
        client.quit()

    def scrape(self):
        with urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            return {
                (sample.name, *sample.labels.values()): sample.value
                for family in families
                for sample in family.samples
            }

    def await_sample(self, name, value):
        """Ask until the sum is this; other workers' figures are half a second old at most."""
        end = time.monotonic() + PATIENCE
        while (found := self.scrape())[name,] != value:
            assert time.monotonic() < end, (name, found[name,])
        return found


@contextmanager
def service(folder):
    made = Service(folder)
    try:
        yield made
    finally:
        made.process.terminate()
        made.process.communicate(timeout=PATIENCE)


def test_whichever_worker_answers_tells_the_sum_of_all_and_death_takes_nothing_off_it(tmp_path):
    with service(tmp_path) as served:
        first, second = (served.await_log("worker.ready")["pid"] for _ in range(2))
        for _ in range(SESSIONS):
            served.hold_session()
        served.await_sample("pop3hub_commands_total", 3 * SESSIONS)
        # Answers come from either worker: the system chooses one for each connection.
        for _ in range(SESSIONS):
            found = served.await_sample("pop3hub_commands_total", 3 * SESSIONS)
            assert SESSIONS == found["pop3hub_connections_total",]
            assert 2 == found["pop3hub_workers",]
            assert SESSIONS == found["pop3hub_logins_total", "USER", "OK"]
            assert 0 == found["pop3hub_sessions",]
        assert 1 < len(
            {
                served.await_log("session.closed")["session"].partition("-")[0]
                for _ in range(SESSIONS)
            }
        )

        os.kill(first, signal.SIGKILL)
        assert served.await_log("worker.ready")["pid"] not in {first, second}
        found = served.await_sample("pop3hub_workers", 2)
        assert SESSIONS == found["pop3hub_connections_total",]
        served.hold_session()
        served.await_sample("pop3hub_commands_total", 3 * (SESSIONS + 1))
