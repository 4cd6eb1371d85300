"""Sockets and life: listeners, TLS, connections, and the server that an embedder starts.

The only room that touches a transport. May import all but testing and cli.
"""

from pop3hub.server.server import PopServer

__all__ = ["PopServer"]
