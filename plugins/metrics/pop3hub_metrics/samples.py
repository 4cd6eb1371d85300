"""Which metrics there are, and their values in one process.

docs/metrics.md lists them for people. Labels hold names of which an installation has few, never a
user's name or an address.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pop3hub import CALL_BOUNDS

if TYPE_CHECKING:
    from pop3hub import Server

    Samples = dict[tuple[str, ...], list[float]]
    """By metric and label values: one number, or the buckets of a histogram and their sum."""

LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, a counter by default; only a histogram has `bounds`.

    Counts of processes that have ended are added up too, gauges are not.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: Literal["counter", "gauge", "histogram"] = "counter"
    bounds: tuple[float, ...] = ()


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "pop3hub_accepted_connections",
            "TCP connections, including those whose TLS handshake failed or is not over.",
        ),
        Metric("pop3hub_connections", "Connections that were greeted or refused."),
        Metric(
            "pop3hub_refused_connections",
            "Connections that were refused because there were too many.",
        ),
        Metric("pop3hub_sessions", "Open sessions.", kind="gauge"),
        Metric(
            "pop3hub_ended_sessions",
            "Sessions that have ended, by reason.",
            labels=("tls", "reason"),
        ),
        Metric(
            "pop3hub_logins",
            "Logins; the result is OK, or the response code of the refusal, or ERR if it has none.",
            labels=("mechanism", "result"),
        ),
        Metric("pop3hub_commands", "Commands of sessions that have ended."),
        Metric("pop3hub_retrieved_messages", "Messages that RETR has sent completely."),
        Metric("pop3hub_retrieved_octets", "Octets of messages that RETR and TOP have sent."),
        Metric("pop3hub_deleted_messages", "Messages removed in UPDATE."),
        Metric(
            "pop3hub_hook_seconds",
            "Time that calls of plugins took.",
            labels=("hook", "plugin"),
            kind="histogram",
            bounds=CALL_BOUNDS,
        ),
        Metric(
            "pop3hub_hook_failures",
            "Calls of plugins that failed: backend errors, timeouts, defects.",
            labels=("hook", "plugin"),
        ),
        Metric(
            "pop3hub_loop_lag_seconds",
            "How late the event loop runs a timer.",
            kind="histogram",
            bounds=LAG_BOUNDS,
        ),
        Metric("pop3hub_workers", "Worker processes.", kind="gauge"),
    )
}


class Lag:
    """How late the event loop was, as a histogram."""

    def __init__(self) -> None:
        self.values = [0.0] * (len(LAG_BOUNDS) + 2)

    def add(self, seconds: float) -> None:
        """Count one measurement."""
        self.values[bisect_left(LAG_BOUNDS, seconds)] += 1
        self.values[-1] += seconds


def collect(server: Server, lag: Lag) -> Samples:
    """Return the values of this process."""
    stats = server.stats
    samples: Samples = {
        ("pop3hub_accepted_connections",): [stats.accepted],
        ("pop3hub_connections",): [stats.connections],
        ("pop3hub_refused_connections",): [stats.refused],
        ("pop3hub_sessions",): [len(server.sessions)],
        ("pop3hub_commands",): [stats.commands],
        ("pop3hub_retrieved_messages",): [stats.retrieved],
        ("pop3hub_retrieved_octets",): [stats.octets],
        ("pop3hub_deleted_messages",): [stats.deleted],
        ("pop3hub_loop_lag_seconds",): list(lag.values),
        ("pop3hub_workers",): [1],
    }
    for (tls, reason), number in stats.ends.items():
        samples["pop3hub_ended_sessions", tls or "none", reason] = [number]
    for (mechanism, result), number in stats.attempts.items():
        samples["pop3hub_logins", mechanism, result] = [number]
    for (hook, plugin), calls in server.calls.items():
        if calls.number:
            samples["pop3hub_hook_seconds", hook, plugin] = [*calls.spans, calls.seconds]
            samples["pop3hub_hook_failures", hook, plugin] = [calls.failures]
    return samples


def add(total: Samples, more: Samples, *, gone: bool = False) -> None:
    """Add the counts of another process; `gone` leaves out the gauges, which ended with it."""
    for key, values in more.items():
        metric = METRICS.get(key[0])
        if metric is None or (gone and metric.kind == "gauge"):
            continue
        before = total.get(key)
        total[key] = (
            list(values) if before is None else [a + b for a, b in zip(before, values, strict=True)]
        )
