"""The operator's commands: `pop3hub --backend mongo sweep` and `lock list|release`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import click

from pop3hub_mongo.options import YOUNG

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Operations(Protocol):
    """What the commands ask of the backend."""

    def sweep(self, min_age: float) -> Awaitable[Any]:
        """Finish what was interrupted."""

    def list_locks(self) -> Awaitable[Any]:
        """Return the leases that are held."""

    def break_lock(self, name: str) -> Awaitable[bool]:
        """End the lease of a user."""


def register(group: click.Group, backend: Operations) -> None:
    """Add the commands to pop3hub's own."""

    @group.command("sweep")
    @click.option(
        "--older-than",
        type=click.FloatRange(min=0),
        default=YOUNG,
        show_default=True,
        metavar="SECONDS",
        help="Age of a body without a message: a younger one may be a delivery that goes on.",
    )
    @click.pass_obj
    def sweep(app: Any, older_than: float) -> None:
        """Finish interrupted removals, and remove what interrupted deliveries left."""
        swept = app.run(lambda: backend.sweep(older_than))
        click.echo(
            f"{swept.removals} removals finished, {swept.bodies} bodies without a message removed, "
            f"{swept.sizes} sizes forgotten"
        )

    @group.group("lock")
    def lock() -> None:
        """Show and break the locks on maildrops."""

    @lock.command("list")
    @click.pass_obj
    def list_(app: Any) -> None:
        """List the maildrops that are open now: user, node, client, since when."""
        for held in app.run(backend.list_locks):
            since = f"{held['since']:%Y-%m-%d %H:%M:%S}Z"
            who = "\t".join(held.get(fact, "-") for fact in ("user", "node", "peer"))
            click.echo(f"{who}\t{since}")

    @lock.command("release")
    @click.argument("name")
    @click.pass_obj
    def release(app: Any, name: str) -> None:
        """Take the lock of a user's maildrop away; the session that had it ends without UPDATE."""
        if not app.run(lambda: backend.break_lock(name)):
            raise click.ClickException(f"nobody holds the maildrop of {name!r}")
        click.echo(f"the maildrop of {name!r} is free")
