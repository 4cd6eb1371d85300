"""The checks that look for a feature, wait, or send without an end: what they see, and how far."""

import re
import ssl
import threading
import time

import pytest

from pop3hub.check import Target, run_checks
from pop3hub.check.probe import READ_MESSAGES, READ_OCTETS
from pop3hub.testing import BrokenServer, HonestServer
from pop3hub.testing.honest import MESSAGES, PASSWORD, USER, Honest

PLAIN = b"Subject: plain\r\n\r\nline\r\n"


def check(server, *names, drop=None, **facts):
    """Run checks; returns name to result."""
    if drop is not None:
        server.drop.clear()
        server.drop.update(drop)
    facts = {"user": USER, "password": PASSWORD, "timeout": 5.0, "scratch": True} | facts
    target = Target(host=server.host, port=server.port, **facts)
    return {result.name: result for result in run_checks(target, only=names)}


def plain(count):
    return {f"uid-{number}": PLAIN for number in range(count)}


# Reading on until a message has the feature


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("dot-stuffed-alone", "dot-stuffing"),
        ("dot-lone-unstuffed", "dot-stuffing"),
        ("size-counts-stuffing", "retr-size"),
        ("headers-as-stored", "utf8-surrogate"),
    ],
)
def test_a_fault_that_one_message_in_many_shows_is_found(fault, name):
    rare = {uid: MESSAGES[uid] for uid in ("uid-dots", "uid-i18n")}
    with BrokenServer(fault) as server:
        result = check(server, name, drop=plain(READ_MESSAGES - 2) | rare)[name]

    assert "FAIL" == result.status, result


@pytest.mark.parametrize("name", ["dot-stuffing", "retr-size", "utf8-surrogate"])
def test_without_the_feature_a_check_is_skipped_and_says_why(name):
    with HonestServer() as server:
        result = check(server, name, drop=plain(9))[name]

    assert "skip" == result.status
    assert re.search("begins with a dot|has a header in UTF-8", result.note)


@pytest.mark.parametrize("name", ["dot-stuffing", "retr-size", "utf8-surrogate", "top-lines"])
def test_no_more_messages_are_read_than_the_bound(name):
    read = set()

    class Counting(Honest):
        def number(self, text):
            read.add(text)
            return super().number(text)

    with HonestServer(Counting) as server:
        result = check(server, name, drop=plain(READ_MESSAGES + 50))[name]

    assert "skip" == result.status
    assert READ_MESSAGES == len(read)


@pytest.mark.parametrize("sizes", ["honest", "lies"])
def test_no_more_octets_are_read_than_the_bound_even_if_list_has_wrong_sizes(sizes):
    big = b"Subject: big\r\n\r\n" + b"line\r\n" * (READ_OCTETS // 10 // 6)
    sent = []

    class Big(Honest):
        def size(self, uid):
            return super().size(uid) if sizes == "honest" else 10

        def do_retr(self, number):
            sent.append(number)
            super().do_retr(number)

    with HonestServer(Big) as server:
        check(server, "dot-stuffing", drop={f"uid-{n}": big for n in range(20)})

    assert 9 <= len(sent) <= 11


def test_utf8_is_looked_for_by_retr_where_top_is_not_announced():
    class NoTop(Honest):
        CAPA = tuple(tag for tag in Honest.CAPA if tag != "TOP")

        def do_top(self, *_):
            self.err()

    with HonestServer(NoTop) as server:
        result = check(server, "utf8-surrogate")["utf8-surrogate"]

    assert ("ok", "message 7 has other headers without UTF8") == (result.status, result.note)


def test_a_message_refused_with_utf8_is_right():
    class Refusing(Honest):
        def do_retr(self, number):
            if not self.utf8 and not self.server.drop[self.number(number)[1]].isascii():
                self.err("[UTF8] needs UTF8")
            else:
                super().do_retr(number)

    with HonestServer(Refusing) as server:
        result = check(server, "utf8-surrogate")["utf8-surrogate"]

    assert ("ok", "message 7 is refused with [UTF8]") == (result.status, result.note)


# A line without an end


class StopsReading(Honest):
    """Reads so much of a line, and no more until the client goes."""

    def read(self):
        while b"\n" not in self.buffer:
            if len(self.buffer) > 10**5:
                self.server.stopped.wait(30)
                return None
            chunk = self.receive()
            if not chunk:
                return None
            self.buffer += chunk
        return super().read()


class Closes(Honest):
    def read(self):
        while b"\n" not in self.buffer and len(self.buffer) < 10**5:
            chunk = self.receive()
            if not chunk:
                return None
            self.buffer += chunk
        return super().read() if b"\n" in self.buffer else None


class Discards(Honest):
    """Keeps nothing of a long line and answers at its end: nobody outside can know that."""

    def read(self):
        while b"\n" not in (chunk := self.receive()):
            if not chunk:
                return None
        return "too long"


@pytest.mark.parametrize("security", ["plain", "stls"])
def test_a_server_that_stops_reading_is_right(certificate, tls, security):
    with HonestServer(StopsReading, tls=tls) as server:
        server._server.stopped = threading.Event()
        context = ssl.create_default_context(cafile=certificate)
        facts = {"timeout": 0.5, "security": security, "context": context}
        result = check(server, "endless-line", **facts)["endless-line"]
        server._server.stopped.set()

    assert "ok" == result.status, result
    assert 3 == len(re.findall(r"not read any further within [\d,]+ KiB", result.note))


def test_a_server_that_closes_is_right():
    with HonestServer(Closes) as server:
        result = check(server, "endless-line")["endless-line"]

    assert "ok" == result.status, result
    assert result.note.startswith("before login: closed within ")


def test_a_server_that_answers_is_right():
    with HonestServer() as server:
        result = check(server, "endless-line")["endless-line"]

    assert "ok" == result.status, result
    # The server closes as soon as it has answered: then the answer can be lost on its way.
    assert re.match("before login: (refused|closed) within", result.note)
    assert ["before login", "in AUTH", "after login"] == [
        part.partition(":")[0] for part in result.note.split("; ")
    ]


def test_a_server_that_takes_all_and_says_nothing_is_warned_about():
    with HonestServer(Discards) as server:
        result = check(server, "endless-line", timeout=0.5)["endless-line"]

    assert "warn" == result.status
    assert "32,768 KiB without a line end" in result.sent
    assert "all of it was read" in result.came


# Timestamps


def test_timestamps_need_no_more_than_five_connections_at_once():
    class Limited(Honest):
        def greet(self):
            deadline = time.monotonic() + 3  # for those that are about to end
            while len(self.server.handlers) > 6 and time.monotonic() < deadline:
                time.sleep(0.01)
            if len(self.server.handlers) > 6:
                self.say("-ERR too many connections")
                self.open = False
            else:
                super().greet()

    with HonestServer(Limited) as server:
        results = check(server)

    assert {"ok", "skip"} == {result.status for result in results.values()}, results
    assert int(results["greeting-timestamp"].note.split()[0]) > 20


@pytest.mark.parametrize("limit", [2, 3])
def test_a_server_that_allows_fewer_connections_is_not_blamed(limit):
    class Limited(Honest):
        def greet(self):
            if len(self.server.handlers) > limit:
                self.open = False
            else:
                super().greet()

    with HonestServer(Limited) as server:
        result = check(server, "greeting-timestamp")["greeting-timestamp"]

    assert result.status in {"ok", "skip"}, result


# Waiting for a login


def test_a_login_may_take_longer_than_other_replies():
    """Dovecot waits 10 s for a locked maildrop; here the time-out is shorter too."""

    class Waits(Honest):
        def enter(self, name, password):
            if self.server.lock:
                time.sleep(1)
            super().enter(name, password)

    with HonestServer(Waits) as server:
        result = check(server, "second-session", timeout=0.5)["second-session"]

    assert ("ok", "refused with [IN-USE]") == (result.status, result.note)


# Things that are right in other ways


def test_a_server_that_closes_for_nul_or_a_wrong_password_is_right():
    class Strict(Honest):
        def run(self, line):
            if "\0" in line:
                self.open = False
            else:
                super().run(line)

        def enter(self, name, password):
            super().enter(name, password)
            self.open = self.user is not None

    with HonestServer(Strict) as server:
        results = check(server, "nul", "pass-after-failure")

    assert {"ok"} == {result.status for result in results.values()}, results
    assert "the connection is closed after" in results["nul"].note
    assert "the connection is closed after a wrong password" == results["pass-after-failure"].note


def test_nul_in_the_password_is_found_without_a_shared_session_left_open():
    """The maildrop's lock would refuse the login that is the fault."""
    with BrokenServer("nul-ends-password") as server:
        result = check(server)["nul"]

    assert "FAIL" == result.status
    assert PASSWORD not in f"{result.sent}{result.came}{result.expected}"
    assert "NUL" in result.sent


def test_two_replies_to_a_command_with_nul_are_found():
    class Splits(Honest):
        def run(self, line):
            for part in line.split("\0"):
                if "\0" in line:
                    self.err()
                else:
                    super().run(part)

    with HonestServer(Splits) as server:
        assert "FAIL" == check(server, "nul")["nul"].status
