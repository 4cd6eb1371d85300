"""What a client hears of an error of the file system, and what the operator reads of it."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from pop3hub import PermanentFailure, TemporaryFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pop3hub import PopError

# Until somebody repairs it: links and other things where folders and files should be, and rights.
_LASTING = {
    *(errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENXIO),
    *(errno.EPERM, errno.EACCES, errno.ENAMETOOLONG),
}


@contextmanager
def told(maildir: str) -> Iterator[None]:
    """Log an OSError with the Maildir, and raise the PopError that a client hears instead."""
    try:
        yield
    except OSError as exc:
        structlog.get_logger("pop3hub.maildir").error(
            "maildir.failed", maildir=maildir, file=exc.filename, error=exc.strerror or str(exc)
        )
        raise refusal(exc, "maildrop-damaged") from exc


def refusal(exc: OSError, text_id: str | None = None) -> PopError:
    """Return what a client hears; `text_id` is for what lasts until somebody repairs it."""
    return PermanentFailure(text_id=text_id) if exc.errno in _LASTING else TemporaryFailure()
