"""The settings of the backend, and the command-line options that they come from."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pop3hub import ConfigurationError
from pop3hub_mongo.schema import MongoSchema

if TYPE_CHECKING:
    from collections.abc import Mapping

    import click

DriverName = Literal["motor", "pymongo"]

DEFAULT_URI = "mongodb://127.0.0.1:27017"
DEFAULT_DATABASE = "pop3hub"
STANDARD_INPUT = "-"
"""The file's name by which standard input is meant."""
YOUNG = 86_400.0
"""Seconds for which chunks without a message may be those of a delivery that still goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MongoOptions:
    """What `configure` was given; `schema` is None for pop3hub's own."""

    uri: str = DEFAULT_URI
    uri_file: str | None = None
    database: str | None = None
    driver: DriverName = "motor"
    create_indexes: bool = False
    schema: MongoSchema | None = None

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> MongoOptions:
        """Return the settings among all the options. Raises ConfigurationError."""
        given = {
            name.removeprefix("mongo_"): value
            for name, value in options.items()
            if name.startswith("mongo_") and value is not None
        }
        if given.get("driver", "motor") not in get_args(DriverName):
            raise ConfigurationError(f"--mongo-driver is one of {', '.join(get_args(DriverName))}")
        table = given.pop("schema", None)
        schema = (
            table if isinstance(table, MongoSchema) else MongoSchema.parse(table) if table else None
        )
        return cls(**given, schema=schema)

    def read_uri(self) -> str:
        """Return the URI, from its file if there is one. Raises ConfigurationError."""
        if self.uri_file is None:
            return self.uri
        try:
            if self.uri_file == STANDARD_INPUT:
                text = sys.stdin.read() if sys.stdin else ""
            else:
                text = Path(self.uri_file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is no text"
            raise ConfigurationError(f"--mongo-uri-file {self.uri_file}: {reason}") from exc
        if not text.strip():
            raise ConfigurationError(f"--mongo-uri-file {self.uri_file}: there is nothing in it")
        return text.strip()


def options() -> list[click.Option]:
    """Return the options, for `register_options`."""
    import click  # noqa: PLC0415 - only a command line needs it

    class Table(click.ParamType[Any]):
        """A table of the configuration file, which no command line can hold."""

        name = "table"

        def convert(
            self, value: Any, param: click.Parameter | None, ctx: click.Context | None
        ) -> Any:
            if isinstance(value, dict):
                return value
            return self.fail(
                "this is the table [mongo.schema] of the configuration file", param, ctx
            )

    return [
        click.Option(
            ["--mongo-uri"],
            default=DEFAULT_URI,
            show_default=True,
            metavar="URI",
            help="Where MongoDB is. If there is a password in it, use --mongo-uri-file, the "
            "environment or the configuration file: every user of a machine can read its command "
            "lines.",
        ),
        click.Option(
            ["--mongo-uri-file"],
            metavar="FILE",
            help="Read the URI from this file, or from standard input if it is -.",
        ),
        click.Option(
            ["--mongo-database"],
            metavar="NAME",
            help="pop3hub's own database.  [default: the URI's, else pop3hub]",
        ),
        click.Option(
            ["--mongo-driver"],
            type=click.Choice(get_args(DriverName)),
            default="motor",
            show_default=True,
            help="The client library; PyMongo's own is the better one under a slow server.",
        ),
        click.Option(
            ["--mongo-create-indexes"],
            is_flag=True,
            help="With [mongo.schema]: make the index that listings want, if it is missing.",
        ),
        click.Option(["--mongo-schema"], type=Table(), hidden=True),
    ]
