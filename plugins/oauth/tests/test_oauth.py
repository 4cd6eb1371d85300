"""The plugin from its options to a login: a real key, real tokens, real sessions."""

import base64
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from pop3hub import ConfigurationError, PopServer, PopUser, hookimpl
from pop3hub.testing import Dialogue
from pop3hub_oauth import BearerTokens

ISSUER = "https://id.example.org"
README = Path(__file__).parents[1] / "README.md"


class Backend:
    """luke and anna have no mail."""

    @hookimpl
    def get_user(self, name):
        return PopUser(name, "hello") if name in {"luke", "anna"} else None

    @hookimpl
    def compare_password(self, raw, hash):
        return raw == hash

    @hookimpl
    def receive_messages(self):
        return []

    @hookimpl
    def delete_messages(self, messages):
        return len(messages)


class OtherTokens:
    """Another plugin that knows one token."""

    @hookimpl
    def verify_token(self, token):
        return PopUser("anna") if token == "opaque" else None


@pytest.fixture(scope="module")
def key():
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def jwks(tmp_path, key):
    path = tmp_path / "jwks.json"
    jwk = json.loads(ECAlgorithm.to_jwk(key.public_key()))
    path.write_text(json.dumps({"keys": [jwk]}))
    return path


@pytest.fixture
def settings(jwks):
    return {"issuer": ISSUER, "audience": "mail", "jwks": jwks, "claim": "sub"}


def token_of(key, subject, **changes):
    claims = {"iss": ISSUER, "aud": "mail", "sub": subject, "exp": int(time.time()) + 60}
    return jwt.encode(claims | changes, key, "ES256")


async def login(dialogue, token, name="luke"):
    """Log in as `name` by a token; return the last answer."""
    response = f"n,a={name},\x01auth=Bearer {token}\x01\x01".encode()
    reply = await dialogue.say(b"AUTH OAUTHBEARER " + base64.b64encode(response))
    return await dialogue.say(b"AQ==") if reply.startswith(b"+ ") else reply


async def mechanisms(dialogue):
    """Return what CAPA says after SASL."""
    capabilities = (await dialogue.say("CAPA")).decode().split("\r\n")
    return {word for line in capabilities if line.startswith("SASL ") for word in line.split()[1:]}


# Logins


@pytest.mark.parametrize("way", ["object", "options", "both"])
async def test_a_token_logs_in_the_user_whom_the_store_knows(settings, key, way):
    options = {f"oauth_{name}": value for name, value in settings.items()}
    plugin = {
        "object": lambda: BearerTokens(**settings),
        "options": BearerTokens,
        "both": lambda: BearerTokens(**settings | {"issuer": "https://another.example.org"}),
    }[way]()
    given = {} if way == "object" else {"options": options}
    async with Dialogue(Backend(), plugins=[plugin], **given) as dialogue:
        assert {"OAUTHBEARER", "XOAUTH2"} <= await mechanisms(dialogue)
        assert (await login(dialogue, token_of(key, "luke"))).startswith(b"+OK")
        assert "luke" == dialogue.session.user.name


@pytest.mark.parametrize(("name", "subject"), [("luke", "anna"), ("nobody", "nobody")])
async def test_a_token_of_somebody_else_or_of_nobody_is_refused(settings, key, name, subject):
    async with Dialogue(Backend(), plugins=[BearerTokens(**settings)]) as dialogue:
        assert (await login(dialogue, token_of(key, subject), name)).startswith(b"-ERR [AUTH]")


async def test_one_instance_is_for_one_server(settings, key):
    """It would look up one server's users in the other's store."""
    tokens = BearerTokens(**settings)
    async with Dialogue(Backend(), plugins=[tokens]) as dialogue:
        with pytest.raises(ConfigurationError, match="two servers"):
            await PopServer(backend=Backend(), plugins=[tokens], listen=()).start()
        assert (await login(dialogue, token_of(key, "luke"))).startswith(b"+OK")


async def test_an_instance_can_serve_again(settings, key):
    tokens = BearerTokens(**settings)
    for _ in range(2):
        async with Dialogue(Backend(), plugins=[tokens]) as dialogue:
            assert (await login(dialogue, token_of(key, "luke"))).startswith(b"+OK")


# Without its settings


async def test_installed_but_not_configured_it_offers_nothing():
    async with Dialogue(Backend(), plugins=[BearerTokens()]) as dialogue:
        assert set() == {"OAUTHBEARER", "XOAUTH2"} & await mechanisms(dialogue)
        refused = await dialogue.say("AUTH OAUTHBEARER bixh")
        unknown = await dialogue.say("AUTH NO-SUCH bixh")
        assert unknown == refused


async def test_not_configured_it_leaves_the_tokens_of_other_plugins_alone():
    plugins = [OtherTokens(), BearerTokens()]
    async with Dialogue(Backend(), plugins=plugins) as dialogue:
        assert {"OAUTHBEARER", "XOAUTH2"} <= await mechanisms(dialogue)
        assert (await login(dialogue, "opaque", "anna")).startswith(b"+OK")


def test_not_configured_it_imports_no_cryptography():
    program = "import sys, pop3hub_oauth; sys.exit('jwt' in sys.modules)"

    assert 0 == subprocess.run([sys.executable, "-c", program], check=False).returncode


# Settings


@pytest.mark.parametrize("missing", ["issuer", "audience", "jwks", "claim"])
def test_settings_are_needed_together(settings, missing):
    broken = settings | {missing: ""}
    with pytest.raises(ConfigurationError, match=f"--oauth-{missing}"):
        BearerTokens(**broken)
    with pytest.raises(ConfigurationError, match=f"--oauth-{missing}"):
        BearerTokens().configure({f"oauth_{name}": value for name, value in broken.items()})


def test_keys_come_over_https(settings):
    with pytest.raises(ConfigurationError, match="https"):
        BearerTokens(**settings | {"jwks": "http://id.example.org/keys"})


async def test_a_key_file_that_is_not_there_stops_the_start(settings, tmp_path):
    tokens = BearerTokens(**settings | {"jwks": tmp_path / "none.json"})
    with pytest.raises(ConfigurationError, match=r"none\.json"):
        await PopServer(backend=Backend(), plugins=[tokens], listen=()).start()


# The program


MEMORY = ("--backend", "memory", "--memory-user", "luke:hello")


def pop3hub(*arguments):
    words = [sys.executable, "-m", "pop3hub", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def test_the_program_reads_the_settings_from_its_file(tmp_path, jwks):
    pytest.importorskip("pop3hub_memory")
    file = tmp_path / "pop3hub.toml"
    file.write_text(
        f'backend = "memory"\n[memory]\nuser = "luke:hello"\n[oauth]\nissuer = "{ISSUER}"\n'
        f'audience = ["mail", "imap"]\njwks = "{jwks}"\n'
    )
    shown = pop3hub("--config", file, "config", "show")
    checked = pop3hub(*MEMORY, "config", "check", file)

    assert f"oauth_issuer = {ISSUER}  # {file}" in shown.stdout
    assert f"oauth_audience = mail imap  # {file}" in shown.stdout
    assert "oauth_claim = email  # default" in shown.stdout
    assert (0, f"{file}: good\n") == (checked.returncode, checked.stdout)


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        (("--oauth-issuer", ISSUER), "--oauth-audience"),
        (("--oauth-jwks", "keys.json"), "--oauth-issuer"),
        (
            (
                *("--oauth-issuer", ISSUER, "--oauth-audience", "mail"),
                *("--oauth-jwks", "http://example.org/"),
            ),
            "https URL",
        ),
    ],
)
def test_wrong_options_are_one_line(options, needle):
    pytest.importorskip("pop3hub_memory")
    done = pop3hub(*MEMORY, "--listen", "pop3://127.0.0.1:0", *options)

    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    assert needle in done.stderr


async def test_a_command_that_serves_no_mail_reads_no_keys(settings):
    tokens = BearerTokens(**settings | {"jwks": "/nonexistent"})
    await tokens.startup(None)
    await tokens.shutdown()


# The README


def test_the_program_of_the_readme_serves_a_token(tmp_path, jwks, key):
    [code] = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    program = tmp_path / "program.py"
    program.write_text(code.replace(":1110", ":0"), "utf-8")
    with subprocess.Popen(
        [sys.executable, program], cwd=jwks.parent, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            url = running.stdout.readline().strip()
            token = token_of(key, "1", email="luke@example.org")
            done = subprocess.run(
                [sys.executable, "-c", CLIENT, url.rpartition(":")[2], token],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        finally:
            running.terminate()

    assert "+OK 1 39\n" == done.stdout, done.stderr


CLIENT = """
import base64, poplib, sys
client = poplib.POP3("127.0.0.1", int(sys.argv[1]), timeout=20)
response = f"user=luke@example.org\\1auth=Bearer {sys.argv[2]}\\1\\1".encode()
client._shortcmd("AUTH XOAUTH2 " + base64.b64encode(response).decode())
print(client._shortcmd("STAT").decode())
client.quit()
"""
