"""What each hook may answer; a wrong one becomes a line that says what came and what should.

Only types are looked at and shown: a value may be a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pop3hub.auth import PopUser
from pop3hub.errors import WrongAnswer
from pop3hub.maildrop import PopMessage

COUNTS = 2
"""How many numbers `count_failed_login` returns."""


def _is_user(answer: Any) -> bool:
    return isinstance(answer, PopUser)


def _is_bool(answer: Any) -> bool:
    return isinstance(answer, bool)


def _is_count(answer: Any) -> bool:
    return isinstance(answer, int) and not isinstance(answer, bool) and answer >= 0


def _is_number(answer: Any) -> bool:
    return isinstance(answer, int | float) and not isinstance(answer, bool)


def _is_listing(answer: Any) -> bool:
    text = isinstance(answer, str | bytes | bytearray | memoryview)
    return hasattr(answer, "__aiter__") or (isinstance(answer, Sequence) and not text)


def _is_lock(answer: Any) -> bool:
    return hasattr(type(answer), "__aenter__") and hasattr(type(answer), "__aexit__")


def _is_contents(answer: Any) -> bool:
    octets = isinstance(answer, bytes | str | bytearray | memoryview)
    return octets or hasattr(answer, "__aiter__")


def _is_counts(answer: Any) -> bool:
    return isinstance(answer, tuple) and len(answer) == COUNTS and all(map(_is_count, answer))


_USER = (_is_user, "a PopUser or None")
_BOOL = (_is_bool, "True, False or None")
_COUNT = (_is_count, "a number of messages")

WANTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "get_user": _USER,
    "verify_token": _USER,
    "compare_password": _BOOL,
    "is_in_use": _BOOL,
    "lock_maildrop": (_is_lock, "an async context manager"),
    "since_last_login": (_is_number, "a number of seconds"),
    "expire_messages": _COUNT,
    "receive_messages": (_is_listing, "a list of PopMessage, or an async iterator of lists"),
    "load_contents": (_is_contents, "bytes, text, or an async iterator of bytes"),
    "delete_messages": (_is_count, "how many messages are gone"),
    "count_failed_login": (_is_counts, "two numbers: for the name, from the address"),
    "list_users": (_is_listing, "a list of PopUser, or an async iterator of lists"),
}
"""For each hook that answers, whether an answer other than None is one, and what should come."""


def check(hook: str, answer: Any) -> None:
    """Raise WrongAnswer for an answer that the hook doesn't have."""
    wanted = WANTED.get(hook)
    if wanted is not None and not wanted[0](answer):
        raise WrongAnswer(f"returned {_named(answer)}, and must return {wanted[1]}")


def check_page(page: Any) -> None:
    """Raise WrongAnswer for a page of `receive_messages` that is not a list of whole messages."""
    if not isinstance(page, Sequence) or isinstance(page, str | bytes):
        raise WrongAnswer(f"gave {_named(page)}, and must give lists of PopMessage")
    for message in page:
        if not isinstance(message, PopMessage):
            raise WrongAnswer(f"gave {_named(message)} in its list, and must give PopMessage")
        if not hasattr(message, "ascii_size"):
            name = type(message).__name__
            raise WrongAnswer(f"gave a {name} without uid and size: call super().__init__ in it")


def check_chunk(chunk: Any) -> None:
    """Raise WrongAnswer for a chunk of a message that is not octets."""
    if not isinstance(chunk, bytes):
        raise WrongAnswer(f"gave {_named(chunk)} as a chunk, and must give bytes")


def _named(answer: Any) -> str:
    name = type(answer).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
