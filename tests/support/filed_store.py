"""A mail store in one file, for tests of commands: what one process stores, another one sees."""

from __future__ import annotations

import pickle
from pathlib import Path

import click

from pop3hub.errors import MaildropNotEmpty, NoSuchUser, TemporaryFailure, UniqueIdTaken
from pop3hub.hooks.specs import hookimpl
from pop3hub.maildrop import PopMessage
from pop3hub.protocol.message import wire_form


class FiledBackend:
    """Users and messages, read from the file and written back by each hook.

    A user named `full` has no room now.
    """

    @hookimpl
    def register_options(self):
        return [
            click.Option(["--filed-path"], metavar="FILE", required=False, help="The file."),
            click.Option(["--filed-password"], metavar="TEXT", help="A secret."),
        ]

    @hookimpl
    def register_commands(self, group):
        @group.command("filed-count")
        @click.pass_obj
        def count(app):
            """Count the users."""

            async def users():
                return [user async for user in app.store("list_users").list_users()]

            click.echo(f"{len(app.run(users))} users")

    @hookimpl
    def configure(self, options):
        self.path = Path(options.get("filed_path", "/nonexistent"))

    def load(self):
        return pickle.loads(self.path.read_bytes()) if self.path.exists() else ({}, {})  # noqa: S301 - the test's own file

    def save(self, users, mail):
        self.path.write_bytes(pickle.dumps((users, mail)))

    @hookimpl
    def get_user(self, name):
        return self.load()[0].get(name)

    @hookimpl
    def receive_messages(self, user):
        mail = self.load()[1].get(user.name, [])
        return [PopMessage(uid, len(contents), contents) for uid, contents in mail]

    @hookimpl
    def delete_messages(self, messages, session):
        users, mail = self.load()
        gone = {message.uid for message in messages}
        name = session.user.name
        mail[name] = [each for each in mail[name] if each[0] not in gone]
        self.save(users, mail)
        return len(gone)

    @hookimpl
    def store_user(self, user, replace):
        users, mail = self.load()
        if (user.name in users) is not replace:
            return False
        users[user.name] = user
        self.save(users, mail)
        return True

    @hookimpl
    def remove_user(self, name, with_mail):
        users, mail = self.load()
        if name not in users:
            return False
        if mail.pop(name, None) and not with_mail:
            raise MaildropNotEmpty(name=name)
        del users[name]
        self.save(users, mail)
        return True

    @hookimpl
    def list_users(self):
        return sorted(self.load()[0].values(), key=lambda user: user.name)

    @hookimpl
    async def store_message(self, name, contents, uid=None):
        users, mail = self.load()
        if name not in users:
            raise NoSuchUser(name=name)
        if name == "full":
            raise TemporaryFailure
        if not isinstance(contents, bytes):
            contents = b"".join([chunk async for chunk in contents])
        maildrop = mail.setdefault(name, [])
        uid = uid or f"uid-{len(maildrop) + 1}"
        if uid in dict(maildrop):
            raise UniqueIdTaken(uid=uid)
        maildrop.append((uid, wire_form(contents)))
        self.save(users, mail)
        return uid
