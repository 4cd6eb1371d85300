"""Print the manual page pop3hub(1) in roff, made from the command-line program itself.

    python docs/make_manual.py > pop3hub.1

Give `--backend NAME` to include the options of that mail store and of the installed plugins.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import click

from pop3hub.cli.main import assemble
from pop3hub.cli.program import PREFIX, PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pop3hub.cli.program import Program

EXIT_CODES = {
    "0": "Success.",
    "1": "A setting can't work, or the mail store could not be reached at the start.",
    "2": "Wrong arguments.",
    "65": "Invalid message or password.",
    "67": "No such user.",
    "69": "The mail store does not support this.",
    "75": "Temporary failure; try again later.",
}


def page(program: Program, root: click.Context) -> Iterator[str]:
    """Yield the page's parts, each without its last line end."""
    yield f'.TH POP3HUB 1 "" "pop3hub {version(PROGRAM)}"'
    yield ".SH NAME\npop3hub \\- serve mail over POP3 and POP3S"
    yield ".SH SYNOPSIS\n.B pop3hub\n[options] [command]"
    yield ".SH DESCRIPTION"
    yield escaped(program.help)
    yield ".SH OPTIONS"
    for heading, group in program.headings:
        yield f".SS {escaped(heading)}"
        yield from records(group, root)
    yield ".SH COMMANDS"
    for path, context in contexts(program, root):
        arguments = " ".join(context.command.collect_usage_pieces(context))
        yield f".SS {escaped(f'{path} {arguments}')}"
        yield escaped(context.command.help)
        yield from records(context.command.params, context)
    yield ".SH ENVIRONMENT AND FILES"
    yield escaped(program.epilog)
    yield ".SH EXIT STATUS"
    for code, meaning in EXIT_CODES.items():
        yield f".TP\n.B {code}\n{escaped(meaning)}"


def records(params: Sequence[click.Parameter], context: click.Context) -> Iterator[str]:
    """Yield an entry for each option."""
    for param in params:
        if record := param.get_help_record(context):
            names, text = record
            yield f".TP\n.B {escaped(names)}\n{escaped(text)}"


def contexts(
    group: click.Group, parent: click.Context, above: str = ""
) -> Iterator[tuple[str, click.Context]]:
    """Yield every command below the group that does something, and its context."""
    for name, command in group.commands.items():
        path = f"{above}{name}"
        context = click.Context(command, parent=parent, info_name=name)
        if isinstance(command, click.Group):
            yield from contexts(command, context, f"{path} ")
        elif not command.hidden:
            yield path, context


def escaped(text: str | None) -> str:
    """Return text that roff leaves as it is: one line a paragraph, none of them a request."""
    paragraphs = (" ".join(part.split()) for part in (text or "").strip().split("\n\n"))
    written = (part.replace("\\", "\\e").replace("-", "\\-") for part in paragraphs)
    return "\n.PP\n".join(f"\\&{part}" if part.startswith((".", "'")) else part for part in written)


def main() -> None:
    """Print the page for the arguments of the process."""
    program, _ = assemble(sys.argv[1:])
    root = click.Context(program, info_name=PROGRAM, auto_envvar_prefix=PREFIX)
    print("\n".join(page(program, root)))  # noqa: T201 - that is what it is for


if __name__ == "__main__":
    main()
