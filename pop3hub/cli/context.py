"""What a command works with: the chosen backend, the options' values, and a way to run hooks.

The object behind `@click.pass_obj`, for pop3hub's own commands and for those of plugins.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pop3hub.hooks import discovery
from pop3hub.hooks.plugins import Plugins
from pop3hub.hooks.store import BackendStore
from pop3hub.i18n.catalogue import Catalogue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from pop3hub.errors import PopError

_T = TypeVar("_T")


class Refused(click.ClickException):
    """What was asked for can't be done: one line for the user, and an exit code of sysexits.h."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def english(error: PopError) -> str:
    """Return an error's text as an English client would read it."""
    reference = Catalogue.load().reference
    return reference.text(error.text_id, ascii=False, **error.fields).decode()


@dataclass(slots=True)
class CliContext:
    """The plugins that were chosen, and what the options say.

    chosen: the backend; None where no --backend was given, which some commands need not have.
    values: the options' values by parameter name, plugins' among them; filled in once parsed.
    options: the plugins' part of them, as `configure` gets it.
    config: the configuration file, if there is one.
    reassemble: returns what would hold with another configuration file.
    """

    chosen: discovery.Plugin | None = None
    extensions: Sequence[discovery.Plugin] = ()
    config: Path | None = None
    reassemble: Callable[[Path], CliContext] = field(repr=False, default=lambda _: CliContext())
    values: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    _plugins: Plugins | None = None

    @property
    def backend(self) -> discovery.Plugin:
        """The backend; raises UsageError where none was chosen."""
        if self.chosen is None:
            names = [entry.name for entry in discovery.installed(discovery.BACKENDS)]
            remedy = (
                f"installed: {', '.join(names)}" if names else "try: pip install pop3hub-memory"
            )
            raise click.UsageError(f"No mail store is chosen: give --backend NAME ({remedy}).")
        return self.chosen

    @property
    def plugins(self) -> Plugins:
        """The backend and the extensions, for their hooks."""
        if self._plugins is None:
            self._plugins = Plugins(self.backend, self.extensions)
        return self._plugins

    def store(self, *hooks: str) -> Any:
        """Return the backend's store; raise Refused where a command can't use it."""
        plugins = self.plugins
        name = self.backend.name
        if not plugins.shared_state:
            raise Refused(
                f"backend {name!r} keeps its mail in the process that serves: what this command "
                "stored would be lost when it ends",
                os.EX_UNAVAILABLE,
            )
        store = BackendStore(plugins)
        for hook in hooks:
            if getattr(store, hook) is None:
                raise Refused(
                    f"backend {name!r} can't do this: it has no {hook}; use its own tools",
                    os.EX_UNAVAILABLE,
                )
        return store

    def run(self, function: Callable[[], Awaitable[_T]]) -> _T:
        """Start the plugins, await the function in an event loop of its own, and shut them down."""
        plugins = self.plugins
        plugins.hook_timeout = self.values.get("hook_timeout", plugins.hook_timeout)
        plugins.configure(self.options)

        async def work() -> _T:
            await plugins.startup(None)
            try:
                return await function()
            finally:
                await plugins.shutdown(None)

        return asyncio.run(work())
