"""pop3hub: a POP3 and POP3S server for asyncio whose mail store is a plugin.

These names, and those of `pop3hub.testing`, `pop3hub.check`, `pop3hub.protocol.message` and
`pop3hub.mailbox_files`, are public; all else may move.
"""

from pop3hub.auth import (
    SCRAM_HASHES,
    SCRAM_SALT,
    PopUser,
    is_bcrypt,
    name_key,
    prepare,
    scram_keys,
)
from pop3hub.auth.sasl import Exchange, Mechanism
from pop3hub.errors import (
    AuthenticationFailed,
    CommandError,
    ConfigurationError,
    LoginDelayed,
    MaildropInUse,
    MaildropNotEmpty,
    NoSuchUser,
    PermanentFailure,
    PluginFailure,
    PopError,
    TemporaryFailure,
    UniqueIdTaken,
)
from pop3hub.hooks.callbacks import Callbacks
from pop3hub.hooks.interfaces import (
    CALL_BOUNDS,
    Server,
    ServerStats,
    Session,
    SessionStats,
    State,
    Store,
)
from pop3hub.hooks.specs import hookimpl
from pop3hub.hooks.store import open_store
from pop3hub.i18n import LanguageName, get_language
from pop3hub.maildrop import PopMessage, Snapshot, is_unique_id
from pop3hub.peer import Peer, Tls, is_loopback, parse_host_and_port
from pop3hub.protocol.downgrade import surrogate_size
from pop3hub.protocol.message import WireForm
from pop3hub.server import PopServer
from pop3hub.settings import Limits, Settings

__all__ = [
    "CALL_BOUNDS",
    "SCRAM_HASHES",
    "SCRAM_SALT",
    "AuthenticationFailed",
    "Callbacks",
    "CommandError",
    "ConfigurationError",
    "Exchange",
    "LanguageName",
    "Limits",
    "LoginDelayed",
    "MaildropInUse",
    "MaildropNotEmpty",
    "Mechanism",
    "NoSuchUser",
    "Peer",
    "PermanentFailure",
    "PluginFailure",
    "PopError",
    "PopMessage",
    "PopServer",
    "PopUser",
    "Server",
    "ServerStats",
    "Session",
    "SessionStats",
    "Settings",
    "Snapshot",
    "State",
    "Store",
    "TemporaryFailure",
    "Tls",
    "UniqueIdTaken",
    "WireForm",
    "get_language",
    "hookimpl",
    "is_bcrypt",
    "is_loopback",
    "is_unique_id",
    "name_key",
    "open_store",
    "parse_host_and_port",
    "prepare",
    "scram_keys",
    "surrogate_size",
]
