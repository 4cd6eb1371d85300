"""Who is it: users, passwords, SASL mechanisms, and limits against guessing.

May import errors, settings, peer, maildrop, protocol and i18n.
"""

from pop3hub.auth.passwords import BCRYPT_COST, Hasher, PasswordCache, is_bcrypt
from pop3hub.auth.scram import SCRAM_HASHES, SCRAM_ITERATIONS, SCRAM_SALT, ScramKeys, scram_keys
from pop3hub.auth.users import (
    PopUser,
    UnknownHash,
    check_apop,
    name_key,
    new_stamp,
    prepare,
    prepare_name,
)

__all__ = [
    "BCRYPT_COST",
    "SCRAM_HASHES",
    "SCRAM_ITERATIONS",
    "SCRAM_SALT",
    "Hasher",
    "PasswordCache",
    "PopUser",
    "ScramKeys",
    "UnknownHash",
    "check_apop",
    "is_bcrypt",
    "name_key",
    "new_stamp",
    "prepare",
    "prepare_name",
    "scram_keys",
]
