"""systemd's side of a service: readiness told, listening sockets taken over.

Both protocols are a few environment variables (sd_notify(3), sd_listen_fds(3)); without them
nothing happens.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

FIRST_FD = 3


class Notifier:
    """Tells the service manager how the service is doing."""

    def __init__(self) -> None:
        """Note whom to tell, and leave nothing of it to processes that are started from here."""
        self._address = os.environ.pop("NOTIFY_SOCKET", "")

    def ready(self, status: str = "") -> None:
        """Tell that new connections are served."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Tell that the configuration is read again; `ready` ends that."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """Tell that the service ends."""
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # Linux's abstract names begin with a NUL
            address = "\0" + address[1:]
        # A manager that has gone is no reason to stop serving.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto("\n".join(lines).encode(), address)


def inherited_sockets() -> list[socket.socket]:
    """Return the listening sockets that were handed over to this very process."""
    count = os.environ.pop("LISTEN_FDS", "")
    pid = os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    sockets = [socket.socket(fileno=fd) for fd in range(FIRST_FD, FIRST_FD + int(count))]
    for each in sockets:
        each.set_inheritable(False)
        each.setblocking(False)
    return sockets
