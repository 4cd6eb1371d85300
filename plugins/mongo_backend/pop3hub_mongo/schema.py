"""The names that somebody else's documents go by: the table `[mongo.schema]`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pop3hub import ConfigurationError
from pop3hub_mongo.documents import owners_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLAG = "flag:"


@dataclass(frozen=True, slots=True, kw_only=True)
class MongoSchema:
    """Where users and messages are, in a database that another program fills.

    database: their database; empty for the one that the URI names.
    users: the collection of users.
    user_key: the field that holds the login name.
    owner_from: the field of a user that messages refer to.
    password: the field of the bcrypt hash.
    apop_secret: the field of the shared secret for APOP and CRAM-MD5; empty for none.
    messages: the collection of messages.
    owner: the field of a message that holds `owner_from` of its user, as it is or as a string.
    uid: the field of the unique-id; empty, or absent in a document: its _id.
    size: the field of the octets with CRLF line ends; empty, or absent in a document: measured.
    body: the field of the message's text, string or binary.
    order: the field that rises with arrival.
    filter: a query that a user's messages must match besides.
    delete: "remove", or "flag:NAME" to set the field NAME to true instead.
    """

    database: str = ""
    users: str = "users"
    user_key: str = "user"
    owner_from: str = "_id"
    password: str = "password"  # noqa: S105 - a field's name
    apop_secret: str = "secret"  # noqa: S105 - a field's name
    messages: str = "messages"
    owner: str = "user"
    uid: str = "uid"
    size: str = "size"
    body: str = "body"
    order: str = "_id"
    filter: Mapping[str, Any] = field(default_factory=dict)
    delete: str = "remove"

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> MongoSchema:
        """Return a table's schema. Raises ConfigurationError: a key or a value can't be right."""
        known = {entry.name for entry in dataclasses.fields(cls)}
        for key, value in table.items():
            if key not in known:
                raise ConfigurationError(
                    f"[mongo.schema] has no key {key!r} (it has: {', '.join(sorted(known))})"
                )
            if not isinstance(value, dict if key == "filter" else str):
                wanted = "table" if key == "filter" else "string"
                raise ConfigurationError(f"[mongo.schema] {key} must be a {wanted}")
        schema = cls(**table)
        optional = {"database", "apop_secret", "uid", "size", "filter"}
        for name in sorted(known - optional):
            if not getattr(schema, name):
                raise ConfigurationError(f"[mongo.schema] {name} must not be empty")
        if schema.delete != "remove" and not schema.flag:
            raise ConfigurationError(
                f'[mongo.schema] delete must be "remove" or "flag:NAME", not {schema.delete!r}'
            )
        return schema

    @property
    def flag(self) -> str:
        """The field that marks a message as deleted; empty where messages are removed."""
        return self.delete[len(FLAG) :] if self.delete.startswith(FLAG) else ""

    def of_owner(self, owner: Any) -> dict[str, Any]:
        """Return the query for a user's messages."""
        query = {**self.filter, self.owner: {"$in": owners_of(owner)}}
        if self.flag:
            query[self.flag] = {"$ne": True}
        return query

    def messages_of(self, owner: Any, ids: Sequence[Any]) -> dict[str, Any]:
        """Return the query for some messages as long as they are a user's."""
        return {self.owner: {"$in": owners_of(owner)}, "_id": {"$in": list(ids)}}

    def index(self) -> list[tuple[str, int]]:
        """Return the index that a listing wants."""
        names = [self.owner, self.order, "_id", self.size, self.uid]
        return [(name, 1) for name in dict.fromkeys(filter(None, names))]
