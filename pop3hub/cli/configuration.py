"""The configuration file: TOML in, a value for each option out.

A key is an option's name: `idle_timeout`, and `cert` in the table `[tls]` for --tls-cert. Tables
are flattened before click sees them, since click would hand a nested one to the subcommand of that
name. What a value must look like is the option's to say.
"""

from __future__ import annotations

import difflib
import tomllib
from typing import TYPE_CHECKING, Any

from pop3hub.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    import click


def read(path: Path) -> dict[str, Any]:
    """Return what the file holds, tables as they are; raise ConfigurationError."""
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as exc:
        raise ConfigurationError(f"--config {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise ConfigurationError(f"--config {path}: this is not TOML in UTF-8: {exc}") from exc


def flatten(
    data: Mapping[str, Any], options: Mapping[str, click.Option], others: Collection[str] = ()
) -> dict[str, Any]:
    """Return the values by the options' parameter names.

    `others` are the plugins that were not chosen: what is theirs is passed over. Raises
    ConfigurationError, which names every key that is nobody's.
    """
    theirs = tuple(f"{name}_".replace("-", "_") for name in others)
    values: dict[str, Any] = {}
    unknown: list[str] = []
    for key, name, value in _leaves(data, options):
        if name in options:
            if isinstance(value, bool) and not options[name].is_flag:
                raise ConfigurationError(f"key {key!r} is not one that is true or false")
            values[name] = [value] if options[name].multiple and isinstance(value, str) else value
        elif not f"{name}_".startswith(theirs):
            unknown.append(_with_nearest(key, name, options))
    if unknown:
        raise ConfigurationError(f"unknown {'; unknown '.join(unknown)}")
    return values


def _leaves(
    table: Mapping[str, Any], options: Mapping[str, click.Option], keys: tuple[str, ...] = ()
) -> Iterator[tuple[str, str, Any]]:
    """Yield the key as it is written, the parameter's name, and the value."""
    for key, value in table.items():
        path = (*keys, key)
        name = "_".join(path).replace("-", "_")
        if isinstance(value, dict) and name not in options:
            yield from _leaves(value, options, path)
        else:
            yield ".".join(path), name, value


def _with_nearest(key: str, name: str, options: Mapping[str, click.Option]) -> str:
    nearest = difflib.get_close_matches(name, options, n=1)
    return f"key {key!r}" + (f", did you mean {nearest[0]}?" if nearest else "")
