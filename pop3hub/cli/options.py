"""pop3hub's own command-line options, under the headings at which `--help` shows them.

What an option means is Settings' and PopServer's; here it gets its name, its unit and its help.
Nothing here reads a file but the one of the salt key.
"""

from __future__ import annotations

import ipaddress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pop3hub.auth.passwords import BCRYPT_COST
from pop3hub.errors import ConfigurationError
from pop3hub.server.server import DEFAULT_LISTEN
from pop3hub.settings import Limits, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pop3hub.peer import Network

Headings = list[tuple[str, list[click.Option]]]

SALT_KEY_SIZE = 16
"""Octets that a salt key has at least."""

LIMITS = {
    "idle": ("--idle-timeout", "Close a silent session after this long; RFC 1939 asks for 600."),
    "login": ("--login-timeout", "Close a session that has not logged in after this long."),
    "handshake": ("--handshake-timeout", "Wait this long for a TLS handshake."),
    "stall": ("--stall-timeout", "Cut a client that reads nothing of its answer for this long."),
    "hook": ("--hook-timeout", "Wait this long for one answer of a plugin."),
    "failed_logins": ("--max-failed-logins", "Failed logins before the connection is closed."),
    "bad_commands": ("--max-bad-commands", "Bad commands in a row before it is closed."),
    "auth_line": ("--max-auth-line", "Length of an AUTH command."),
    "sasl_response": ("--max-sasl-response", "Length of a line in a SASL exchange."),
    "swallowed_line": ("--max-swallowed-line", "Length of a bad line before it closes a session."),
    "write_buffer": ("--max-write-buffer", "What a slow client may leave unread in memory."),
    "sessions": ("--max-sessions", "Sessions at once, of each worker; 0 for any number."),
    "sessions_per_address": (
        "--max-sessions-per-address",
        "Sessions at once from one address, IPv6 by its /64; 0 for any number.",
    ),
    "connections_per_minute": (
        "--max-connections-per-minute",
        "New connections from one address; 0 for any number.",
    ),
    "failed_logins_per_address": (
        "--max-failed-logins-per-address",
        "Failed logins that lock an address out; 0 for never.",
    ),
    "failed_logins_per_user": (
        "--max-failed-logins-per-user",
        "Failed logins that lock a user out, but where they logged in before; 0 for never.",
    ),
    "failed_logins_window": ("--failed-logins-window", "Forget so many failures in this time."),
    "lockout": ("--lockout-time", "Lock out for this long."),
    "proxy_header": ("--proxy-header-timeout", "Wait this long for a proxy's PROXY header."),
}
"""The option and its help for each field of `Limits`."""

_UNBOUNDED = ("sessions", "connections", "failed_logins_per")
_OCTETS = {"auth_line", "sasl_response", "swallowed_line", "write_buffer"}


def selection() -> list[click.Option]:
    """Return the options that are looked for first, since they say which others there are."""
    return [
        click.Option(
            ["--backend"], metavar="NAME", help="The mail store; `pop3hub plugins` lists."
        ),
        click.Option(
            ["--no-plugin"],
            multiple=True,
            metavar="NAME",
            help="Leave out this installed extension; repeatable.",
        ),
        click.Option(
            ["--config"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Read options from a TOML file (`pop3hub config example`).",
        ),
    ]


def core() -> Headings:
    """Return all options that are not a plugin's."""
    policy = Settings()
    return [
        ("Mail store", selection()),
        ("Listening", _listening()),
        ("TLS", _tls()),
        ("Logins", _logins(policy)),
        ("Mail", _mail(policy)),
        ("Languages", _languages()),
        ("Limits", [*(_limit(name, *LIMITS[name]) for name in LIMITS), _exempt()]),
        ("Logging", _logging()),
        ("Process", _process()),
    ]


def _listening() -> list[click.Option]:
    return [
        click.Option(
            ["--listen"],
            multiple=True,
            default=(DEFAULT_LISTEN,),
            show_default=True,
            metavar="URL",
            help="pop3://HOST:PORT, or pop3s://HOST:PORT for TLS from the start; repeatable. What "
            "is one listener's own follows as ?cert=FILE&key=FILE, &client_ca=FILE, "
            "&plaintext=yes, &profile=legacy or &proxy=NETWORK.",
        ),
        click.Option(
            ["--name"],
            default=Settings().name,
            show_default=True,
            metavar="NAME",
            help="How the server calls itself in its greeting.",
        ),
        click.Option(
            ["--allow-plaintext"],
            is_flag=True,
            help="Take passwords in clear from other machines too.",
        ),
    ]


def _tls() -> list[click.Option]:
    path = click.Path(path_type=str)
    return [
        click.Option(
            ["--tls-cert"],
            type=path,
            multiple=True,
            metavar="FILE",
            help="Certificate with its chain, PEM; repeatable: the client's SNI chooses.",
        ),
        click.Option(
            ["--tls-key"],
            type=path,
            multiple=True,
            metavar="FILE",
            help="Its private key, PEM, in the same order; none: it is in the certificate's file.",
        ),
    ]


def _logins(policy: Settings) -> list[click.Option]:
    return [
        click.Option(["--apop"], is_flag=True, help="Offer APOP, to users with an APOP secret."),
        click.Option(["--cram-md5"], is_flag=True, help="Offer CRAM-MD5, which needs one too."),
        click.Option(
            ["--scram/--no-scram"],
            default=None,
            help="Offer SCRAM-SHA-256 and SCRAM-SHA-1.  "
            "[default: where the backend keeps their keys]",
        ),
        click.Option(
            ["--salt-key-file"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="A secret that all nodes share, so that SCRAM shows none of them who is unknown.  "
            "[default: this machine's own]",
        ),
        _seconds("--failure-delay", policy.failure_delay, "Answer a failed login after this long."),
        _seconds(
            "--password-cache",
            policy.password_cache,
            "Remember a right password for this long, hashed, to spare bcrypt; 0 for never.",
        ),
        click.Option(
            ["--login-delay"],
            type=click.IntRange(min=0),
            default=policy.login_delay,
            show_default=True,
            metavar="SECONDS",
            help="Time between two logins of one user; 0 for none.",
        ),
        click.Option(
            ["--bcrypt-cost"],
            type=click.IntRange(4, 31),
            default=BCRYPT_COST,
            show_default=True,
            metavar="N",
            help="Cost of new hashes: one more takes twice the time.",
        ),
    ]


def _mail(policy: Settings) -> list[click.Option]:
    return [
        click.Option(
            ["--expire"],
            type=click.IntRange(min=0),
            metavar="DAYS",
            help="Remove mail that is older; 0: once it is retrieved.  [default: never]",
        ),
        click.Option(
            ["--internationalized"],
            type=click.Choice(["downgrade", "reject", "raw"]),
            default=policy.internationalized,
            show_default=True,
            help="What clients without UTF8 get of messages with UTF-8 headers: a surrogate "
            "(RFC 6858), an error, or the octets as they are.",
        ),
    ]


def _languages() -> list[click.Option]:
    return [
        click.Option(
            ["--language"],
            default="en",
            show_default=True,
            metavar="TAG",
            help="The language in which connections begin (`pop3hub languages list`).",
        ),
        click.Option(
            ["--language-dir"],
            type=click.Path(path_type=Path),
            multiple=True,
            metavar="DIR",
            help="A folder of more language files; repeatable.",
        ),
    ]


def _limit(name: str, option: str, text: str) -> click.Option:
    default = next(field.default for field in fields(Limits) if field.name == name)
    if isinstance(default, float):
        return click.Option(
            [option],
            type=click.FloatRange(min=0, min_open=True),
            default=default,
            show_default=True,
            metavar="SECONDS",
            help=text,
        )
    lowest = 0 if name.startswith(_UNBOUNDED) else 1
    return click.Option(
        [option],
        type=click.IntRange(min=255 if name in _OCTETS else lowest),
        default=default,
        show_default=True,
        metavar="OCTETS" if name in _OCTETS else "N",
        help=text,
    )


def _exempt() -> click.Option:
    return click.Option(
        ["--exempt"],
        multiple=True,
        metavar="NETWORK",
        help="No limits by address here: a webmail server, from which all users come; repeatable.",
    )


def _logging() -> list[click.Option]:
    return [
        click.Option(
            ["--log-format"],
            type=click.Choice(["console", "json"]),
            default="console",
            show_default=True,
            help="Lines for people, or one JSON object each; to standard error.",
        ),
        click.Option(
            ["--log-level"],
            type=click.Choice(["debug", "info", "warning", "error"]),
            default="info",
            show_default=True,
            help="The least that is logged.",
        ),
        click.Option(
            ["--log-names"],
            type=click.Choice(["plain", "hash"]),
            default="plain",
            show_default=True,
            help="Users' names in the log: as they are, or as a keyed hash, the same each time.",
        ),
    ]


def _process() -> list[click.Option]:
    return [
        click.Option(
            ["--workers"],
            type=click.IntRange(1, 256),
            default=1,
            show_default=True,
            metavar="N",
            help="Processes that serve; not for backends that live in one.",
        ),
        click.Option(
            ["--loop"],
            type=click.Choice(["auto", "asyncio", "uvloop"]),
            default="auto",
            show_default=True,
            help="The event loop; auto takes uvloop where it is installed.",
        ),
        _seconds("--drain", 30.0, "Leave open sessions this long to end after SIGTERM."),
    ]


def _seconds(option: str, default: float, text: str) -> click.Option:
    return click.Option(
        [option],
        type=click.FloatRange(min=0),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=text,
    )


# From the options' values to PopServer's arguments


def limits(values: Mapping[str, Any]) -> Limits:
    """Return the limits that the options' values say."""
    return Limits(**{name: values[parameter(option)] for name, (option, _) in LIMITS.items()})


def server_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return PopServer's arguments, but for the plugins. Raises ConfigurationError."""
    same = ("name", "apop", "cram_md5", "scram", "allow_plaintext", "failure_delay")
    more = ("password_cache", "login_delay", "expire", "internationalized", "bcrypt_cost")
    return {
        **{name: values[name] for name in (*same, *more, "listen", "tls_cert", "tls_key")},
        "default_language": values["language"],
        "language_directories": values["language_dir"],
        "salt_key": salt_key(values["salt_key_file"]),
        "limits": limits(values),
        "exempt": _networks(values["exempt"]),
    }


def _networks(texts: Sequence[str]) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as exc:
        raise ConfigurationError(f"--exempt: {exc}") from exc


def salt_key(path: Path | None) -> bytes:
    """Return the secret in the file, or b"" if there is none to read."""
    if path is None:
        return b""
    try:
        key = path.read_bytes().strip()
    except OSError as exc:
        raise ConfigurationError(f"--salt-key-file {path}: {exc.strerror}") from exc
    if len(key) < SALT_KEY_SIZE:
        raise ConfigurationError(
            f"--salt-key-file {path}: {SALT_KEY_SIZE} octets or more are wanted, random ones"
        )
    return key


def parameter(option: str) -> str:
    """Return the parameter's name of a long option."""
    return option.removeprefix("--").replace("-", "_")
