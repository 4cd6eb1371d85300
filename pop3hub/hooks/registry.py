"""From plugin objects to the hookimpls of each hook, with every mistake told by name at the start.

pluggy keeps the registry and checks names and arguments. Nothing here calls a hookimpl.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pluggy

from pop3hub.errors import ConfigurationError
from pop3hub.hooks import specs
from pop3hub.hooks.interfaces import Calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pop3hub.hooks.discovery import Plugin


class Impl:
    """One hookimpl, callable with all of its specification's arguments by position.

    Arguments that have a default in the hookimpl are given too: pluggy itself would leave them out.
    """

    __slots__ = ("call", "calls", "is_plain", "plugin")

    def __init__(self, impl: pluggy.HookImpl, arguments: Sequence[str]) -> None:
        self.plugin = impl.plugin_name
        self.calls = Calls()
        function = impl.function
        self.is_plain = not inspect.iscoroutinefunction(function)
        wanted = [arguments.index(name) for name in impl.argnames]
        named = {name: arguments.index(name) for name in impl.kwargnames if name in arguments}
        if named:
            self.call: Callable[..., Any] = lambda *given: function(
                *[given[index] for index in wanted],
                **{name: given[index] for name, index in named.items()},
            )
        elif wanted == list(range(len(arguments))):
            self.call = function
        elif wanted == list(range(count := len(wanted))):  # mostly: no more than the first ones
            self.call = lambda *given: function(*given[:count])
        else:
            self.call = lambda *given: function(*[given[index] for index in wanted])


def resolve(plugins: Iterable[Plugin]) -> dict[str, tuple[Impl, ...]]:
    """Return the hookimpls of each hook, in the order in which they are asked: last plugin first.

    Raises ConfigurationError for a class instead of an instance, a hook or an argument that doesn't
    exist, a name that is taken, and a wrapper, which would see a coroutine made but not its work.
    """
    manager = pluggy.PluginManager(specs.PROJECT)
    manager.add_hookspecs(specs)
    for plugin in plugins:
        _register(manager, plugin)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as exc:
        hook = str(exc).split("'")[1] if "'" in str(exc) else str(exc)
        raise ConfigurationError(
            f"plugin {manager.get_name(exc.plugin)!r} implements {hook!r}, "
            "which is no hook of pop3hub (docs/hooks.md)"
        ) from exc
    names = [name for name, value in vars(specs).items() if hasattr(value, "pop3hub_spec")]
    return {name: _impls(getattr(manager.hook, name)) for name in names}


def _register(manager: pluggy.PluginManager, plugin: Plugin) -> None:
    if inspect.isclass(plugin.instance):
        raise ConfigurationError(
            f"plugin {plugin.name!r} is the class {plugin.instance.__name__}: give an instance"
        )
    try:
        manager.register(plugin.instance, plugin.name)
    except pluggy.PluginValidationError as exc:
        raise ConfigurationError(f"plugin {plugin.name!r}: {exc}".replace("\n", " ")) from exc
    except ValueError as exc:
        raise ConfigurationError(f"two plugins are named {plugin.name!r}") from exc


def _impls(caller: pluggy.HookCaller) -> tuple[Impl, ...]:
    impls = caller.get_hookimpls()
    for impl in impls:
        if impl.hookwrapper or impl.wrapper:
            raise ConfigurationError(
                f"plugin {impl.plugin_name!r} wraps {caller.name}: wrappers are not supported, "
                "since they would see a coroutine being made, not its work"
            )
    arguments = caller.spec.argnames if caller.spec else ()
    return tuple(Impl(impl, arguments) for impl in reversed(impls))
