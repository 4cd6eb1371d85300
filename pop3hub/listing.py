"""What a store lists at a login, checked page by page (RFC 1939 s7, s11). Nothing here awaits."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, TypeVar

from pop3hub.errors import PermanentFailure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pop3hub.maildrop import PopMessage

PAGE = 5_000
"""Messages that are checked at once before other sessions get their turn."""

# One expression over a whole page: many times faster than a match for each unique-id.
_UNIQUE_IDS = re.compile(r"(?:[!-~]{1,70}\n)*")
_UNIQUE_ID = re.compile(r"[!-~]{1,70}")

_Message_co = TypeVar("_Message_co", bound="PopMessage", covariant=True)


class Snapshot(tuple[_Message_co, ...]):  # noqa: SLOT001 - it remembers its listing
    """The messages of a maildrop as a backend keeps them from login to login while nothing changes.

    Where `receive_messages` returns the same one again, it is not checked again, and what LIST and
    UIDL answer is not put together again. Any change makes a new one.
    """

    listing: Listing | None = None


class Listing:
    """The messages of one login, or of one snapshot, checked as they come (RFC 1939 s7, s11).

    answers: what was sent for LIST and UIDL, where it is kept.
    """

    def __init__(self, user: str, log: Any) -> None:
        self.messages: list[PopMessage] = []
        self.octets = 0
        self.answers: dict[str, bytes] | None = None
        self.replaced: dict[int, str] = {}
        self.surrogates: dict[int, int] = {}
        self.unmeasured: list[int] = []
        self._seen: set[str] = set()
        self._user = user
        self._log = log

    def add(self, page: Sequence[PopMessage]) -> None:
        """Append a page, or raise PermanentFailure."""
        first = len(self.messages) + 1
        uids = [message.uid for message in page]
        if page and not _are_unique_ids(uids):
            uids = [self._checked(number, uid) for number, uid in enumerate(uids, first)]
        before = len(self._seen)
        self._seen.update(uids)
        if len(self._seen) - before != len(uids):
            self._log.error("maildrop.duplicate_uid", user=self._user)
            raise PermanentFailure("maildrop-damaged")
        for number, message in enumerate(page, first):
            size = message.size
            if type(size) is not int or size < 0:
                self._log.error("maildrop.bad_size", user=self._user, uid=message.uid)
                raise PermanentFailure("maildrop-damaged")
            self.octets += size
            if message.ascii_size is None:
                self.unmeasured.append(number)
            elif message.ascii_size != size:
                self.surrogates[number] = message.ascii_size - size
        self.messages.extend(page)

    def _checked(self, number: int, uid: object) -> str:
        text = str(uid)  # a store's own ids need not be strings
        if _UNIQUE_ID.fullmatch(text):
            if text is not uid:
                self.replaced[number] = text
            return text
        replacement = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        if not self.replaced:
            self._log.warning("maildrop.uid_replaced", user=self._user, uid=text, by=replacement)
        self.replaced[number] = replacement
        return replacement


def _are_unique_ids(uids: Sequence[str]) -> bool:
    try:
        joined = "\n".join(uids) + "\n"
    except TypeError:
        return False
    return _UNIQUE_IDS.fullmatch(joined) is not None and joined.count("\n") == len(uids)
