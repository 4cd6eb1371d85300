"""The click group behind `pop3hub`: its options under headings, and what plugins add to it."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click

from pop3hub.cli import options
from pop3hub.cli.hints import variables
from pop3hub.errors import ConfigurationError
from pop3hub.hooks import discovery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pop3hub.cli.context import CliContext

PROGRAM = "pop3hub"
PREFIX = "POP3HUB"
"""What names of environment variables begin with."""

_HELP = """\
Serve mail over POP3 and POP3S from a mail store that is a plugin.

Without a command it serves: `pop3hub --backend mongo`. Options stand before the command.
`pop3hub --backend NAME --help` shows that store's options too.
"""
_EPILOG = (
    "Each option can also stand in the environment, --idle-timeout as POP3HUB_IDLE_TIMEOUT "
    "(several values with spaces between them), and in the file of --config as idle_timeout. The "
    "command line comes first, then the environment, then the file."
)


class Program(click.Group):
    """The command with its options under headings, and what plugins add."""

    def __init__(
        self,
        plugins: options.Headings,
        app: CliContext,
        arguments: Sequence[str],
        callback: Callable[..., Any] | None = None,
    ) -> None:
        """Join the options of plugins to pop3hub's own; raise ConfigurationError."""
        core = options.core()
        headings = [*core[:1], *plugins, *core[1:]]
        taken: dict[str, str] = {}
        for heading, group in headings:
            for option in group:
                name = option.name or ""
                if name in taken:
                    raise ConfigurationError(
                        f"{heading}: its option {option.opts[0]} is one of {taken[name]!r} already"
                    )
                taken[name] = heading
                if option.envvar is None:
                    option.envvar = variables(option, PREFIX)
        self.headings = headings
        self.plugin_options = {option.name or "" for _, group in plugins for option in group}
        self.app = app
        self.arguments = arguments
        super().__init__(
            PROGRAM,
            params=[
                *(option for _, group in headings for option in group),
                click.Option(
                    ["--version"],
                    is_flag=True,
                    is_eager=True,
                    expose_value=False,
                    callback=_print_version,
                    help="Show the versions of pop3hub and of its plugins, and end.",
                ),
            ],
            invoke_without_command=True,
            callback=callback,
            result_callback=lambda *_, **__: None,  # what a command returns is no exit code
            help=_HELP,
            epilog=_EPILOG,
        )

    @property
    def options(self) -> dict[str, click.Option]:
        """All options by parameter name."""
        return {option.name or "": option for _, group in self.headings for option in group}

    def parse(self, arguments: Sequence[str], values: Mapping[str, Any]) -> click.Context:
        """Return the context of these arguments; `values` are the configuration file's."""
        return self.make_context(
            PROGRAM, list(arguments), default_map=dict(values), auto_envvar_prefix=PREFIX
        )

    def note(self, values: Mapping[str, Any]) -> None:
        """Let the app know what the options say."""
        self.app.values = values
        self.app.options = {
            name: value
            for name, value in values.items()
            if name in self.plugin_options and value is not None
        }

    def add_command(self, command: click.Command, name: str | None = None) -> None:
        """Add a command; one that is there already is not replaced."""
        name = name or command.name or ""
        if name in self.commands:
            raise ConfigurationError(f"there is a command {name!r} already: a plugin adds another")
        super().add_command(command, name)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings, then the commands."""
        grouped = {id(option) for _, group in self.headings for option in group}
        rest = [param for param in self.get_params(ctx) if id(param) not in grouped]
        sections: list[tuple[str, Sequence[click.Parameter]]] = [*self.headings, ("Help", rest)]
        for heading, group in sections:
            records = [record for option in group if (record := option.get_help_record(ctx))]
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
        self.format_commands(ctx, formatter)


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's way
    if not wanted or context.resilient_parsing:
        return
    click.echo(f"{PROGRAM} {version(PROGRAM)}, Python {platform.python_version()}")
    for kind, group in (("backend", discovery.BACKENDS), ("extension", discovery.EXTENSIONS)):
        for entry in discovery.installed(group):
            origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "?"
            click.echo(f"{kind} {entry.name}: {origin}")
    context.exit()
