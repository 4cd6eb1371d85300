"""Odd documents in somebody else's database: each costs what is in it, and the log names it."""

import base64
import uuid
from datetime import UTC, datetime

import bson
import pytest
from bson import Binary, Decimal128, Int64, MaxKey, ObjectId, Regex, Timestamp
from pymongo import InsertOne
from structlog.testing import capture_logs

from pop3hub.testing import Dialogue

pytestmark = pytest.mark.mongo

GOOD = "Subject: ok\n\nbody\n"
SIZE = 21
ODD = [
    None,
    True,
    42,
    4.5,
    float("nan"),
    {"a": 1},
    ["x"],
    Regex("x"),
    datetime(2020, 1, 1, tzinfo=UTC),
]
ODD += [ObjectId(), Decimal128("1"), Timestamp(1, 1), MaxKey()]
NO_NAME = [*ODD, b"ann", ["ann"], [["ann"]], {"name": "ann"}, Regex("ann")]
NO_OWNER = [
    None,
    True,
    float("nan"),
    4.5,
    {"a": 1},
    ["x"],
    [],
    Regex(".*"),
    "",
    b"",
    Decimal128("1"),
]


@pytest.fixture(scope="module")
def shop_name(client):
    name = f"odd_{uuid.uuid4().hex[:8]}"
    yield name
    client.drop_database(name)


@pytest.fixture
def shop(client, shop_name):
    shop = client[shop_name]
    yield shop
    for collection in (shop.users, shop.emails):
        collection.delete_many({})


@pytest.fixture
def ann(shop, password_hash):
    """The _id of ann, who has one good message."""
    ann = shop.users.insert_one({"user": "ann", "pass": password_hash, "secret": "s"}).inserted_id
    shop.emails.insert_one({"user_id": ann, "contents": GOOD})
    return ann


@pytest.fixture
def schema(shop):
    """As the README has it, `uid` left at its default."""
    return {
        "mongo_schema": {
            "database": shop.name,
            "password": "pass",
            "messages": "emails",
            "owner": "user_id",
            "size": "",
            "body": "contents",
        }
    }


async def uidl(dialogue):
    return [line.split()[1].decode() for line in (await dialogue.say("UIDL")).splitlines()[1:-1]]


async def test_a_message_without_a_body_is_left_out_and_named(log_in, schema, shop, ann):
    for half in (ODD[:7], [*ODD[7:], ...]):
        shop.emails.delete_many({})
        odd = [{"contents": body} if body is not ... else {} for body in half]
        ids = shop.emails.insert_many([{"user_id": ann} | each for each in odd]).inserted_ids
        shop.emails.insert_one({"user_id": ann, "contents": GOOD.encode()})

        with capture_logs() as logs:
            dialogue, answer = await log_in(name="ann", changed=schema)

        assert answer.startswith(b"+OK")
        assert b"+OK 1 %d\r\n" % SIZE == await dialogue.say("STAT")
        lines = [line for line in logs if line["event"] == "mongo.message_skipped"]
        named = [(line["user"], line["document"], line["field"]) for line in lines]
        assert [("ann", repr(odd_id), "contents") for odd_id in ids] == named
        await dialogue.hang_up()


async def test_a_message_with_a_size_and_no_body_can_be_listed_and_not_read(
    log_in, schema, shop, ann
):
    """Nobody reads it before: its size is believed."""
    schema["mongo_schema"]["size"] = "octets"
    bodies = [None, 42, {"a": 1}]
    shop.emails.insert_many([{"user_id": ann, "contents": body, "octets": 5} for body in bodies])
    dialogue, _ = await log_in(name="ann", changed=schema)

    with capture_logs() as logs:
        answers = [await dialogue.say(f"RETR {number}") for number in (2, 3, 4)]

    assert all(answer.startswith(b"-ERR [SYS/PERM]") for answer in answers)
    assert ["mongo.odd_message"] * 3 == [line["event"] for line in logs]
    assert (await dialogue.say("RETR 1")).startswith(b"+OK")


NO_SIZE = [None, True, -1, 2.5, float("nan"), float("inf"), "9", {"a": 1}, [9], 2.0**80]


async def test_a_size_that_cannot_be_one_is_measured(log_in, schema, shop, ann):
    schema["mongo_schema"]["size"] = "octets"
    odd = [{"user_id": ann, "contents": GOOD, "octets": size} for size in NO_SIZE]
    shop.emails.insert_many(odd)

    dialogue, _ = await log_in(name="ann", changed=schema)

    sizes = [line.split()[1] for line in (await dialogue.say("LIST")).splitlines()[1:-1]]
    assert [b"%d" % SIZE] * (1 + len(odd)) == sizes


async def test_of_two_messages_with_one_unique_id_the_later_goes_by_another_for_good(
    log_in, schema, shop, ann
):
    """RFC 1939 s7: also once the first one is gone, since clients know both."""
    shop.emails.delete_many({})
    same = {"user_id": ann, "uid": "<1@example.com>", "contents": GOOD}
    first, second = (shop.emails.insert_one(dict(same)).inserted_id for _ in range(2))
    with capture_logs() as logs:
        dialogue, _ = await log_in(name="ann", changed=schema)
    before = await uidl(dialogue)
    await dialogue.say("QUIT")

    dialogue, _ = await log_in(name="ann", changed=schema)
    again = await uidl(dialogue)
    await dialogue.say("DELE 1")
    await dialogue.say("QUIT")
    dialogue, _ = await log_in(name="ann", changed=schema)

    assert ["<1@example.com>", before[1]] == before == again
    assert before[1:] == await uidl(dialogue)
    assert [second] == [found["_id"] for found in shop.emails.find()]
    (line,) = [line for line in logs if line["event"] == "mongo.unique_id_replaced"]
    assert repr(second) == line["document"]
    assert first != second


async def test_a_unique_id_that_cannot_be_one_is_replaced(log_in, schema, shop, ann):
    odd = [True, {"a": 1}, ["x"], 4.5, b"x", Regex("x")]
    shop.emails.delete_many({})
    documents = [{"user_id": ann, "contents": GOOD, "uid": uid} for uid in odd]
    ids = shop.emails.insert_many(documents).inserted_ids

    dialogue, _ = await log_in(name="ann", changed=schema)

    assert [str(message_id) for message_id in ids] == await uidl(dialogue)


async def test_a_number_is_a_unique_id_however_it_is_kept(log_in, schema, shop, ann):
    shop.emails.delete_many({})
    for uid in (7, 8.0, Int64(9), 0, "10"):
        shop.emails.insert_one({"user_id": ann, "contents": GOOD, "uid": uid})

    dialogue, _ = await log_in(name="ann", changed=schema)

    assert ["7", "8", "9", "0", "10"] == await uidl(dialogue)


KEYS = [
    {"a": 1},
    {"a": {"b": [1]}},
    None,
    True,
    1,
    1.5,
    float("nan"),
    "1",
    b"\x00\xff",
    uuid.uuid4(),
]
KEYS += [datetime(2020, 1, 1, tzinfo=UTC), Decimal128("2.5"), Int64(5), "", "x" * 200, "a b"]


async def test_messages_may_have_any_key(log_in, schema, shop, ann, database):
    """All of them at once: keys that Python takes for the same, and those that it can't hash."""
    shop.emails.delete_many({})
    keys = [Binary.from_uuid(key) if isinstance(key, uuid.UUID) else key for key in KEYS]
    for key in keys:
        shop.emails.insert_one({"_id": key, "user_id": ann, "contents": GOOD})
    for _ in range(2):  # measured, then remembered
        dialogue, answer = await log_in(name="ann", changed=schema)
        assert answer.startswith(b"+OK")
        assert len(keys) == len(set(await uidl(dialogue)))
        for number in range(1, len(keys) + 1):
            assert (await dialogue.say(f"RETR {number}")).startswith(b"+OK %d octets" % SIZE)
        await dialogue.hang_up()
    assert len(keys) == database.sizes.count_documents({})

    dialogue, _ = await log_in(name="ann", changed=schema)
    for number in range(1, len(keys) + 1):
        await dialogue.say(f"DELE {number}")
    assert (await dialogue.say("QUIT")).startswith(b"+OK")

    assert 0 == shop.emails.count_documents({}) + database.sizes.count_documents({})


async def test_text_that_is_not_utf_8_goes_out_as_it_is(log_in, schema, shop, ann):
    """Other drivers write what Python's would refuse to."""
    text = b"Subject: \xe9\xed\xa0\x80\r\n\r\n\xff\r\n"
    raw = bson.encode({"_id": ObjectId(), "user_id": ann, "contents": "@" * len(text)})
    document = bson.raw_bson.RawBSONDocument(raw.replace(b"@" * len(text), text))
    shop.emails.bulk_write([InsertOne(document)])

    dialogue, _ = await log_in(name="ann", changed=schema)

    assert (await dialogue.say("RETR 2")).endswith(text + b".\r\n")


async def test_dates_of_any_year_do_not_keep_a_user_out(log_in, schema, shop, ann):
    shop.users.update_one({"_id": ann}, [{"$set": {"born": {"$toDate": Int64(-(2**60))}}}])
    shop.emails.update_one({}, [{"$set": {"size": {"$toDate": Int64(2**60)}}}])
    schema["mongo_schema"]["size"] = "size"

    _, answer = await log_in(name="ann", changed=schema)

    assert answer.startswith(b"+OK")


async def test_many_odd_messages_are_counted_and_the_first_of_them_named(log_in, schema, shop, ann):
    shop.emails.insert_many([{"user_id": ann, "contents": None} for _ in range(25)])

    with capture_logs() as logs:
        await log_in(name="ann", changed=schema)

    odd = [line for line in logs if line["event"].startswith(("mongo.message", "mongo.odd"))]
    assert 11 == len(odd)
    assert 15 == odd[-1]["unnamed"]


# Users


async def test_a_user_who_has_no_usable_owner_is_refused(log_in, schema, shop, password_hash):
    """Null would own all messages without an owner, a regular expression those that it matches."""
    schema["mongo_schema"]["owner_from"] = "mailbox"
    for number, owner in enumerate([*NO_OWNER, ...]):
        document = {"user": f"ann{number}", "pass": password_hash, "mailbox": owner}
        if owner is ...:
            del document["mailbox"]
        shop.users.insert_one(document)
    shop.emails.insert_many([{"contents": GOOD}, {"user_id": "bob", "contents": GOOD}])
    dialogue, unknown = await log_in(name="nobody", changed=schema)

    for number in range(len(NO_OWNER) + 1):
        with capture_logs() as logs:
            assert await dialogue.server.store.find_user(f"ann{number}") is None
        (line,) = [line for line in logs if line["event"] == "mongo.odd_user"]
        assert (f"ann{number}", "mailbox") == (line["user"], line["field"])

    assert unknown.startswith(b"-ERR [AUTH]")
    assert unknown == await dialogue.login("ann0", "hello")


OWNERS = [("x", "x"), (5, 5), (6, 6.0), (7, "7"), (8.0, Int64(8)), (9.0, "9"), (b"\x01", b"\x01")]


async def test_owners_of_all_usable_kinds_get_their_mail(log_in, schema, shop, password_hash):
    schema["mongo_schema"]["owner_from"] = "mailbox"
    for number, (owner, theirs) in enumerate(OWNERS):
        user = {"user": f"ann{number}", "pass": password_hash, "mailbox": owner}
        shop.users.insert_one(user)
        shop.emails.insert_one({"user_id": theirs, "contents": GOOD})
    dialogue, _ = await log_in(name="nobody", changed=schema)

    for number in range(len(OWNERS)):
        async with Dialogue(dialogue.server) as session:
            await session.login(f"ann{number}", "hello")
            assert (await session.say("STAT")).startswith(b"+OK 1 ")
            await session.say("DELE 1")
            assert (await session.say("QUIT")).startswith(b"+OK")

    assert 0 == shop.emails.count_documents({})


@pytest.mark.parametrize("second", ["mailbox", 5, 5.0, "5"], ids=repr)
async def test_two_users_with_one_maildrop_have_it_one_at_a_time(
    log_in, schema, shop, password_hash, second
):
    schema["mongo_schema"]["owner_from"] = "mailbox"
    first = "mailbox" if second == "mailbox" else 5
    shop.users.insert_one({"user": "ann", "pass": password_hash, "mailbox": first})
    shop.users.insert_one({"user": "bob", "pass": password_hash, "mailbox": second})

    ann, opened = await log_in(name="ann", changed=schema)
    _, refused = await log_in(name="bob", changed=schema)
    await ann.say("QUIT")
    _, after = await log_in(name="bob", changed=schema)

    assert opened.startswith(b"+OK")
    assert refused.startswith(b"-ERR [IN-USE]")
    assert after.startswith(b"+OK")


async def test_a_name_that_is_not_a_string_logs_nobody_in(log_in, schema, shop, password_hash):
    dialogue, unknown = await log_in(name="nobody", changed=schema)
    store = dialogue.server.store
    for name in NO_NAME:
        shop.users.replace_one({}, {"user": name, "pass": password_hash}, upsert=True)
        with capture_logs() as logs:
            assert await store.find_user("ann") is None
            assert [] == [user.name async for user in store.list_users()]
        if name == ["ann"]:  # the one that a query for ann finds
            assert "mongo.odd_user" in {line["event"] for line in logs}
            assert unknown == await dialogue.login("ann", "hello")


async def test_an_odd_document_of_the_same_name_keeps_nobody_out(log_in, schema, shop, ann):
    shop.users.insert_one({"_id": ObjectId("00" * 12), "user": ["ann"], "pass": "x"})

    _, answer = await log_in(name="ann", changed=schema)

    assert answer.startswith(b"+OK")


@pytest.mark.parametrize("field", ["pass", "secret"])
async def test_a_password_that_is_not_text_is_a_failed_login_and_a_line(
    log_in, schema, shop, ann, field
):
    async def attempt(name):
        async with Dialogue(dialogue.server) as session:
            if field == "pass":
                return await session.login(name, "hello")
            assert (await session.say("AUTH CRAM-MD5")).startswith(b"+ ")
            return await session.say(base64.b64encode(f"{name} {'0' * 32}".encode()))

    dialogue, _ = await log_in(name="nobody", changed=schema, cram_md5=True)
    unknown = await attempt("nobody")
    for value in [42, {"a": 1}, ["x"], Regex("x"), b"\xff\xfe"]:
        shop.users.update_one({"_id": ann}, {"$set": {field: value}})
        with capture_logs() as logs:
            answer = await attempt("ann")

        assert answer.startswith(b"-ERR [AUTH]")
        assert unknown == answer
        (line,) = [line for line in logs if line["event"] == "mongo.odd_user"]
        assert ("ann", field) == (line["user"], line["field"])
        events = {line["event"] for line in logs}
        assert {"mongo.odd_user", "login.failed"} == events - {"session.opened", "session.closed"}


async def test_a_hash_may_be_kept_as_octets(log_in, schema, shop, ann, password_hash):
    """As bcrypt for Python returns it."""
    shop.users.update_one({"_id": ann}, {"$set": {"pass": password_hash.encode()}})

    _, answer = await log_in(name="ann", changed=schema)

    assert answer.startswith(b"+OK")


async def test_fields_may_be_parts_of_documents(log_in, schema, shop, password_hash):
    names = {"user_key": "login.name", "password": "login.hash", "owner_from": "box.id"}
    schema["mongo_schema"] |= names | {"owner": "of.box", "body": "mail.text", "uid": "mail.uid"}
    login = {"name": "ann", "hash": password_hash}
    shop.users.insert_one({"login": login, "box": {"id": 7}})
    shop.emails.insert_one({"of": {"box": 7}, "mail": {"text": GOOD, "uid": "u-1"}})

    dialogue, _ = await log_in(name="ann", changed=schema)

    assert ["u-1"] == await uidl(dialogue)
    assert b"+OK %d octets" % SIZE in await dialogue.say("RETR 1")


async def test_a_message_that_changed_hands_is_neither_read_nor_removed(log_in, schema, shop, ann):
    dialogue, _ = await log_in(name="ann", changed=schema)
    shop.emails.update_one({}, {"$set": {"user_id": "bob"}})

    assert (await dialogue.say("RETR 1")).startswith(b"-ERR [SYS/PERM]")
    await dialogue.say("DELE 1")
    await dialogue.say("QUIT")

    assert 1 == shop.emails.count_documents({})


async def test_a_user_is_read_once_a_login(log_in, schema, shop, ann):
    dialogue, _ = await log_in(name="nobody", changed=schema)
    shop.command("profile", 2)
    try:
        assert (await dialogue.login("ann", "hello")).startswith(b"+OK")
    finally:
        shop.command("profile", 0)
    read = shop["system.profile"].count_documents({"ns": f"{shop.name}.users"})
    shop["system.profile"].drop()

    assert 1 == read


async def test_each_missing_index_is_named_with_the_command_that_makes_it(start, schema, shop):
    for collection in (shop.users, shop.emails):
        collection.insert_one({})
        collection.drop_indexes()

    with capture_logs() as logs:
        await start(**schema)
    remedies = [line["remedy"] for line in logs if line["event"] == "mongo.index_missing"]
    await start(**schema, mongo_create_indexes=True)
    with capture_logs() as after:
        await start(**schema)

    assert [
        'db.users.createIndex({"user": 1})',
        'db.emails.createIndex({"user_id": 1, "_id": 1, "uid": 1})',
    ] == remedies
    assert [] == [line for line in after if line["event"] == "mongo.index_missing"]
