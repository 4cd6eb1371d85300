"""docs/logging.md tells of every event that the source can log, with its level and its keys."""

import ast
import re
from collections import defaultdict

import pytest

from tests.support.program import ROOT

SOURCES = sorted(
    [*ROOT.glob("pop3hub/**/*.py"), *ROOT.glob("plugins/*/pop3hub_*/*.py")],
)
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error"} | {
    "exception": "error"
}
NO_KEYS = {"exc_info"}
GATHERED = {"facts": {"user", "address"}}
"""What stands for several keys in a call, and which they are."""
ROW = re.compile(r"\| `([\w.]+)` \| ([\w, ]+) \| ([^|]*) \| [^|]+ \|")


def events(source):
    """Yield the event, level and keys of each call of a logger."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and "log" in ast.unparse(node.func.value).lower()
        ):
            assert isinstance(node.args[0], ast.Constant), ast.unparse(node)
            keys = set()
            for keyword in node.keywords:
                keys |= {keyword.arg} if keyword.arg else GATHERED[ast.unparse(keyword.value)]
            yield node.args[0].value, LEVELS[node.func.attr], keys - NO_KEYS


def logged():
    """Return levels and keys by event, of the whole source."""
    found = defaultdict(lambda: (set(), set()))
    for path in SOURCES:
        for event, level, keys in events(path.read_text("utf-8")):
            found[event][0].add(level)
            found[event][1].update(keys)
    return dict(found)


def told():
    """Return levels and keys by event, as the page has them."""
    page = (ROOT / "docs/logging.md").read_text("utf-8")
    return {
        event: (set(levels.split(", ")), set(re.findall(r"`(\w+)`", keys)))
        for event, levels, keys in ROW.findall(page)
    }


def test_calls_are_found_in_whatever_way_they_are_written():
    source = 'self._log.info("a.b", x=1, **facts)\ncast("S", s).log.exception("c.d", exc_info=e)'

    assert [("a.b", "info", {"x", "user", "address"}), ("c.d", "error", set())] == (
        list(events(source))
    )


@pytest.mark.parametrize("event", sorted(logged().keys() | told().keys()))
def test_the_page_tells_of_the_event_as_it_is_logged(event):
    assert logged().get(event) == told().get(event)


@pytest.mark.parametrize("event", sorted(logged()))
def test_an_event_is_a_noun_and_a_verb(event):
    assert re.fullmatch(r"[a-z0-9]+\.[a-z_]+", event)
