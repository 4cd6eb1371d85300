"""Mail belongs to an account, which nobody gets a second time, and not to a name."""

import asyncio

import pytest
from structlog.testing import capture_logs

from pop3hub import (
    ConfigurationError,
    MaildropNotEmpty,
    NoSuchUser,
    PermanentFailure,
    PopError,
    PopUser,
    TemporaryFailure,
)
from pop3hub_mongo.message_bodies import CHUNK

pytestmark = pytest.mark.mongo

LONG = b"x" * (8 * CHUNK)


def left(database):
    """What there is of messages and bodies."""
    return [database[name].count_documents({}) for name in ("messages", "bodies.chunks")]


async def listed(backend):
    return [m.uid async for page in backend.list_messages(PopUser("luke")) for m in page]


async def replace_luke(backend):
    assert await backend.remove_user("luke", with_mail=True)
    assert await backend.store_user(PopUser("luke"), replace=False)


@pytest.mark.parametrize("contents", [b"short", LONG])
async def test_the_next_user_of_a_name_never_reads_what_was_on_its_way(backend, database, contents):
    async def interrupted():
        yield contents
        await replace_luke(backend)
        yield b"end"

    with pytest.raises(NoSuchUser):
        await backend.store_message("luke", interrupted(), None)

    assert [] == await listed(backend)
    assert [0, 0] == left(database)


@pytest.mark.parametrize("contents", [b"short", LONG])
async def test_a_user_who_is_removed_within_the_commit_gets_no_acknowledged_mail(
    backend, database, contents, monkeypatch
):
    confirm = backend.store._confirm

    async def after_the_removal(*arguments):
        await replace_luke(backend)
        await confirm(*arguments)

    monkeypatch.setattr(backend.store, "_confirm", after_the_removal)

    with pytest.raises(NoSuchUser):
        await backend.store_message("luke", contents, None)

    assert [] == await listed(backend)
    assert [0, 0] == left(database)


async def test_a_delivery_while_its_user_is_being_removed_may_be_tried_again(backend, account):
    await backend.store.hold_off_mail("luke", account)

    with pytest.raises(TemporaryFailure):
        await backend.store_message("luke", b"x", None)

    assert [] == await listed(backend)
    await backend.store.take_mail("luke", account)
    assert [await backend.store_message("luke", b"x", None)] == await listed(backend)


async def test_a_removal_that_was_broken_off_holds_mail_off_for_a_short_time(
    backend, account, monkeypatch
):
    monkeypatch.setattr("pop3hub_mongo.native_store.REMOVING", 0)
    await backend.store.hold_off_mail("luke", account)

    assert await backend.store_message("luke", b"x", None)
    assert not await backend.store.delete_user("luke", account)


async def test_deliveries_and_removals_at_once_lose_nothing_that_was_acknowledged(backend, start):
    """Without `with_mail`, a user goes only if no mail was acknowledged."""
    other = await start()
    outcomes = set()
    for round_ in range(12):

        async def deliver(node, pause):
            await asyncio.sleep(pause)
            return await node.store_message("luke", b"x", None)

        tries = [
            *(deliver(node, 0.001 * (n + round_)) for n, node in enumerate((backend, other))),
            backend.remove_user("luke", with_mail=False),
        ]
        *delivered, removed = await asyncio.gather(*tries, return_exceptions=True)
        acknowledged = [uid for uid in delivered if isinstance(uid, str)]
        refused = [error for error in delivered if not isinstance(error, str)]
        assert all(isinstance(error, PopError) for error in refused), refused
        outcomes.add(removed is True)
        if removed is True:
            assert [] == acknowledged
            assert await backend.store_user(PopUser("luke"), replace=False)
            assert [] == await listed(backend)
        else:
            assert isinstance(removed, MaildropNotEmpty)
            assert set(acknowledged) <= set(await listed(backend))
            await replace_luke(backend)
    assert outcomes


async def test_what_a_dead_delivery_left_in_a_removed_account_is_swept(backend, account, database):
    await replace_luke(backend)
    message = {"_id": backend.store._ids.new(0), "account": account, "size": 1, "body": b"x"}
    database.messages.insert_one(message)

    assert 0 == (await backend.sweep(86_400)).removals
    swept = await backend.sweep(0)

    assert 1 == swept.removals
    assert [0, 0] == left(database)
    (lease,) = database.leases.find({"_id": account})
    assert ("gc" in lease, "removed" in lease) == (True, False)


async def test_a_sweep_spares_the_mail_of_a_user_whose_removal_was_broken_off(
    backend, account, database
):
    lease = await backend.leases.acquire(account, "luke", lambda: None)
    await backend.leases.note_removal(lease)
    await backend.leases.release(lease)
    uid = await backend.store_message("luke", b"x", None)

    await backend.sweep(0)

    assert [uid] == await listed(backend)
    assert "removed" not in database.leases.find_one()


async def test_a_user_without_an_account_is_refused_with_one_line(backend, log_in, database):
    """A document of another version of the schema, or one that was made by hand."""
    luke = database.users.find_one()
    database.users.insert_one({"_id": "leia", "password": luke["password"]})
    with capture_logs() as logs:
        _, answer = await log_in(name="leia")
    _, unknown = await log_in(name="nobody")
    with pytest.raises(PermanentFailure):
        await backend.store_message("leia", b"x", None)
    with pytest.raises(PermanentFailure):
        await backend.remove_user("leia", with_mail=True)

    assert unknown == answer
    (line,) = [line for line in logs if line["event"] == "mongo.other_schema"]
    assert "leia" == line["user"]


@pytest.mark.parametrize(
    ("collection", "document"),
    [
        ("users", {"_id": "luke", "password": "hash"}),
        ("messages", {"user": "luke", "size": 1, "body": b"x"}),
        ("leases", {"_id": "luke", "owner": None, "fence": 7}),
        ("schema", {"_id": "pop3hub", "version": 1, "mail": "native"}),
        ("schema", {"_id": "pop3hub", "version": 3, "mail": "native"}),
        ("schema", {"_id": "pop3hub", "version": 2, "mail": "shop.emails"}),
    ],
)
async def test_a_database_of_another_version_or_store_is_refused(
    start, database, collection, document
):
    database[collection].insert_one(document)

    with pytest.raises(ConfigurationError) as refused:
        await start()

    assert "--mongo-database" in str(refused.value)
    assert "\n" not in str(refused.value)
