"""The contract with plugins: what they are asked, how they are found, and the one caller of hooks.

May import errors, settings, peer, maildrop, protocol, i18n and auth.
"""

from pop3hub.hooks.discovery import Plugin, load_backend, load_extensions
from pop3hub.hooks.plugins import Plugins
from pop3hub.hooks.specs import hookimpl, hookspec

__all__ = ["Plugin", "Plugins", "hookimpl", "hookspec", "load_backend", "load_extensions"]
