"""Documents of pop3hub's own schema that another hand has changed: each costs what is in it."""

import pytest
from bson import Int64, ObjectId, Regex
from structlog.testing import capture_logs

pytestmark = pytest.mark.mongo

ODD = [["x"], {"a": 1}, Regex("x"), 42, b"\xff", True]


async def test_a_credential_that_is_not_text_is_left_out_and_named(backend, database):
    for field in ("password", "apop", "scram"):
        for value in [*ODD, {"SCRAM-SHA-256": ["x"]}]:
            database.users.update_one({"_id": "luke"}, {"$set": {field: value}})
            with capture_logs() as logs:
                user = await backend.get_user("luke")
                listed = [each async for page in backend.list_users() for each in page]

            kept = {"password": user.password, "apop": user.secret, "scram": user.scram}
            assert not kept[field]
            assert [user] == listed
            assert {("luke", field)} == {(line["user"], line["field"]) for line in logs}
        database.users.update_one({"_id": "luke"}, {"$unset": {field: 1}})


async def test_a_password_that_is_not_text_is_a_failed_login(backend, log_in, database):
    database.users.update_one({"_id": "luke"}, {"$set": {"password": ["x"]}})

    dialogue, answer = await log_in()

    assert answer.startswith(b"-ERR [AUTH]")
    assert answer == await dialogue.login("nobody", "hello")


async def test_a_user_whose_key_is_not_text_is_not_listed(backend, database):
    database.users.insert_one({"account": ObjectId()})

    assert ["luke"] == [each.name async for page in backend.list_users() for each in page]


async def test_a_message_without_a_size_is_left_out_and_named(backend, log_in, database, account):
    odd = [{"account": account, "body": b"x\r\n", "size": size} for size in (None, "3", -1, {})]
    ids = database.messages.insert_many([*odd, {"account": account, "body": b"x\r\n"}]).inserted_ids
    for size in (3.0, Int64(3)):
        database.messages.insert_one({"account": account, "body": b"x\r\n", "size": size})

    with capture_logs() as logs:
        dialogue, _ = await log_in()

    assert b"+OK 2 6\r\n" == await dialogue.say("STAT")
    skipped = [line["document"] for line in logs if line["event"] == "mongo.message_skipped"]
    assert [repr(message_id) for message_id in ids] == skipped


async def test_a_message_without_a_body_cannot_be_read_and_is_named(
    backend, log_in, database, account
):
    bodies = [{"body": None}, {"body": 42}, {"body": "x"}, {"body": ["x"]}, {"chunks": "2"}, {}]
    database.messages.insert_many([{"account": account, "size": 3} | body for body in bodies])
    dialogue, _ = await log_in()

    with capture_logs() as logs:
        answers = [await dialogue.say(f"RETR {number + 1}") for number in range(len(bodies))]

    assert all(answer.startswith(b"-ERR [SYS/PERM]") for answer in answers)
    assert ["mongo.odd_message"] * len(bodies) == [line["event"] for line in logs]
