"""What an issuer can do to a fetch: real sockets that drip, stall, never end or fail."""

import asyncio
import base64
import gc
import http.client
import json
import os
import poplib
import socket
import threading
import time
import urllib.error
import warnings
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from pop3hub import ConfigurationError, PopMessage, PopServer, PopUser, TemporaryFailure
from pop3hub_oauth import BearerTokens, keys, source
from pop3hub_oauth.keys import KeySet

PATIENCE = 20.0
"""Seconds after which a test that waits has failed; whatever drips goes on for longer."""
PAUSE = 0.02
OK = b"HTTP/1.1 200 OK\r\n"
JWK = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
DOCUMENT = json.dumps({"keys": [JWK | {"kid": "one"}]}).encode()


class Issuer:
    """Sends each client `begin`, then an octet of `drip` now and then, for ever.

    begin: what is sent at once; without a drip the connection then stays open.
    closed: set when a client has closed its connection before everything was sent.
    """

    def __init__(self):
        self.begin = OK + b"\r\n"
        self.drip = b" "
        self.requests = 0
        self.asked = threading.Event()
        self.closed = threading.Event()
        self.ended = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/keys"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            connection, _ = self._socket.accept()
            if self.ended.is_set():
                connection.close()
                return
            self.requests += 1
            self.asked.set()
            self._threads.append(threading.Thread(target=self._answer, args=(connection,)))
            self._threads[-1].start()

    def _answer(self, connection):
        with connection:
            connection.settimeout(PAUSE)
            with suppress(TimeoutError, ConnectionError):
                connection.recv(65_536)
            try:
                connection.settimeout(PATIENCE)
                connection.sendall(self.begin)
                connection.settimeout(PAUSE)
                position = 0
                while not self.ended.is_set():
                    if self.drip:
                        connection.send(self.drip[position : position + 1])
                        position = (position + 1) % len(self.drip)
                    with suppress(TimeoutError):
                        if not connection.recv(1024):
                            break
            except ConnectionError:
                pass
            if not self.ended.is_set():
                self.closed.set()

    def close(self):
        self.ended.set()
        with suppress(OSError):
            socket.create_connection(self._socket.getsockname()).close()
        for thread in self._threads:
            thread.join()
        self._socket.close()


@pytest.fixture
def issuer():
    issuer = Issuer()
    yield issuer
    issuer.close()


DRIPS = {
    "the document": (OK + b"\r\n", b" "),
    "a document of a length": (OK + b"Content-Length: 99999\r\n\r\n", b" "),
    "a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n", b" "),
    "a chunk's size": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "the header": (OK, b"X: y\r\n"),
    "one header field": (OK + b"X: ", b"y"),
    "the status": (b"", b"HTTP/1.1 200 OK"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "nothing": (b"", b""),
    "nothing after the header": (OK + b"\r\n", b""),
}


@pytest.mark.parametrize(("begin", "drip"), DRIPS.values(), ids=DRIPS)
async def test_a_fetch_is_bounded_in_all_and_closes_its_socket(issuer, begin, drip):
    issuer.begin, issuer.drip = begin, drip
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(TimeoutError, match=r"within 0\.2 seconds"):
            await source.fetch(issuer.url, 0.2)
    assert await asyncio.to_thread(issuer.closed.wait, PATIENCE)


async def test_a_handshake_is_bounded_too(issuer):
    issuer.begin, issuer.drip = b"\x16\x03\x03\x3f\xff", b"\0"  # a record's header
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(TimeoutError):
            await source.fetch(issuer.url.replace("http:", "https:"), 0.2)
    assert await asyncio.to_thread(issuer.closed.wait, PATIENCE)


async def test_a_proxy_that_drips_is_bounded_too(issuer, monkeypatch):
    issuer.begin, issuer.drip = OK, b"X: y\r\n"
    monkeypatch.setenv("https_proxy", issuer.url.removesuffix("/keys"))
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(TimeoutError):
            await source.fetch("https://id.example.org/keys", 0.2)
    assert 1 == issuer.requests
    assert await asyncio.to_thread(issuer.closed.wait, PATIENCE)


@pytest.mark.parametrize("head", [b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n2000000\r\n"])
async def test_no_more_octets_are_read_than_a_key_set_may_have(issuer, head):
    issuer.begin = OK + head + b" " * (source.MAX_DOCUMENT + 1)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ValueError, match="longer"):
            await source.fetch(issuer.url)
    assert await asyncio.to_thread(issuer.closed.wait, PATIENCE)


@contextmanager
def no_warning():
    """Fail if anything was left to the garbage collector to close, in any thread."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [] == [str(each.message) for each in caught]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Out of order\r\n\r\nx",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nx",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"\r\n" + b" " * (source.MAX_DOCUMENT + 1),
        b"SSH-2.0\r\n",
        OK + b"Content-Length: 2\r\n\r\n{}",
    ],
)
async def test_every_way_out_closes_the_socket(issuer, answer):
    issuer.begin, issuer.drip = answer, b""
    with no_warning():
        async with asyncio.timeout(PATIENCE):
            with suppress(OSError, ValueError, http.client.HTTPException):
                await source.fetch(issuer.url)
    assert await asyncio.to_thread(issuer.closed.wait, PATIENCE)


async def test_an_error_says_its_status(issuer):
    issuer.begin = b"HTTP/1.1 500 Out of order\r\n\r\n"
    with pytest.raises(urllib.error.HTTPError, match="500"):
        await source.fetch(issuer.url)


@pytest.mark.parametrize("kind", ["FIFO", "folder", "device"])
async def test_only_a_regular_file_is_read(tmp_path, kind):
    path = tmp_path / "keys"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ConfigurationError, match="keys can't be used"):
            await KeySet(path).start()


# Keys while an issuer drips


async def test_a_login_that_has_its_key_waits_for_no_issuer(issuer):
    now = [0.0]
    issuer.begin, issuer.drip = OK + b"Content-Length: %d\r\n\r\n" % len(DOCUMENT) + DOCUMENT, b""
    key_set = KeySet(issuer.url, fetch_time=2 * PATIENCE, clock=lambda: now[0])
    await key_set.start()
    issuer.begin, issuer.drip = OK + b"\r\n", b" "
    now[0] += keys.REFRESH
    async with asyncio.timeout(PATIENCE):
        found = await asyncio.gather(*(key_set.find("one") for _ in range(20)))
        await key_set.close()

    assert ["one"] * 20 == [key.kid for [key] in found]
    assert 2 == issuer.requests


async def test_a_login_without_a_key_waits_no_longer_than_the_fetch(issuer):
    key_set = KeySet(issuer.url, fetch_time=0.2)
    async with asyncio.timeout(PATIENCE):
        for _ in range(2):
            with pytest.raises(TemporaryFailure):
                await key_set.find("one")

    assert 1 == issuer.requests


async def test_a_login_that_leaves_does_not_cancel_the_fetch_of_others(issuer):
    issuer.begin = OK + b"Content-Length: %d\r\n\r\n" % len(DOCUMENT) + DOCUMENT[:-5]
    issuer.drip = b""
    key_set = KeySet(issuer.url, fetch_time=PATIENCE)
    leaves, stays = (asyncio.create_task(key_set.find("one")) for _ in range(2))
    assert await asyncio.to_thread(issuer.asked.wait, PATIENCE)
    leaves.cancel()
    issuer.drip = DOCUMENT[-5:]
    async with asyncio.timeout(PATIENCE):
        assert ["one"] == [key.kid for key in await stays]

    assert leaves.cancelled()


def hold_session(url):
    where = urlsplit(url)
    client = poplib.POP3(where.hostname, where.port, timeout=PATIENCE)
    client.user("luke")
    client.pass_("hello")
    found = client.stat()
    client.quit()
    return found


async def test_mail_is_served_while_an_issuer_drips(issuer):
    tokens = BearerTokens(issuer="https://id.example.org", audience="mail", jwks=issuer.url)
    server = PopServer(
        get_user=lambda name: PopUser(name, "hello"),
        compare_password=lambda raw, stored: raw == stored,
        receive_messages=lambda: [PopMessage("a", 4, b"x\r\n\r\n")],
        delete_messages=lambda session, messages: len(messages),
        plugins=[tokens],
        listen="pop3://127.0.0.1:0",
    )
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        await server.start()
        where = urlsplit(server.addresses[0])
        _, writer = await asyncio.open_connection(where.hostname, where.port)
        token = base64.b64encode(b"n,,\x01auth=Bearer %b\x01\x01" % TOKEN)
        writer.write(b"AUTH OAUTHBEARER " + token + b"\r\n")
        assert (1, 4) == await asyncio.to_thread(hold_session, server.addresses[0])
        assert not issuer.closed.is_set() or time.monotonic() - began > source.FETCH_TIME
        writer.close()
        await server.stop()

    assert 1 == issuer.requests


TOKEN = base64.urlsafe_b64encode(b'{"alg":"ES256","kid":"one"}').rstrip(b"=") + b".e30." + b"A" * 86
