"""Nobody is refused over a restart: sockets outlive the server, and what it accepted it serves."""

import asyncio
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing, suppress

import pytest

from pop3hub.cli.serve import loop_factory
from pop3hub.server.server import PopServer
from tests.support.authority import Authority
from tests.support.program import PATIENCE, ROOT
from tests.support.serving import Client, Store

LOOPS = ["asyncio", "uvloop"]
MANY = 40

RESTARTS = 4
CLIENTS = 6
INHERIT = """
import os, sys
fds = [int(fd) for fd in sys.argv[1].split(",")]
for place, fd in enumerate(fds, 3):
    os.dup2(fd, place)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds))}
os.execv(sys.executable, [sys.executable, "-m", "pop3hub", *sys.argv[2:]])
"""


def listening():
    """A socket that a service manager would keep."""
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


def converse(plain, context=None):
    """Do a whole session on a connected socket; b"" where the server took it and left."""
    with closing(plain), suppress(ConnectionError, ssl.SSLError):
        plain.settimeout(PATIENCE)
        if context is not None:
            plain = context.wrap_socket(plain, server_hostname="localhost")
        with plain, plain.makefile("rb") as file:
            greeting = file.readline()
            plain.sendall(b"CAPA\r\nQUIT\r\n")
            return greeting + file.read()
    return b""


def waiting_in(bound):
    """Count the connections that wait in a socket."""
    bound.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            bound.accept()[0].close()
            count += 1
    return count


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("scheme", ["pop3", "pop3s"])
def test_a_stop_serves_what_was_accepted_and_leaves_the_rest_in_the_socket(
    loop, turns, scheme, tmp_path
):
    """At whatever turn of the loop the stop comes, no connection falls between the two."""
    authority = Authority(tmp_path)
    context = authority.client() if scheme == "pop3s" else None
    pair = authority.issue("localhost")

    async def main():
        url = f"{scheme}://127.0.0.1:{bound.getsockname()[1]}?cert={pair}"
        server = PopServer(backend=Store(), listen=url, bcrypt_cost=4)
        await server.start([[bound.dup()]])
        clients = [socket.create_connection(bound.getsockname()) for _ in range(MANY)]
        for _ in range(turns):
            await asyncio.sleep(0)
        stop = asyncio.create_task(server.stop(PATIENCE))
        talks = [asyncio.to_thread(converse, client, context) for client in clients]
        tasks = [asyncio.create_task(talk) for talk in talks]
        await stop
        left.append(waiting_in(bound))
        return Counter(said.count(b"+OK") for said in await asyncio.gather(*tasks))

    left = []
    with listening() as bound, asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        ends = runner.run(main())

    assert {3: MANY - left[0], 0: left[0]} == {3: 0, 0: 0} | ends


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_no_client_is_refused_or_cut_over_restarts_with_handed_over_sockets(loop, tmp_path):
    """Clients that come one after the other notice nothing of a server that goes and comes."""
    authority = Authority(tmp_path)
    pair = authority.issue("localhost")
    ends, over = Counter(), threading.Event()
    with listening() as clear, listening() as secure:
        urls = [
            f"pop3://127.0.0.1:{clear.getsockname()[1]}",
            f"pop3s://127.0.0.1:{secure.getsockname()[1]}?cert={pair}",
        ]
        words = [f"{clear.fileno()},{secure.fileno()}", "--backend", "memory", "--loop", loop]
        words += ["--memory-user", "luke:hello", *(w for url in urls for w in ("--listen", url))]

        def call(bound, context):
            while not over.is_set():
                said = converse(socket.create_connection(bound.getsockname(), PATIENCE), context)
                ends[said.count(b"+OK")] += 1

        def start():
            return subprocess.Popen(
                [sys.executable, "-c", INHERIT, *words],
                cwd=ROOT,
                pass_fds=[clear.fileno(), secure.fileno()],
                stderr=subprocess.DEVNULL,
            )

        server = start()
        places = [(clear, None), (secure, authority.client())] * (CLIENTS // 2)
        callers = [threading.Thread(target=call, args=place) for place in places]
        for caller in callers:
            caller.start()
        try:
            for _ in range(RESTARTS):
                seen = ends.total()
                while ends.total() < seen + 100:  # it serves
                    assert server.poll() is None
                    over.wait(0.01)
                server.send_signal(signal.SIGTERM)
                assert 0 == server.wait(PATIENCE)
                server = start()
        finally:
            over.set()
            for caller in callers:
                caller.join()
            server.terminate()
            server.wait(PATIENCE)

    assert {3: ends.total()} == ends


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
async def test_a_client_of_ipv4_is_one_on_a_socket_of_both_families_too(stack, languages_once):
    """Or all of IPv4 would count as one address, and this machine as another one."""
    bound = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    server = PopServer(backend=Store(), listen="pop3://127.0.0.1:0", bcrypt_cost=4)
    await server.start([[bound]])
    stack.push_async_callback(server.stop)
    where = f"pop3://127.0.0.1:{bound.getsockname()[1]}"
    client = await Client.connect(where)
    stack.push_async_callback(client.close)

    assert b"IPv4 127.0.0.1:" in await client.line()
    assert (await client.say(b"USER luke")).startswith(b"+OK"), "not taken for this machine"


@pytest.mark.parametrize("loop", LOOPS)
def test_a_stop_ends_a_session_in_the_middle_of_its_stls(loop, tmp_path):
    """Both loops call the handshake of a connection that was cut a success."""
    pair = Authority(tmp_path).issue("localhost")

    async def main():
        server = PopServer(backend=Store(), listen=f"pop3://127.0.0.1:0?cert={pair}", bcrypt_cost=4)
        await server.start()
        client = await Client.connect(server.addresses[0])
        await client.line()
        await client.say(b"STLS")
        async with asyncio.timeout(PATIENCE):
            await server.stop(grace=0)
        await client.close()
        return server.stats.ends

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        assert {("", "shutdown"): 1} == runner.run(main())
