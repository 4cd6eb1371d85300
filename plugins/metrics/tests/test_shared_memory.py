"""Figures of several processes: real ones, forked as workers are."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pop3hub_metrics import shared_memory
from pop3hub_metrics.shared_memory import SharedMemory

# A process that forks, so that the tests' own, which has threads, need not.
PARENT = """
import json, os, signal, sys
from pop3hub_metrics.shared_memory import SharedMemory

memory = SharedMemory()

def fork(value):
    told, tell = os.pipe()
    pid = os.fork()
    if not pid:
        before = memory.take().get(("connections",), [0])[0]
        memory.write({("connections",): [before + value]})
        os.write(tell, b"x")
        signal.pause()
    os.read(told, 1)
    return pid

def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

def show():
    places = [[samples[("connections",)][0], taken] for samples, taken in memory.others()]
    print(json.dumps(places))

"""


def run(lines):
    """Return what the parent has shown; each line ends by the death of all its children."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT + lines],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_process_has_a_place_of_its_own():
    shown = run("children = [fork(1), fork(20)]; show(); [end(pid) for pid in children]")

    assert [[[1, True], [20, True]]] == shown


def test_what_a_process_counted_stays_when_it_is_killed():
    assert [[[1, False], [20, True]]] == run(
        "first, second = fork(1), fork(20); end(first); show(); end(second)"
    )


def test_the_next_process_goes_on_where_the_last_one_ended():
    assert [[[301, True], [20, True]]] == run(
        "first, second = fork(1), fork(20); end(first); third = fork(300); show();"
        "end(second); end(third)"
    )


def test_looking_takes_no_place_away():
    assert [[[1, False]], [[1, False]], [[21, True]]] == run(
        "first = fork(1); end(first); show(); show(); second = fork(20); show(); end(second)"
    )


@pytest.fixture
def mine():
    """Shared memory in which this process has a place."""
    made = SharedMemory()
    assert {} == made.take()
    yield made
    made.leave()


def test_a_record_that_was_not_finished_leaves_the_one_before(mine):
    mine.write({("connections",): [1]})
    mine.write({("connections",): [2]})
    os.pwrite(mine._fd, b"\0", 2 % 2 * shared_memory.HALF + shared_memory.RECORD.size)

    mine.leave()
    assert {("connections",): [1]} == mine.take()


def test_a_place_that_is_left_keeps_what_stands_there(mine):
    mine.write({("connections",): [1], ("logins", "USER", "OK"): [2, 0.5]})
    mine.leave()

    assert {("connections",): [1], ("logins", "USER", "OK"): [2, 0.5]} == mine.take()


def test_more_than_there_is_room_for_is_refused_and_changes_nothing(mine):
    mine.write({("connections",): [1]})
    with pytest.raises(OverflowError):
        mine.write({("logins", "x" * shared_memory.HALF, "OK"): [2]})
    mine.leave()

    assert {("connections",): [1]} == mine.take()


def test_memory_is_given_back_with_its_object():
    made = SharedMemory()
    descriptor = made._fd
    del made

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
