"""Plain functions as a plugin: `PopServer(get_user=..., receive_messages=...)`.

A callback gets as many of its arguments, in the order of `ARGUMENTS`, as its signature takes, so
that their names are its author's own; it may be a plain function or a coroutine function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypedDict

from pop3hub.errors import ConfigurationError
from pop3hub.hooks.specs import hookimpl

if TYPE_CHECKING:
    from pop3hub.auth import Hasher

Callback = Callable[..., Any]

REQUIRED = ("get_user", "receive_messages", "delete_messages")
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "get_user": ("name", "session"),
    "compare_password": ("raw", "hash", "user", "session"),
    "verify_token": ("name", "token", "session"),
    "is_in_use": ("session", "user"),
    "receive_messages": ("session", "user"),
    "load_contents": ("message", "session"),
    "delete_messages": ("session", "messages"),
    "message_retrieved": ("message", "session"),
    "login_succeeded": ("session",),
    "login_failed": ("name", "session"),
    "session_closed": ("session",),
}
"""What each callback is given, by position; one that takes fewer gets the first ones."""


class CallbackArguments(TypedDict, total=False):
    """The callbacks as keywords of `PopServer`."""

    get_user: Callback
    receive_messages: Callback
    delete_messages: Callback
    compare_password: Callback
    verify_token: Callback
    is_in_use: Callback
    load_contents: Callback
    message_retrieved: Callback
    login_succeeded: Callback
    login_failed: Callback
    session_closed: Callback


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """A mail store as functions; docs/embedding.md says what each is given and returns.

    get_user(name, session): a PopUser, or None where there is none.
    receive_messages(session, user): the user's messages, oldest first.
    delete_messages(session, messages): remove them; return how many are gone, None for all.
    compare_password(raw, hash, user, session): whether they fit; without it bcrypt is compared. A
        plain function runs in a thread, since it may be a bcrypt.
    The others do what the hook of their name does (docs/hooks.md). What is plain runs on the event
    loop. Raises ConfigurationError for what is not a function, or wants more than it is given.
    """

    get_user: Callback
    receive_messages: Callback
    delete_messages: Callback
    compare_password: Callback | None = None
    verify_token: Callback | None = None
    is_in_use: Callback | None = None
    load_contents: Callback | None = None
    message_retrieved: Callback | None = None
    login_succeeded: Callback | None = None
    login_failed: Callback | None = None
    session_closed: Callback | None = None

    def __post_init__(self) -> None:
        for name, callback in self.given().items():
            _check(name, callback)

    def given(self) -> dict[str, Callback]:
        """Return the callbacks that were given, by name."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value is not None or name in REQUIRED}

    def plugin(self, hasher: Hasher) -> object:
        """Return a plugin that has a hookimpl for each callback given."""
        plugin = type("Callbacks", (), {})()
        for name, callback in self.given().items():
            setattr(plugin, name, hookimpl(_ADAPTERS[name](_Call(name, callback, hasher))))
        return plugin


def callbacks_of(keywords: Mapping[str, Any]) -> Callbacks | None:
    """Return the callbacks among PopServer's keywords, None where there are none.

    Raises ConfigurationError where some are there and others missing.
    """
    given = {name: keywords[name] for name in ARGUMENTS if name in keywords}
    if not given:
        return None
    if missing := [name for name in REQUIRED if name not in given]:
        raise ConfigurationError(
            f"the callbacks lack {' and '.join(missing)}: "
            f"a mail store needs {', '.join(REQUIRED[:-1])} and {REQUIRED[-1]}"
        )
    for name, callback in given.items():
        _check(name, callback)
    return Callbacks(**given)


# From the hook's arguments, which pluggy finds by name, to the callback's, which go by position.
_ADAPTERS: Mapping[str, Callable[[Callback], Callback]] = {
    "get_user": lambda call: lambda name, session: call(name, session),
    "compare_password": lambda call: (
        lambda raw, hash, user, session: call(raw, hash, user, session)
    ),
    "verify_token": lambda call: lambda name, token, session: call(name, token, session),
    "is_in_use": lambda call: lambda session, user: call(session, user),
    "receive_messages": lambda call: lambda session, user: call(session, user),
    "load_contents": lambda call: lambda message, session: call(message, session),
    "delete_messages": lambda call: lambda session, messages: call(session, messages),
    "message_retrieved": lambda call: lambda message, session: call(message, session),
    "login_succeeded": lambda call: lambda session: call(session),
    "login_failed": lambda call: lambda name, session: call(name, session),
    "session_closed": lambda call: lambda session: call(session),
}


class _Call:
    """A callback that is given its hook's arguments, as many as it takes, and is awaited."""

    def __init__(self, hook: str, callback: Callback, hasher: Hasher) -> None:
        self._callback = callback
        self._count = _most(callback)
        self._deletes = hook == "delete_messages"
        blocks = hook == "compare_password" and not inspect.iscoroutinefunction(callback)
        self._hasher = hasher if blocks else None

    async def __call__(self, *given: Any) -> Any:
        arguments = given[: self._count]
        if self._hasher is not None:
            return await self._hasher.run(self._callback, *arguments)
        result = self._callback(*arguments)
        if inspect.isawaitable(result):
            result = await result
        if self._deletes and result is None:
            return len(given[1])
        return result


def _check(name: str, callback: object) -> None:
    if not callable(callback):
        raise ConfigurationError(
            f"{name} must be a function, and is {type(callback).__name__}: leave it out, "
            f"or give {name}({', '.join(ARGUMENTS[name])})"
            if name not in REQUIRED
            else f"{name} must be a function, and is {type(callback).__name__}: "
            f"give {name}({', '.join(ARGUMENTS[name])})"
        )
    needed = [each for each in _parameters(callback) if _is_needed(each)]
    offered = ARGUMENTS[name]
    named = [each.name for each in needed if each.kind is each.KEYWORD_ONLY]
    if named or len(needed) > len(offered):
        wants = ", ".join(each.name for each in needed)
        raise ConfigurationError(
            f"{name} wants the arguments {wants}, and is given by position {', '.join(offered)}, "
            "or the first of them"
        )


def _parameters(callback: Callback) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(callback).parameters.values())
    except ValueError:  # a built-in function may have no signature: it takes what comes
        return [inspect.Parameter("given", inspect.Parameter.VAR_POSITIONAL)]


def _is_needed(parameter: inspect.Parameter) -> bool:
    variable = parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    return not variable and parameter.default is parameter.empty


def _most(callback: Callback) -> int | None:
    """Count the positional arguments that a callback takes; None for any number."""
    parameters = _parameters(callback)
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in parameters)
