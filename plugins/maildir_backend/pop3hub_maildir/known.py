"""The messages of one Maildir that are known, in memory and in its index."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from pop3hub import UniqueIdTaken
from pop3hub_maildir.index import SPARE_LINES, Index
from pop3hub_maildir.looking import all_places, find
from pop3hub_maildir.messages import MaildirMessage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pop3hub_maildir.directories import OpenMaildir

_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


class KnownMessages:
    """Messages by base name, in the order in which they became known.

    Where the index can't be read or written, all goes on without it: nobody is locked out for it.
    Its functions block, and are called by one thread at a time.
    """

    def __init__(self, folder: object, path: str, index_patience: float) -> None:
        self._folder = folder
        self._path = path
        self._messages: dict[str, MaildirMessage] = {}
        self._bases: dict[str, str] = {}
        self._index = Index(index_patience)
        self._index_failed = False
        self._log = structlog.get_logger("pop3hub.maildir")

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[MaildirMessage]:
        return iter(self._messages.values())

    def uids(self) -> set[str]:
        """Return the unique-ids that are in use."""
        return set(self._bases)

    def add(self, message: MaildirMessage) -> None:
        """Take in a message."""
        self._messages[message.base] = message
        self._bases[message.uid] = message.base

    def forget(self, base: str) -> None:
        """Drop a message, if it is known."""
        message = self._messages.pop(base, None)
        if message is not None and self._bases.get(message.uid) == base:
            del self._bases[message.uid]

    def refresh(self, maildir: OpenMaildir) -> None:
        """Take in what other processes wrote into the index."""
        with self._index_errors():
            self._refresh(maildir)

    def _refresh(self, maildir: OpenMaildir) -> None:
        for base, uid, measured in self._index.news(maildir):
            message = self._messages.get(base)
            if message is None:
                message = MaildirMessage(self._folder, base, uid)
                self.add(message)
            message.learn(measured)

    def remember(self, maildir: OpenMaildir, messages: Sequence[MaildirMessage]) -> None:
        """Write into the index what was measured."""
        if not messages:
            return
        with self._index_errors(), self._index.locked(maildir):
            self._index.append(maildir, (each.record for each in messages))

    def claim(self, maildir: OpenMaildir, message: MaildirMessage) -> None:
        """Write down a unique-id from elsewhere: it must be known before the message shows.

        Raises UniqueIdTaken, and OSError: such a unique-id is kept nowhere but in the index.
        """
        with self._index.locked(maildir):
            self._refresh(maildir)
            holder = self._bases.get(message.uid)
            if holder is not None and holder in find(maildir, (holder,)):
                raise UniqueIdTaken(uid=message.uid)
            self._index.append(maildir, [message.record], durable=True)

    def tidy(self, maildir: OpenMaildir, living: int) -> None:
        """Rewrite the index once most of its lines are of messages that are gone."""
        if self._index.lines < 2 * living + SPARE_LINES:
            return
        with self._index_errors(), self._index.locked(maildir):
            self._refresh(maildir)
            here = all_places(maildir, ())
            for message in [each for each in self if not (each.place or each.base in here)]:
                self.forget(message.base)
            self._index.rewrite(maildir, (message.record for message in self))

    @contextmanager
    def _index_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            path = self._path
            if exc.errno in _READ_ONLY or self._index_failed:
                self._log.debug("maildir.no_index", maildir=path, error=exc.strerror)
            else:
                self._log.warning("maildir.no_index", maildir=path, error=exc.strerror)
                self._index_failed = True
        else:
            self._index_failed = False
