"""Somebody else's schema: `users {user, pass, secret}` and `emails {user_id, size, contents}`."""

import uuid

import pytest
from bson import ObjectId

from pop3hub import PermanentFailure, PopUser
from pop3hub_mongo import MongoBackend

pytestmark = pytest.mark.mongo

TABLE = {
    "users": "users",
    "user_key": "user",
    "password": "pass",
    "apop_secret": "secret",
    "messages": "emails",
    "owner": "user_id",
    "size": "",
    "body": "contents",
}
TEXT = "Subject: hi\n\n.dot\nlast line"
ON_THE_WIRE = b"Subject: hi\r\n\r\n..dot\r\nlast line\r\n.\r\n"
WIRE_SIZE = 32


@pytest.fixture(scope="module")
def shop_name(client):
    name = f"shop_{uuid.uuid4().hex[:8]}"
    yield name
    client.drop_database(name)


@pytest.fixture
def shop(client, shop_name, password_hash):
    """Their database: luke, and a message in each form that owner, size and body may have."""
    shop = client[shop_name]
    user = {"user": "luke", "pass": password_hash, "secret": "s3cret"}
    luke = shop.users.insert_one(user).inserted_id
    shop.emails.insert_many(
        [
            {"user_id": luke, "size": len(TEXT), "contents": TEXT},
            {"user_id": luke, "contents": TEXT.encode()},
            {"user_id": str(luke), "size": 9, "contents": TEXT.replace("\n", "\r\n") + "\r\n"},
            {"user_id": ObjectId(), "size": 1, "contents": "somebody else's"},
        ]
    )
    yield shop
    for collection in (shop.users, shop.emails):
        collection.delete_many({})


@pytest.fixture
def schema(shop):
    """The options that describe it."""
    return {"mongo_schema": {"database": shop.name, **TABLE}}


def documents(shop):
    return {name: list(shop[name].find().sort("_id")) for name in ("users", "emails")}


async def test_their_mail_is_served_by_its_real_size(log_in, schema, shop):
    before = documents(shop)

    dialogue, answer = await log_in(changed=schema)

    assert answer.startswith(b"+OK")
    assert b"+OK 3 %d\r\n" % (3 * WIRE_SIZE) == await dialogue.say("STAT")
    for number in (1, 2, 3):
        answer = await dialogue.say(f"RETR {number}")
        assert b"+OK %d octets\r\n" % WIRE_SIZE + ON_THE_WIRE == answer
    await dialogue.say("QUIT")
    assert before == documents(shop)


async def test_sizes_are_measured_once_and_remembered(log_in, schema, shop, database):
    dialogue, _ = await log_in(changed=schema)
    await dialogue.say("QUIT")
    database.sizes.update_many({}, {"$set": {"size": 7}})

    dialogue, _ = await log_in(changed=schema)

    assert [7, 7, 7] == [found["size"] for found in database.sizes.find()]
    assert b"+OK 3 21\r\n" == await dialogue.say("STAT")


async def test_their_sizes_are_believed_where_the_schema_says_so(log_in, schema):
    schema["mongo_schema"]["size"] = "size"

    dialogue, _ = await log_in(changed=schema)

    listing = (await dialogue.say("LIST")).splitlines()[1:-1]
    assert [b"1 27", b"2 %d" % WIRE_SIZE, b"3 9"] == listing


async def test_only_what_was_marked_is_removed(log_in, schema, shop, database):
    before = documents(shop)
    dialogue, _ = await log_in(changed=schema)
    await dialogue.say("DELE 2")

    assert (await dialogue.say("QUIT")).startswith(b"+OK")

    del before["emails"][1]
    assert before == documents(shop)
    assert 2 == database.sizes.count_documents({})


async def test_removal_may_be_a_flag(log_in, schema, shop):
    schema["mongo_schema"]["delete"] = "flag:deleted"
    before = documents(shop)
    dialogue, _ = await log_in(changed=schema)
    await dialogue.say("DELE 1")
    await dialogue.say("QUIT")

    dialogue, _ = await log_in(changed=schema)

    before["emails"][0]["deleted"] = True
    assert before == documents(shop)
    assert (await dialogue.say("STAT")).startswith(b"+OK 2 ")


async def test_a_filter_hides_what_is_no_mail_of_the_inbox(log_in, schema):
    schema["mongo_schema"]["filter"] = {"size": {"$exists": False}}

    dialogue, _ = await log_in(changed=schema)

    assert (await dialogue.say("STAT")).startswith(b"+OK 1 ")


async def test_their_users_may_log_in_by_apop(start, schema):
    backend = await start(**schema)

    user = await backend.find_user("luke")

    assert "s3cret" == user.secret
    assert await backend.find_user("LUKE") is None
    assert [["luke"]] == [[u.name for u in page] async for page in backend.list_users()]


async def test_nothing_of_theirs_is_written(start, schema, shop):
    backend = await start(**schema)
    before = documents(shop)

    for write in (
        backend.store_user(PopUser("leia", "hash"), replace=False),
        backend.remove_user("luke", with_mail=True),
        backend.store_message("luke", b"x", None),
    ):
        with pytest.raises(PermanentFailure):
            await write

    assert before == documents(shop)


@pytest.mark.parametrize("allowed", [False, True])
async def test_an_index_is_made_only_if_that_is_allowed(start, schema, shop, allowed):
    shop.emails.drop_indexes()
    await start(**schema, mongo_create_indexes=allowed)

    made = [index["key"] for index in shop.emails.index_information().values()][1:]

    assert ([[("user_id", 1), ("_id", 1), ("uid", 1)]] if allowed else []) == made


async def test_a_sweep_forgets_the_sizes_of_mail_that_is_gone(
    start, log_in, schema, shop, database
):
    dialogue, _ = await log_in(changed=schema)
    await dialogue.say("QUIT")
    shop.emails.delete_one({})
    backend = await start(**schema)

    swept = await backend.sweep(0)

    assert (1, 2) == (swept.sizes, database.sizes.count_documents({}))


class UsersElsewhere(MongoBackend):
    """What a subclass in somebody's own package looks like."""

    async def find_user(self, name):
        user = await super().find_user(name.removesuffix("@example.com"))
        return user and PopUser(user.name, user.password, data="from elsewhere")


async def test_a_subclass_replaces_one_method_and_keeps_the_lease(log_in, schema, shop, database):
    dialogue, _ = await log_in(UsersElsewhere(), "luke@example.com", changed=schema)
    _, refused = await log_in(changed=schema)
    await dialogue.say("DELE 1")
    during = database.leases.find_one()

    await dialogue.say("QUIT")

    assert "from elsewhere" == dialogue.session.user.data
    assert refused.startswith(b"-ERR [IN-USE]")
    assert ("luke", dialogue.session.fence) == (during["user"], during["fence"])
    assert 3 == shop.emails.count_documents({})


async def test_failed_logins_are_counted_in_our_database(log_in, schema, shop, database):
    """With the digests of anything that is typed: nothing that their program has asked for."""
    _, answer = await log_in(name="nobody", changed=schema)

    assert answer.startswith(b"-ERR [AUTH]")
    assert 1 == database.failed_logins.count_documents({})
    assert {"users", "emails"} == set(shop.list_collection_names())
