"""The command `pop3hub`: which options there are, where their values come from, and how it ends.

`--backend`, `--no-plugin` and `--config` are looked for first, since they say which plugins join
their options to pop3hub's own. Values come from the command line, else from the environment, else
from the configuration file. Every error ends here as one line that says what to do.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pop3hub.cli import configuration, options
from pop3hub.cli.commands import COMMANDS
from pop3hub.cli.context import CliContext, Refused, english
from pop3hub.cli.hints import OTHER_WORDS, unknown_variables, variables
from pop3hub.cli.program import PREFIX, PROGRAM, Program
from pop3hub.errors import ConfigurationError, NoSuchUser, PermanentFailure, PopError
from pop3hub.hooks import discovery

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@click.pass_context
def _begin(context: click.Context, /, **values: Any) -> None:
    """Note what the options say; serve, unless a command follows."""
    from pop3hub.cli import serve  # noqa: PLC0415 - help and errors need no server

    program = context.command
    assert isinstance(program, Program)  # noqa: S101 - this callback is its own
    app = program.app
    program.note(values)
    app.reassemble = lambda path: _reassemble(program, path)
    context.obj = app
    serves = context.invoked_subcommand is None
    chosen = context.get_parameter_source("log_level") is not ParameterSource.DEFAULT
    serve.configure_logs(values, quiet=not serves and not chosen)
    if serves:
        context.exit(serve.serve(app, lambda: _again(program), report))


def _again(program: Program) -> Mapping[str, Any]:
    """Return the options' values as they would be after a restart; raise ConfigurationError."""
    try:
        return program.parse(program.arguments, _file_values(program)).params
    except click.ClickException as exc:
        raise ConfigurationError(_line(exc)) from exc


def _reassemble(program: Program, config: Path) -> CliContext:
    other, values = assemble(program.arguments, config)
    other.note(other.parse(other.arguments, values).params)
    return other.app


# What comes before click


def look_ahead(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the values of the options that say which others there are; nothing is an error."""
    command = click.Command(
        PROGRAM,
        params=list(options.selection()),
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    context = command.make_context(
        PROGRAM, list(arguments), auto_envvar_prefix=PREFIX, resilient_parsing=True
    )
    return context.params


def assemble(
    arguments: Sequence[str], config: Path | None = None
) -> tuple[Program, dict[str, Any]]:
    """Return the command with all of its options and commands, and the configuration's values.

    `config` stands in place of --config. Raises ConfigurationError.
    """
    found = look_ahead(arguments)
    config = config or found["config"]
    data = configuration.read(config) if config else {}
    name = found["backend"] or data.get("backend")
    blocked = found["no_plugin"] or data.get("no_plugin", ())
    app = CliContext(config=config)
    headings: options.Headings = []
    if name:
        app.chosen = discovery.load_backend(str(name))
        app.extensions = discovery.load_extensions(
            [blocked] if isinstance(blocked, str) else blocked
        )
        headings = [(f"Plugin {name}", own) for name, own in app.plugins.options() if own]
    program = Program(headings, app, arguments, _begin)
    for command in COMMANDS.values():
        program.add_command(command)
    if name:
        app.plugins.register_commands(program)
    return program, _file_values(program)


def _file_values(program: Program) -> dict[str, Any]:
    app = program.app
    if app.config is None:
        return {}
    known = {name: each for name, each in program.options.items() if name != "config"}
    try:
        return configuration.flatten(configuration.read(app.config), known, _not_chosen(app))
    except ConfigurationError as exc:
        raise ConfigurationError(f"{app.config}: {exc}") from exc


def _not_chosen(app: CliContext) -> set[str]:
    """Return the installed plugins that don't take part."""
    chosen = {plugin.name for plugin in (app.chosen, *app.extensions) if plugin}
    return {
        entry.name
        for group in (discovery.BACKENDS, discovery.EXTENSIONS)
        for entry in discovery.installed(group)
    } - chosen


# The end


def main(arguments: Sequence[str] | None = None) -> None:
    """Run pop3hub with these arguments, or those of the process, and exit."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        program, values = assemble(arguments)
        _warn_of_variables(program)
        code = program.main(
            arguments,
            prog_name=PROGRAM,
            standalone_mode=False,
            default_map=values,
            auto_envvar_prefix=PREFIX,
        )
    except Exception as exc:  # noqa: BLE001 - the last place: an error becomes a line and a code
        code = report(exc)
        command = next((word for word in arguments if word in COMMANDS), None)
        if command == "deliver" and code not in _BOUNCES:
            code = os.EX_TEMPFAIL  # what an administrator can repair, mail can wait for
    sys.exit(code or 0)


def _warn_of_variables(program: Program) -> None:
    """Say what is set in the environment and is no option's: a typing error changes nothing."""
    known = [name for each in program.options.values() for name in variables(each, PREFIX)]
    for line in unknown_variables(os.environ, known, _not_chosen(program.app), PREFIX):
        click.echo(f"{PROGRAM}: {line}", err=True)


_BOUNCES = {os.EX_DATAERR, os.EX_NOUSER, os.EX_UNAVAILABLE, 2}
"""The exit codes of `deliver` at which mail servers give a message back to its sender."""


def report(exc: Exception) -> int:
    """Print an error as one line; return the exit code."""
    if isinstance(exc, click.Abort):
        click.echo("Aborted.", err=True)
        return 130  # what a shell makes of SIGINT
    if isinstance(exc, click.exceptions.NoArgsIsHelpError):
        click.echo(exc.format_message(), err=True)
        return exc.exit_code
    click.echo(f"{PROGRAM}: {_line(exc)}", err=True)
    if isinstance(exc, Refused):
        return exc.code
    if isinstance(exc, click.ClickException):
        return exc.exit_code
    return next((code for kind, code in _CODES.items() if isinstance(exc, kind)), os.EX_SOFTWARE)


_CODES: dict[type[Exception], int] = {
    ConfigurationError: 1,
    NoSuchUser: os.EX_NOUSER,
    PermanentFailure: os.EX_UNAVAILABLE,
    PopError: os.EX_TEMPFAIL,
}


def _line(exc: Exception) -> str:
    match exc:
        case click.NoSuchOption() if hint := _hint(exc):
            text = hint
        case click.BadParameter():
            text = f"{exc.format_message()}{_source(exc)}"
        case click.UsageError():
            path = exc.ctx.command_path if exc.ctx else PROGRAM
            text = f"{exc.format_message()} See: {path} --help"
        case click.ClickException():
            text = exc.format_message()
        case ConfigurationError():
            text = str(exc)
        case NoSuchUser():
            text = f"there is no user {exc.fields.get('name', '')!r}"
        case PopError():
            text = f"{english(exc)}: {exc.detail}" if exc.detail else english(exc)
        case _:
            text = f"{type(exc).__name__}: {exc}; this is a defect of pop3hub or of a plugin"
    return " ".join(text.split())


def _hint(exc: click.NoSuchOption) -> str:
    """Return what to do about an option that doesn't exist here; "" leaves it to click."""
    name = exc.option_name
    if name in OTHER_WORDS:
        return f"There is no option {name}: use {OTHER_WORDS[name]}"
    if backend := _backend_of(exc):
        return f"{name} is an option of a mail store: give --backend {backend}"
    if _lacks_backend(exc):
        return f"There is no option {name}, or it is a mail store's: give --backend"
    if _is_global(exc):
        where = exc.ctx.info_name if exc.ctx else ""
        return f"{name} is an option of pop3hub itself: give it before {where!r}"
    return ""


def _backend_of(exc: click.NoSuchOption) -> str:
    """Return the installed backend whose option this seems to be, where none was chosen; or ""."""
    program = exc.ctx.command if exc.ctx else None
    if not isinstance(program, Program) or program.app.chosen is not None:
        return ""
    names = [entry.name for entry in discovery.installed(discovery.BACKENDS)]
    return next((name for name in names if f"{exc.option_name}-".startswith(f"--{name}-")), "")


def _lacks_backend(exc: click.NoSuchOption) -> bool:
    program = exc.ctx.command if exc.ctx else None
    return isinstance(program, Program) and program.app.chosen is None and not exc.possibilities


def _is_global(exc: click.NoSuchOption) -> bool:
    if exc.ctx is None or exc.ctx.parent is None:
        return False
    root = exc.ctx.find_root().command
    return any(exc.option_name in (*each.opts, *each.secondary_opts) for each in root.params)


def _source(exc: click.BadParameter) -> str:
    """Say where a bad value came from, unless it is there to be seen."""
    if exc.ctx is None or exc.param is None or exc.param.name is None:
        return ""
    source = exc.ctx.get_parameter_source(exc.param.name)
    if source is ParameterSource.ENVIRONMENT:
        option = exc.ctx.command
        names = variables(exc.param, PREFIX) if isinstance(exc.param, click.Option) else []
        return f" (in the environment, {next((n for n in names if n in os.environ), option.name)})"
    if source is ParameterSource.DEFAULT_MAP and isinstance(exc.ctx.command, Program):
        return f" (in {exc.ctx.command.app.config})"
    return ""
