"""The commands that change a mail store: `user`, `deliver` and `import`.

All go through the store hooks. Secrets are prompted for, or read from standard input: an argument
can be seen by every user of the machine.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pop3hub import mailbox_files
from pop3hub.auth.passwords import Hasher
from pop3hub.auth.scram import SCRAM_HASHES, scram_keys
from pop3hub.auth.users import PopUser, prepare
from pop3hub.cli.context import Refused, english
from pop3hub.errors import MaildropNotEmpty, NoSuchUser, PopError, UniqueIdTaken
from pop3hub.protocol import LoneCarriageReturns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from typing import BinaryIO

    from pop3hub.cli.context import CliContext

CHUNK = 64 * 1024
"""Octets that are read at a time."""
FROM_LINE_LIMIT = 4096
"""Octets in which the end of an mbox `From ` line is looked for."""


# Users


@click.group()
def user() -> None:
    """Add, list and remove users, and change their passwords."""


def _name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        name = prepare(value, stored=True)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
    if not name.strip():
        raise click.BadParameter("a user needs a name")
    return name


@user.command()
@click.argument("name", callback=_name)
@click.option("--apop-secret", is_flag=True, help="Ask for a secret too, for APOP and CRAM-MD5.")
@click.pass_obj
def add(app: CliContext, *, name: str, apop_secret: bool) -> None:
    """Add a user; one that is there already is left alone.

    The password is prompted for, or is the first line of standard input, and the APOP secret the
    second. The store keeps a bcrypt hash and SCRAM keys of the password; an APOP secret it has to
    keep as it is.
    """
    store = app.store("store_user")
    new = PopUser(name)
    raw = _ask("password", name)
    secret = _ask_secret(name) if apop_secret else None

    async def work() -> bool:
        with_keys = await _with_password(new, raw, app.values["bcrypt_cost"])
        return bool(await store.store_user(replace(with_keys, secret=secret), replace=False))

    if not app.run(work):
        raise Refused(
            f"there is a user {name!r} already; `pop3hub user password` changes the password",
            os.EX_CANTCREAT,
        )


@user.command()
@click.argument("name", callback=_name)
@click.option(
    "--apop-secret/--no-apop-secret",
    default=None,
    help="Ask for a new APOP secret too, or take it away.  [default: it stays]",
)
@click.pass_obj
def password(app: CliContext, *, name: str, apop_secret: bool | None) -> None:
    """Change a user's password, and the SCRAM keys with it."""
    store = app.store("store_user", "list_users")
    raw = _ask("new password", name)
    secret = _ask_secret(name) if apop_secret else None

    async def work() -> bool:
        found = await _find(store, name)
        if apop_secret is not None:
            found = replace(found, secret=secret)
        changed = await _with_password(found, raw, app.values["bcrypt_cost"])
        return bool(await store.store_user(changed, replace=True))

    if not app.run(work):
        raise NoSuchUser(name=name)


@user.command("list")
@click.pass_obj
def list_(app: CliContext) -> None:
    """List the users, and what each can log in with."""
    store = app.store("list_users")

    async def work() -> None:
        async for each in store.list_users():
            has = [
                *(["password"] if each.password else []),
                *sorted(each.scram),
                *(["apop-secret"] if each.secret else []),
            ]
            click.echo(f"{each.name}\t{' '.join(has)}")

    app.run(work)


@user.command()
@click.argument("name", callback=_name)
@click.option("--with-mail", is_flag=True, help="Remove the user's messages too.")
@click.pass_obj
def remove(app: CliContext, *, name: str, with_mail: bool) -> None:
    """Remove a user; one who has mail only with --with-mail."""
    store = app.store("remove_user")
    try:
        removed = app.run(lambda: store.remove_user(name, with_mail=with_mail))
    except MaildropNotEmpty as exc:
        text = f"{name!r} has mail: --with-mail removes that too"
        raise Refused(text, os.EX_UNAVAILABLE) from exc
    if not removed:
        raise NoSuchUser(name=name)


def _ask(what: str, name: str) -> str:
    """Return a secret: prompted for twice, or the next line of standard input."""
    if sys.stdin is None:
        raise Refused(f"standard input is closed, and the {what} comes from there", os.EX_DATAERR)
    if sys.stdin.isatty():
        text = f"{what[0].upper()}{what[1:]} of {name}"
        return str(click.prompt(text, hide_input=True, confirmation_prompt=True, err=True))
    line = sys.stdin.readline()
    if not line:
        raise Refused(f"no {what} on standard input: give it as one line", os.EX_DATAERR)
    return line.rstrip("\r\n")


def _ask_secret(name: str) -> str:
    secret = _ask("APOP secret", name)
    try:
        prepared = prepare(secret, stored=True)
    except ValueError as exc:
        raise Refused(f"the APOP secret can't be used: {exc}", os.EX_DATAERR) from exc
    if not prepared:
        raise Refused("the APOP secret is empty", os.EX_DATAERR)
    return secret


async def _with_password(user: PopUser, raw: str, cost: int) -> PopUser:
    hasher = Hasher(threads=1)
    try:
        hashed = await hasher.hash(raw, cost)
    except ValueError as exc:
        raise Refused(f"the password can't be used: {exc}", os.EX_DATAERR) from exc
    finally:
        hasher.close()
    try:
        keys = {each: await asyncio.to_thread(scram_keys, raw, each) for each in SCRAM_HASHES}
    except ValueError as exc:  # bcrypt takes what SCRAM's stored strings may not hold
        click.echo(f"pop3hub: without SCRAM keys: {exc}", err=True)
        keys = {}
    return replace(user, password=hashed, scram=keys)


async def _find(store: Any, name: str) -> PopUser:
    """Return the user of this name, else of the one name that differs in case only."""
    alike: list[PopUser] = []
    users: AsyncIterator[PopUser] = store.list_users()
    async for each in users:
        if each.name == name:
            return each
        if each.name.casefold() == name.casefold():
            alike.append(each)
    if len(alike) != 1:
        raise NoSuchUser(name=name)
    return alike[0]


# Mail


@click.command()
@click.argument("name")
@click.option(
    "--mend/--no-mend",
    default=True,
    show_default=True,
    help="Make line ends of carriage returns that are alone (RFC 5321 s2.3.8).",
)
@click.pass_obj
def deliver(app: CliContext, *, name: str, mend: bool) -> None:
    """Put the message on standard input into a user's maildrop.

    For a mail server's pipe transport: an mbox `From ` line is taken off, and the exit code is one
    of sysexits.h, 67 for an unknown user and 75 for "try again": then nothing was stored.
    """
    store = app.store("store_message")
    if sys.stdin is None:
        raise Refused("standard input is closed, and the message comes from there", os.EX_DATAERR)
    message = sys.stdin.buffer
    head = _head(message)
    if not head:
        raise Refused("there is no message on standard input", os.EX_DATAERR)
    contents = _read(head, message)
    app.run(lambda: store.store_message(name, _mended(contents) if mend else contents))


def _head(message: BinaryIO) -> bytes:
    """Return the message's first octets, without an mbox `From ` line."""
    head = message.read(FROM_LINE_LIMIT)
    return head[head.find(b"\n") + 1 :] if head.startswith(b"From ") else head


async def _read(head: bytes, rest: BinaryIO) -> AsyncIterator[bytes]:
    yield head
    while chunk := await asyncio.to_thread(rest.read, CHUNK):
        yield chunk


async def _mended(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    lone = LoneCarriageReturns()
    async for chunk in chunks:
        yield lone.feed(chunk)
    yield lone.end()


@dataclass(slots=True)
class _Tally:
    """What became of the messages of an import."""

    taken: int = 0
    there: int = 0
    refused: list[mailbox_files.SkippedFile] = field(default_factory=list)

    def __str__(self) -> str:
        there = f", {self.there} there already" if self.there else ""
        return f"{self.taken} messages taken{there}, {len(self.refused)} not taken"


@click.command("import")
@click.argument("name")
@click.argument(
    "paths",
    metavar="PATH...",
    type=click.Path(exists=True, path_type=Path),
    nargs=-1,
    required=True,
)
@click.option(
    "--uidl",
    is_flag=True,
    help="Keep the unique-ids that Dovecot (dovecot-uidlist) or an X-UIDL field gave, so that "
    "clients download nothing twice; messages that are there already are passed over.",
)
@click.pass_obj
def import_(app: CliContext, *, name: str, paths: Sequence[Path], uidl: bool) -> None:
    """Put the mail of .eml files, mboxes, Maildirs or folders of them into a user's maildrop.

    Oldest first; the files stay as they are. Ends with 65 if a message could not be taken.
    """
    store = app.store("store_message")
    tally = _Tally()
    found = (each for path in paths for each in mailbox_files.find_messages(path, uidls=uidl))
    length = sum(mailbox_files.octets(path) for path in paths)
    try:
        with click.progressbar(
            length=length, label=f"Mail of {name}", file=sys.stderr, hidden=not sys.stderr.isatty()
        ) as bar:
            app.run(lambda: _take(store, name, found, tally, bar.update))
    except NoSuchUser:
        raise
    except PopError as exc:
        text = f"{english(exc)}: the import stopped, {tally}"
        code = os.EX_TEMPFAIL if exc.code == "SYS/TEMP" else os.EX_UNAVAILABLE
        raise Refused(text, code) from exc
    for each in tally.refused:
        click.echo(f"not taken: {each.origin}: {each.reason}", err=True)
    click.echo(str(tally))
    if tally.refused:
        data = any(each.readable for each in tally.refused)
        raise click.exceptions.Exit(os.EX_DATAERR if data else os.EX_NOINPUT)


async def _take(
    store: Any,
    name: str,
    found: Iterable[mailbox_files.SourceMessage | mailbox_files.SkippedFile],
    tally: _Tally,
    progress: Callable[[int], None],
) -> None:
    for each in found:
        if isinstance(each, mailbox_files.SkippedFile):
            tally.refused.append(each)
            continue
        try:
            await store.store_message(name, _chunks(each), each.uid)
        except UniqueIdTaken:
            tally.there += 1
        else:
            tally.taken += 1
        progress(each.octets)


async def _chunks(found: mailbox_files.SourceMessage) -> AsyncIterator[bytes]:
    for chunk in found.chunks():
        yield chunk
