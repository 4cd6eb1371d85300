"""Users: names in any case, nothing overwritten, nobody removed with mail by accident."""

import pytest

from pop3hub import MaildropNotEmpty, PopUser

pytestmark = pytest.mark.mongo


async def test_a_user_is_found_in_any_case_and_form(backend):
    await backend.store_user(PopUser("Zoe\u0308", "hash"), replace=False)

    found = await backend.find_user("ZO\u00cb")

    assert ("zo\u00eb", "hash") == (found.name, found.password)


async def test_all_that_a_user_proves_themselves_with_is_kept(backend):
    keys = {"SCRAM-SHA-256": "4096:c2FsdA==$c3RvcmVk:c2VydmVy"}
    user = PopUser("leia", "hash", secret="apop", scram=keys)

    await backend.store_user(user, replace=False)

    found = await backend.find_user("leia")
    assert ("leia", "hash", "apop", keys) == (found.name, found.password, found.secret, found.scram)


async def test_adding_never_overwrites(backend):
    added = await backend.store_user(PopUser("LUKE", "other"), replace=False)

    assert not added
    assert "other" != (await backend.find_user("luke")).password


async def test_replacing_changes_credentials_and_nothing_else(backend, database, account):
    database.users.update_one({"_id": "luke"}, {"$set": {"quota": 5}})

    replaced = await backend.store_user(PopUser("luke", "new"), replace=True)

    assert replaced
    expected = {"_id": "luke", "account": account, "password": "new", "quota": 5}
    assert expected == database.users.find_one()


async def test_replacing_nobody_fails(backend):
    assert not await backend.store_user(PopUser("leia", "hash"), replace=True)


async def test_users_are_listed_in_order(backend):
    for name in ("leia", "han", "zoe"):
        await backend.store_user(PopUser(name, "hash"), replace=False)

    names = [user.name async for page in backend.list_users() for user in page]

    assert ["han", "leia", "luke", "zoe"] == names


async def test_a_user_with_mail_stays_unless_the_mail_may_go(backend, database):
    await backend.store_message("luke", b"x", None)

    with pytest.raises(MaildropNotEmpty):
        await backend.remove_user("luke", with_mail=False)

    assert 1 == database.users.count_documents({})
    assert not await backend.remove_user("nobody", with_mail=True)
