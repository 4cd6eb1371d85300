"""Bearer tokens from the options to a login: a real key, a real session."""

import base64
import json
import time

import pytest

jwt = pytest.importorskip("jwt", reason="the extra pop3hub[oauth] is not installed")
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402 - after the skip
from jwt.algorithms import ECAlgorithm  # noqa: E402

from pop3hub import options  # noqa: E402
from pop3hub.app import App  # noqa: E402
from pop3hub.cli import Program  # noqa: E402
from pop3hub.peer import Tls  # noqa: E402
from pop3hub.testing import Dialogue  # noqa: E402
from tests.serving import Store  # noqa: E402

ISSUER = "https://id.example.org"


@pytest.fixture
async def dialogue(tmp_path):
    """A dialogue with a server whose options name an issuer, and the issuer's key."""
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = json.loads(ECAlgorithm.to_jwk(key.public_key()))
    (tmp_path / "jwks").write_text(json.dumps({"keys": [jwk]}))
    given = {"--oauth-issuer": ISSUER, "--oauth-audience": "mail"}
    given |= {"--oauth-jwks": tmp_path / "jwks", "--oauth-claim": "sub", "--failure-delay": 0}
    words = [str(word) for pair in given.items() for word in pair]
    arguments = options.server_arguments(Program([], App(), []).parse(words, {}).params)
    del arguments["listen"]
    async with Dialogue(Store(), tls=Tls("TLSv1.3", ""), **arguments) as dialogue:
        dialogue.key = key
        yield dialogue


async def login(dialogue, name, subject):
    """Log in as `name` by a token for `subject`; return the last answer."""
    claims = {"iss": ISSUER, "aud": "mail", "sub": subject, "exp": int(time.time()) + 60}
    token = jwt.encode(claims, dialogue.key, "ES256")
    response = f"n,a={name},\x01auth=Bearer {token}\x01\x01".encode()
    reply = await dialogue.say(b"AUTH OAUTHBEARER " + base64.b64encode(response))
    return await dialogue.say(b"AQ==") if reply.startswith(b"+ ") else reply


async def test_a_token_logs_in_the_user_whom_the_store_knows(dialogue):
    assert (await login(dialogue, "luke", "luke")).startswith(b"+OK")
    assert "luke" == dialogue.session.user.name


@pytest.mark.parametrize(("name", "subject"), [("luke", "user"), ("nobody", "nobody")])
async def test_a_token_of_somebody_else_or_of_nobody_does_not(dialogue, name, subject):
    assert (await login(dialogue, name, subject)).startswith(b"-ERR [AUTH]")
