"""The page for those who come from lpop3: its program is run as it is printed, on a real socket."""
# ruff: noqa: N802 - the program calls the methods of its database so

import poplib
import re
from asyncio import to_thread
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import bcrypt
import pytest

from pop3hub import LanguageName

PAGE = Path(__file__).parents[2] / "docs" / "coming-from-lpop3.md"
TEXT = "Subject: Test message\r\n\r\nHello world!\r\n"


class Table:
    """A table of a database, with the methods that the page's program calls."""

    def __init__(self, *rows):
        self.rows = [SimpleNamespace(**row) for row in rows]

    async def findAll(self, wanted):
        return [row for row in self.rows if vars(row).items() >= wanted.items()]

    async def findOne(self, wanted):
        return next(iter(await self.findAll(wanted)), None)

    async def deleteOne(self, wanted):
        self.rows.remove(await self.findOne(wanted))


@pytest.fixture
def program():
    """The names of the page's program, with the tables that it needs."""
    hashed = bcrypt.hashpw(b"hello", bcrypt.gensalt(4)).decode()
    names = {
        "DbUser": Table({"user": "luke", "password": hashed, "secret": "s", "_id": 7}),
        "Email": Table(
            *(
                {"_id": f"mail-{n}", "use_id": n, "size": len(TEXT), "contents": TEXT}
                for n in (7, 8)
            )
        ),
    }
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - the page's own program
    return names


async def test_the_program_serves_its_own_users_mail_only(program):
    server = program["server"]
    async with server:

        def client():
            with_mail = poplib.POP3("127.0.0.1", urlsplit(server.addresses[0]).port, timeout=10)
            welcome = with_mail.getwelcome()
            with_mail.user("luke")
            with_mail.pass_("hello")
            uids, lines = with_mail.uidl()[1], with_mail.retr(1)[1]
            with_mail.dele(1)
            with_mail.quit()
            return welcome, uids, lines

        welcome, uids, lines = await to_thread(client)

    assert b"tot uw dienst" in welcome
    assert [b"1 mail-7"] == uids
    assert TEXT.encode().splitlines() == lines
    assert ["mail-8"] == [row._id for row in program["Email"].rows]


async def test_a_user_who_is_connected_is_refused(program):
    program["connected_users"][7] = "elsewhere"
    server = program["server"]
    async with server:

        def client():
            refused = poplib.POP3("127.0.0.1", urlsplit(server.addresses[0]).port, timeout=10)
            refused.user("luke")
            with pytest.raises(poplib.error_proto, match="IN-USE"):
                refused.pass_("hello")
            refused.quit()

        await to_thread(client)


def test_every_language_that_is_shipped_has_a_name():
    assert {path.stem for path in (PAGE.parents[1] / "languages").glob("*.toml")} == {*LanguageName}
