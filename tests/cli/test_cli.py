"""The command line: options, where values come from, and errors of one line."""

import dataclasses
import os
import re

import pytest

from pop3hub.cli import options
from pop3hub.cli.context import CliContext
from pop3hub.cli.main import Program
from pop3hub.server.server import PopServer
from pop3hub.settings import Limits, Settings
from tests.support.program import ENTRY_POINTS, install_filed_store

MEMORY = ("--backend", "memory", "--memory-user", "luke:hello")


def one_line(outcome):
    """The error, which must be one line that no traceback is part of."""
    lines = outcome.err.splitlines()
    assert [outcome.err.strip()] == lines, lines
    return lines[0]


# Errors


def test_without_a_backend_the_error_names_the_installed_ones(pop3hub):
    outcome = pop3hub()

    assert 2 == outcome.code
    line = one_line(outcome)
    assert "--backend NAME" in line
    assert "memory" in line


def test_an_unknown_backend_is_one_line_and_1(pop3hub):
    outcome = pop3hub("--backend", "memroy")

    assert 1 == outcome.code
    assert "no backend named 'memroy' is installed (installed: " in one_line(outcome)


def test_an_unknown_option_is_one_line_and_2(pop3hub):
    outcome = pop3hub(*MEMORY, "--idle-timeuot", "5")

    assert 2 == outcome.code
    assert "'--idle-timeout'" in one_line(outcome)


def test_an_option_of_a_store_without_a_store_says_what_is_missing(pop3hub):
    assert "give --backend" in one_line(pop3hub("--memory-user", "luke:hello"))


def test_a_global_option_behind_the_command_says_where_it_belongs(pop3hub):
    outcome = pop3hub(*MEMORY, "deliver", "luke", "--language", "nl")

    assert 2 == outcome.code
    assert "give it before 'deliver'" in one_line(outcome)


@pytest.mark.parametrize(
    "listen", ["pop3://0.0.0.0:1", "http://127.0.0.1:1", "pop3s://127.0.0.1:1"]
)
def test_a_listener_that_could_not_work_stops_the_start(pop3hub, listen):
    outcome = pop3hub(*MEMORY, "--listen", listen)

    assert 1 == outcome.code
    assert one_line(outcome)


def test_a_listener_on_which_nobody_could_log_in_says_the_remedy(pop3hub):
    line = one_line(pop3hub(*MEMORY, "--listen", "pop3://0.0.0.0:1110"))

    assert "--tls-cert" in line
    assert "--allow-plaintext" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("--tls-cert", "/nonexistent.pem", "--listen", "pop3s://127.0.0.1:0"),
        ("--language", "tlh"),
        ("--language-dir", "/nonexistent"),
        ("--config", "/nonexistent.toml"),
        ("--salt-key-file", "/nonexistent"),
        ("--name", "<>"),
        ("--memory-users", "/nonexistent"),
        ("--no-plugin", "nonexistent"),
    ],
)
def test_a_setting_that_can_not_work_is_one_line_and_1(pop3hub, arguments):
    outcome = pop3hub(*MEMORY, *arguments)

    assert 1 == outcome.code
    assert one_line(outcome).startswith("pop3hub: ")


def test_a_short_salt_key_is_refused(pop3hub, tmp_path):
    key = tmp_path / "key"
    key.write_text("short\n")

    assert "16 octets" in one_line(pop3hub(*MEMORY, "--salt-key-file", key))


@pytest.mark.parametrize("setting", ["workers=2", "deliver"])
def test_a_store_that_lives_in_one_process_refuses_what_would_be_lost(pop3hub, setting):
    arguments = {"workers=2": ("--workers", "2"), "deliver": ("deliver", "luke")}[setting]

    outcome = pop3hub(*MEMORY, *arguments, stdin=b"Subject: lost\n\n")

    assert os.EX_UNAVAILABLE == outcome.code
    assert "process" in one_line(outcome)


def test_a_defect_is_one_line_and_70(pop3hub, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(PopServer, "__init__", fail)

    outcome = pop3hub(*MEMORY)

    assert os.EX_SOFTWARE == outcome.code
    assert "ZeroDivisionError" in one_line(outcome)


def test_an_extension_that_does_not_load_says_how_to_leave_it_out(pop3hub, tmp_path, monkeypatch):
    entry_points = f"{ENTRY_POINTS}[pop3hub.plugins]\nbroken = nonexistent_module:X\n"
    monkeypatch.syspath_prepend(install_filed_store(tmp_path / "site", entry_points))

    assert "--no-plugin broken" in one_line(pop3hub("--backend", "filed", "plugins"))
    assert 0 == pop3hub("--backend", "filed", "--no-plugin", "broken", "plugins").code
    assert "unusable" in pop3hub("plugins").out


# Where values come from


def shown(outcome):
    """The lines of `config show`, by option."""
    assert 0 == outcome.code, outcome.err
    lines = [line for line in outcome.out.splitlines() if " = " in line]
    return {line.partition(" = ")[0]: line.partition(" = ")[2] for line in lines}


def test_the_command_line_comes_before_the_environment_before_the_file(
    pop3hub, tmp_path, monkeypatch
):
    file = tmp_path / "pop3hub.toml"
    file.write_text("drain = 1\nname = 'file'\nidle_timeout = 700\n")
    monkeypatch.setenv("POP3HUB_DRAIN", "2")
    monkeypatch.setenv("POP3HUB_NAME", "environment")

    values = shown(pop3hub(*MEMORY, "--config", file, "--drain", "3", "config", "show"))

    assert "3.0  # command line" == values["drain"]
    assert "environment  # environment, POP3HUB_NAME" == values["name"]
    assert f"700.0  # {file}" == values["idle_timeout"]
    assert "600.0  # default" == values["login_timeout"]


def test_the_file_chooses_the_backend_and_tables_are_its_options(pop3hub, tmp_path):
    file = tmp_path / "pop3hub.toml"
    file.write_text(
        'backend = "memory"\n[memory]\nuser = ["luke:hello"]\n[tls]\ncert = "a.pem"\n'
        '[mongo]\nuri = "for another store"\n'
    )

    values = shown(pop3hub("--config", file, "config", "show"))

    assert f"memory  # {file}" == values["backend"]
    assert values["memory_user"].endswith(str(file))
    assert f"a.pem  # {file}" == values["tls_cert"]


def test_a_table_that_is_a_value_reaches_its_option(pop3hub, tmp_path):
    pytest.importorskip("pop3hub_mongo")
    file = tmp_path / "pop3hub.toml"
    file.write_text('[mongo.schema]\nusers = "people"\n')

    values = shown(pop3hub("--backend", "mongo", "--config", file, "config", "show"))

    assert "people" in values["mongo_schema"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("idle_timeuot = 5\n", "unknown key 'idle_timeuot', did you mean idle_timeout?"),
        ("[tls]\ncret = 'x'\n", "unknown key 'tls.cret', did you mean tls_cert?"),
        ("zzzzzzzz = 5\n", "unknown key 'zzzzzzzz'"),
        ("config = 'other.toml'\n", "unknown key 'config'"),
        ("drain = true\n", "key 'drain' is not one that is true or false"),
        ("drain = 'long'\n", "Invalid value for '--drain'"),
        ("drain", "this is not TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(pop3hub, tmp_path, text, said):
    file = tmp_path / "pop3hub.toml"
    file.write_text(text)

    for arguments in [("--config", file), ("config", "check", file)]:
        outcome = pop3hub(*MEMORY, *arguments)

        assert outcome.code in {1, 2}
        line = one_line(outcome)
        assert said in line
        assert str(file) in line


def test_a_bad_value_in_the_environment_names_the_variable(pop3hub, monkeypatch):
    monkeypatch.setenv("POP3HUB_WORKERS", "many")

    assert "POP3HUB_WORKERS" in one_line(pop3hub(*MEMORY))


@pytest.mark.parametrize("backend", ["memory", "filed"])
def test_the_example_lists_every_option_and_is_a_good_file(pop3hub, filed, tmp_path, backend):
    example = pop3hub("--backend", backend, "config", "example").out
    assert 0 == pop3hub("--backend", backend, "config", "check", write(tmp_path, example)).code
    lines = [
        line.removeprefix("# ") for line in example.splitlines() if re.search(r" = |^\[", line)
    ]
    table, named = "", set()
    for line in lines:
        if line.startswith("["):
            table = f"{line.strip('[]')}_"
        else:
            named.add(table + line.partition(" = ")[0])
    known = shown(pop3hub("--backend", backend, "config", "show"))
    assert known.keys() - {"config"} <= named

    defaults = [line for line in lines if not re.search(r'"[A-Z|:]+"', line)]
    full = write(
        tmp_path,
        "\n".join(line for line in defaults if re.match(r"\[|(\w+) = ", line)),
    )
    assert "" == pop3hub("--backend", backend, "config", "check", full).err


def write(folder, text):
    """Return a file with this text."""
    path = folder / "example.toml"
    path.write_text(text)
    return path


def test_checking_a_file_finds_what_only_the_server_would(pop3hub, tmp_path):
    file = write(tmp_path, 'backend = "memory"\nlisten = "pop3://0.0.0.0:110"\n')

    assert "nobody could log in" in one_line(pop3hub("config", "check", file))


def test_secrets_are_not_shown(pop3hub, filed, monkeypatch):
    monkeypatch.setenv("POP3HUB_FILED_PASSWORD", "s3cret")
    monkeypatch.setenv("POP3HUB_FILED_PATH", "x://luke:s3cret@host/")

    outcome = pop3hub("--backend", "filed", "config", "show")

    assert "s3cret" not in outcome.out
    assert "x://luke:***@host/" in outcome.out
    assert "hello" not in pop3hub(*MEMORY, "--memory-user", "luke:hello", "config", "show").out


# Options


def test_every_limit_has_an_option():
    assert {field.name for field in dataclasses.fields(Limits)} == set(options.LIMITS)


def test_every_setting_comes_from_an_option():
    made = options.server_arguments(Program([], CliContext(), []).parse([], {}).params)

    assert {field.name for field in dataclasses.fields(Settings)} <= made.keys()
    assert Limits() == made["limits"]


def test_the_defaults_are_those_of_the_library(pop3hub):
    values = shown(pop3hub(*MEMORY, "config", "show"))
    policy = Settings()

    same = ("name", "apop", "cram_md5", "failure_delay", "password_cache", "internationalized")
    for name in (*same, "login_delay", "allow_plaintext"):
        assert f"{getattr(policy, name)}  # default" == values[name]


def test_help_shows_the_options_of_the_chosen_store_under_its_name(pop3hub):
    text = pop3hub(*MEMORY, "--help").out

    assert "Plugin memory:" in text
    assert "--memory-user" in text
    assert "--memory-user" not in pop3hub("--help").out


def test_every_option_says_what_it_is_for():
    for _, group in options.core():
        for option in group:
            assert option.help, option.name


def test_version_tells_those_of_plugins_too(pop3hub):
    out = pop3hub("--version").out

    assert out.startswith("pop3hub ")
    assert "backend memory: pop3hub-memory " in out


def test_a_plugin_can_not_take_an_option_that_is_there(pop3hub, tmp_path, monkeypatch):
    module = (
        "import click\nfrom pop3hub import hookimpl\n"
        "from tests.support.filed_store import FiledBackend\n"
        "class Taker(FiledBackend):\n    @hookimpl\n    def register_options(self):\n"
        "        return [click.Option(['--drain'])]\n"
        "class Commander(FiledBackend):\n    @hookimpl\n    def register_commands(self, group):\n"
        "        group.add_command(click.Command('user'))\n"
    )
    entry_points = "[pop3hub.backends]\ntaker = taking:Taker\ncommander = taking:Commander\n"
    site = install_filed_store(tmp_path / "site", entry_points)
    (site / "taking.py").write_text(module)
    monkeypatch.syspath_prepend(site)

    assert "--drain" in one_line(pop3hub("--backend", "taker"))
    assert "'user' already" in one_line(pop3hub("--backend", "commander"))


def test_completion_is_made_for_a_shell(pop3hub):
    assert "_POP3HUB_COMPLETE=bash_complete" in pop3hub("completion", "bash").out


def test_a_group_without_a_command_shows_its_help(pop3hub):
    outcome = pop3hub("user")

    assert 2 == outcome.code
    assert "\n  remove " in outcome.err
