"""The command `pop3hub check`: conformance checks against any POP3 server; it needs no backend."""

from __future__ import annotations

import ipaddress
import json
import os
import ssl
from typing import TYPE_CHECKING, TextIO
from urllib.parse import urlsplit

import click

from pop3hub.check import CHECKS, FAIL, OK, SKIP, WARN, Result, Target, Unreachable, run_checks
from pop3hub.check.probe import Probe

if TYPE_CHECKING:
    from collections.abc import Sequence

PORT, TLS_PORT = 110, 995

_COLOURS = {OK: "green", FAIL: "red", WARN: "yellow", SKIP: "cyan"}


def parse_address(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[str, int | None] | None:
    """Return host and port of HOST, HOST:PORT, IPv6 or [IPv6]:PORT; no port is None."""
    if value is None:
        return None
    if value.count(":") > 1 and not value.startswith("["):
        return value, None
    try:
        parts = urlsplit(f"//{value}")
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
    if not host or port == 0 or parts.path or parts.username is not None:
        raise click.BadParameter(f"{value!r} is not HOST[:PORT]")
    return host, port


@click.command()
@click.argument("address", metavar="HOST[:PORT]", callback=parse_address, required=False)
@click.option(
    "--tls",
    "security",
    flag_value="tls",
    help=f"TLS from the start (the default on port {TLS_PORT}).",
)
@click.option("--stls", "security", flag_value="stls", help="STLS (the default where announced).")
@click.option("--plain", "security", flag_value="plain", help="No TLS, not even for the password.")
@click.option("--insecure", is_flag=True, help="Do not verify the certificate.")
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Certificates to trust, in PEM, instead of the system's.",
)
@click.option("--user", metavar="NAME", help="Log in as this user; without it, no login.")
@click.option(
    "--password-file",
    type=click.File(),
    metavar="FILE",
    help="Read the password from the first line of FILE (- is standard input); default: prompt.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait this long for a reply; for a login at least 30.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--scratch", is_flag=True, help="Also delete mail and send abuse: for a test mailbox."
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    type=click.Choice([check.name for check in CHECKS]),
    help="Run this check only; may be repeated.",
)
@click.option("--list", "list_them", is_flag=True, help="List the checks and exit.")
@click.pass_context
def check(
    context: click.Context,
    *,
    address: tuple[str, int | None] | None,
    security: str | None,
    insecure: bool,
    ca: str | None,
    user: str | None,
    password_file: TextIO | None,
    timeout: float,
    as_json: bool,
    scratch: bool,
    only: Sequence[str],
    list_them: bool,
) -> None:
    """Check whether a POP3 server keeps to the RFCs.

    Nothing is changed on the server unless --scratch is given: a message is marked as deleted and
    unmarked again, and one login fails, with a user who does not exist. Exits with 1 if the server
    breaks a MUST and with 69 if it cannot be reached.
    """
    if list_them:
        for one in CHECKS:
            click.echo(f"{one.name:26}{one.level:8}{one.summary} [{one.rfc}]")
        return
    if address is None:
        raise click.UsageError("Missing argument 'HOST[:PORT]'.")
    if scratch and user is None:
        raise click.UsageError("--scratch needs --user NAME, whose mailbox may lose its mail.")
    host, port = address
    port = port or (TLS_PORT if security == "tls" else PORT)
    tls = tls_context(insecure=insecure, ca=ca)
    try:
        if security is None:
            security = "tls" if port == TLS_PORT else detect(host, port, tls, timeout)
            if security == "plain" and user is not None and not is_loopback(host):
                raise click.UsageError(
                    f"{host} does not announce STLS: the password would go in the clear."
                    " Use --plain to allow that."
                )
        target = Target(
            host=host,
            port=port,
            context=tls,
            security=security,
            user=user,
            password=None if user is None else read_password(user, password_file),
            timeout=timeout,
            scratch=scratch,
        )
        results = run_checks(target, only=only, report=None if as_json else echo)
    except Unreachable as exc:
        untrusted = isinstance(exc.__cause__, ssl.SSLCertVerificationError)
        hint = " (--ca FILE trusts it, --insecure does not verify)" if untrusted else ""
        click.echo(f"pop3hub check: {host}:{port}: {exc}{hint}", err=True)
        context.exit(os.EX_UNAVAILABLE)
    if as_json:
        click.echo(document(target, results))
    else:
        click.echo(summary(results))
    context.exit(1 if any(result.status == FAIL for result in results) else 0)


def tls_context(*, insecure: bool, ca: str | None) -> ssl.SSLContext:
    """Return how certificates are verified."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as exc:
        raise click.UsageError(f"--ca {ca}: {exc}") from exc
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def detect(host: str, port: int, context: ssl.SSLContext, timeout: float) -> str:
    """Return "stls" if the server announces it, else "plain"."""
    probe = Probe(Target(host=host, port=port, context=context, timeout=timeout))
    try:
        return "stls" if "STLS" in probe.capabilities("clear") else "plain"
    finally:
        probe.tidy()


def is_loopback(host: str) -> bool:
    """Tell whether the host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_password(user: str, file: TextIO | None) -> str:
    """Return the password from the file's first line, or from a prompt."""
    if file is None:
        return str(click.prompt(f"Password of {user}", hide_input=True, err=True))
    return file.readline().rstrip("\r\n")


def echo(result: Result) -> None:
    """Print a result, and below it what it is a failure for."""
    status = click.style(f"{result.status:5}", fg=_COLOURS[result.status])
    note = f": {result.note}" if result.note else ""
    click.echo(f"{status}{result.name:26}{result.summary.rstrip('.')} [{result.rfc}]{note}")
    for what, text in (("sent", result.sent), ("expected", result.expected), ("came", result.came)):
        if text:
            click.echo(f"       {what:9}{text}")


def summary(results: Sequence[Result]) -> str:
    """Return the last line: how many ended how."""
    counts = {status: sum(r.status == status for r in results) for status in (OK, FAIL, WARN, SKIP)}
    return f"{len(results)} checks: " + ", ".join(f"{n} {status}" for status, n in counts.items())


def document(target: Target, results: Sequence[Result]) -> str:
    """Return the JSON document."""
    facts = {
        "host": target.host,
        "port": target.port,
        "security": target.security,
        "results": [result.as_dict() for result in results],
    }
    return json.dumps(facts, indent=2)
