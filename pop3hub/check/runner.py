"""The table of checks, and how they are run.

The checks themselves are in `authorization`, `extensions`, `retrieval`, `transaction`, `scratch`
and `replies`.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pop3hub.check import authorization, extensions, replies, retrieval, scratch, transaction
from pop3hub.check.client import NoReply, Unreachable
from pop3hub.check.outcomes import Failure, Remark, Skip
from pop3hub.check.probe import Probe
from pop3hub.check.rules import MUST

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pop3hub.check.probe import Target
    from pop3hub.check.rules import Check

CHECKS: tuple[Check, ...] = (
    *authorization.CHECKS,
    *extensions.CHECKS,
    *retrieval.CHECKS,
    *transaction.CHECKS,
    *scratch.CHECKS,
    *replies.CHECKS,
)

MAX_LOST = 3  # checks in a row without a session, after which the server has gone away

OK, FAIL, WARN, SKIP = "ok", "FAIL", "warn", "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one check ended. `sent`, `expected` and `came` are empty unless the rule was broken.

    status: "ok", "FAIL" (a MUST), "warn" (anything less) or "skip". seconds: how long it took.
    """

    name: str
    status: str
    rfc: str
    level: str
    summary: str
    note: str = ""
    sent: str = ""
    expected: str = ""
    came: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, str | float]:
        """Return the fields for JSON."""
        return asdict(self)


def run_checks(
    target: Target,
    *,
    only: Collection[str] = (),
    report: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Run the checks, all or those named, and return their results in the table's order.

    `report` is called with each result as it comes. Blocks; every wait is bounded by
    `target.timeout`. Raises Unreachable if there is no first session, or if the server goes away.
    """
    probe = Probe(target)
    results = []
    lost = 0
    try:
        if probe.dial().greeting.startswith(b"+OK"):
            probe.secure()
        for check in CHECKS:
            if only and check.name not in only:
                continue
            result, unreachable = run(check, probe)
            results.append(result)
            if report is not None:
                report(result)
            lost = lost + 1 if unreachable is not None else 0
            if unreachable is not None and lost == MAX_LOST:
                raise unreachable
        probe.finish()
    finally:
        probe.tidy()
        probe.drop_session()
    return results


def run(check: Check, probe: Probe) -> tuple[Result, Unreachable | None]:
    """Run one check, and leave the probe fit for the next."""
    start = time.monotonic()
    unreachable = None
    status, note, sent, expected, came = OK, "", "", "", ""
    show = probe.target.show
    bad = FAIL if check.level == MUST else WARN
    try:
        require(check, probe)
        note = attempt(check, probe) or ""
    except Skip as exc:
        status, note = SKIP, str(exc)
    except Remark as exc:
        status, note = WARN, str(exc)
    except Unreachable as exc:
        status, note, unreachable = WARN, f"could not open another session: {exc}", exc
    except Failure as exc:
        status, sent, expected, came = bad, show(exc.sent), exc.expected, show(exc.came)
    except NoReply as exc:
        came = f"{exc}; received so far: {show(exc.received)}"
        status, sent, expected = bad, show(exc.sent), "a reply"
    except OSError as exc:  # a TLS handshake that broke off
        status, expected, came = bad, "a TLS session", str(exc)
    if status not in {OK, SKIP}:
        probe.drop_session()  # it may be out of sync
    probe.tidy()
    result = Result(
        name=check.name,
        status=status,
        rfc=check.rfc,
        level=check.level,
        summary=check.summary,
        note=probe.target.hide(note),
        sent=sent,
        expected=probe.target.hide(expected),
        came=came,
        seconds=round(time.monotonic() - start, 3),
    )
    return result, unreachable


def attempt(check: Check, probe: Probe) -> str | None:
    """Run a check's function, again if the shared session was closed for what an earlier one did.

    A server may close the connection a moment after it has refused a bad command.
    """
    shared = probe.session_is_open()
    try:
        return check.function(probe)
    except NoReply as exc:
        if not exc.closed or not shared or probe.session_is_open():
            raise
    probe.drop_session()
    probe.tidy()
    return check.function(probe)


def require(check: Check, probe: Probe) -> None:
    """Raise Skip if the check cannot run against this target."""
    if check.scratch and not probe.target.scratch:
        raise Skip("needs --scratch")
    if check.login and probe.target.user is None:
        raise Skip("needs --user")
    if check.login and probe.login_refused:
        raise Skip(probe.login_refused)
    if check.needs is not None and not probe.offers(check.needs):
        raise Skip(f"{check.needs} is not announced")
