"""The commands of the AUTHORIZATION state (RFC 1939 s4, s7; RFC 2595; RFC 5034; RFC 6856).

Whatever fails in a login, the client hears the same words after the same time; only what has
nothing to do with its credentials is told apart by a response code.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pop3hub import auth, protocol
from pop3hub.auth.sasl import Exchange, decode_initial
from pop3hub.errors import AuthenticationFailed, CommandError, PopError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from pop3hub.auth.sasl import Mechanism
    from pop3hub.auth.users import PopUser
    from pop3hub.session.session import Session

    Answer = Coroutine[Any, Any, None] | None


def plaintext_allowed(session: Session) -> bool:
    """Whether a password may come as it is: under TLS, over loopback, or by the settings."""
    return session.tls is not None or session.plaintext_ok


def user(session: Session, name: bytes) -> None:
    """Take a user's name, whoever it is: nobody shall learn who exists (RFC 1939 s13)."""
    session.pending_name = None
    if not plaintext_allowed(session):
        raise CommandError("plaintext-needs-tls")
    session.pending_name = protocol.text_of(name.strip(b" "))
    session.ok("user-accepted", user=session.pending_name)


def pass_(session: Session, password: bytes) -> Answer:
    """Take the password of the user named before, spaces and all."""
    name, session.pending_name = session.pending_name, None
    if name is None:
        raise CommandError("password-without-user")
    proof = session.check_password(name, protocol.text_of(password))
    return _log_in(session, "USER", name, proof)


def apop(session: Session, arguments: bytes) -> Answer:
    """Take a name and the digest of the greeting's stamp and the user's secret."""
    session.pending_name = None
    if not session.stamp:
        raise CommandError("unknown-command")
    name, space, digest = protocol.text_of(arguments.strip(b" ")).rpartition(" ")
    if not space:
        raise CommandError("arguments-wrong", usage="APOP name digest")
    return _log_in(session, "APOP", name, _prove_digest(session, name, digest))


def auth_(session: Session, mechanism: str | None = None, initial: str | None = None) -> Answer:
    """Begin a SASL exchange, or list the mechanisms (RFC 5034 s4)."""
    session.pending_name = None
    if mechanism is None:
        session.ok("mechanisms-follow")
        names = "".join(f"{name}\r\n" for name in mechanisms(session))
        session.channel.send(names.encode("ascii") + protocol.END)
        return None
    found = session.context.mechanisms.get(mechanism.upper())
    if found is None or mechanism.upper() not in mechanisms(session):
        needs_tls = found is not None and found.plaintext and not plaintext_allowed(session)
        raise CommandError("plaintext-needs-tls" if needs_tls else "mechanism-unknown")
    exchange = Exchange(
        mechanism=found.name,
        certificate=(session.tls and session.tls.peer_certificate) or {},
        ask=session.ask,
        authenticator=session,
        salt_key=session.context.salt_key,
        initial=None if initial is None else decode_initial(initial),
        host=session.settings.name,
    )
    return _log_in(session, found.name, exchange, found.run(exchange))


def stls(session: Session) -> Answer:
    """Go on under TLS, as if the connection had just begun (RFC 2595 s4)."""
    if session.tls is not None:
        raise CommandError("tls-active")
    if not session.starts_tls:
        raise CommandError("tls-unavailable")
    if session.utf8:
        raise CommandError("utf8-before-stls")
    return _start_tls(session)


async def _start_tls(session: Session) -> None:
    session.ok("begin-tls")
    session.tls = await session.channel.start_tls()
    session.pending_name = None
    session.reset_language()


def utf8(session: Session) -> None:
    """Send UTF-8 from now on, in messages too (RFC 6856 s2)."""
    session.utf8 = True
    session.plain = False
    session.ok("utf8-enabled")


def mechanisms(session: Session) -> list[str]:
    """Return the SASL mechanisms that this connection could log in with now."""
    return [
        name
        for name, mechanism in session.context.mechanisms.items()
        if _is_usable(session, mechanism)
    ]


def _is_usable(session: Session, mechanism: Mechanism) -> bool:
    if mechanism.needs == "client-certificate":
        return session.tls is not None and bool(session.tls.peer_certificate)
    return not mechanism.plaintext or plaintext_allowed(session)


async def _log_in(
    session: Session, mechanism: str, name: str | Exchange, proof: Coroutine[Any, Any, PopUser]
) -> None:
    """Await the proof of who it is and open the maildrop, or fail as every login fails."""
    loop = asyncio.get_running_loop()
    session.last_activity = loop.time()
    try:
        user = await proof
        if session.is_locked_out(_tried(name)):  # now, whatever it was when the proof began
            raise AuthenticationFailed  # noqa: TRY301 - it shall look like the others
        await session.enter_transaction(user, mechanism)
    except auth.UnknownHash as exc:
        session.log.error("login.damaged_keys", mechanism=mechanism, error=str(exc))
        await _fail(session, mechanism, _tried(name), AuthenticationFailed())
    except AuthenticationFailed as error:
        await _fail(session, mechanism, _tried(name), error)
    except PopError as error:
        session.context.stats.attempts[mechanism, error.code or "ERR"] += 1
        raise
    else:
        session.context.stats.attempts[mechanism, "OK"] += 1
        session.context.guard.record_login(_tried(name), session.peer, session.settings)
        session.ok("welcome", user=user.name)


def _tried(name: str | Exchange) -> str:
    return name if isinstance(name, str) else name.name


async def _fail(session: Session, mechanism: str, name: str, error: PopError) -> None:
    """Answer a failed login, at a time after its last line that only failures before it set."""
    session.failed_logins += 1
    session.context.stats.attempts[mechanism, "AUTH"] += 1
    session.log.warning("login.failed", user=name, mechanism=mechanism)
    await session.plugins.login_failed(name, session.view)
    slowness = await session.record_failure(name)
    due = session.last_activity + session.settings.failure_delay * slowness
    await asyncio.sleep(due - asyncio.get_running_loop().time())
    if session.failed_logins < session.settings.limits.failed_logins:
        raise error
    session.refuse(AuthenticationFailed(text_id="too-many-failed-logins"))
    session.end("failed logins")


async def _prove_digest(session: Session, name: str, digest: str) -> PopUser:
    user = await session.get_user(auth.prepare_name(name))
    if not auth.check_apop(session.stamp, digest, user) or user is None:
        raise AuthenticationFailed
    return user
