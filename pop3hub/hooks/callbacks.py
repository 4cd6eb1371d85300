"""Plain functions as a plugin: `PopServer(get_user=..., receive_messages=...)`.

A callback gets as many of its arguments, in the order below, as its signature takes, so that their
names are its author's own; it may be a plain function or a coroutine function.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pop3hub.errors import ConfigurationError
from pop3hub.hooks.specs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pop3hub.auth.passwords import Hasher

    Callback = Callable[..., Any]

# From the hook's arguments, which pluggy finds by name, to the callback's, which go by position.
ADAPTERS: Mapping[str, Callable[[Callback], Callback]] = {
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


def callbacks_plugin(callbacks: Mapping[str, Callback], hasher: Hasher) -> object:
    """Return a plugin that has a hookimpl for each callback given.

    A plain `compare_password` runs in the hashing threads, since it may be a bcrypt; what else is
    plain runs on the event loop. A `delete_messages` that returns None has deleted all.
    """
    plugin = type("Callbacks", (), {})()
    for hook, callback in callbacks.items():
        if not callable(callback):
            raise ConfigurationError(f"{hook} must be a function, not {callback!r}")
        setattr(plugin, hook, hookimpl(ADAPTERS[hook](_Call(hook, callback, hasher))))
    return plugin


class _Call:
    """A callback that is given its hook's arguments, as many as it takes, and is awaited."""

    def __init__(self, hook: str, callback: Callback, hasher: Hasher) -> None:
        self._callback = callback
        self._count = _positional(callback)
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


def _positional(callback: Callback) -> int | None:
    """Count the positional arguments that a callback takes; None for any number."""
    parameters = inspect.signature(callback).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in parameters)
