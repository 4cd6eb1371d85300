"""The page of conformance names tests that are there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs/conformance.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("path", "test"), NAMED, ids=[test for _, test in NAMED])
def test_each_test_that_the_page_names_is_there(path, test):
    file = TESTS.parent / path if path.startswith("plugins/") else TESTS / path

    assert re.search(rf"^(async )?def {test}\(", file.read_text("utf-8"), re.MULTILINE)
