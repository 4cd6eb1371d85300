"""A session as plugins see it: the members of `hooks.interfaces.Session`, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pop3hub.auth import PopUser
    from pop3hub.hooks.interfaces import Session, SessionStats, State
    from pop3hub.peer import Peer, Tls
    from pop3hub.settings import Settings


class SessionView:
    """What hooks are handed of a session (`hooks.interfaces.Session` has the contract)."""

    __slots__ = ("__weakref__", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return repr(self._session)

    @property
    def id(self) -> str:
        """The session's id."""
        return self._session.id

    @property
    def peer(self) -> Peer:
        """Where the client is."""
        return self._session.peer

    @property
    def tls(self) -> Tls | None:
        """The facts of TLS, None without it."""
        return self._session.tls

    @property
    def state(self) -> State:
        """The state of RFC 1939 s3."""
        return self._session.state

    @property
    def user(self) -> PopUser | None:
        """Who has proved who they are."""
        return self._session.user

    @property
    def mechanism(self) -> str:
        """How they proved it."""
        return self._session.mechanism

    @property
    def reason(self) -> str:
        """Why the session ended."""
        return self._session.reason

    @property
    def settings(self) -> Settings:
        """The policy of the server."""
        return self._session.settings

    @property
    def fence(self) -> Any:
        """What the maildrop lock yielded."""
        return self._session.fence

    @property
    def stats(self) -> SessionStats:
        """What the session has done so far."""
        return self._session.stats

    @property
    def language(self) -> str:
        """The tag of the language that the client is answered in."""
        return self._session.language

    @property
    def utf8(self) -> bool:
        """Whether the client asked for UTF-8."""
        return self._session.utf8

    def abort(self, reason: str) -> None:
        """End the session without UPDATE."""
        self._session.abort(reason)
