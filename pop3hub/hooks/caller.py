"""The plugins of one server: registered, checked, and called with errors and time attributed.

The only module that calls a hookimpl. pluggy keeps the registry (registry.py); the calls are made
here, because pluggy takes a coroutine for an answer: a `firstresult` hook would stop at the first
one, whatever it came to (benchmarks/parts.py has the prices).
"""

from __future__ import annotations

import inspect
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from pop3hub.errors import (
    ConfigurationError,
    PermanentFailure,
    PluginFailure,
    PopError,
    TemporaryFailure,
    WrongAnswer,
)
from pop3hub.hooks import answers
from pop3hub.hooks.deadlines import Deadlines
from pop3hub.hooks.discovery import Plugin
from pop3hub.hooks.registry import Impl, resolve

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Iterable,
        Iterator,
        Mapping,
    )

    from pop3hub.hooks.interfaces import Calls, Server

OWN = "pop3hub"
"""The name of the plugin that holds pop3hub's own defaults."""
REQUIRED = ("get_user", "receive_messages", "delete_messages")
HOOK_TIMEOUT = 30.0
"""Seconds that one awaited hook call may take."""
REMOVAL_PATIENCE = 20
"""How many times longer `delete_messages` may take: half a removal helps nobody."""


class HookCaller:
    """The backend, the extensions and pop3hub's defaults, and how their hookimpls are called.

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
        self._deadlines = Deadlines()
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
                result = await self._deadlines.limit(result, patience)
        except (TemporaryFailure, PermanentFailure) as exc:
            calls.failures += 1
            if exc.detail:
                self.log.error("hook.failed", hook=hook, plugin=impl.plugin, error=str(exc.detail))
            raise
        except WrongAnswer as exc:
            raise self._wrong(hook, impl, exc) from exc
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

    def checked(self, hook: str, impl: Impl, check: Callable[..., None], *given: Any) -> None:
        """Check an answer, or a part of it; a wrong one is the plugin's failure."""
        try:
            check(*given)
        except WrongAnswer as exc:
            raise self._wrong(hook, impl, exc) from exc

    def _wrong(self, hook: str, impl: Impl, error: WrongAnswer) -> PluginFailure:
        impl.calls.failures += 1
        self.log.error("hook.wrong_answer", hook=hook, plugin=impl.plugin, error=str(error))
        return PluginFailure(hook, impl.plugin)

    async def first(self, hook: str, *arguments: Any, patience: float | None = None) -> Any:
        """Return the first answer of a `firstresult` hook that is not None, or None."""
        return (await self.answer(hook, *arguments, patience=patience))[0]

    async def answer(
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
                self.checked(hook, impl, answers.check, hook, result)
                return result, impl
        return None, impl

    async def notify(self, hook: str, *arguments: Any) -> None:
        """Tell every observer; what one raises is logged and goes no further."""
        for impl in self._hooks[hook]:
            try:
                await self._call(hook, impl, arguments, self.hook_timeout)
            except PluginFailure:
                pass  # logged where it was caught
            except PopError as exc:
                self.log.error("hook.failed", hook=hook, plugin=impl.plugin, error=str(exc))

    def gather(self, hook: str, *arguments: Any) -> list[tuple[str, Any]]:
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

    async def with_timeout(self, hook: str, impl: Impl, part: Callable[..., Any]) -> Any:
        """Await a part of what a hookimpl has returned, as if it were the hookimpl."""
        return await self._call(hook, impl, (), self.hook_timeout, part)

    def call_plain(self, hook: str, *arguments: Any) -> Iterator[Any]:
        """Yield what each plain hookimpl answers; one that fails is logged and left out."""
        for impl in self._hooks[hook]:
            try:
                yield impl.call(*arguments)
            except Exception:
                self.log.exception("hook.failed", hook=hook, plugin=impl.plugin)

    def call_at_once(self, impl: Impl, *arguments: Any) -> Callable[..., Any]:
        """Call a plain hookimpl now; return what gives its answer, or raises its error, later."""
        try:
            answer = impl.call(*arguments)
        except Exception as exc:  # noqa: BLE001 - raised again where every hook's errors are met
            return partial(_raise, exc)
        return lambda *_: answer

    def observes(self, hook: str) -> bool:
        """Return whether any plugin implements the hook."""
        return bool(self._hooks[hook])

    # Life

    def configure(self, options: Mapping[str, Any]) -> None:
        """Hand the settings to every plugin."""
        self.gather("configure", options)

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


def _raise(error: Exception, *_: Any) -> None:
    raise error


def _named(plugin: Plugin | object) -> Plugin:
    return plugin if isinstance(plugin, Plugin) else Plugin(type(plugin).__name__, plugin)
