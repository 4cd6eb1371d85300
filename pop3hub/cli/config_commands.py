"""The commands `config example`, `config check` and `config show`."""

from __future__ import annotations

import json
import os
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pop3hub.cli.hints import variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pop3hub.cli.context import CliContext
    from pop3hub.cli.program import Program

WIDTH = 88

_SECRET = re.compile(r"(^|_)(password|secret|token)$")
_CREDENTIALS = re.compile(r"(://[^/@:\s]*:)[^@\s]*@")
_HIDDEN = "***"


@click.group()
def config() -> None:
    """Print an example of a configuration file, check one, or show what holds."""


@config.command()
@click.pass_context
def example(context: click.Context) -> None:
    """Print a file with every option, commented out, at its default.

    With --backend NAME before `config`, that store's options are among them.
    """
    program: Any = context.find_root().command
    click.echo("\n".join(_example(program)))


def _example(program: Program) -> Iterator[str]:
    yield "# pop3hub --config FILE reads this; take the # away from what you set."
    # Tables come last, since keys behind a table's head are the table's.
    tables = {
        heading: _common_table([option.name or "" for option in group])
        if group[0].name in program.plugin_options
        else ""
        for heading, group in program.headings
    }
    for heading, group in sorted(program.headings, key=lambda item: bool(tables[item[0]])):
        table = tables[heading]
        yield f"\n# {heading}"
        if table:
            yield f"[{table}]"
        for option in group:
            if option.hidden or option.name == "config":
                continue
            yield from textwrap.wrap(
                option.help or "", WIDTH, initial_indent="# ", subsequent_indent="# "
            )
            name = (option.name or "").removeprefix(f"{table}_")
            yield f"# {name} = {json.dumps(_sample(option), ensure_ascii=False)}"


def _common_table(names: list[str]) -> str:
    """Return the word that all of a plugin's options begin with, or ""."""
    first = names[0].partition("_")[0]
    return first if all(name.startswith(f"{first}_") for name in names) else ""


def _sample(option: click.Option) -> Any:
    """Return the default, or where there is none, a value of the right kind."""
    default = option.default
    if isinstance(default, tuple | list):
        return list(default)
    if isinstance(default, str | int | float):
        return default
    if option.is_flag:
        return False
    if isinstance(option.type, click.IntRange | click.FloatRange):
        return option.type.min or 0
    sample = option.metavar or ""
    return [sample] if option.multiple else sample


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def check(app: CliContext, *, file: Path) -> None:
    """Check a configuration file without serving.

    Keys, values, listeners and languages, and what the mail store makes of its settings; it is
    not connected to, and certificates are not read.
    """
    from pop3hub.cli.serve import make_server  # noqa: PLC0415 - no other command needs a server

    checked = app.reassemble(file)
    if checked.chosen is None:
        click.echo(f"{file}: the keys are good; it has no `backend`, so that is all one can tell")
        return
    make_server(checked)
    click.echo(f"{file}: good")


@config.command()
@click.pass_context
def show(context: click.Context) -> None:
    """Show the value of each option and where it comes from; secrets are hidden."""
    root = context.find_root()
    program: Any = root.command
    for heading, group in program.headings:
        click.echo(f"# {heading}")
        for option in group:
            value = root.params[option.name]
            origin = _origin(root, option, program.app)
            click.echo(f"{option.name} = {_shown(option, value)}  # {origin}")


def _origin(root: click.Context, option: click.Option, app: CliContext) -> str:
    match root.get_parameter_source(option.name or ""):
        case ParameterSource.COMMANDLINE:
            return "command line"
        case ParameterSource.ENVIRONMENT:
            names = variables(option, root.auto_envvar_prefix or "")
            return f"environment, {next((name for name in names if name in os.environ), names[0])}"
        case ParameterSource.DEFAULT_MAP:
            return str(app.config)
    return "default"


def _shown(option: click.Option, value: Any) -> str:
    if value in (None, ()):
        return "none"
    if option.hide_input or _SECRET.search(option.name or ""):
        return _HIDDEN
    if isinstance(value, dict):
        return str(value)
    values = value if isinstance(value, tuple) else (value,)
    return " ".join(_CREDENTIALS.sub(rf"\1{_HIDDEN}@", str(each)) for each in values)
