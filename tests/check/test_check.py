"""Each conformance check passes on an honest server and can fail: one broken server for each."""

import contextlib
import itertools
import json
import re
import socket
import ssl
from pathlib import Path

import pytest
from click.testing import CliRunner

from pop3hub.check import CHECKS, Target, Unreachable, run_checks
from pop3hub.cli.check import check as command
from pop3hub.cli.check import parse_address
from pop3hub.testing import BrokenServer, HonestServer, catalogue
from pop3hub.testing.honest import MESSAGES, PASSWORD, USER, Honest


@pytest.fixture
def serve(tls):
    """Return a function that starts a server: of a handler, or a broken one by its name."""
    with contextlib.ExitStack() as stack:

        def start(what=Honest):
            kind = BrokenServer if isinstance(what, str) else HonestServer
            return stack.enter_context(kind(what, tls=tls))

        yield start


@pytest.fixture
def target(certificate):
    """Return a function that makes the target of a server."""
    context = ssl.create_default_context(cafile=certificate)

    def of(server, **facts):
        facts = {"user": USER, "password": PASSWORD, "timeout": 5.0} | facts
        return Target(host=server.host, port=server.port, context=context, **facts)

    return of


@pytest.mark.parametrize("security", ["plain", "stls"])
def test_an_honest_server_passes_every_check(serve, target, security):
    server = serve(Honest)

    results = run_checks(target(server, security=security, scratch=True))

    assert {"ok"} == {r.status for r in results}, results
    assert [check.name for check in CHECKS] == [r.name for r in results]


def test_without_scratch_nothing_is_changed(serve, target):
    server = serve(Honest)

    results = run_checks(target(server))

    assert MESSAGES == server.drop
    assert {c.name for c in CHECKS if c.scratch} == {r.name for r in results if r.status == "skip"}


def test_at_most_one_login_fails(serve, target):
    failures = []

    class Counting(Honest):
        def enter(self, name, password):
            if (name, password) != (USER, PASSWORD):
                failures.append(name)
            return super().enter(name, password)

    run_checks(target(serve(Counting), password="wrong"))
    run_checks(target(serve(Counting)))
    run_checks(target(serve(Counting), user=None, password=None))

    assert [USER, "no-such-user", "no-such-user"] == [re.sub(r"-\w{8}$", "", n) for n in failures]


def test_a_broken_rset_costs_no_message(serve, target):
    class Broken(Honest):
        def do_rset(self):
            self.ok()

    server = serve(Broken)

    run_checks(target(server))

    assert MESSAGES == server.drop


def test_the_password_is_in_no_result(serve, target):
    class Echo(Honest):
        def do_pass(self, password):
            self.err(f"wrong password {password}")

        def do_quit(self):
            self.ok(PASSWORD)
            self.open = False

    results = run_checks(target(serve(Echo)))

    assert PASSWORD not in json.dumps([r.as_dict() for r in results])
    assert "***" in next(r.came for r in results if r.name == "login")


CASES = [
    pytest.param(fault, check, id=f"{fault.name}-{check}")
    for fault in catalogue()
    for check in fault.checks
]


@pytest.mark.parametrize(("fault", "check"), CASES)
def test_a_broken_server_fails_its_check(serve, target, fault, check):
    server = serve(fault.name)

    timeout = 0.3 if fault.silent else 5.0
    results = run_checks(
        target(server, scratch=True, timeout=timeout), only={check, *fault.said_in}
    )

    result = next(r for r in results if r.name == check)
    assert fault.status == result.status, result
    assert result.note or (result.expected and result.came)


# A fault can break a second rule; everything else would be a false accusation.
CONSEQUENCES = {
    "greeting-long": {"response-length"},
    "unknown-accepted": {"bad-commands"},
    "quit-stays-open": {"quit-deletes"},
    "segment-is-command": {"pipelining", "pipelining-login", "pipelining-transaction"},
    "line-cut-at-128": {"line-too-long"},
    "user-announced-refused": {"login"},
    "pass-without-user": {"pass-after-failure", "stls-forgets-user"},
    "login-open": {"pass-after-failure"},
    "stls-greets-again": {"stls-injection", "stls-twice", "stls-forgets-user"},
    "lang-list-colon": {"lang-case", "lang-tag"},
    "lang-no-tag": {"lang-case"},
    "lf": {"auth-challenge"},
    "lf-in-message": {"capa", "lang-case", "lang-list", "lang-tag"},
    "bracket-unannounced": {"response-code-announced"},
    "dot-unstuffed": {"retr-size", "status", "top-whole"},
    "dot-stuffed-alone": {"retr-size"},
    "dot-lone-unstuffed": {"retr-size", "status", "top-whole"},
    "list-hides-message": {"stat-octets", "uidl"},
    "uid-of-session": {"drop-keeps", "quit-deletes"},
}
UNREADABLE = {"greeting-negative", "status-missing", "stat-words"}  # they break most rules


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [f for f in catalogue() if f.name not in UNREADABLE], ids=lambda fault: fault.name
)
def test_a_broken_server_is_accused_of_its_own_fault_only(serve, target, fault):
    server = serve(fault.name)

    timeout = 1.0 if fault.silent else 5.0
    results = run_checks(target(server, scratch=True, timeout=timeout))

    accused = {r.name for r in results if r.status in {"FAIL", "warn"}}
    assert accused == set(fault.checks) | CONSEQUENCES.get(fault.name, set())


def test_each_check_has_a_server_that_fails_it():
    assert {check.name for check in CHECKS} == {c for fault in catalogue() for c in fault.checks}


def test_each_check_names_its_section():
    assert [] == [c.name for c in CHECKS if not re.match(r"RFC \d{4} s\d", c.rfc)]
    assert len(CHECKS) == len({c.name for c in CHECKS})


def test_an_expire_0_server_is_not_asked_for_messages(serve, target):
    """RFC 2449 s6.7: what was retrieved may be deleted at QUIT."""

    class Expiring(Honest):
        CAPA = (*Honest.CAPA, "EXPIRE 0")

    results = run_checks(target(serve(Expiring)), only={"retr-size"})

    assert ["skip"] == [r.status for r in results]


def test_login_delay_costs_the_later_logins_only(serve, target):
    """RFC 2449 s6.5: nobody is blamed for enforcing what it announces."""

    class Delaying(Honest):
        CAPA = (*Honest.CAPA, "LOGIN-DELAY 60")

        def enter(self, name, password):
            if (name, password) == (USER, PASSWORD) and logins:
                return self.err("[LOGIN-DELAY] too soon")
            logins.extend([name] * (name == USER))
            return super().enter(name, password)

    logins = []
    results = {r.name: r.status for r in run_checks(target(serve(Delaying)))}

    assert ("ok", "ok", "skip") == tuple(results[n] for n in ("login", "rset", "second-session"))
    assert not {"FAIL", "warn"} & set(results.values())


def test_a_server_without_capa_is_only_checked_for_what_it_has(serve, target):
    class Old(Honest):
        def do_capa(self):
            self.err()

    results = run_checks(target(serve(Old)))

    warned = [r.name for r in results if r.status not in {"ok", "skip"}]
    assert ["auth-resp-code-announced", "response-code-announced"] == warned
    assert {"ok"} == {r.status for r in results if r.name in {"top-headers", "uidl"}}


# The command


@pytest.fixture
def pop3hub_check(certificate):
    """Return a function that runs the command."""

    def run(server, *options, **settings):
        return CliRunner().invoke(
            command,
            [f"{server.host}:{server.port}", "--ca", str(certificate), *options],
            **settings,
        )

    return run


def test_the_command_prints_a_line_a_check_and_ends_with_0(serve, pop3hub_check):
    result = pop3hub_check(serve(Honest), "--user", USER, input=f"{PASSWORD}\n")

    assert 0 == result.exit_code, result.output
    assert f"{len(CHECKS)} checks: " in result.output.splitlines()[-1]
    assert PASSWORD not in result.output


def test_the_command_ends_with_1_if_a_must_fails(serve, pop3hub_check):
    result = pop3hub_check(serve(Honest), "--only", "greeting")
    broken = pop3hub_check(
        serve("dot-stuffed-alone"),
        *("--user", USER, "--password-file", "-", "--only", "dot-stuffing"),
        input=f"{PASSWORD}\n",
    )

    assert (0, 1) == (result.exit_code, broken.exit_code)
    assert "FAIL dot-stuffing" in broken.output
    assert "expected a second dot in front" in broken.output


def test_a_warning_alone_ends_with_0(serve, pop3hub_check):
    result = pop3hub_check(serve("capa-unregistered"), "--only", "capa-registered")

    assert 0 == result.exit_code
    assert "warn capa-registered" in result.output


def test_json_is_one_document(serve, pop3hub_check):
    result = pop3hub_check(serve(Honest), "--json")

    report = json.loads(result.output)
    assert "stls" == report["security"]
    assert [c.name for c in CHECKS] == [r["name"] for r in report["results"]]


def test_an_unreachable_server_ends_with_69(serve):
    server = serve(Honest)
    untrusted = CliRunner().invoke(command, [f"{server.host}:{server.port}"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    refused = CliRunner().invoke(command, ["{}:{}".format(*address)])

    assert (69, 69) == (refused.exit_code, untrusted.exit_code)
    assert "Connection refused" in refused.output
    assert "certificate verify failed" in untrusted.output
    assert "--insecure" in untrusted.output


def test_a_server_that_goes_away_is_unreachable(serve, target):
    class Leaves(Honest):
        def greet(self):
            if next(self.stamps) > 5:
                self.open = False
            else:
                super().greet()

    Leaves.stamps = itertools.count()

    with pytest.raises(Unreachable):
        run_checks(target(serve(Leaves)))


@pytest.mark.parametrize(
    "arguments",
    [
        ["host:0"],
        ["host:x"],
        ["host:70000"],
        [":110"],
        [],
        ["host", "--scratch"],
        ["host", "--only", "nothing"],
    ],
)
def test_a_usage_error_ends_with_2(arguments):
    assert 2 == CliRunner().invoke(command, arguments).exit_code


def test_list_names_each_check():
    result = CliRunner().invoke(command, ["--list"])

    assert [c.name for c in CHECKS] == [line.split()[0] for line in result.output.splitlines()]


def test_the_documentation_lists_each_check():
    text = (Path(__file__).parents[2] / "docs" / "check.md").read_text()

    assert [f"| `{c.name}` | {c.level} | {c.summary.rstrip('.')} | {c.rfc} |" for c in CHECKS] == [
        line for line in text.splitlines() if line.startswith("| `") and " | RFC " in line
    ]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host", ("host", None)),
        ("host:1110", ("host", 1110)),
        ("::1", ("::1", None)),
        ("[::1]", ("::1", None)),
        ("[::1]:1110", ("::1", 1110)),
    ],
)
def test_an_address_is_a_host_and_perhaps_a_port(text, address):
    assert address == parse_address(None, None, text)


def test_a_password_goes_in_the_clear_only_when_that_was_said(monkeypatch, serve, pop3hub_check):
    class NoStls(Honest):
        CAPA = tuple(tag for tag in Honest.CAPA if tag != "STLS")

    monkeypatch.setattr("pop3hub.cli.check.is_loopback", lambda _: False)
    server = serve(NoStls)
    login = ("--user", USER, "--password-file", "-", "--only", "login")

    refused = pop3hub_check(server, *login, input=PASSWORD)
    said = pop3hub_check(server, *login, "--plain", input=PASSWORD)

    assert (2, 0) == (refused.exit_code, said.exit_code)
    assert "does not announce STLS" in refused.output
