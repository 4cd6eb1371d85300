"""Which schema a database of pop3hub's own holds, and whose mail; anything else is refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pymongo.errors import DuplicateKeyError

from pop3hub import ConfigurationError

SCHEMA = 2
"""The version of the documents that README.md describes."""
NATIVE = "native"
"""Says that the mail is in pop3hub's own schema; else it is their `database.collection`."""


async def claim_database(database: Any, mail: str) -> None:
    """Note in a database what is in it. Raises ConfigurationError where it holds something else.

    Leases and sizes of two stores in one database could have the same keys.
    """
    wanted = {"version": SCHEMA, "mail": mail}
    found = await database["schema"].find_one({"_id": "pop3hub"})
    if found is None:
        if await _has_older(database):
            raise ConfigurationError(_other_version(database.name, 1))
        with suppress(DuplicateKeyError):  # another node was faster
            await database["schema"].update_one(
                {"_id": "pop3hub"}, {"$setOnInsert": wanted}, upsert=True
            )
        found = await database["schema"].find_one({"_id": "pop3hub"}) or wanted
    if found.get("version") != SCHEMA:
        raise ConfigurationError(_other_version(database.name, found.get("version")))
    if found.get("mail") != mail:
        raise ConfigurationError(
            f"the database {database.name!r} is in use for other mail ({found.get('mail')}): give "
            "this one another with --mongo-database"
        )


async def _has_older(database: Any) -> bool:
    """Return whether there are documents of the time before versions were noted."""
    for name, field in (("users", "account"), ("messages", "account"), ("leases", "user")):
        if await database[name].find_one({field: {"$exists": False}}, {"_id": 1}):
            return True
    return False


def _other_version(name: str, version: Any) -> str:
    return (
        f"the database {name!r} was made by another version of pop3hub (schema {version}, this one "
        f"needs {SCHEMA}): use another with --mongo-database, and add users and mail anew"
    )
