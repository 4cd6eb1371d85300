"""What is served over HTTP, by real servers to real requests."""

from __future__ import annotations

import asyncio
import poplib
import ssl
import sys
import time
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

import pop3hub_metrics
from pop3hub import ConfigurationError, PopMessage, PopServer, PopUser, TemporaryFailure, hookimpl
from pop3hub_metrics import Metrics, http, parse
from tests.support.authority import Authority

MESSAGE = b"Subject: hi\r\n\r\nHello world!\r\n"
LISTEN = "pop3://127.0.0.1:0"


class Backend:
    """luke has two messages. `failures` are raised; `ready` waits for the gate if there is one."""

    def __init__(self):
        self.failures = {}
        self.gate = None
        self.asked = asyncio.Event()

    @hookimpl
    async def get_user(self, name):
        self._fail("get_user")
        return PopUser(name, "hello") if name == "luke" else None

    @hookimpl
    async def compare_password(self, raw, hash):
        return raw == hash

    @hookimpl
    async def receive_messages(self):
        return [PopMessage(uid, len(MESSAGE), MESSAGE) for uid in ("a", "b")]

    @hookimpl
    async def delete_messages(self, messages):
        return len(messages)

    @hookimpl
    async def ready(self):
        self._fail("ready")
        self.asked.set()
        if self.gate:
            await self.gate.wait()

    def _fail(self, hook):
        if hook in self.failures:
            raise self.failures[hook]


@pytest.fixture
def backend():
    return Backend()


@pytest.fixture
def times():
    """The times of `Metrics`; a test says its own by parametrizing this."""
    return {}


@pytest.fixture
def metrics(times):
    return Metrics(**times)


@pytest.fixture
def serving(backend, metrics):
    """Return a context of a server with metrics at a port that is free."""

    @asynccontextmanager
    async def serving(listen=LISTEN, at="127.0.0.1:0", **settings):
        options = {"metrics": at} if at else {}
        settings = {"failure_delay": 0, "bcrypt_cost": 4} | settings
        async with PopServer(
            backend=backend, plugins=[metrics], options=options, listen=listen, **settings
        ) as server:
            yield server

    return serving


async def get(metrics, path, **fields):
    """Return status, body and header of a GET."""
    request = Request(metrics.url + path, headers=fields)  # noqa: S310 - http and loopback

    def ask():
        try:
            with urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, answer.read().decode(), answer.headers
        except HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode(), refusal.headers

    return await asyncio.to_thread(ask)


async def scrape(metrics):
    """Return the samples: by name and labels' values in the order of the labels' names."""
    status, body, _ = await get(metrics, "/metrics")
    assert HTTPStatus.OK == status
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


async def mail(server, password="hello", tls=None, port=0):
    """Hold a session with a client of the standard library: read a message, delete another."""
    where = urlsplit(server.addresses[port])

    def hold():
        if where.scheme == "pop3s":
            client = poplib.POP3_SSL("localhost", where.port, timeout=10, context=tls)
        else:
            client = poplib.POP3(where.hostname, where.port, timeout=10)
        try:
            client.user("luke")
            client.pass_(password)
            client.retr(1)
            client.dele(2)
        finally:
            client.quit()

    await asyncio.to_thread(hold)


async def say(url, octets):
    """Send octets over a connection of their own; return all that comes back."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(octets)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


# What is counted


async def test_a_session_is_counted_with_what_it_did(serving, metrics):
    async with serving() as server:
        await mail(server)
        found = await scrape(metrics)

    assert {
        "pop3hub_accepted_connections_total": 1,
        "pop3hub_connections_total": 1,
        "pop3hub_refused_connections_total": 0,
        "pop3hub_sessions": 0,
        "pop3hub_commands_total": 5,
        "pop3hub_retrieved_messages_total": 1,
        "pop3hub_retrieved_octets_total": len(MESSAGE),
        "pop3hub_deleted_messages_total": 1,
        "pop3hub_workers": 1,
    } == {key[0]: value for key, value in found.items() if len(key) == 1 and "lag" not in key[0]}
    assert 1 == found["pop3hub_ended_sessions_total", "quit", "none"]
    assert 1 == found["pop3hub_logins_total", "USER", "OK"]


async def test_sessions_are_counted_while_they_are_open(serving, metrics):
    async with serving() as server:
        where = urlsplit(server.addresses[0])
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        await reader.readline()
        assert 1 == (await scrape(metrics))["pop3hub_sessions",]
        writer.write(b"QUIT\r\n")
        await reader.read()
        writer.close()
        assert 0 == (await scrape(metrics))["pop3hub_sessions",]


async def test_a_refused_login_is_told_by_its_response_code(serving, metrics, backend):
    async with serving() as server:
        with pytest.raises(poplib.error_proto):
            await mail(server, password="wrong")
        backend.failures["get_user"] = TemporaryFailure()
        with pytest.raises(poplib.error_proto):
            await mail(server)
        found = await scrape(metrics)

    assert 1 == found["pop3hub_logins_total", "USER", "AUTH"]
    assert 1 == found["pop3hub_logins_total", "USER", "SYS/TEMP"]


async def test_tls_versions_and_failed_handshakes_are_told(serving, metrics, tmp_path):
    authority = Authority(tmp_path)
    pair = authority.issue("localhost")
    async with serving("pop3s://127.0.0.1:0", tls_cert=pair) as server:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = authority.client()
            context.maximum_version = version
            await mail(server, tls=context)
        await say(server.addresses[0], b"USER luke\r\n")
        found = await scrape(metrics)

    assert 1 == found["pop3hub_ended_sessions_total", "quit", "TLSv1.2"]
    assert 1 == found["pop3hub_ended_sessions_total", "quit", "TLSv1.3"]
    assert 3 == found["pop3hub_accepted_connections_total",]
    assert 2 == found["pop3hub_connections_total",]


async def test_hooks_are_timed_by_hook_and_plugin_and_their_failures_counted(
    serving, metrics, backend
):
    async with serving() as server:
        await mail(server)
        backend.failures["get_user"] = OSError("the database is gone")
        with pytest.raises(poplib.error_proto):
            await mail(server)
        found = await scrape(metrics)

    assert 2 == found["pop3hub_hook_seconds_count", "get_user", "Backend"]
    assert 2 == found["pop3hub_hook_seconds_bucket", "get_user", "+Inf", "Backend"]
    assert 0 < found["pop3hub_hook_seconds_sum", "get_user", "Backend"]
    assert 1 == found["pop3hub_hook_failures_total", "get_user", "Backend"]
    assert 0 == found["pop3hub_hook_failures_total", "receive_messages", "Backend"]


@pytest.mark.parametrize("times", [{"tick": 0.01}])
async def test_a_blocked_loop_shows_as_lag(serving, metrics):
    async with serving():
        time.sleep(0.15)  # noqa: ASYNC251 - this is the defect that shall be seen
        found = await scrape(metrics)

    late = (
        found["pop3hub_loop_lag_seconds_count",] - found["pop3hub_loop_lag_seconds_bucket", "0.1"]
    )
    assert late >= 1
    assert found["pop3hub_loop_lag_seconds_sum",] >= 0.1


async def test_nothing_tells_who_it_was(serving, metrics):
    async with serving() as server:
        await mail(server)
        _, body, _ = await get(metrics, "/metrics")

    assert "luke" not in body
    assert "127.0.0.1" not in body


async def test_the_format_is_the_one_that_is_asked_for(serving, metrics):
    async with serving():
        _, plain, fields = await get(metrics, "/metrics")
        assert fields["Content-Type"].startswith("text/plain")
        _, openmetrics, fields = await get(
            metrics, "/metrics", Accept="application/openmetrics-text; version=1.0.0"
        )
        assert fields["Content-Type"].startswith("application/openmetrics-text")

    assert openmetrics.endswith("# EOF\n")
    assert not plain.endswith("# EOF\n")


async def test_a_server_after_another_goes_on_counting(serving, metrics):
    async with serving() as server:
        await mail(server)
    async with serving() as server:
        await mail(server)
        found = await scrape(metrics)

    assert 2 == found["pop3hub_connections_total",]
    assert 1 == found["pop3hub_workers",]


async def test_of_a_process_that_is_gone_only_what_it_counted_remains(serving, metrics):
    worker = """
import sys
from pop3hub_metrics.shared_memory import SharedMemory

memory = SharedMemory.__new__(SharedMemory)
memory._fd, memory._number = int(sys.argv[1]), 0
memory.take()
memory.write({("pop3hub_sessions",): [7], ("pop3hub_connections",): [5], ("another",): [1]})
"""
    async with serving():
        descriptor = metrics._shared._fd
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", worker, str(descriptor)), pass_fds=[descriptor]
        )
        assert 0 == await process.wait()
        found = await scrape(metrics)

    assert (0, 5) == (found["pop3hub_sessions",], found["pop3hub_connections_total",])


# Health


async def test_a_process_that_answers_is_healthy_whatever_its_backend_does(
    serving, metrics, backend
):
    backend.failures["ready"] = TemporaryFailure()
    async with serving():
        assert (HTTPStatus.OK, "ok\n") == (await get(metrics, "/healthz"))[:2]


async def test_ready_is_asked_each_time(serving, metrics, backend):
    async with serving():
        assert (HTTPStatus.OK, "ok\n") == (await get(metrics, "/readyz"))[:2]
        backend.failures["ready"] = TemporaryFailure()
        status, reason, _ = await get(metrics, "/readyz")
        assert HTTPStatus.SERVICE_UNAVAILABLE == status
        assert reason.endswith("[SYS/TEMP]\n")
        backend.failures.clear()
        assert HTTPStatus.OK == (await get(metrics, "/readyz"))[0]


async def test_the_reason_names_the_plugin_and_holds_nothing_of_its_exception(
    serving, metrics, backend
):
    backend.failures["ready"] = OSError("mongodb://admin:tanstaaf@db/")
    async with serving():
        status, reason, _ = await get(metrics, "/readyz")

    assert HTTPStatus.SERVICE_UNAVAILABLE == status
    assert "ready of plugin Backend failed; see the log\n" == reason


@pytest.mark.parametrize("times", [{"ready_patience": 0.05}])
async def test_a_backend_that_hangs_is_not_ready(serving, metrics, backend):
    backend.gate = asyncio.Event()
    async with serving():
        status, reason, _ = await get(metrics, "/readyz")

    assert (HTTPStatus.SERVICE_UNAVAILABLE, "no answer within 0.05 seconds\n") == (status, reason)


async def test_a_server_that_drains_is_not_ready_and_still_tells_its_metrics(serving, metrics):
    async with serving() as server:
        where = urlsplit(server.addresses[0])
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        await reader.readline()
        stop = asyncio.create_task(server.stop(10))
        await asyncio.sleep(0)
        assert HTTPStatus.SERVICE_UNAVAILABLE == (await get(metrics, "/readyz"))[0]
        assert 1 == (await scrape(metrics))["pop3hub_sessions",]
        writer.write(b"QUIT\r\n")
        await stop
        writer.close()


# Requests


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"GET /healthz?why=1 HTTP/1.1\r\n\r\n", b"200 OK"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /metrics/ HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"USER luke\r\n\r\n", b"400 Bad Request"),
        (b"GET /metrics HTTP/2.0\r\n\r\n", b"400 Bad Request"),
        (b"GET //[ HTTP/1.1\r\n\r\n", b"400 Bad Request"),
        (b"\xff\x00\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nX: " + 9000 * b"x", b"431 Request Header Fields Too Large"),
    ],
)
async def test_a_request_is_answered_by_what_it_is(serving, metrics, request_, status):
    async with serving():
        answer = await say(metrics.url, request_)

    assert b"HTTP/1.1 " + status == answer.partition(b"\r\n")[0]


async def test_head_is_answered_without_a_body(serving, metrics):
    async with serving():
        answer = await say(metrics.url, b"HEAD /healthz HTTP/1.1\r\n\r\n")

    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 3\r\n" in answer


@pytest.mark.parametrize("times", [{"patience": 0.05}])
async def test_a_client_that_says_nothing_is_cut(serving, metrics):
    async with serving():
        assert b"" == await say(metrics.url, b"GET /metrics HTT")


async def test_many_clients_that_say_nothing_get_no_more_than_their_share(serving, metrics):
    async with serving():
        where = urlsplit(metrics.url)
        silent = [
            await asyncio.open_connection(where.hostname, where.port)
            for _ in range(http.CONNECTIONS)
        ]
        assert b"" == await say(metrics.url, b"GET /healthz HTTP/1.1\r\n\r\n")
        for reader, writer in silent:
            writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert (await reader.read()).endswith(b"ok\n")
            writer.close()
        assert HTTPStatus.OK == (await get(metrics, "/healthz"))[0]


async def test_a_stop_waits_for_no_client_of_ours(serving, metrics, backend):
    backend.gate = asyncio.Event()
    async with serving() as server:
        idle = asyncio.create_task(say(metrics.url, b"GET"))
        asked = asyncio.create_task(say(metrics.url, b"GET /readyz HTTP/1.1\r\n\r\n"))
        await backend.asked.wait()
        async with asyncio.timeout(2):
            await server.stop()

    assert [b"", b""] == await asyncio.gather(asked, idle)


# Where it listens


async def test_nothing_listens_unless_asked_for(serving, metrics):
    async with serving(at=None):
        assert 0 == metrics._http.port


async def test_a_command_that_serves_no_mail_has_no_metrics(metrics):
    metrics.configure({"metrics": "127.0.0.1:0"})
    await metrics.startup(None)
    await metrics.shutdown()

    assert 0 == metrics._http.port


async def test_a_port_in_use_ends_the_start_with_what_to_look_at(serving, metrics):
    blocker = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = blocker.sockets[0].getsockname()[1]
    with pytest.raises(ConfigurationError, match=f"^--metrics: .* 127.0.0.1 port {port}: "):
        async with serving(at=f"127.0.0.1:{port}"):
            pass
    blocker.close()
    async with serving(at=f"127.0.0.1:{port}"):
        assert f"http://127.0.0.1:{port}" == metrics.url


async def test_another_server_of_ours_does_not_share_the_port(serving, metrics):
    async with serving():
        other = PopServer(
            backend=Backend(),
            plugins=[Metrics()],
            options={"metrics": metrics.url.removeprefix("http://")},
            listen=LISTEN,
        )
        with pytest.raises(ConfigurationError, match="can't listen"):
            await other.start()


async def test_one_instance_is_for_one_server(serving, metrics):
    async with serving():
        with pytest.raises(ConfigurationError, match="one instance"):
            async with serving():
                pass


async def test_ipv6_is_given_in_brackets(serving, metrics):
    async with serving(at="[::1]:0"):
        assert metrics.url.startswith("http://[::1]:")
        assert HTTPStatus.OK == (await get(metrics, "/healthz"))[0]


@pytest.mark.parametrize(
    "text", ["", "9110", ":9110", "127.0.0.1", "::1:9110x", "host:99999", "a@b:1", "h:1/x", "h:x"]
)
def test_what_is_no_host_and_port_is_refused(text):
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        parse(text)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - nothing is bound to it
        ("::", False),
        ("192.0.2.1", False),
        ("mail.example.org", False),
    ],
)
def test_only_loopback_is_this_machines_own(host, local):
    assert local is pop3hub_metrics._is_local(host)
