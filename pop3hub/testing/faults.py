"""The table in which the broken servers are registered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pop3hub.testing.honest import Honest

_Handler = TypeVar("_Handler", bound="type[Honest]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One broken server: everything that it does is right but one thing.

    name: what `BrokenServer` takes. reason: what the server does wrong. client_sees: how that
    looks on the wire. needs_tls: it shows only where the server has a TLS context.
    silent: a reply is missing, so the client sees it when its own time-out ends.

    checks: the checks of `pop3hub check` that find it, with `status` ("FAIL" or "warn") as their
    result. said_in: more checks to run, for a check that only reads what others were answered.
    """

    name: str
    reason: str
    client_sees: str
    needs_tls: bool
    silent: bool
    checks: tuple[str, ...]
    status: str
    said_in: tuple[str, ...]
    handler: type[Honest] = field(repr=False)


FAULTS: dict[str, Fault] = {}


def broken(
    name: str,
    *checks: str,
    sees: str,
    status: str = "FAIL",
    said_in: Sequence[str] = (),
    silent: bool = False,
    tls: bool = False,
) -> Callable[[_Handler], _Handler]:
    """Register the decorated handler; its docstring says what it does wrong."""

    def register(handler: _Handler) -> _Handler:
        if name in FAULTS:
            raise ValueError(f"two broken servers are called {name}")
        FAULTS[name] = Fault(
            name=name,
            reason=(handler.__doc__ or "").partition("\n")[0],
            client_sees=sees,
            needs_tls=tls,
            silent=silent,
            checks=checks,
            status=status,
            said_in=tuple(said_in),
            handler=handler,
        )
        return handler

    return register
