"""Sessions over the backend, as a client sees them."""

from __future__ import annotations

import bcrypt
import pytest

from pop3hub.auth import PopUser
from pop3hub.testing import Dialogue
from pop3hub_mongo import MongoBackend

HASH = bcrypt.hashpw(b"hello", bcrypt.gensalt(4)).decode()

pytestmark = pytest.mark.mongo


@pytest.fixture
async def dialogue(backend, options):
    await backend.store_user(PopUser("luke", HASH), replace=False)
    serving = MongoBackend()
    async with Dialogue(serving, options=options) as dialogue:
        yield dialogue


async def test_a_delivered_message_is_listed_read_and_removed(backend, dialogue):
    uid = await backend.store_message("Luke", b"Subject: hi\n\n.dot\nlast", None)

    assert (await dialogue.login("LUKE", "hello")).startswith(b"+OK")
    assert b"+OK 1 27\r\n" == await dialogue.say("STAT")
    assert b"+OK 1 " + uid.encode() + b"\r\n" == await dialogue.say("UIDL 1")
    assert (await dialogue.say("RETR 1")).endswith(b"\r\nSubject: hi\r\n\r\n..dot\r\nlast\r\n.\r\n")
    await dialogue.say("DELE 1")
    assert (await dialogue.say("QUIT")).startswith(b"+OK")
    assert 0 == await dialogue.session.plugins.backend.instance.store.messages.count_documents({})
