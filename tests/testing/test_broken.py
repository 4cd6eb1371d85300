"""The broken servers as others use them: by name, without pytest, and gone after `with`."""

import ast
import poplib
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import pop3hub.testing
from pop3hub.testing import BrokenServer, HonestServer, catalogue

FOLDER = Path(pop3hub.testing.__file__).parent
MODULES = sorted(
    [FOLDER / "faults.py", FOLDER / "honest.py", *FOLDER.glob("broken*.py")],
    key=lambda path: path.name,
)


def log_in(server):
    client = poplib.POP3(server.host, server.port, timeout=5)
    client.user(server.user)
    client.pass_(server.password)
    return client


def test_a_client_works_with_the_honest_server():
    with HonestServer() as server:
        client = log_in(server)
        lines = client.retr(list(server.drop).index("uid-dots") + 1)[1]
        client.dele(1)
        client.quit()

        assert server.drop["uid-dots"] == b"\r\n".join(lines) + b"\r\n"
        assert "uid-one" not in server.drop


def test_a_client_meets_the_fault_that_it_asked_for():
    with BrokenServer("dot-lone-unstuffed") as server:
        client = log_in(server)
        lines = client.retr(list(server.drop).index("uid-dots") + 1)[1]
        client.close()

    assert b"..two" not in lines


def test_the_maildrop_may_be_changed():
    with HonestServer() as server:
        server.drop.clear()
        server.drop["mine"] = b"Subject: mine\r\n\r\n"
        client = log_in(server)

        assert [b"1 mine"] == client.uidl()[1]
        client.quit()


def test_a_server_that_has_ended_has_no_connection_and_no_thread_left():
    before = set(threading.enumerate())
    with HonestServer() as server:
        clients = [socket.create_connection((server.host, server.port), 5) for _ in range(3)]
        assert all(client.recv(3) == b"+OK" for client in clients)
        address = server.host, server.port

    assert before == set(threading.enumerate())
    for client in clients:
        while client.recv(4096):
            pass
        client.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address, 5)


def test_a_server_that_does_not_run_says_so():
    with pytest.raises(RuntimeError, match="HonestServer is not running: use it by `with`"):
        _ = HonestServer().port


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dot-unstufed", "no broken server 'dot-unstufed': do you mean 'dot-unstuffed'?"),
        ("zzz", "no broken server 'zzz': catalogue() has the names"),
        ("stls-twice", "the fault of 'stls-twice' is in STLS: pass a server's context as tls="),
    ],
)
def test_a_wrong_name_is_one_line_that_says_what_to_do(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BrokenServer(name)


@pytest.mark.parametrize("fault", catalogue(), ids=lambda fault: fault.name)
def test_the_catalogue_says_what_is_wrong_and_what_a_client_sees(fault):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", fault.name)
    assert fault.reason.endswith((".", ")."))
    assert fault.client_sees
    assert not fault.client_sees.endswith(".") or fault.client_sees.startswith("+OK")
    assert fault.checks


def test_at_least_the_91_broken_servers_of_the_checker_are_in_it():
    assert len(catalogue()) >= 91
    assert len({fault.handler for fault in catalogue()}) == len(catalogue())


def test_the_documentation_lists_each_broken_server():
    text = (FOLDER.parents[1] / "docs" / "check.md").read_text()
    table = text.partition("| what the client sees |")[2].partition("\n\n")[0]

    assert [
        f"| `{fault.name}` | {fault.reason.rstrip('.')} | {fault.client_sees} |"
        for fault in catalogue()
    ] == table.splitlines()[2:]


def test_it_is_imported_without_pytest():
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "from pop3hub.testing import BrokenServer, catalogue\n"
        "import poplib\n"
        "with BrokenServer(catalogue()[0].name) as server:\n"
        "    client = poplib.POP3(server.host, server.port)\n"
        "    print(client.getwelcome().decode())\n"
        "    client.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )

    assert ("+OK <0@a> <0@b>", "") == (done.stdout.strip(), done.stderr)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_they_import_the_standard_library_only(path):
    named = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            named.add(node.module)
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
    ours = {name for name in named if name.startswith("pop3hub")}

    assert all(name.startswith("pop3hub.testing") for name in ours)
    assert all(name.partition(".")[0] in sys.stdlib_module_names for name in named - ours)
