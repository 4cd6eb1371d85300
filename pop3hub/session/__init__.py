"""One session: states, commands and replies, without a socket.

May import errors, settings, peer, maildrop, protocol, i18n, auth and hooks.
"""

from pop3hub.hooks.interfaces import State
from pop3hub.session.commands import handle
from pop3hub.session.session import Channel, ServerContext, Session

__all__ = ["Channel", "ServerContext", "Session", "State", "handle"]
