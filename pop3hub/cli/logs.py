"""How the log is written: structlog and the standard library's logging, to standard error.

The one place that configures either. A library that is embedded leaves that to its program.
"""

from __future__ import annotations

import hmac
import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

HASH_SIZE = 16
"""Hexadecimal digits of a hashed name."""
NO_NEWS = {"SSL connection is closed", "socket.send() raised exception."}
"""What asyncio says of every write to a client that has left before its answers."""


def configure(
    *, style: str = "console", level: str = "info", names_key: bytes | None = None
) -> None:
    """Write lines of this level and above, as `console` or `json`.

    `names_key` turns users' names into a hash under this key.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if names_key is not None:
        shared.append(HashNames(names_key))
    if style == "json":
        ending: list[Processor] = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
    else:
        ending = [
            escape,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # What libraries log, asyncio and the database drivers among them, in the same shape.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    logging.getLogger("asyncio").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return record.msg not in NO_NEWS


class HashNames:
    """Replaces users' names by a keyed hash: one user's lines can be told, not whose they are."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        """Return the event without names in clear."""
        for field in ("user", "name"):
            name = event.get(field)
            if isinstance(name, str) and name:
                digest = hmac.digest(self._key, name.casefold().encode(), "sha256")
                event[field] = digest.hex()[:HASH_SIZE]
        return event


def escape(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Escape what a client could steer a terminal with, or begin a line of its own with."""
    for field, value in event.items():
        if isinstance(value, str) and field != "exception" and not value.isprintable():
            event[field] = value.encode("unicode_escape").decode("ascii")
    return event
