"""The commands below `pop3hub`, and those of them that only tell: plugins, languages, config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

from pop3hub.cli.check import check
from pop3hub.cli.config_commands import config
from pop3hub.cli.store import deliver, import_, user
from pop3hub.errors import ConfigurationError
from pop3hub.hooks import discovery, specs
from pop3hub.i18n.catalogue import Catalogue
from pop3hub.i18n.files import check_file, skeleton

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pop3hub.cli.context import CliContext


# Plugins


@click.command()
@click.pass_obj
def plugins(app: CliContext) -> None:
    """List the installed mail stores and extensions, and the hooks that each implements."""
    chosen = {plugin.name for plugin in (app.chosen, *app.extensions) if plugin}
    for kind, group in (("store", discovery.BACKENDS), ("extension", discovery.EXTENSIONS)):
        for entry in discovery.installed(group):
            mark = "*" if entry.name in chosen else " "
            origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            click.echo(f"{mark} {kind:10}{entry.name:12}{origin}")
            click.echo(f"              {_hooks(entry.name, group)}")
    if app.chosen is None:
        click.echo("Give --backend NAME before `plugins` to see who answers get_user.")
        return
    answers = app.plugins.implementers("get_user")
    click.echo(f"* takes part. get_user is asked of: {', then '.join(answers)}.")


def _hooks(name: str, group: str) -> str:
    try:
        if group == discovery.BACKENDS:
            instance = discovery.load_backend(name).instance
        else:
            others = {entry.name for entry in discovery.installed(group)} - {name}
            instance = discovery.load_extensions(others)[0].instance
    except ConfigurationError as exc:
        return f"unusable: {exc}"
    names = [hook for hook, spec in vars(specs).items() if hasattr(spec, "pop3hub_spec")]
    return ", ".join(
        hook for hook in names if hasattr(getattr(instance, hook, None), "pop3hub_impl")
    )


# Languages


@click.group()
def languages() -> None:
    """List the languages, check a language file, or begin a new one."""


@languages.command("list")
@click.pass_obj
def list_(app: CliContext) -> None:
    """List the languages: tag, name, and how many of the texts are translated."""
    directories = list(app.values["language_dir"])
    if app.chosen:
        directories += app.plugins.languages()
    catalogue = Catalogue.load(directories, default=app.values["language"])
    texts = len(catalogue.reference.entries)
    for language in catalogue.languages:
        mark = "*" if language is catalogue.default else " "
        click.echo(f"{mark} {language.tag:10}{len(language.entries):3}/{texts}  {language.name}")


@languages.command("check")
@click.argument(
    "files", metavar="FILE...", type=click.Path(path_type=Path), nargs=-1, required=True
)
@click.pass_context
def check_(context: click.Context, *, files: Sequence[Path]) -> None:
    """Check language files; ends with 1 if one of them can't be used."""
    reference = Catalogue.load().reference
    failed = False
    for path in files:
        report = check_file(path, reference)
        for error in report.errors:
            click.echo(f"{path}: {error}", err=True)
        failed = failed or bool(report.errors)
        if not report.errors:
            missing = f"; in English: {', '.join(report.missing)}" if report.missing else ""
            click.echo(f"{path}: good, {len(report.missing)} texts missing{missing}")
    context.exit(1 if failed else 0)


@languages.command()
@click.argument("tag")
def new(tag: str) -> None:
    """Print a file for a new language, with every text in English, to be filled in."""
    click.echo(skeleton(tag, Catalogue.load().reference), nl=False)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, *, shell: str) -> None:
    """Print what makes a shell complete pop3hub's commands and options.

    For bash: pop3hub completion bash > ~/.local/share/bash-completion/completions/pop3hub
    """
    complete = get_completion_class(shell)
    if complete is not None:
        program = context.find_root().command
        click.echo(complete(program, {}, "pop3hub", "_POP3HUB_COMPLETE").source())


COMMANDS: dict[str, click.Command] = {
    "user": user,
    "deliver": deliver,
    "import": import_,
    "plugins": plugins,
    "languages": languages,
    "config": config,
    "check": check,
    "completion": completion,
}
"""pop3hub's own commands, by the word that calls them."""
