"""The plugins of one server: registered, checked, and called with errors and time attributed.

The only module that calls a hookimpl. pluggy keeps the registry (registry.py); the calls are made
here, because pluggy takes a coroutine for an answer: a `firstresult` hook would stop at the first
one, whatever it came to (benchmarks/parts.py has the prices).
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog

from pop3hub.errors import (
    ConfigurationError,
    PermanentFailure,
    PluginFailure,
    PopError,
    TemporaryFailure,
)
from pop3hub.hooks.deadlines import Watch
from pop3hub.hooks.discovery import Plugin
from pop3hub.hooks.lock import MaildropLock
from pop3hub.hooks.registry import Impl, resolve
from pop3hub.maildrop import PAGE, Listing, Maildrop, PopMessage, Snapshot

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Callable,
        Coroutine,
        Iterable,
        Mapping,
        Sequence,
    )
    from pathlib import Path

    import click

    from pop3hub.auth.sasl import Mechanism
    from pop3hub.auth.users import PopUser
    from pop3hub.hooks.interfaces import Calls, Server, Session

OWN = "pop3hub"
"""The name of the plugin that holds pop3hub's own defaults."""
REQUIRED = ("get_user", "receive_messages", "delete_messages")
HOOK_TIMEOUT = 30.0
"""Seconds that one awaited hook call may take."""
REMOVAL_PATIENCE = 20
"""How many times longer `delete_messages` may take: half a removal helps nobody."""


Contents = bytes | AsyncGenerator[bytes, None]
"""A message as its store gives it."""


class Plugins:
    """The backend, the extensions and pop3hub's defaults, behind one typed method for each hook.

    Called in the order: extensions (the last registered first), backend, defaults. A PopError that
    a hookimpl raises passes as it is; anything else is logged with hook and plugin, and becomes a
    PluginFailure; a call that takes too long becomes a TemporaryFailure.
    """

    def __init__(
        self,
        backend: Plugin | object,
        extensions: Iterable[Plugin | object] = (),
        *,
        defaults: object | None = None,
        hook_timeout: float = HOOK_TIMEOUT,
    ) -> None:
        self.backend = _named(backend)
        self.extensions = [_named(extension) for extension in extensions]
        self.hook_timeout = hook_timeout
        self.log = structlog.get_logger("pop3hub.plugins")
        self._watch = Watch()
        self._started: list[str] = []
        own = [] if defaults is None else [Plugin(OWN, defaults)]
        self._hooks = resolve([*own, self.backend, *self.extensions])
        for name in REQUIRED:
            if all(impl.plugin == OWN for impl in self._hooks[name]):
                raise ConfigurationError(
                    f"backend {self.backend.name!r} ({self.backend.origin}) has no {name}: "
                    f"a backend must implement {', '.join(REQUIRED)}"
                )

    @property
    def shared_state(self) -> bool:
        """Whether other processes see what this backend stores (`shared_state` of its class)."""
        return bool(getattr(self.backend.instance, "shared_state", True))

    @property
    def calls(self) -> dict[tuple[str, str], Calls]:
        """What the calls came to since the start, by hook and plugin."""
        return {
            (hook, impl.plugin): impl.calls for hook, impls in self._hooks.items() for impl in impls
        }

    def implementers(self, hook: str) -> list[str]:
        """Return the plugins that implement a hook, in the order in which they are asked."""
        return [impl.plugin for impl in self._hooks[hook]]

    def hooks_of(self, plugin: str) -> list[str]:
        """Return the hooks that a plugin implements, in the order of the specifications."""
        return [hook for hook in self._hooks if plugin in self.implementers(hook)]

    # Calls

    async def _call(
        self,
        hook: str,
        impl: Impl,
        arguments: tuple[Any, ...],
        patience: float,
        part: Callable[..., Any] | None = None,
    ) -> Any:
        """Call a hookimpl, or `part` of what it has returned in its place."""
        calls = impl.calls
        began = time.perf_counter()
        try:
            result = (part or impl.call)(*arguments)
            if inspect.isawaitable(result):
                result = await self._watch.limit(result, patience)
        except (TemporaryFailure, PermanentFailure):
            calls.failures += 1
            raise
        except (PopError, StopAsyncIteration):
            raise
        except TimeoutError as exc:
            calls.failures += 1
            self.log.error("hook.timeout", hook=hook, plugin=impl.plugin, seconds=patience)
            raise TemporaryFailure from exc
        except Exception as exc:
            calls.failures += 1
            self.log.exception("hook.failed", hook=hook, plugin=impl.plugin)
            raise PluginFailure(hook, impl.plugin) from exc
        finally:
            calls.add(time.perf_counter() - began)
        return result

    async def first(self, hook: str, *arguments: Any, patience: float | None = None) -> Any:
        """Return the first answer of a `firstresult` hook that is not None, or None."""
        return (await self._answer(hook, *arguments, patience=patience))[0]

    async def _answer(
        self,
        hook: str,
        *arguments: Any,
        patience: float | None = None,
        begun: Callable[..., Any] | None = None,
    ) -> tuple[Any, Any]:
        """Return the first answer that is not None, and the hookimpl that gave it.

        `begun` takes the place of the first hookimpl, which was called before.
        """
        impl = None
        for impl in self._hooks[hook]:
            part, begun = begun, None
            result = await self._call(hook, impl, arguments, patience or self.hook_timeout, part)
            if result is not None:
                return result, impl
        return None, impl

    async def _notify(self, hook: str, *arguments: Any) -> None:
        for impl in self._hooks[hook]:
            try:
                await self._call(hook, impl, arguments, self.hook_timeout)
            except PluginFailure:
                pass  # logged where it was caught
            except PopError as exc:
                self.log.error("hook.failed", hook=hook, plugin=impl.plugin, error=str(exc))

    def _gather(self, hook: str, *arguments: Any) -> list[tuple[str, Any]]:
        """Call a `def` hook of every plugin at start; the backend first, its default before it."""
        results = []
        for impl in reversed(self._hooks[hook]):
            try:
                results.append((impl.plugin, impl.call(*arguments)))
            except ConfigurationError:
                raise
            except Exception as exc:
                self.log.debug("hook.failed", hook=hook, plugin=impl.plugin, exc_info=True)
                raise ConfigurationError(
                    f"plugin {impl.plugin!r} failed in {hook}: {exc!r}; that is its own defect"
                ) from exc
        return results

    # Users

    async def get_user(self, name: str, session: Session) -> PopUser | None:
        """Return the user of this name, or None."""
        return cast("PopUser | None", await self.first("get_user", name, session))

    async def compare_password(self, raw: str, user: PopUser, session: Session) -> bool:
        """Return whether the password is the user's."""
        return bool(await self.first("compare_password", raw, user.password, user, session))

    async def verify_token(self, name: str, token: str, session: Session) -> PopUser | None:
        """Return the user whom the token stands for, or None."""
        return cast("PopUser | None", await self.first("verify_token", name, token, session))

    @property
    def verifies_tokens(self) -> bool:
        """Whether a plugin implements `verify_token` and doesn't say that it isn't configured."""
        plugins = {plugin.name: plugin.instance for plugin in (self.backend, *self.extensions)}
        return any(
            getattr(plugins.get(impl.plugin), "verifies_tokens", True)
            for impl in self._hooks["verify_token"]
        )

    # The maildrop

    async def lock_maildrop(self, user: PopUser, session: Session) -> MaildropLock:
        """Return the user's maildrop lock, not yet entered."""
        lock, impl = await self._answer("lock_maildrop", user, session)
        if lock is None:
            raise PermanentFailure
        call = partial(self.with_timeout, "lock_maildrop", impl)
        return MaildropLock(impl.plugin, call, lock)

    async def is_in_use(self, user: PopUser, session: Session) -> bool:
        """Return whether a plugin says that another session has the maildrop open."""
        return bool(await self.first("is_in_use", user, session))

    async def since_last_login(self, user: PopUser, session: Session) -> float:
        """Note a login; return the seconds since the one before it."""
        seconds = await self.first("since_last_login", user, session)
        return float("inf") if seconds is None else float(seconds)

    async def expire_messages(self, user: PopUser, days: int, session: Session) -> int:
        """Remove what is older than so many days; return how many messages there were."""
        return int(await self.first("expire_messages", user, days, session) or 0)

    async def receive_messages(self, user: PopUser, session: Session) -> Maildrop:
        """Return the user's maildrop: what the plugin listed, checked page by page.

        Raises PermanentFailure: no plugin serves the user, a size is no number of octets, or two
        messages have the same unique-id.
        """
        found, impl = await self._answer("receive_messages", user, session)
        if found is None:
            self.log.error("maildrop.unserved", user=user.name, backend=self.backend.name)
            raise PermanentFailure("maildrop-damaged")
        listing = found.listing if isinstance(found, Snapshot) else None
        if listing is None:
            listing = await self._check(found, impl, user)
        return Maildrop(
            listing.messages,
            replaced=listing.replaced,
            surrogates=listing.surrogates,
            unmeasured=listing.unmeasured,
            octets=listing.octets,
            answers=listing.answers,
        )

    async def _check(self, found: Any, impl: Impl, user: PopUser) -> Listing:
        listing = Listing(user.name, self.log)
        if hasattr(found, "__aiter__"):
            pages = found.__aiter__()
            try:
                while (page := await self._next(impl, pages)) is not None:
                    listing.add(page)
                    await asyncio.sleep(0)
            finally:
                if hasattr(pages, "aclose"):
                    await pages.aclose()
        elif len(found) <= PAGE:
            listing.add(found)
        else:
            for start in range(0, len(found), PAGE):
                listing.add(found[start : start + PAGE])
                await asyncio.sleep(0)
        if isinstance(found, Snapshot):
            listing.answers = {}
            found.listing = listing
        return listing

    async def _next(self, impl: Impl, pages: AsyncIterator[Any]) -> Any:
        try:
            return await self.with_timeout("receive_messages", impl, pages.__anext__)
        except StopAsyncIteration:
            return None

    async def with_timeout(
        self, hook: str, impl: Impl, part: Callable[..., Any], *arguments: Any
    ) -> Any:
        """Await a part of what a hookimpl has returned, as if it were the hookimpl."""
        return await self._call(hook, impl, arguments, self.hook_timeout, part)

    def load_contents(
        self, message: PopMessage, session: Session
    ) -> bytes | Coroutine[Any, Any, Contents]:
        """Return a message's octets where they are at hand, else what has to be awaited for them.

        They are at hand if the message holds them and no plugin would be asked, or if the first
        plugin to be asked is plain code that returns them. Awaited, it comes to octets, or to an
        iterator of chunks to be closed. Each hookimpl is called once.
        """
        first = self._hooks["load_contents"][0]
        if first.plugin == OWN:
            overridden = type(message).load_contents is not PopMessage.load_contents
            if not overridden and message.contents is not None:
                return message.contents
            return self._open(message, session, None)
        if not first.is_plain:
            return self._open(message, session, None)
        began = time.perf_counter()
        try:
            contents = first.call(message, session)
        except Exception as exc:  # noqa: BLE001 - raised again where every hook's errors are met
            return self._open(message, session, _raising(exc))
        if isinstance(contents, bytes):
            first.calls.add(time.perf_counter() - began)
            return contents
        return self._open(message, session, lambda *_: contents)

    async def _open(
        self, message: PopMessage, session: Session, begun: Callable[..., Any] | None
    ) -> Contents:
        contents, impl = await self._answer("load_contents", message, session, begun=begun)
        if contents is None:
            raise PermanentFailure
        if isinstance(contents, str):
            return contents.encode()
        if isinstance(contents, bytes | bytearray | memoryview):
            return bytes(contents)
        return self._chunks(contents, impl)

    async def _chunks(
        self, contents: AsyncIterator[bytes], impl: Impl
    ) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in contents:
                yield chunk
        except PopError:
            impl.calls.failures += 1
            raise
        except Exception as exc:
            impl.calls.failures += 1
            self.log.exception("hook.failed", hook="load_contents", plugin=impl.plugin)
            raise PluginFailure("load_contents", impl.plugin) from exc
        finally:
            close = getattr(contents, "aclose", None)
            if close is not None:
                await close()

    async def delete_messages(self, messages: Sequence[PopMessage], session: Session) -> int:
        """Remove the messages; return how many are gone."""
        patience = self.hook_timeout * REMOVAL_PATIENCE
        return int(await self.first("delete_messages", messages, session, patience=patience) or 0)

    # Failed logins

    async def count_failed_login(self, name: str, address: str, window: float) -> tuple[int, int]:
        """Note a failed login; return what all nodes have counted, (0, 0) where nobody knows."""
        try:
            counts = await self.first("count_failed_login", name, address, window)
        except PluginFailure:
            counts = None  # logged where it was caught
        except PopError as exc:
            self.log.error("hook.failed", hook="count_failed_login", error=str(exc))
            counts = None
        return counts or (0, 0)

    # Observers

    async def session_opened(self, session: Session) -> None:
        """Tell that a connection was accepted."""
        await self._notify("session_opened", session)

    async def login_succeeded(self, session: Session) -> None:
        """Tell that the session entered TRANSACTION."""
        await self._notify("login_succeeded", session)

    async def login_failed(self, name: str, session: Session) -> None:
        """Tell that a login was refused."""
        await self._notify("login_failed", name, session)

    async def message_retrieved(self, message: PopMessage, session: Session) -> None:
        """Tell that RETR sent a whole message."""
        await self._notify("message_retrieved", message, session)

    async def session_closed(self, session: Session) -> None:
        """Tell that the session has ended."""
        await self._notify("session_closed", session)

    def observes(self, hook: str) -> bool:
        """Return whether any plugin implements the hook."""
        return bool(self._hooks[hook])

    # Life

    def configure(self, options: Mapping[str, Any]) -> None:
        """Hand the settings to every plugin."""
        self._gather("configure", options)

    async def startup(self, server: Server | None = None) -> None:
        """Start the plugins in order; shut down those already started where one fails."""
        for impl in reversed(self._hooks["startup"]):
            try:
                result = impl.call(server)
                if inspect.isawaitable(result):
                    await result
            except BaseException:
                await self.shutdown(server)
                raise
            self._started.append(impl.plugin)

    async def shutdown(self, server: Server | None = None) -> None:
        """Shut down the plugins, the last one started first; all of them, whatever one raises."""
        for impl in self._hooks["shutdown"]:
            started = not any(impl.plugin == other.plugin for other in self._hooks["startup"])
            if not started and impl.plugin not in self._started:
                continue
            try:
                result = impl.call(server)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                self.log.exception("hook.failed", hook="shutdown", plugin=impl.plugin)
        self._started.clear()

    async def ready(self) -> None:
        """Return if every plugin could serve now; raise the first error of one that can't."""
        for impl in self._hooks["ready"]:
            await self._call("ready", impl, (), self.hook_timeout)

    # What plugins add

    def default_language(self, session: Session) -> str | None:
        """Return the tag that a plugin chooses for this connection, or None."""
        for impl in self._hooks["default_language"]:
            try:
                tag = impl.call(session)
            except Exception:
                self.log.exception("hook.failed", hook="default_language", plugin=impl.plugin)
                continue
            if tag is not None:
                return str(tag)
        return None

    def capabilities(self, session: Session) -> list[str]:
        """Return the capability lines that plugins add, in this state."""
        lines: list[str] = []
        for impl in self._hooks["capabilities"]:
            try:
                lines.extend(impl.call(session) or ())
            except Exception:
                self.log.exception("hook.failed", hook="capabilities", plugin=impl.plugin)
        return lines

    def options(self) -> list[tuple[str, list[click.Option]]]:
        """Return each plugin's command-line options."""
        return [(plugin, list(found or ())) for plugin, found in self._gather("register_options")]

    def register_commands(self, group: click.Group) -> None:
        """Let plugins add commands of their own."""
        self._gather("register_commands", group)

    def languages(self) -> list[Path]:
        """Return the directories of language files that plugins bring."""
        return [path for _, paths in self._gather("register_languages") for path in paths or ()]

    def mechanisms(self) -> dict[str, Mechanism]:
        """Return the SASL mechanisms that plugins bring, by name."""
        found = self._gather("register_sasl_mechanisms")
        return {each.name: each for _, mechanisms in found for each in mechanisms or ()}


def _raising(error: Exception) -> Callable[..., Any]:
    def begun(*_: Any) -> Any:
        raise error

    return begun


def _named(plugin: Plugin | object) -> Plugin:
    return plugin if isinstance(plugin, Plugin) else Plugin(type(plugin).__name__, plugin)
