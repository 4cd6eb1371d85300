"""Wrong command lines: each is one line that says what to do, never a traceback or silence."""

import os
import subprocess
import sys

import pytest

MEMORY = ("--backend", "memory", "--memory-user", "luke:hello")

# What is wrong, the words of it, the exit code, and what the line must hold.
WRONG = {
    "no backend": ([], 2, "give --backend NAME"),
    "a backend that is not there": (["--backend", "nope"], 1, "no backend named 'nope'"),
    "one of ours that is not installed": (["--backend", "mong"], 1, "installed: "),
    "an unknown plugin": ([*MEMORY, "--no-plugin", "nope"], 1, "no plugin named 'nope'"),
    "--port": ([*MEMORY, "--port", "110"], 2, "use --listen pop3://HOST:PORT"),
    "--host": ([*MEMORY, "--host", "::"], 2, "use --listen pop3://HOST:PORT"),
    "--bind": ([*MEMORY, "--bind", "::"], 2, "use --listen pop3://HOST:PORT"),
    "-p": ([*MEMORY, "-p", "110"], 2, "use --listen pop3://HOST:PORT"),
    "--verbose": ([*MEMORY, "--verbose"], 2, "use --log-level debug"),
    "-v": ([*MEMORY, "-v"], 2, "use --log-level debug"),
    "--quiet": ([*MEMORY, "--quiet"], 2, "use --log-level warning"),
    "--ssl": ([*MEMORY, "--ssl"], 2, "use --listen pop3s://HOST:PORT"),
    "--cert": ([*MEMORY, "--cert", "x"], 2, "use --tls-cert FILE"),
    "--conf": ([*MEMORY, "--conf", "x"], 2, "use --config FILE"),
    "--oauth-issuer": (["--oauth-issuer", "x"], 2, "pip install pop3hub-oauth"),
    "a typing error": ([*MEMORY, "--idel-timeout", "9"], 2, "--idle-timeout"),
    "a store's option without it": (["--mongo-uri", "x"], 2, "give --backend mongo"),
    "no number": ([*MEMORY, "--workers", "many"], 2, "many"),
    "too small a number": ([*MEMORY, "--workers", "0"], 2, "0 is not in the range"),
    "a negative time": ([*MEMORY, "--idle-timeout", "-1"], 2, "--idle-timeout"),
    "no choice": ([*MEMORY, "--log-format", "xml"], 2, "'console', 'json'"),
    "another scheme": ([*MEMORY, "--listen", "http://x"], 1, "write it as pop3://HOST:PORT"),
    "only a port": ([*MEMORY, "--listen", "1110"], 1, "write it as pop3://HOST:PORT"),
    "a port too large": ([*MEMORY, "--listen", "pop3://127.0.0.1:99999"], 1, "out of range"),
    "an unknown key": ([*MEMORY, "--listen", "pop3://x:1?crt=a"], 1, "unknown key 'crt'"),
    "POP3S without certificate": ([*MEMORY, "--listen", "pop3s://x:1"], 1, "give --tls-cert FILE"),
    "off loopback in the clear": (
        [*MEMORY, "--listen", "pop3://0.0.0.0:1"],
        1,
        "--allow-plaintext",
    ),
    "no certificate there": ([*MEMORY, "--tls-cert", "/nope"], 1, "No such file"),
    "no configuration there": (["--config", "/nope"], 1, "No such file"),
    "a language that is not there": ([*MEMORY, "--language", "xx"], 1, "xx"),
    "no network": ([*MEMORY, "--exempt", "webmail"], 1, "--exempt"),
    "a short secret": ([*MEMORY, "--salt-key-file", "/dev/null"], 1, "--salt-key-file"),
    "no command": ([*MEMORY, "serve"], 2, "No such command 'serve'"),
    "an option too late": (["user", "add", "luke", "--drain", "1"], 2, "give it before 'add'"),
    "workers on memory": ([*MEMORY, "--workers", "2"], 69, "leave --workers out"),
    "a store that forgets": ([*MEMORY, "user", "add", "leia"], 69, "would be lost"),
    "no colon": (["--backend", "memory", "--memory-user", "luke"], 1, "colon"),
    "a Maildir nowhere": (["--backend", "maildir"], 1, "needs --maildir PATTERN"),
    "a Maildir of nobody": (["--backend", "maildir", "--maildir", "/x/{user}"], 1, "nobody could"),
    "no pattern": (["--backend", "maildir", "--maildir", "/x"], 1, "{user}"),
}


def run(*words, **more):
    return subprocess.run(
        [sys.executable, "-m", "pop3hub", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )


@pytest.mark.parametrize(("words", "code", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_command_line_is_one_line(pop3hub, words, code, said):
    outcome = pop3hub(*words)

    assert (code, "") == (outcome.code, outcome.out)
    assert outcome.err.startswith("pop3hub: ")
    assert said in outcome.err
    assert 1 == outcome.err.count("\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["deliver", "luke"], "standard input is closed, and the message comes from there"),
        (["user", "add", "leia"], "standard input is closed, and the password comes from there"),
    ],
)
def test_a_closed_standard_input_is_one_line(filed, monkeypatch, pop3hub, words, said):
    monkeypatch.setattr("tests.conftest.Stdin", lambda _octets: None)

    outcome = pop3hub(*filed.options, *words)

    assert (65, f"pop3hub: {said}\n") == (outcome.code, outcome.err)


def test_a_variable_that_is_nobodys_is_told_with_the_nearest_one(pop3hub, monkeypatch):
    monkeypatch.setenv("POP3HUB_IDEL_TIMEOUT", "900")
    monkeypatch.setenv("POP3HUB_MONGO_URI", "mongodb://x")  # a store's that was not chosen

    outcome = pop3hub(*MEMORY, "config", "show")

    assert 0 == outcome.code
    assert (
        "pop3hub: POP3HUB_IDEL_TIMEOUT in the environment sets nothing: "
        "did you mean POP3HUB_IDLE_TIMEOUT?\n"
    ) == outcome.err


@pytest.mark.parametrize("name", ["POP3HUB_MAILDIR", "POP3HUB_MAILDIR_PATH"])
def test_an_option_has_the_variable_of_its_name_and_that_of_the_file(pop3hub, monkeypatch, name):
    monkeypatch.setenv(name, "/mail/{user}")

    outcome = pop3hub("--backend", "maildir", "config", "show")

    assert f"maildir_path = /mail/{{user}}  # environment, {name}\n" in outcome.out
    assert "" == outcome.err


def test_the_program_says_it_as_a_process_too():
    done = run("--backend", "memory", "--port", "1", stdin=subprocess.DEVNULL, env={**os.environ})

    assert (2, "pop3hub: There is no option --port: use --listen pop3://HOST:PORT\n") == (
        done.returncode,
        done.stderr,
    )
