"""What the fuzzer found is taken again: `make fuzz` adds to tests/protocol/corpus."""

import pytest

from tests.support.fuzzing import CORPUS, TARGETS, kept, pieces


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_taken_as_any_other_octets(name, languages_once):
    """A failure names the file that shows it."""
    target = TARGETS[name]()
    for path in kept(name):
        try:
            target(path.read_bytes())
        except Exception as exc:
            raise AssertionError(f"{name}/{path.name}") from exc
    if name == "dialogue":
        target.close()


def test_each_target_has_a_corpus_and_each_corpus_a_target():
    assert sorted(TARGETS) == sorted(path.name for path in CORPUS.iterdir())
    assert all(map(kept, TARGETS))


def test_the_first_octet_says_how_an_input_is_cut():
    assert [b"ab", b"c"] == pieces(b"\x02abc")
    assert [b"abc"] == pieces(b"\x00abc")
    assert [] == pieces(b"")
