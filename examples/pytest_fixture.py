"""A real POP3 server for the tests of a POP3 client."""

import asyncio
import poplib
import threading
from urllib.parse import urlsplit

import pytest

from pop3hub import PopMessage, PopServer, PopUser

MAIL = b"Subject: Test message\r\n\r\nHello world!\r\n"


@pytest.fixture
def pop3_port():
    """Serve one message to luke, whose password is hello; yield the port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = PopServer(
        get_user=lambda name: PopUser(name, "hello") if name == "luke" else None,
        compare_password=lambda raw, stored: raw == stored,
        receive_messages=lambda: [PopMessage("a1", len(MAIL), MAIL)],
        delete_messages=lambda session, messages: len(messages),
        listen="pop3://127.0.0.1:0",
    )
    asyncio.run_coroutine_threadsafe(server.start(), loop).result()
    yield urlsplit(server.addresses[0]).port
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_my_client(pop3_port):
    client = poplib.POP3("127.0.0.1", pop3_port)
    client.user("luke")
    client.pass_("hello")
    assert client.stat() == (1, len(MAIL))
    client.quit()
