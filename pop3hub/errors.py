"""What a client hears as an error, and what only an operator does.

A `PopError` knows its response code (RFC 2449 s8, RFC 3206, RFC 6856 s5) and the id of its text
in `languages/en.toml`; the text itself is the catalogue's. Nothing here writes to a socket.
"""

from __future__ import annotations

from typing import Any


class PopError(Exception):
    """An error that a client hears as one `-ERR` line.

    detail: what the operator reads in the log, such as another error; a client never hears it.
    text_id: which text the client hears, an id of `languages/en.toml`; `fields` fill its
        placeholders. code: the response code without brackets, or None. Each class has its own.
    """

    code: str | None = None
    text_id: str = "temporary-failure"

    def __init__(
        self,
        detail: object = "",
        *,
        text_id: str | None = None,
        code: str | None = None,
        **fields: Any,
    ) -> None:
        self.detail = detail
        self.text_id = text_id or type(self).text_id
        self.code = code or type(self).code
        self.fields = fields
        super().__init__(detail)

    def __str__(self) -> str:
        facts = " ".join(f"{key}={value}" for key, value in self.fields.items())
        known = f"{self.text_id} {facts}".rstrip()
        return f"{known}: {self.detail}" if self.detail else known


class CommandError(PopError):
    """The command can't be carried out as it was sent: verb, state, arguments or number."""

    text_id = "unknown-command"

    def __init__(
        self, text_id: str | None = None, *, code: str | None = None, **fields: Any
    ) -> None:
        super().__init__(text_id=text_id, code=code, **fields)


class AuthenticationFailed(PopError):
    """The credentials are wrong, or this user may not log in here and now (RFC 3206 s5)."""

    code = "AUTH"
    text_id = "authentication-failed"


class MaildropInUse(PopError):
    """Another session holds the maildrop lock (RFC 2449 s8.1.2)."""

    code = "IN-USE"
    text_id = "maildrop-in-use"


class LoginDelayed(PopError):
    """The user logged in too short a time ago and must wait so many seconds (RFC 2449 s8.1.1)."""

    code = "LOGIN-DELAY"
    text_id = "login-delayed"

    def __init__(self, seconds: float = 0) -> None:
        super().__init__(seconds=max(1, round(seconds)))


class TemporaryFailure(PopError):
    """Something of ours or of the backend's fails now and may work later (RFC 3206 s4)."""

    code = "SYS/TEMP"
    text_id = "temporary-failure"


class PermanentFailure(PopError):
    """Something is wrong until an administrator repairs it (RFC 3206 s4)."""

    code = "SYS/PERM"
    text_id = "permanent-failure"


class NoSuchUser(PermanentFailure):
    """A store hook was asked for a user that the backend doesn't have."""

    text_id = "no-such-user"

    def __init__(self, name: str = "") -> None:
        super().__init__(name=name)


class MaildropNotEmpty(PermanentFailure):
    """A user can't be removed while messages are kept for them."""

    text_id = "maildrop-not-empty"

    def __init__(self, name: str = "") -> None:
        super().__init__(name=name)


class UniqueIdTaken(PermanentFailure):
    """The maildrop already holds a message of this unique-id (RFC 1939 s7)."""

    text_id = "unique-id-taken"

    def __init__(self, uid: str | None = "") -> None:
        super().__init__(uid=uid)


class PluginFailure(TemporaryFailure):
    """A hookimpl raised what is no `PopError`; `hook` and `plugin` tell which one."""

    def __init__(self, hook: str, plugin: str) -> None:
        super().__init__()
        self.hook = hook
        self.plugin = plugin

    def __str__(self) -> str:
        return f"{self.hook} of plugin {self.plugin} failed"


class WrongAnswer(TypeError):
    """What a plugin gave is not what its hook asks for; one line says what came and what should.

    Never sent to a client: the session ends as for any `PluginFailure`.
    """


class ConfigurationError(ValueError):
    """The operator's settings can't work; the message is one line that says what to do.

    Raised at start, before anything listens, and never sent to a client.
    """
