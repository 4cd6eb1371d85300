"""Delivery into a Maildir: through `tmp` into `new`, on disk before it is answered for."""
# ruff: noqa: PTH108 - the paths are text

from __future__ import annotations

import itertools
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pop3hub_maildir.reading import Survey

if TYPE_CHECKING:
    from pop3hub_maildir.folder import Folder

_UNIQUE_ID = re.compile(r"[!-~]{1,70}")  # RFC 1939 s7
_HOST_LIMIT = 16  # short, so that the name can be the unique-id; what precedes it is unique alone

_numbers = itertools.count()


class Delivery:
    """One message on its way; every function blocks. It ends with `finish` or `abandon`."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        seconds, rest = divmod(time.time_ns(), 1_000_000_000)
        host = re.sub(r"[^A-Za-z0-9-]", "", socket.gethostname().partition(".")[0])[:_HOST_LIMIT]
        process = f"P{os.getpid()}Q{next(_numbers)}R{secrets.token_hex(4)}"
        self._name = f"{seconds}.M{rest // 1000:06}{process}.{host or 'localhost'}"
        self._tmp = f"{folder.path}/tmp/{self._name}"  # noqa: S108 - a Maildir's own
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        folder.create()
        self._fd = os.open(self._tmp, flags, 0o600)
        self._survey = Survey()
        self._octets = 0

    def write(self, chunk: bytes) -> None:
        """Append octets, as they are."""
        self._survey.feed(chunk)
        self._octets += len(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._fd, view) :]

    def finish(self, uid: str | None) -> str:
        """Put the message into `new`; return its unique-id. Raises UniqueIdTaken."""
        self._survey.end()
        os.fsync(self._fd)
        base = f"{self._name},S={self._octets},W={self._survey.octets}"
        uid = uid if uid and _UNIQUE_ID.fullmatch(uid) else base
        self._folder.deliver(self._tmp, base, uid, self._survey)
        self._close()
        return uid

    def abandon(self) -> None:
        """Remove what was written."""
        self._close()
        with suppress(FileNotFoundError):
            os.unlink(self._tmp)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
