"""An extension of pop3hub: a file that records who retrieved which message."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from pop3hub import ConfigurationError, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pop3hub import PopMessage, Session


class Audit:
    """Appends a line of JSON for each message retrieved and each session of a user."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: IO[str] | None = None

    @hookimpl
    def register_options(self) -> list[click.Option]:
        """Ask for the file; without it the extension does nothing."""
        return [
            click.Option(
                ["--audit-file"],
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="Append a line of JSON for each message retrieved and each session.",
            )
        ]

    @hookimpl
    def configure(self, options: Mapping[str, Any]) -> None:
        """Take the path of the file."""
        path = options.get("audit_file")
        self._path = Path(path) if path else None

    @hookimpl
    def startup(self) -> None:
        """Open the file."""
        if self._path is None:
            return
        try:
            self._file = self._path.open("a", encoding="utf-8", buffering=1)
        except OSError as exc:
            raise ConfigurationError(f"--audit-file {self._path}: {exc.strerror}") from exc

    @hookimpl
    def shutdown(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @hookimpl
    def message_retrieved(self, message: PopMessage, session: Session) -> None:
        """Record a message that RETR has sent completely."""
        self._write(session, "retrieved", uid=message.uid, octets=message.size)

    @hookimpl
    def session_closed(self, session: Session) -> None:
        """Record the end of a session in which a user had logged in."""
        if session.user is not None:
            self._write(session, "closed", deleted=session.stats.deleted)

    def _write(self, session: Session, event: str, **facts: Any) -> None:
        if self._file is not None and session.user is not None:
            line = {"time": time.time(), "event": event, "user": session.user.name}
            print(json.dumps(line | {"peer": session.peer.host} | facts), file=self._file)
