"""HAProxy in front of two nodes: who the client is, TLS that ends there, a node that dies."""

import os
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack

import pytest

from tests.support.authority import Authority
from tests.support.program import PATIENCE, ROOT, Client, Process

HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.clients,
    pytest.mark.skipif(
        HAPROXY is None and not os.environ.get("CI"), reason="haproxy is not installed"
    ),
]

# Node `a` is sent headers of version 2, node `b` of version 1, and both of version 2 by `ended`.
CONFIGURATION = """
global
    maxconn 200

defaults
    mode tcp
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    option redispatch 1
    retries 3
    default-server check inter 200ms fall 1 rise 1

frontend one
    bind fd@{one}
    tcp-request connection set-src str(192.0.2.1)
    default_backend clear

frontend two
    bind fd@{two}
    tcp-request connection set-src str(2001:db8::2)
    default_backend clear

frontend ending
    bind fd@{ending} ssl crt {cert}
    tcp-request connection set-src str(192.0.2.1)
    default_backend ended

frontend passing
    bind fd@{passing}
    tcp-request connection set-src str(192.0.2.1)
    default_backend passed

backend clear
    server a {a} send-proxy-v2
    server b {b} send-proxy

backend ended
    server a {a} send-proxy-v2-ssl
    server b {b} send-proxy-v2-ssl

backend passed
    server a {sa} send-proxy-v2
    server b {sb} send-proxy
"""


class Nodes:
    """Two servers, and the ports of HAProxy that lead to them."""

    def __init__(self, stack, folder, *options):
        authority = Authority(folder)
        self.context = authority.client()
        cert = authority.issue("localhost")
        arguments = ["--backend", "memory", "--memory-user", "luke:hello", "--tls-cert", cert]
        secured = ["--listen", "pop3s://127.0.0.1:0?proxy=127.0.0.1"]
        self.nodes = [
            stack.enter_context(
                Process(
                    *arguments,
                    *options,
                    "--failure-delay=0",
                    *secured,
                    listen="pop3://127.0.0.1:0?proxy=127.0.0.1",
                )
            )
            for _ in "ab"
        ]
        places = {}
        for name, node in zip("ab", self.nodes, strict=True):
            for _ in range(2):
                url = node.event("server.listening")["url"]
                scheme, _, address = url.partition("://")
                places["s" * (scheme == "pop3s") + name] = address
        self.ports = {
            name: stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for name in ("one", "two", "ending", "passing")
        }
        numbers = {name: port.fileno() for name, port in self.ports.items()}
        file = folder / "haproxy.cfg"
        file.write_text(CONFIGURATION.format(cert=cert, **places, **numbers))
        self.haproxy = subprocess.Popen(
            [str(HAPROXY), "-db", "-f", str(file)], pass_fds=tuple(numbers.values())
        )
        stack.callback(self.haproxy.wait, PATIENCE)
        stack.callback(self.haproxy.terminate)

    def connect(self, port):
        return Client(self.ports[port].getsockname())

    def log_in(self, client):
        client.say(b"USER luke")
        return client.say(b"PASS hello")

    def logins(self):
        """Return what both nodes log of one login, each."""
        return [node.event("session.login") for node in self.nodes]


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def nodes(stack, tmp_path):
    """Return a function that starts two nodes with these options."""
    return lambda *options: Nodes(stack, tmp_path, *options)


def secure(client, context):
    """Do the TLS handshake on a client's connection."""
    client.file.close()
    client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
    client.file = client.socket.makefile("rb")


@pytest.mark.parametrize(("port", "address"), [("one", "192.0.2.1"), ("two", "2001:db8::2")])
def test_both_versions_bring_the_client_s_address_into_greeting_and_log(nodes, port, address):
    nodes = nodes("--allow-plaintext")
    for _ in range(2):
        with nodes.connect(port) as client:
            assert address.encode() in client.line()
            assert nodes.log_in(client).startswith(b"+OK")
            client.say(b"QUIT")

    assert [address] * 2 == [login["peer"] for login in nodes.logins()]


def test_limits_are_those_of_the_client(nodes, stack):
    nodes = nodes("--max-sessions-per-address", "2")

    answers = [
        stack.enter_context(nodes.connect("one")).line().partition(b",")[0] for _ in range(5)
    ]

    assert [b"+OK"] * 4 == [answer[:3] for answer in answers[:4]]
    assert b"-ERR [SYS/TEMP] too many connections from your address" == answers[4]
    with nodes.connect("two") as client:
        assert client.line().startswith(b"+OK")


def test_guesses_lock_out_the_client_and_not_the_proxy(nodes):
    nodes = nodes("--allow-plaintext", "--max-failed-logins-per-address", "1")
    for _ in range(2):
        with nodes.connect("one") as client:
            client.line()
            client.say(b"USER luke")
            assert client.say(b"PASS wrong").startswith(b"-ERR [AUTH]")

    with nodes.connect("one") as client:
        assert b"-ERR [SYS/TEMP] too many failed logins\r\n" == client.line()
    with nodes.connect("two") as client:
        client.line()
        assert nodes.log_in(client).startswith(b"+OK")


def test_no_password_comes_in_clear_but_behind_tls_that_ended_at_the_proxy(nodes):
    nodes = nodes()
    with nodes.connect("one") as client:
        client.line()
        assert client.say(b"USER luke").startswith(b"-ERR")
    for _ in range(2):
        with nodes.connect("ending") as client:
            secure(client, nodes.context)
            assert b"192.0.2.1" in client.line()
            assert nodes.log_in(client).startswith(b"+OK")
            client.say(b"QUIT")

    assert ["TLSv1.3"] * 2 == [login["tls"] for login in nodes.logins()]


def test_tls_that_passes_the_proxy_ends_at_the_node(nodes):
    nodes = nodes()
    for _ in range(2):
        with nodes.connect("passing") as client:
            secure(client, nodes.context)
            assert b"192.0.2.1" in client.line()
            assert nodes.log_in(client).startswith(b"+OK")
            client.say(b"QUIT")

    assert [("192.0.2.1", "TLSv1.3")] * 2 == [
        (login["peer"], login["tls"]) for login in nodes.logins()
    ]


def test_haproxy_takes_the_configuration_in_the_documentation(tmp_path):
    page = (ROOT / "docs" / "proxy.md").read_text("utf-8")
    [shown] = [block for block in page.split("```") if block.startswith("\ndefaults")]
    cert = Authority(tmp_path).issue("localhost")
    file = tmp_path / "haproxy.cfg"
    file.write_text(shown.replace("/etc/haproxy/mail.pem", cert))

    subprocess.run([str(HAPROXY), "-c", "-f", str(file)], check=True, timeout=PATIENCE)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_new_sessions_do_not_feel_that_a_node_goes_down(nodes, end):
    nodes = nodes("--allow-plaintext")
    for number in range(30):
        if number == 10:
            nodes.nodes[0].signal(end)
            if end == signal.SIGKILL:  # what the dead have accepted is lost; SIGTERM loses nothing
                nodes.nodes[0].wait()
        with nodes.connect("one") as client:
            assert client.line().startswith(b"+OK"), number
            assert nodes.log_in(client).startswith(b"+OK"), number
            client.say(b"QUIT")
