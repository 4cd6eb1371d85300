"""pop3hub: a POP3 and POP3S server for asyncio whose mail store is a plugin."""

from pop3hub.auth.sasl import Exchange, Mechanism
from pop3hub.auth.users import PopUser
from pop3hub.errors import (
    AuthenticationFailed,
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
from pop3hub.hooks.specs import hookimpl
from pop3hub.maildrop import PopMessage, Snapshot
from pop3hub.server.server import PopServer
from pop3hub.session.session import Session
from pop3hub.settings import Limits, Settings

__all__ = [
    "AuthenticationFailed",
    "ConfigurationError",
    "Exchange",
    "Limits",
    "LoginDelayed",
    "MaildropInUse",
    "MaildropNotEmpty",
    "Mechanism",
    "NoSuchUser",
    "PermanentFailure",
    "PluginFailure",
    "PopError",
    "PopMessage",
    "PopServer",
    "PopUser",
    "Session",
    "Settings",
    "Snapshot",
    "TemporaryFailure",
    "UniqueIdTaken",
    "hookimpl",
]
