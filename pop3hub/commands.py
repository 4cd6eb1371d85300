"""The commands below `pop3hub`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pop3hub.check import check

if TYPE_CHECKING:
    import click


def register(group: click.Group) -> None:
    """Add pop3hub's own commands."""
    group.add_command(check)
