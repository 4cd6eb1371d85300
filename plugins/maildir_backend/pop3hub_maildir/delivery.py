"""Delivery into a Maildir: through `tmp` into `new`, on disk before it is answered for."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pop3hub import is_unique_id
from pop3hub_maildir.directories import OpenMaildir
from pop3hub_maildir.measuring import measure

if TYPE_CHECKING:
    from pop3hub_maildir.folder import Folder

_HOST_LIMIT = 16  # short, so that the name can be the unique-id; what precedes it is unique alone

_numbers = itertools.count()


class Delivery:
    """One message on its way; every function blocks. It ends with `finish` or `abandon`."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._fd = self._tmp = -1
        seconds, rest = divmod(time.time_ns(), 1_000_000_000)
        host = re.sub(r"[^A-Za-z0-9-]", "", socket.gethostname().partition(".")[0])[:_HOST_LIMIT]
        process = f"P{os.getpid()}Q{next(_numbers)}R{secrets.token_hex(4)}"
        self._name = f"{seconds}.M{rest // 1000:06}{process}.{host or 'localhost'}"
        with OpenMaildir(folder.path, create=True) as maildir:
            self._fd, self._tmp = maildir.open_temporary(self._name)
        self._octets = 0

    def write(self, chunk: bytes) -> None:
        """Append octets, as they are."""
        self._octets += len(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._fd, view) :]

    def finish(self, uid: str | None) -> str:
        """Put the message into `new`; return its unique-id. Raises UniqueIdTaken."""
        os.fsync(self._fd)
        measured = measure(self._fd)
        base = f"{self._name},S={self._octets},W={measured.octets}"
        uid = uid if uid and is_unique_id(uid) else base
        self._folder.deliver((self._name, self._tmp), base, uid, measured)
        self._close()
        return uid

    def abandon(self) -> None:
        """Remove what was written."""
        if self._tmp >= 0:
            with suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._tmp)
        self._close()

    def __del__(self) -> None:
        """Leave nothing of a delivery that was cancelled while a thread began it."""
        self.abandon()

    def _close(self) -> None:
        for fd in (self._fd, self._tmp):
            if fd >= 0:
                os.close(fd)
        self._fd = self._tmp = -1
