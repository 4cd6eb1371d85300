"""What a check is: a function over a `Probe`, registered in a table with the rule that it is for.

It returns a note or None if the server keeps the rule, and raises one of `outcomes` otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pop3hub.check.probe import Probe

MUST = "MUST"
SHOULD = "SHOULD"
MAY = "MAY"
POLICY = "policy"  # good practice that no RFC asks for


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A registered check. `needs` is a capability without which it is skipped."""

    name: str
    rfc: str
    level: str
    summary: str
    function: Callable[[Probe], str | None]
    login: bool = False
    scratch: bool = False
    needs: str | None = None


class Checks(list[Check]):
    """A table of checks in the order in which they run."""

    def add(
        self,
        name: str,
        rfc: str,
        level: str,
        *,
        login: bool = False,
        scratch: bool = False,
        needs: str | None = None,
    ) -> Callable[[Callable[[Probe], str | None]], Callable[[Probe], str | None]]:
        """Register the decorated function; its docstring's first line is the rule."""

        def register(function: Callable[[Probe], str | None]) -> Callable[[Probe], str | None]:
            summary = (function.__doc__ or "").partition("\n")[0]
            self.append(
                Check(
                    name=name,
                    rfc=rfc,
                    level=level,
                    summary=summary,
                    function=function,
                    login=login or scratch,
                    scratch=scratch,
                    needs=needs,
                )
            )
            return function

        return register
