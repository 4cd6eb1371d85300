"""Messages, what a store lists of them, and the maildrop of one session (RFC 1939 s4-5, s7, s11).

A maildrop is fixed when the session enters TRANSACTION: numbers never move, marks are only marks.
Nothing here awaits or knows where messages are stored.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, TypeVar

from pop3hub.errors import CommandError, PermanentFailure, WrongAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

# ASCII digits only: int() would also take "+1", "1_0", " 1" and other scripts' digits.
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)

PAGE = 5_000
"""Messages that are checked at once before other sessions get their turn."""

# One expression over a whole page: many times faster than a match for each unique-id.
_UNIQUE_IDS = re.compile(r"(?:[!-~]{1,70}\n)*")
_UNIQUE_ID = re.compile(r"[!-~]{1,70}")


def is_unique_id(text: str) -> bool:
    """Return whether a text can be a unique-id: 1 to 70 characters 0x21 to 0x7E (RFC 1939 s7)."""
    return _UNIQUE_ID.fullmatch(text) is not None


class PopMessage:
    """One message of a maildrop; subclass it and override `load_contents` to load lazily.

    uid: the unique-id, 1 to 70 characters 0x21 to 0x7E, never reused here (RFC 1939 s7).
    size: octets with CRLF line ends, before dot-stuffing (RFC 1939 s11).
    contents: the message's octets if they are at hand, any line ends; text is sent as UTF-8.
    wire_ready: the contents have CRLF line ends, end in CRLF, and no line begins with a dot: they
        are sent as they are.
    ascii_size: octets of the RFC 6858 surrogate in the same form, `size` where none is needed; None
        while unknown, and where a surrogate happens to be as long as the message.
    seen_ready: pop3hub's own: the very contents that were found to be wire-ready, as claimed.
    """

    __slots__ = ("__weakref__", "ascii_size", "contents", "seen_ready", "size", "uid", "wire_ready")

    def __init__(
        self,
        uid: str,
        size: int,
        contents: bytes | str | None = None,
        *,
        wire_ready: bool = False,
        ascii_size: int | None = None,
    ) -> None:
        if isinstance(contents, str):
            contents = contents.encode()
        elif contents is not None and not isinstance(contents, bytes):
            came = type(contents).__name__  # type: ignore[unreachable]
            raise WrongAnswer(f"PopMessage takes contents as bytes, text or None, not as {came}")
        self.uid = uid
        self.size = size
        self.contents: bytes | None = contents
        self.wire_ready = wire_ready
        self.ascii_size = ascii_size
        self.seen_ready: bytes | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(uid={self.uid!r}, size={self.size})"

    async def load_contents(self) -> bytes | AsyncIterator[bytes]:
        """Return the octets, or an async iterator of chunks; called for each RETR and TOP.

        Raises what a `load_contents` hookimpl may raise.
        """
        if self.contents is None:
            raise NotImplementedError(
                f"{type(self).__name__} has no contents: override load_contents, or the hook"
            )
        return self.contents


_Message_co = TypeVar("_Message_co", bound=PopMessage, covariant=True)


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
            raise PermanentFailure(text_id="maildrop-damaged")
        for number, message in enumerate(page, first):
            size = message.size
            if type(size) is not int or size < 0:
                self._log.error("maildrop.bad_size", user=self._user, uid=message.uid)
                raise PermanentFailure(text_id="maildrop-damaged")
            self.octets += size
            if message.ascii_size is None:
                self.unmeasured.append(number)
            elif message.ascii_size != size:
                self.surrogates[number] = message.ascii_size - size
        self.messages.extend(page)

    def _checked(self, number: int, uid: object) -> str:
        text = str(uid)  # a store's own ids need not be strings
        if is_unique_id(text):
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


class Maildrop:
    """The numbered messages of one session and their deletion marks."""

    __slots__ = (
        "_answers",
        "_messages",
        "_octets",
        "_replaced",
        "_surrogates",
        "marks",
        "unmeasured",
    )

    def __init__(
        self,
        messages: Iterable[PopMessage] = (),
        *,
        replaced: Mapping[int, str] | None = None,
        surrogates: Mapping[int, int] | None = None,
        unmeasured: Iterable[int] = (),
        octets: int | None = None,
        answers: dict[str, bytes] | None = None,
    ) -> None:
        """Take the messages in order.

        By message number: `replaced` holds the unique-ids sent instead of ones that can't be, and
        `surrogates` how many octets longer the RFC 6858 surrogate is, where there is one;
        `unmeasured` lists the numbers whose messages nobody has said that of. `octets` is the sum
        of the sizes, if it is known; `answers` keeps those of LIST and UIDL for other sessions.
        """
        self._messages = messages if isinstance(messages, list) else list(messages)
        self._replaced = replaced or {}
        self._surrogates = dict(surrogates or {})
        self._octets = sum(each.size for each in self._messages) if octets is None else octets
        self._answers = answers
        self.marks: set[int] = set()
        self.unmeasured: list[int] = []
        for number in unmeasured:
            if self[number].ascii_size is None:
                self.unmeasured.append(number)
            else:  # another session has found it out
                self.measured(number)

    @property
    def answers(self) -> dict[str, bytes] | None:
        """The answers to LIST and UIDL that are kept; None where they must be made."""
        return None if self.marks or self._surrogates else self._answers

    def __len__(self) -> int:
        """Count the messages that are not marked."""
        return len(self._messages) - len(self.marks)

    def __getitem__(self, number: int) -> PopMessage:
        """Return a message by its number, counted from 1."""
        return self._messages[number - 1]

    @property
    def highest(self) -> int:
        """The number of the last message, marked or not; 0 in an empty maildrop."""
        return len(self._messages)

    def octets(self, *, surrogates: bool) -> int:
        """Return the size of all messages that are not marked, as they are or as surrogates."""
        if not (surrogates and self._surrogates):
            return self._octets
        return self._octets + sum(
            longer for number, longer in self._surrogates.items() if number not in self.marks
        )

    def size(self, number: int, *, surrogate: bool) -> int:
        """Return the size of a message, as it is or as its surrogate if it is known to have one."""
        longer = self._surrogates.get(number, 0) if surrogate else 0
        return self[number].size + longer

    def measured(self, number: int) -> None:
        """Take in that the `ascii_size` of a message has been found out."""
        message = self[number]
        if message.ascii_size is not None and message.ascii_size != message.size:
            self._surrogates[number] = message.ascii_size - message.size

    def number(self, text: str) -> int:
        """Return the message number that the text holds.

        Raises CommandError: no number, no such message, or the message is marked as deleted.
        """
        if not _NUMBER.fullmatch(text):
            raise CommandError("number-invalid")
        number = int(text)
        if not 1 <= number <= len(self._messages):
            raise CommandError("no-such-message", number=number, count=len(self._messages))
        if number in self.marks:
            raise CommandError("message-is-deleted", number=number)
        return number

    def unique_id(self, number: int) -> str:
        """Return the unique-id that the client is told (RFC 1939 s7)."""
        return self._replaced.get(number) or self[number].uid

    def mark(self, number: int) -> None:
        """Mark a message as deleted; it goes in UPDATE (RFC 1939 s5)."""
        self.marks.add(number)
        self._octets -= self[number].size

    def unmark_all(self) -> None:
        """Take all marks off (RFC 1939 s5, RSET)."""
        self._octets += sum(self[number].size for number in self.marks)
        self.marks.clear()

    def marked(self) -> list[PopMessage]:
        """Return the messages that UPDATE shall remove, lowest number first."""
        return [self[number] for number in sorted(self.marks)]

    def sizes(self, start: int, count: int, *, surrogates: bool) -> list[str]:
        """Return the lines of LIST for so many numbers from `start` on, marked ones left out."""
        return [
            f"{number} {self.size(number, surrogate=True)}\r\n"
            if surrogates and self._surrogates
            else f"{number} {message.size}\r\n"
            for number, message in self._from(start, count)
        ]

    def unique_ids(self, start: int, count: int) -> list[str]:
        """Return the lines of UIDL for so many numbers from `start` on, marked ones left out."""
        return [
            f"{number} {self.unique_id(number) if self._replaced else message.uid}\r\n"
            for number, message in self._from(start, count)
        ]

    def _from(self, start: int, count: int) -> Iterable[tuple[int, PopMessage]]:
        whole = start == 1 and count >= len(self._messages)
        messages = self._messages if whole else self._messages[start - 1 : start - 1 + count]
        numbered = enumerate(messages, start)
        if not self.marks:
            return numbered
        return [pair for pair in numbered if pair[0] not in self.marks]
