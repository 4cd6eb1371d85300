"""The import table of docs/architecture.md holds: what a module may import of ours."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pop3hub"

# Each module may import what stands here; nothing may import what no row allows.
TABLE = {
    "errors": set(),
    "settings": set(),
    "peer": set(),
    "hookspecs": set(),
    "protocol": {"errors"},
    "maildrop": {"errors"},
    "languages": {"errors"},
    "surrogate": set(),
    "downgrade": {"surrogate"},
    "auth": {"errors"},
    "sasl": {"errors", "auth"},
    "abuse": {"auth", "peer"},
    "proxy": set(),
    "check": set(),
    "check_command": {"check"},
    "discovery": {"errors"},
    "listeners": {"errors", "peer"},
    "tls": {"errors", "listeners"},
    "watch": set(),
    "listing": {"errors"},
    "registry": {"errors", "hookspecs"},
    "plugins": {"errors", "discovery", "listing", "maildrop", "registry", "watch"},
    "session": {"errors", "abuse", "auth", "protocol", "maildrop"},
    "retrieval": {"errors", "protocol", "downgrade"},
    "transaction": {"errors", "protocol", "listing", "retrieval"},
    "authorization": {"errors", "auth", "protocol", "sasl"},
    "dispatcher": {"errors", "protocol", "authorization", "transaction", "session"},
    "defaults": {"errors", "auth", "hookspecs"},
    "callbacks": {"errors", "hookspecs"},
    "connection": {"errors", "peer", "protocol", "dispatcher", "session"},
    "state": {"protocol"},
    "accepting": {"connection", "peer", "proxy"},
    "server": {
        *{"errors", "abuse", "accepting", "auth", "callbacks", "connection", "defaults"},
        *{"discovery", "languages", "listeners", "plugins", "protocol", "sasl", "session"},
        *{"settings", "state", "tls"},
    },
    # For tests.
    "testing": {"dispatcher", "peer", "server", "session"},
    "contract": {"auth", "errors", "server", "testing"},
    # The program: nothing of the library imports it.
    "sources": set(),
    "notify": set(),
    "logs": set(),
    "configuration": {"errors"},
    "app": {"discovery", "languages", "plugins"},
    "options": {"auth", "errors", "server", "settings"},
    "workers": {"errors"},
    "serving": {
        *{"abuse", "app", "errors", "listeners", "logs", "notify", "options", "server", "workers"},
    },
    "config_commands": {"serving"},
    "store_commands": {"app", "auth", "errors", "sources"},
    "commands": {
        *{"check_command", "config_commands", "discovery", "errors", "hookspecs"},
        *{"languages", "store_commands"},
    },
    "cli": {"app", "commands", "configuration", "discovery", "errors", "options", "serving"},
    "__main__": {"cli"},
    "__init__": {
        *{"auth", "errors", "hookspecs", "listing", "maildrop", "sasl", "server", "session"},
        *{"settings"},
    },
}


def imports(path):
    """Our modules that a module imports when it runs; those for types alone are not among them."""
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


@pytest.mark.parametrize("module", sorted(TABLE))
def test_a_module_imports_only_what_its_row_allows(module):
    files = (PACKAGE / module).glob("*.py") if module == "check" else [PACKAGE / f"{module}.py"]

    assert set() == {name for path in files for name in imports(path)} - TABLE[module] - {module}


def test_every_module_has_a_row():
    assert set(TABLE) == {"check"} | {path.stem for path in PACKAGE.glob("*.py")}


def test_no_row_makes_a_circle():
    order = list(TABLE)

    assert [] == [
        (module, imported)
        for module, allowed in TABLE.items()
        for imported in allowed
        if order.index(imported) > order.index(module)
    ]


def test_only_plugins_gets_at_hookimpls():
    """registry.py makes them, and plugins.py is the only one to have them from it."""
    users = {path.stem for path in PACKAGE.glob("*.py") if "registry" in imports(path)}

    assert {"plugins"} == users
    assert {"registry"} == {
        path.stem for path in PACKAGE.glob("*.py") if "PluginManager" in path.read_text("utf-8")
    }


def test_only_connections_and_servers_touch_a_transport():
    touching = {
        path.stem
        for path in PACKAGE.glob("*.py")
        if re.search(r"\.transport\b|Transport|sock_accept", path.read_text("utf-8"))
    }

    assert touching <= {"accepting", "connection", "server"}
