"""The soak of `make soak`, for a moment; and that it finds what it looks for."""

import importlib.util
import subprocess
import sys

import pytest

from tests.support.program import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """Return a function that imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name):
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, loaded)
        spec.loader.exec_module(loaded)
        return loaded

    return load


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_nothing_is_lost_held_or_left_of_bad_clients_and_a_bad_store(loop):
    done = subprocess.run(
        [sys.executable, "soak.py", "--seconds", "10", "--at-once", "40", "--loop", loop],
        cwd=BENCHMARKS,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr), done.stdout
    assert "'reader': " in done.stdout


@pytest.mark.parametrize(
    ("listing", "complaint"),
    [
        (["unsure"], "lost"),
        (["kept", "gone"], "back"),
        (["kept", "strange"], "nobody delivered"),
    ],
)
def test_a_maildrop_that_lacks_or_regains_a_message_is_noticed(module, listing, complaint):
    clients = module("soak_clients")
    account = clients.Account("luke", {"kept": "a"}, {"unsure": "b"}, {"gone"})

    with pytest.raises(clients.Wrong, match=complaint):
        account.see(dict(account.kept), listing)


@pytest.mark.parametrize("listing", [["kept"], ["kept", "unsure"]])
def test_a_removal_that_was_not_answered_may_have_been_done_or_not(module, listing):
    account = module("soak_clients").Account("luke", {"kept": "a"}, {"unsure": "b"}, {"gone"})

    account.see(dict(account.kept), listing)

    assert set(listing) == set(account.kept)
    assert {"kept", "unsure", "gone"} == account.kept.keys() | account.gone


def test_growth_is_noticed(module):
    module("soak_clients")
    soak = module("soak")
    before = {"tasks": 1, "descriptors": 9, "memory": 50_000, "objects": 5_000}

    assert [] == soak.compare(before, before | {"memory": 60_000, "descriptors": 8})
    assert ["descriptors: 9 before, 10 after", "memory: 50000 before, 99000 after"] == (
        soak.compare(before, before | {"memory": 99_000, "descriptors": 10})
    )
