"""What a server counts, for metrics: sessions when they end, logins as they come."""

import asyncio
from urllib.parse import urlsplit

from pop3hub import MaildropInUse, TemporaryFailure
from pop3hub.server.server import PopServer
from pop3hub.session.session import ENDS
from pop3hub.testing.dialogue import Dialogue
from tests.support.authority import Authority


async def test_what_a_session_did_is_added_when_it_ends(store, serve, connect):
    store.put(b"Hi\r\n", b"Ho\r\n")
    server = await serve()
    client = await connect(server)
    for line in (b"USER luke", b"PASS hello", b"RETR 1", b"DELE 2"):
        await client.say(line)
    assert 0 == server.stats.commands

    client.send(b"QUIT\r\n")
    await client.rest()

    stats = server.stats
    assert (1, 1, 5, 1, 4, 1) == (
        *(stats.connections, stats.logins, stats.commands),
        *(stats.retrieved, stats.octets, stats.deleted),
    )
    assert {("", "quit"): 1} == stats.ends


async def test_logins_are_counted_by_mechanism_and_result(store, open_dialogue):
    server = PopServer(backend=store, listen=(), failure_delay=0, bcrypt_cost=4)
    async with server:
        for password in ("hello", "wrong"):
            await (await open_dialogue(server)).login("luke", password)
        for error in (MaildropInUse(), TemporaryFailure()):
            store.failures["receive_messages"] = error
            await (await open_dialogue(server)).login("user", "pencil")
        dialogue = await open_dialogue(server)
        await dialogue.say("AUTH PLAIN")
        await dialogue.say("*")

    assert {
        ("USER", "OK"): 1,
        ("USER", "AUTH"): 1,
        ("USER", "IN-USE"): 1,
        ("USER", "SYS/TEMP"): 1,
        ("PLAIN", "ERR"): 1,
    } == server.stats.attempts


async def test_reasons_of_plugins_are_bounded(store):
    async with Dialogue(store) as dialogue:
        server = dialogue.server
        for number in range(2 * ENDS):
            dialogue.session.reason = f"plugin {number}"
            dialogue.session.add_to(server.stats)

    assert ENDS == server.stats.ends["", "other"]
    assert ENDS + 1 == len(server.stats.ends)


async def test_a_tls_handshake_that_fails_leaves_an_accepted_connection(serve, tmp_path):
    pair = Authority(tmp_path).issue("localhost")
    server = await serve("pop3s://127.0.0.1:0", tls_cert=str(pair))
    where = urlsplit(server.addresses[0])
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(b"USER luke\r\n")
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()

    assert (1, 0) == (server.stats.accepted, server.stats.connections)


async def test_a_server_takes_connections_from_its_start_to_its_stop(store):
    server = PopServer(backend=store, listen="pop3://127.0.0.1:0")
    assert not server.is_accepting
    await server.start()
    assert server.is_accepting
    stop = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    assert not server.is_accepting
    await stop
