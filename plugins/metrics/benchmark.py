# ruff: noqa: T201 - a program that prints what it measured
"""Measure what pop3hub-metrics costs: `python plugins/metrics/benchmark.py`.

One server and its clients in one process, with and without the plugin in turn; the best of the
rounds counts, since noise only adds time.
"""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

import structlog

from pop3hub import PopMessage, PopServer, PopUser, hookimpl
from pop3hub_metrics import Metrics

SESSIONS = 1000
ROUNDS = 7
COMMANDS = b"USER luke\r\nPASS hello\r\nSTAT\r\nRETR 1\r\nQUIT\r\n"
MESSAGE = b"Subject: hi\r\n\r\nHello world!\r\n"


class Backend:
    """One user, one message."""

    @hookimpl
    def get_user(self, name: str) -> PopUser:
        """Know everybody."""
        return PopUser(name, "hello")

    @hookimpl
    def compare_password(self, raw: str, hash: str) -> bool:  # noqa: A002 - the hook's name
        """Compare."""
        return raw == hash

    @hookimpl
    def receive_messages(self) -> list[PopMessage]:
        """Return one message."""
        return [PopMessage("1", len(MESSAGE), MESSAGE, wire_ready=True)]

    @hookimpl
    def delete_messages(self) -> int:
        """Remove nothing."""
        return 0


async def sessions(server: PopServer) -> float:
    """Return the CPU microseconds of one session, including its client's."""
    where = urlsplit(server.addresses[0])
    began = time.process_time()
    for _ in range(SESSIONS):
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(COMMANDS)
        assert (await reader.read(1 << 16)).startswith(b"+OK")  # noqa: S101
        await reader.read()
        writer.close()
    return (time.process_time() - began) / SESSIONS * 1e6


async def scrape(metrics: Metrics) -> tuple[float, int]:
    """Return the milliseconds that a request took, and the octets of the answer."""
    where = urlsplit(metrics.url)
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return (time.perf_counter() - began) * 1e3, len(answer)


def measure(metrics: Metrics) -> float:
    """Return the microseconds of one measurement and its record."""
    began = time.perf_counter()
    for _ in range(100):
        metrics._shared.write(metrics._own(metrics._server))  # noqa: SLF001 - what the timer does
    return (time.perf_counter() - began) / 100 * 1e6


async def main() -> None:
    """Print the table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    costs: dict[str, list[float]] = {"without": [], "with": []}
    metrics = Metrics()
    extended = PopServer(
        backend=Backend(),
        plugins=[metrics],
        options={"metrics": "127.0.0.1:0"},
        listen="pop3://127.0.0.1:0",
    )
    async with PopServer(backend=Backend(), listen="pop3://127.0.0.1:0") as plain, extended:
        for _ in range(ROUNDS):
            costs["without"].append(await sessions(plain))
            costs["with"].append(await sessions(extended))
        for name, found in costs.items():
            print(f"a session {name} the plugin: {min(found):.1f} us (worst {max(found):.1f})")
        print(f"one measurement: {min(measure(metrics) for _ in range(ROUNDS)):.0f} us")
        times, octets = zip(*[await scrape(metrics) for _ in range(20)], strict=True)
        print(f"one scrape: {min(times):.1f} ms, {octets[-1]} octets")


if __name__ == "__main__":
    asyncio.run(main())
