"""The one sentence of docs/architecture.md holds: packages stand on a line, imports go left."""

import ast
import re
from pathlib import Path

import pytest

from pop3hub import Exchange, Server, Session
from pop3hub.server.view import ServerView
from pop3hub.session.view import SessionView

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pop3hub"
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


def imports(module):
    """The modules of ours that a module names in an import, for types too."""
    for node in ast.walk(ast.parse((PACKAGE / module).read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pop3hub":
            yield from (f"{node.module}.{alias.name}".split(".")[1:] for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1:] for a in node.names if a.name.startswith("pop3hub"))


def room_of(module):
    return module.partition("/")[0].removesuffix(".py")


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_its_own_room_or_from_further_left(module):
    room = room_of(module)
    imported = {path[0] for path in imports(module) if path} - {room}
    if room in ENTRANCES or room == "cli":
        return
    if room in APART:
        assert set() == imported
    else:
        own = RANK[room]
        assert set() == {each for each in imported - APART if own and RANK[each] >= own}


def in_circles(root):
    """The modules of a package that are part of a circle of imports, those for types too."""
    graph = {}
    for path in root.rglob("*.py"):
        own = path.relative_to(root).with_suffix("").as_posix().removesuffix("/__init__")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(root.name):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.startswith(root.name)]
            else:
                continue
            for name in names:
                parts = name.split(".")[1:]
                while parts and not (root / "/".join(parts)).with_suffix(".py").exists():
                    parts.pop()
                graph.setdefault(own, set()).add("/".join(parts) or name.split(".")[1])
    modules = {*graph, *(each for others in graph.values() for each in others)}
    settled = set()
    while more := {m for m in modules - settled if graph.get(m, set()) - {m} <= settled}:
        settled |= more
    return modules - settled


@pytest.mark.parametrize(
    "root",
    [PACKAGE, *(path for path in ROOT.glob("plugins/*/pop3hub_*") if path.is_dir())],
    ids=lambda root: root.name,
)
def test_no_module_is_part_of_a_circle(root):
    """A circle of references is one module in several files, even where only types go round."""
    assert set() == in_circles(root)


def test_every_room_is_on_the_line():
    assert set(RANK) | APART | ENTRANCES == {room_of(module) for module in MODULES}


def test_no_module_is_longer_than_a_reader_can_hold():
    lengths = {m: len((PACKAGE / m).read_text("utf-8").splitlines()) for m in MODULES}

    assert {} == {m: n for m, n in lengths.items() if n > 500}


# Plugins and examples live on what everybody can rely on

PUBLIC = {
    "pop3hub",
    *(f"pop3hub.{m}" for m in ("testing", "check", "protocol.message", "mailbox_files")),
}
OTHERS = sorted(
    [*ROOT.glob("plugins/*/pop3hub_*/*.py"), *ROOT.glob("examples/**/*.py")],
    key=lambda path: path.as_posix(),
)


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_plugins_and_examples_import_public_names_only(path):
    named = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pop3hub":
            named.add(node.module)
        elif isinstance(node, ast.Import):
            named |= {a.name for a in node.names if a.name.split(".")[0] == "pop3hub"}

    assert set() == named - PUBLIC


def test_hooks_are_handed_what_the_protocols_name_and_nothing_else():
    for protocol, view in ((Session, SessionView), (Server, ServerView)):
        members = {name for name in vars(protocol) if not name.startswith("_")}
        assert members == {name for name in vars(view) if not name.startswith("_")}


def test_a_mechanism_is_not_handed_the_session_nor_the_key_of_the_salts():
    public = {name for name in dir(Exchange) if not name.startswith("_")}

    assert set() == public & {"ask", "authenticator", "salt_key", "session"}


def test_only_the_caller_gets_at_hookimpls():
    """registry.py makes them, and caller.py is the only one to have them from it."""
    text = {module: (PACKAGE / module).read_text("utf-8") for module in MODULES}

    assert ["hooks/caller.py"] == [m for m in text if re.search(r"\bimpl\.call\b", text[m])]
    assert ["hooks/caller.py"] == [m for m in text if "import Impl, resolve" in text[m]]
    assert ["hooks/registry.py"] == [m for m in text if "PluginManager" in text[m]]


def test_only_connections_and_servers_touch_a_transport():
    touching = {
        module
        for module in MODULES
        if re.search(r"\.transport\b|Transport|sock_accept", (PACKAGE / module).read_text("utf-8"))
    }

    assert touching <= {"server/proxied.py", "server/connection.py", "server/server.py"}
