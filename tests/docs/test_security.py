"""SECURITY.md: each promise has its test; here are those that no other file has."""

import asyncio
import base64
import hashlib
import hmac
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from pop3hub.auth.scram import SCRAM_HASHES, scram_keys
from pop3hub.cli import logs
from pop3hub.peer import Tls
from pop3hub.server.server import PopServer
from pop3hub.testing.dialogue import Dialogue
from tests.auth.test_sasl import ScramClient
from tests.support.program import PATIENCE, ROOT, Client, Process
from tests.support.serving import Store, new_user

PAGE = (ROOT / "SECURITY.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`((?:plugins/\w+/)?tests/[\w/]+\.py)::(\w+)`", PAGE)))

RIGHT, WRONG = "Kaempferol-7", "Quercetin-9"
TOKEN, BAD_TOKEN = "eyJhbGciOi.aWdodA.token", "eyJhbGciOi.d3Jvbmc.token"
CERTIFICATE = {"subject": ((("commonName", "mia"),),)}


@pytest.mark.parametrize(("path", "test"), NAMED, ids=[test for _, test in NAMED])
def test_each_test_that_the_page_names_is_there(path, test):
    text = (ROOT / path).read_text("utf-8")

    assert re.search(rf"^ *(async )?def {test}\(", text, re.MULTILINE)


# Secrets in what is written


def b64(octets):
    return base64.b64encode(octets)


async def plain(say, password, _stamp):
    response = b64(b"\0mia\0" + password)
    return await say(b"AUTH PLAIN " + response), [response]


async def login(say, password, _stamp):
    await say(b"AUTH LOGIN")
    await say(b64(b"mia"))
    return await say(b64(password)), [b64(password)]


async def user_pass(say, password, _stamp):
    await say(b"USER mia")
    return await say(b"PASS " + password), []


async def name_in_one(say, password, _stamp):
    """A client that puts the password where none belongs."""
    await say(b"STAT " + password)
    await say(b"USER mia")
    await say(b"NONSENSE " + password)
    await say(b"USER mia")
    await say(b"PASS")
    return await say(b"AUTH PLAIN *" + password), []


async def apop(say, password, stamp):
    digest = hashlib.md5(stamp + password).hexdigest().encode()  # noqa: S324 - RFC 1939
    return await say(b"APOP mia " + digest), [digest]


async def cram(say, password, _stamp):
    challenge = base64.b64decode((await say(b"AUTH CRAM-MD5")).split()[1])
    digest = hmac.new(password, challenge, "md5").hexdigest().encode()
    response = b64(b"mia " + digest)
    return await say(response), [digest, response]


async def scram(say, password, _stamp):
    client = ScramClient("SCRAM-SHA-256", first=b"n,,n=mia,r=abc", password=password.decode())
    server_first = await say(b"AUTH SCRAM-SHA-256 " + b64(client.first))
    final = base64.b64decode(client.final(base64.b64decode(server_first.split()[1])))
    answer = await say(b64(final))
    if answer.startswith(b"+ "):
        answer = await say(b"")
    return answer, [final.rpartition(b"p=")[2], b64(final)]


async def bearer(say, password, _stamp):
    token = TOKEN if password == RIGHT.encode() else BAD_TOKEN
    message = b"n,a=mia,\x01auth=Bearer %b\x01\x01" % token.encode()
    answer = await say(b"AUTH OAUTHBEARER " + b64(message))
    if answer.startswith(b"+ "):
        answer = await say(b"AQ==")
    return answer, [token.encode(), b64(message)]


async def xoauth2(say, password, _stamp):
    token = TOKEN if password == RIGHT.encode() else BAD_TOKEN
    message = b"user=mia\x01auth=Bearer %b\x01\x01" % token.encode()
    answer = await say(b"AUTH XOAUTH2 " + b64(message))
    if answer.startswith(b"+ "):
        answer = await say(b"")
    return answer, [token.encode(), b64(message)]


async def external(say, password, _stamp):
    name = b"mia" if password == RIGHT.encode() else b"lea"
    return await say(b"AUTH EXTERNAL " + b64(name)), []


WAYS = [user_pass, apop, plain, login, cram, scram, bearer, xoauth2, external]


@pytest.fixture
def written(capsys):
    """Write the log, all of it, and return a function that returns what was written."""
    yield lambda: "".join(capsys.readouterr())
    structlog.reset_defaults()
    logging.basicConfig(force=True, handlers=[])


def hushed(secrets, keys):
    """Return what must not be found, as text."""
    return [RIGHT, WRONG, *(each.decode() for each in secrets if each), *keys]


@pytest.mark.parametrize("style", ["console", "json"])
@pytest.mark.parametrize("way", [*WAYS, name_in_one], ids=lambda way: way.__name__)
async def test_no_secret_is_in_the_log_of_any_way_to_log_in(way, style, written, languages_once):
    """Level debug, asyncio's debug mode, the right secret and a wrong one, stores that break."""
    logs.configure(style=style, level="debug")
    asyncio.get_running_loop().set_debug(True)
    scrams = {name: scram_keys(RIGHT, name, 4096) for name in SCRAM_HASHES}
    mia = new_user("mia", RIGHT, secret=RIGHT, scram=scrams)
    keys = [mia.password, *(each.rpartition("$")[2] for each in scrams.values())]
    broken = ("get_user", "verify_token", "receive_messages")
    tls = Tls("TLSv1.3", "", CERTIFICATE)
    answers, used = [], []
    for failing in (None, *broken):
        store = Store()
        store.users["mia"] = mia
        store.mail["mia"] = {}
        store.tokens[TOKEN] = "mia"
        if failing:
            store.failures[failing] = RuntimeError("the store is broken")
        server = PopServer(
            backend=store, listen=(), failure_delay=0, bcrypt_cost=4, apop=True, cram_md5=True
        )
        async with server:
            for password in (RIGHT.encode(), WRONG.encode()):
                async with Dialogue(server, tls=tls) as dialogue:
                    stamp = re.search(rb"<.*>", dialogue.greeting)[0]
                    try:
                        answer, secrets = await way(dialogue.say, password, stamp)
                    except (IndexError, ValueError):  # a broken store has no challenge
                        continue
                answers.append(answer)
                used += secrets

    found = written()
    assert "login.failed" in found or way is name_in_one
    assert "the store is broken" in found or way is name_in_one
    if way is not name_in_one:
        assert answers[0].startswith(b"+OK"), "the right secret"
        assert answers[1].startswith(b"-ERR"), "a wrong one"
    assert [] == [secret for secret in hushed(used, keys) if secret in found]


async def test_an_answer_never_repeats_a_password(languages_once):
    store = Store()
    async with Dialogue(store, bcrypt_cost=4) as dialogue:
        for line in (b"PASS %b", b"USER luke\r\nPASS %b", b"STAT %b", b"%b", b"AUTH PLAIN %b"):
            for each in (line % WRONG.encode()).split(b"\r\n"):
                assert WRONG.encode() not in await dialogue.say(each)


# Secrets outside of the log

IN_CLEAR = {"memory_user": "memory_users", "mongo_uri": "mongo_uri_file"}
"""Options that can hold a secret, each with the one that reads it from a file."""


def options_of(backend):
    """Return the parameter names of a backend's options and of all others."""
    said = subprocess.run(
        [sys.executable, "-m", "pop3hub", "--backend", backend, "--help"],
        cwd=ROOT,
        env=os.environ
        | {"POP3HUB_MONGO_URI": f"mongodb://mia:{RIGHT}@db"}
        | {"POP3HUB_MEMORY_USER": f"mia:{RIGHT}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert RIGHT not in said.stdout + said.stderr
    names = re.findall(r"^  --([\w-]+)", said.stdout, re.MULTILINE)
    return {name.replace("-", "_") for name in names}


@pytest.mark.parametrize("backend", ["memory", "maildir", "mongo"])
def test_help_shows_no_secret_and_each_secret_can_come_from_a_file(backend):
    found = options_of(backend)

    for option, file in IN_CLEAR.items():
        assert (option in found) == (file in found)
    suspicious = {name for name in found if re.search("passw|secret|token|uri|_user$", name)}
    assert suspicious - IN_CLEAR.keys() - set(IN_CLEAR.values()) <= {
        "password_cache",  # seconds
        "maildir_passwd",  # a file
        "max_failed_logins_per_user",
    }


def test_ps_and_the_environment_of_children_show_no_secret_of_a_file(tmp_path):
    users = tmp_path / "users"
    users.write_text(f"mia:{RIGHT}\n")
    with Process("--backend", "memory", "--memory-users", users) as service:
        with Client(service.serve()) as client:
            client.line()
            client.say(b"USER mia")
            assert client.say(b"PASS " + RIGHT.encode()).startswith(b"+OK")
        for name in ("cmdline", "environ", "comm"):
            assert RIGHT.encode() not in Path(f"/proc/{service.pid}/{name}").read_bytes()


def test_a_users_name_is_hashed_in_every_line_where_that_is_wanted():
    store = ("--backend", "memory", "--memory-user", f"miamaria:{RIGHT}")
    with Process(*store, "--log-names", "hash", "--failure-delay", "0") as service:
        address = service.serve()
        for password in (RIGHT, WRONG):
            with Client(address) as client:
                client.line()
                client.say(b"USER miamaria")
                client.say(b"PASS " + password.encode())
                client.say(b"QUIT")
        for event in ("session.login", "session.closed", "login.failed", "session.closed"):
            service.event(event)
        service.process.terminate()
        service.wait()

    assert "miamaria" not in "".join(service.lines)
