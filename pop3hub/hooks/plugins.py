"""One typed method for each hook that sessions and servers call; caller.py has how."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from pop3hub.errors import PermanentFailure, PluginFailure, PopError
from pop3hub.hooks import answers
from pop3hub.hooks.caller import OWN, REMOVAL_PATIENCE, HookCaller
from pop3hub.hooks.lock import MaildropLock
from pop3hub.maildrop import PAGE, Listing, Maildrop, PopMessage, Snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from pathlib import Path

    import click

    from pop3hub.auth import PopUser
    from pop3hub.auth.sasl import Mechanism
    from pop3hub.hooks.interfaces import Session
    from pop3hub.hooks.registry import Impl

Contents = bytes | AsyncGenerator[bytes, None]
"""A message as its store gives it."""


class Plugins(HookCaller):
    """The plugins of one server; errors and order are those of `HookCaller`."""

    # Users

    async def get_user(self, name: str, session: Session) -> PopUser | None:
        """Return the user of this name, or None."""
        return cast("PopUser | None", await self.first("get_user", name, session))

    async def compare_password(self, raw: str, user: PopUser, session: Session) -> bool:
        """Return whether the password is the user's."""
        return bool(await self.first("compare_password", raw, user.password, user, session))

    async def verify_token(self, name: str, token: str, session: Session) -> PopUser | None:
        """Return the user whom the token stands for, or None."""
        return cast("PopUser | None", await self.first("verify_token", name, token, session))

    @property
    def verifies_tokens(self) -> bool:
        """Whether a plugin implements `verify_token` and doesn't say that it isn't configured."""
        plugins = {plugin.name: plugin.instance for plugin in (self.backend, *self.extensions)}
        return any(
            getattr(plugins.get(impl.plugin), "verifies_tokens", True)
            for impl in self._hooks["verify_token"]
        )

    # The maildrop

    async def lock_maildrop(self, user: PopUser, session: Session) -> MaildropLock:
        """Return the user's maildrop lock, not yet entered."""
        lock, impl = await self.answer("lock_maildrop", user, session)
        if lock is None:
            raise PermanentFailure
        call = partial(self.with_timeout, "lock_maildrop", impl)
        return MaildropLock(impl.plugin, call, lock)

    async def is_in_use(self, user: PopUser, session: Session) -> bool:
        """Return whether a plugin says that another session has the maildrop open."""
        return bool(await self.first("is_in_use", user, session))

    async def since_last_login(self, user: PopUser, session: Session) -> float:
        """Note a login; return the seconds since the one before it."""
        seconds = await self.first("since_last_login", user, session)
        return float("inf") if seconds is None else float(seconds)

    async def expire_messages(self, user: PopUser, days: int, session: Session) -> int:
        """Remove what is older than so many days; return how many messages there were."""
        return int(await self.first("expire_messages", user, days, session) or 0)

    async def receive_messages(self, user: PopUser, session: Session) -> Maildrop:
        """Return the user's maildrop: what the plugin listed, checked page by page.

        Raises PermanentFailure: no plugin serves the user, a size is no number of octets, or two
        messages have the same unique-id.
        """
        found, impl = await self.answer("receive_messages", user, session)
        if found is None:
            self.log.error("maildrop.unserved", user=user.name, backend=self.backend.name)
            raise PermanentFailure(text_id="maildrop-damaged")
        listing = found.listing if isinstance(found, Snapshot) else None
        if listing is None:
            listing = await self._check(found, impl, user)
        return Maildrop(
            listing.messages,
            replaced=listing.replaced,
            surrogates=listing.surrogates,
            unmeasured=listing.unmeasured,
            octets=listing.octets,
            answers=listing.answers,
        )

    async def _check(self, found: Any, impl: Impl, user: PopUser) -> Listing:
        hook = "receive_messages"
        listing = Listing(user.name, self.log)
        if hasattr(found, "__aiter__"):
            pages = found.__aiter__()
            try:
                while (page := await self._next(impl, pages)) is not None:
                    self.checked(hook, impl, answers.check_page, page)
                    listing.add(page)
                    await asyncio.sleep(0)
            finally:
                if hasattr(pages, "aclose"):
                    await pages.aclose()
        else:
            for start in range(0, len(found), PAGE):
                page = found if len(found) <= PAGE else found[start : start + PAGE]
                self.checked(hook, impl, answers.check_page, page)
                listing.add(page)
                if page is not found:
                    await asyncio.sleep(0)
        if isinstance(found, Snapshot):
            listing.answers = {}
            found.listing = listing
        return listing

    async def _next(self, impl: Impl, pages: AsyncIterator[Any]) -> Any:
        try:
            return await self.with_timeout("receive_messages", impl, pages.__anext__)
        except StopAsyncIteration:
            return None

    def load_contents(
        self, message: PopMessage, session: Session
    ) -> bytes | Coroutine[Any, Any, Contents]:
        """Return a message's octets where they are at hand, else what has to be awaited for them.

        They are at hand if the message holds them and no plugin would be asked, or if the first
        plugin to be asked is plain code that returns them. Awaited, it comes to octets, or to an
        iterator of chunks to be closed. Each hookimpl is called once.
        """
        first = self._hooks["load_contents"][0]
        if first.plugin == OWN:
            overridden = type(message).load_contents is not PopMessage.load_contents
            if not overridden and message.contents is not None:
                return message.contents
            return self._open(message, session, None)
        if not first.is_plain:
            return self._open(message, session, None)
        began = time.perf_counter()
        answer = self.call_at_once(first, message, session)
        contents = answer() if not isinstance(answer, partial) else None
        if isinstance(contents, bytes):
            first.calls.add(time.perf_counter() - began)
            return contents
        return self._open(message, session, answer)

    async def _open(
        self, message: PopMessage, session: Session, begun: Callable[..., Any] | None
    ) -> Contents:
        contents, impl = await self.answer("load_contents", message, session, begun=begun)
        if contents is None:
            raise PermanentFailure
        if isinstance(contents, str):
            return contents.encode()
        if isinstance(contents, bytes | bytearray | memoryview):
            return bytes(contents)
        return self._chunks(contents, impl)

    async def _chunks(
        self, contents: AsyncIterator[bytes], impl: Impl
    ) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in contents:
                if type(chunk) is not bytes:
                    self.checked("load_contents", impl, answers.check_chunk, chunk)
                yield chunk
        except PopError:
            impl.calls.failures += 1
            raise
        except Exception as exc:
            impl.calls.failures += 1
            self.log.exception("hook.failed", hook="load_contents", plugin=impl.plugin)
            raise PluginFailure("load_contents", impl.plugin) from exc
        finally:
            close = getattr(contents, "aclose", None)
            if close is not None:
                await close()

    async def delete_messages(self, messages: Sequence[PopMessage], session: Session) -> int:
        """Remove the messages; return how many are gone."""
        patience = self.hook_timeout * REMOVAL_PATIENCE
        return int(await self.first("delete_messages", messages, session, patience=patience) or 0)

    # Failed logins

    async def count_failed_login(self, name: str, address: str, window: float) -> tuple[int, int]:
        """Note a failed login; return what all nodes have counted, (0, 0) where nobody knows."""
        try:
            counts = await self.first("count_failed_login", name, address, window)
        except PluginFailure:
            counts = None  # logged where it was caught
        except PopError as exc:
            self.log.error("hook.failed", hook="count_failed_login", error=str(exc))
            counts = None
        return counts or (0, 0)

    # Observers

    async def session_opened(self, session: Session) -> None:
        """Tell that a connection was accepted."""
        await self.notify("session_opened", session)

    async def login_succeeded(self, session: Session) -> None:
        """Tell that the session entered TRANSACTION."""
        await self.notify("login_succeeded", session)

    async def login_failed(self, name: str, session: Session) -> None:
        """Tell that a login was refused."""
        await self.notify("login_failed", name, session)

    async def message_retrieved(self, message: PopMessage, session: Session) -> None:
        """Tell that RETR sent a whole message."""
        await self.notify("message_retrieved", message, session)

    async def session_closed(self, session: Session) -> None:
        """Tell that the session has ended."""
        await self.notify("session_closed", session)

    # What plugins add

    def default_language(self, session: Session) -> str | None:
        """Return the tag that a plugin chooses for this connection, or None."""
        tags = self.call_plain("default_language", session)
        return next((str(tag) for tag in tags if tag is not None), None)

    def capabilities(self, session: Session) -> list[str]:
        """Return the capability lines that plugins add, in this state."""
        return [line for lines in self.call_plain("capabilities", session) for line in lines or ()]

    def options(self) -> list[tuple[str, list[click.Option]]]:
        """Return each plugin's command-line options."""
        return [(plugin, list(found or ())) for plugin, found in self.gather("register_options")]

    def register_commands(self, group: click.Group) -> None:
        """Let plugins add commands of their own."""
        self.gather("register_commands", group)

    def languages(self) -> list[Path]:
        """Return the directories of language files that plugins bring."""
        return [path for _, paths in self.gather("register_languages") for path in paths or ()]

    def mechanisms(self) -> dict[str, Mechanism]:
        """Return the SASL mechanisms that plugins bring, by name."""
        found = self.gather("register_sasl_mechanisms")
        return {each.name: each for _, mechanisms in found for each in mechanisms or ()}
