"""What a misspelt option or variable was meant to be."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from pop3hub.cli.options import parameter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import click

OTHER_WORDS: Mapping[str, str] = {
    **dict.fromkeys(
        ("--port", "--host", "--bind", "--address", "--interface", "-p"),
        "--listen pop3://HOST:PORT",
    ),
    **dict.fromkeys(("--tls", "--ssl", "--pop3s"), "--listen pop3s://HOST:PORT"),
    **dict.fromkeys(("--cert", "--certificate", "--tls-certificate"), "--tls-cert FILE"),
    **dict.fromkeys(("--key", "--private-key"), "--tls-key FILE"),
    **dict.fromkeys(("--verbose", "--debug", "-v", "-d"), "--log-level debug"),
    **dict.fromkeys(("--quiet", "--silent", "-q"), "--log-level warning"),
    **dict.fromkeys(("--json", "--log-json"), "--log-format json"),
    **dict.fromkeys(("--timeout",), "--idle-timeout SECONDS"),
    **dict.fromkeys(("--processes", "--threads", "-w"), "--workers N"),
    **dict.fromkeys(("--store", "--plugin", "-b"), "--backend NAME"),
    **dict.fromkeys(("--conf", "--configuration", "-c"), "--config FILE"),
    **dict.fromkeys(("--lang", "--locale"), "--language TAG"),
    **dict.fromkeys(
        ("--oauth-issuer", "--oauth-audience", "--oauth-jwks"),
        "the plugin that has it: pip install pop3hub-oauth",
    ),
}
"""What other programs call what pop3hub has another option for."""

OF_TESTS = ("test", "soak")
"""What begins the names of variables that the project's own tests set."""


def variables(option: click.Option, prefix: str) -> list[str]:
    """Return the environment variables of an option: by its long name, and as in the file."""
    names = [parameter(word) for word in option.opts if word.startswith("--")]
    return [f"{prefix}_{name.upper()}" for name in dict.fromkeys([*names, option.name or ""])]


def unknown_variables(
    environment: Collection[str], known: Collection[str], others: Collection[str], prefix: str
) -> Iterator[str]:
    """Yield a line for each variable with our prefix that is nobody's.

    `others` are the plugins that were not chosen: what is theirs is not looked at.
    """
    theirs = tuple(f"{prefix}_{name.replace('-', '_').upper()}_" for name in (*others, *OF_TESTS))
    for name in sorted(environment):
        if not name.startswith(f"{prefix}_") or name in known or f"{name}_".startswith(theirs):
            continue
        nearest = difflib.get_close_matches(name, known, n=1)
        remedy = f"did you mean {nearest[0]}?" if nearest else "see pop3hub --help"
        yield f"{name} in the environment sets nothing: {remedy}"
