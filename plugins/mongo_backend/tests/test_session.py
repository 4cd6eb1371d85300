"""Sessions over the backend, as a client sees them."""

import pytest

from pop3hub import PopUser
from pop3hub_mongo.native_store import PAGE

pytestmark = pytest.mark.mongo

BIG = b"Subject: big\r\n\r\n" + b"0123456789abcdef" * 60_000 + b"\r\n"


async def test_a_delivered_message_is_listed_read_and_removed(backend, log_in, database):
    uid = await backend.store_message("Luke", b"Subject: hi\n\n.dot\nlast", None)

    dialogue, answer = await log_in(name="LUKE")

    assert answer.startswith(b"+OK")
    assert b"+OK 1 27\r\n" == await dialogue.say("STAT")
    assert b"+OK 1 " + uid.encode() + b"\r\n" == await dialogue.say("UIDL 1")
    assert b"\r\nSubject: hi\r\n\r\n..dot\r\nlast\r\n.\r\n" in await dialogue.say("RETR 1")
    await dialogue.say("DELE 1")
    assert (await dialogue.say("QUIT")).startswith(b"+OK")
    assert 0 == database.messages.count_documents({})


async def test_a_lost_connection_removes_nothing(backend, log_in, database):
    """RFC 1939 s6: only QUIT enters UPDATE."""
    await backend.store_message("luke", b"kept", None)
    dialogue, _ = await log_in()
    await dialogue.say("DELE 1")

    await dialogue.hang_up()

    assert 1 == database.messages.count_documents({})


async def test_the_maildrop_is_locked_on_every_node(backend, log_in):
    first, _ = await log_in()

    _, refused = await log_in()
    await first.say("QUIT")
    _, accepted = await log_in()

    assert refused.startswith(b"-ERR [IN-USE]")
    assert accepted.startswith(b"+OK")


async def test_unknown_disabled_and_wrong_are_the_same_for_the_client(backend, log_in, database):
    await backend.store_user(PopUser("leia", database.users.find_one()["password"]), replace=False)
    database.users.update_one({"_id": "leia"}, {"$set": {"disabled": True}})

    answers = {
        (await log_in(name=name, password=password))[1]
        for name, password in (("nobody", "hello"), ("leia", "hello"), ("luke", "wrong"))
    }

    assert 1 == len(answers)
    assert answers.pop().startswith(b"-ERR [AUTH]")


async def test_numbers_stay_while_mail_is_delivered(backend, log_in):
    await backend.store_message("luke", b"one", None)
    dialogue, _ = await log_in()

    await backend.store_message("luke", b"two", None)

    assert b"+OK 1 5\r\n" == await dialogue.say("STAT")


async def test_a_long_message_is_sent_as_it_was_delivered(backend, log_in):
    await backend.store_message("luke", BIG, None)
    dialogue, _ = await log_in()

    answer = await dialogue.say("RETR 1")

    assert BIG + b".\r\n" == answer.partition(b"\r\n")[2]


async def test_top_of_a_long_message_reads_one_chunk(backend, log_in, database):
    await backend.store_message("luke", BIG, None)
    dialogue, _ = await log_in()
    database.command("profile", 2)
    try:
        answer = await dialogue.say("TOP 1 0")
    finally:
        database.command("profile", 0)

    reads = database["system.profile"].find({"ns": f"{database.name}.bodies.chunks"})
    read = [found["nreturned"] for found in reads]
    database["system.profile"].drop()
    assert answer.endswith(b"\r\nSubject: big\r\n\r\n.\r\n")
    assert [1] == read


async def test_a_reader_who_leaves_closes_the_cursor(backend, database, client, account):
    def open_cursors():
        return client.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"]

    before = open_cursors()
    size = 12 * 255 * 1024
    await backend.store_message("luke", b"x" * size, None)
    message = database.messages.find_one()
    chunks = backend.store.bodies.read(account, message["_id"], message["chunks"])
    for _ in range(2):
        await anext(chunks)
    during = open_cursors()

    await chunks.aclose()

    assert (before + 1, before) == (during, open_cursors())


async def test_a_listing_of_more_than_one_page_is_whole_and_in_order(
    backend, log_in, database, account
):
    ids = [backend.store._ids.new(0) for _ in range(PAGE + 2)]
    database.messages.insert_many(
        {"_id": id_, "account": account, "size": size, "body": b""} for size, id_ in enumerate(ids)
    )

    dialogue, _ = await log_in()

    lines = (await dialogue.say("UIDL")).splitlines()[1:-1]
    assert [f"{n} {id_}".encode() for n, id_ in enumerate(ids, 1)] == lines


async def test_login_delay_counts_across_nodes(backend, log_in):
    """RFC 2449 s6.5: also when the other login was on another machine."""
    first, _ = await log_in(login_delay=60)
    await first.say("QUIT")

    _, answer = await log_in(login_delay=60)

    assert answer.startswith(b"-ERR [LOGIN-DELAY]")


async def test_a_refused_login_does_not_begin_the_delay_anew(backend, log_in, database):
    """RFC 2449 s6.5: so many seconds after a login that succeeded."""
    first, _ = await log_in(login_delay=60)
    await first.say("QUIT")
    noted = database.leases.find_one()["login"]

    second, _ = await log_in(login_delay=60)
    await second.say("QUIT")

    assert noted == database.leases.find_one()["login"]


async def test_old_messages_expire_at_login(backend, log_in, database):
    """RFC 2449 s6.7: EXPIRE with days."""
    await backend.store_message("luke", b"old", None)
    old = database.messages.find_one()
    database.messages.delete_one({})
    two_days_ago = int(old["_id"].generation_time.timestamp()) - 2 * 86_400
    old["_id"] = type(old["_id"])(two_days_ago.to_bytes(4, "big") + old["_id"].binary[4:])
    database.messages.insert_one(old)
    await backend.store_message("luke", b"new mail", None)

    dialogue, _ = await log_in(expire=1)

    assert b"+OK 1 10\r\n" == await dialogue.say("STAT")


async def test_a_message_that_needs_no_surrogate_says_so_in_the_listing(backend):
    """RFC 6856 s2.1: else each LIST of a client without UTF8 would read the message."""
    await backend.store_message("luke", "Subject: hi\r\n\r\ncafé\r\n".encode(), None)
    await backend.store_message("luke", "Subject: café\r\n\r\n".encode(), None)

    (page,) = [page async for page in backend.list_messages(PopUser("luke"))]

    assert [22, None] == [message.ascii_size for message in page]
