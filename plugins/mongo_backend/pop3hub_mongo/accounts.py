"""Users as this backend hands them on: with the account that their maildrop belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pop3hub import PopUser


@dataclass(frozen=True, slots=True)
class Account:
    """Whose a maildrop is. A name may be given to somebody else one day; this never is.

    lease: the `_id` of the lease on the maildrop.
    owner: the value that messages refer to.
    """

    lease: Any
    owner: Any


@dataclass(frozen=True, slots=True)
class MongoUser(PopUser):
    """A user and their account; None where a subclass made the user: it is looked up by name."""

    account: Account | None = field(default=None, repr=False)
