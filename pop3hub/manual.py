"""The command `manual`: pop3hub(1) in roff, made of what `--help` is made of."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pop3hub.cli import Program

_EXIT_CODES = {
    "0": "It ended in order.",
    "1": "A setting can't work, or the mail store could not be reached at the start.",
    "2": "Wrong arguments.",
    "65": "A message or a password could not be taken.",
    "67": "There is no such user.",
    "69": "The mail store can't do this.",
    "75": "It did not work now and may work later.",
}


@click.command()
@click.pass_context
def manual(context: click.Context) -> None:
    """Print the manual page, as `pop3hub manual > pop3hub.1` keeps it.

    With --backend NAME before it, that store's options are in it.
    """
    root = context.find_root()
    click.echo("\n".join(_page(root)))


def _page(root: click.Context) -> Iterator[str]:
    program: Program | Any = root.command
    yield f'.TH POP3HUB 1 "" "pop3hub {version("pop3hub")}"'
    yield ".SH NAME\npop3hub \\- serve mail over POP3 and POP3S"
    yield ".SH SYNOPSIS\n.B pop3hub\n[options] [command]"
    yield ".SH DESCRIPTION"
    yield _escaped(program.help)
    yield ".SH OPTIONS"
    for heading, group in program.headings:
        yield f".SS {_escaped(heading)}"
        yield from _records(group, root)
    yield ".SH COMMANDS"
    for path, context in _contexts(program, root):
        arguments = " ".join(context.command.collect_usage_pieces(context))
        yield f".SS {_escaped(f'{path} {arguments}')}"
        yield _escaped(context.command.help)
        yield from _records(context.command.params, context)
    yield ".SH ENVIRONMENT AND FILES"
    yield _escaped(program.epilog)
    yield ".SH EXIT STATUS"
    for code, meaning in _EXIT_CODES.items():
        yield f".TP\n.B {code}\n{_escaped(meaning)}"


def _records(params: Sequence[click.Parameter], context: click.Context) -> Iterator[str]:
    for param in params:
        if record := param.get_help_record(context):
            names, text = record
            yield f".TP\n.B {_escaped(names)}\n{_escaped(text)}"


def _contexts(
    group: click.Group, parent: click.Context, above: str = ""
) -> Iterator[tuple[str, click.Context]]:
    """Yield every command below the group that does something, and its context."""
    for name, command in group.commands.items():
        path = f"{above}{name}"
        context = click.Context(command, parent=parent, info_name=name)
        if isinstance(command, click.Group):
            yield from _contexts(command, context, f"{path} ")
        elif not command.hidden:
            yield path, context


def _escaped(text: str | None) -> str:
    """Return text that roff leaves as it is: one paragraph for each, and no line a request."""
    paragraphs = (" ".join(part.split()) for part in (text or "").strip().split("\n\n"))
    escaped = (part.replace("\\", "\\e").replace("-", "\\-") for part in paragraphs)
    return "\n.PP\n".join(f"\\&{part}" if part.startswith((".", "'")) else part for part in escaped)
