"""The one sentence of docs/architecture.md holds: packages stand on a line, imports go left."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pop3hub"
LINE = [
    {"errors", "settings", "peer", "maildrop"},
    {"protocol", "i18n"},
    {"auth"},
    {"hooks"},
    {"session"},
    {"server"},
    {"testing"},
    {"cli"},
]
APART = {"check", "mailbox_files"}
"""These import nothing of ours."""
ENTRANCES = {"__init__", "__main__"}
RANK = {room: rank for rank, rooms in enumerate(LINE) for room in rooms}
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imports(path):
    """The rooms whose code a module runs when it is imported or works."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "pop3hub":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pop3hub."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("pop3hub."))


def room_of(module):
    return module.partition("/")[0].removesuffix(".py")


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_its_own_room_or_from_further_left(module):
    room = room_of(module)
    imported = set(imports(PACKAGE / module)) - {room}
    if room in ENTRANCES or room == "cli":
        return
    if room in APART:
        assert set() == imported
    else:
        own = RANK[room]
        assert set() == {each for each in imported - APART if own and RANK[each] >= own}


def test_every_room_is_on_the_line():
    assert set(RANK) | APART | ENTRANCES == {room_of(module) for module in MODULES}


def test_no_module_is_longer_than_a_reader_can_hold():
    lengths = {m: len((PACKAGE / m).read_text("utf-8").splitlines()) for m in MODULES}

    assert {} == {m: n for m, n in lengths.items() if n > LONGEST.get(m, 500)}


LONGEST = {"hooks/caller.py": 560, "testing/contract.py": 530}
"""To be split."""


def test_only_the_caller_gets_at_hookimpls():
    """registry.py makes them, and caller.py is the only one to have them from it."""
    text = {module: (PACKAGE / module).read_text("utf-8") for module in MODULES}

    assert ["hooks/caller.py"] == [m for m in text if "from pop3hub.hooks.registry" in text[m]]
    assert ["hooks/registry.py"] == [m for m in text if "PluginManager" in text[m]]


def test_only_connections_and_servers_touch_a_transport():
    touching = {
        module
        for module in MODULES
        if re.search(r"\.transport\b|Transport|sock_accept", (PACKAGE / module).read_text("utf-8"))
    }

    assert touching <= {"server/proxied.py", "server/connection.py", "server/server.py"}
