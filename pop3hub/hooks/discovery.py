"""Finding plugins that are installed: entry points in, instances out.

Names are listed without importing anything, so that one broken backend stops nobody else. Nothing
here calls a hook.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from pop3hub.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection

BACKENDS = "pop3hub.backends"
EXTENSIONS = "pop3hub.plugins"
OWN = ("maildir", "memory", "mongo")
"""Backends that pop3hub's authors distribute, as pop3hub-NAME."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin's instance and where it came from; `distribution` is empty for one made in place."""

    name: str
    instance: object
    distribution: str = ""
    version: str = ""

    @property
    def origin(self) -> str:
        """Where it came from, for people: `pop3hub-mongo 0.1.0`."""
        return f"{self.distribution} {self.version}" if self.distribution else "this program"


def installed(group: str) -> list[EntryPoint]:
    """Return the installed plugins of a group by name, without importing them."""
    return sorted(entry_points(group=group), key=lambda entry: entry.name)


def load_backend(name: str) -> Plugin:
    """Import and make the backend of this name.

    Raises ConfigurationError: no such backend, two of that name, or one that doesn't load.
    """
    found = [entry for entry in installed(BACKENDS) if entry.name == name]
    if not found:
        names = ", ".join(entry.name for entry in installed(BACKENDS)) or "none"
        remedy = f"pip install pop3hub-{name}" if name in OWN else "install the plugin that has it"
        raise ConfigurationError(
            f"no backend named {name!r} is installed (installed: {names}): {remedy}"
        )
    if len({_distribution(entry) for entry in found}) > 1:
        origins = " and ".join(sorted(_distribution(entry) for entry in found))
        raise ConfigurationError(f"backend {name!r} is in {origins}: uninstall one of them")
    return _load(found[0])


def load_extensions(blocked: Collection[str] = ()) -> list[Plugin]:
    """Import and make every installed extension whose name isn't blocked.

    Raises ConfigurationError for one that doesn't load, or for a blocked name that isn't installed.
    """
    entries = installed(EXTENSIONS)
    if unknown := set(blocked) - {entry.name for entry in entries}:
        names = ", ".join(entry.name for entry in entries) or "none"
        raise ConfigurationError(
            f"no plugin named {min(unknown)!r} is installed (installed: {names})"
        )
    return [_load(entry) for entry in entries if entry.name not in blocked]


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unnamed distribution"


def _load(entry: EntryPoint) -> Plugin:
    remedy = f"; reinstall {_distribution(entry)}"
    if entry.group == EXTENSIONS:
        remedy += f", or leave it out with --no-plugin {entry.name}"
    try:
        made = entry.load()
    except Exception as exc:  # a plugin's module may raise anything while it is imported
        raise ConfigurationError(
            f"plugin {entry.name!r} ({entry.value}) can't be imported: {exc!r}{remedy}"
        ) from exc
    if inspect.isclass(made):
        try:
            made = made()
        except Exception as exc:  # nor is its constructor ours
            raise ConfigurationError(
                f"plugin {entry.name!r} ({entry.value}) can't be made: {exc!r}{remedy}"
            ) from exc
    version = entry.dist.version if entry.dist else ""
    return Plugin(entry.name, made, _distribution(entry), version)
