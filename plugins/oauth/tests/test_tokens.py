"""JWTs as bearer tokens: real keys, real signatures, a key set over real HTTP on loopback."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from pop3hub import ConfigurationError, TemporaryFailure
from pop3hub_oauth import keys, source
from pop3hub_oauth.keys import KeySet, parse_keys
from pop3hub_oauth.tokens import JwtVerifier

ISSUER = "https://id.example.org"
AUDIENCE = "pop3hub"


@pytest.fixture(scope="module")
def rsa_key():
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def other_rsa_key():
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def ec_key():
    return ec.generate_private_key(ec.SECP256R1())


def jwk(key, kid, **members):
    public = key.public_key()
    kind = {rsa.RSAPublicKey: RSAAlgorithm, ec.EllipticCurvePublicKey: ECAlgorithm}
    algorithm = next((a for k, a in kind.items() if isinstance(public, k)), OKPAlgorithm)
    return json.loads(algorithm.to_jwk(public)) | {"kid": kid} | members


def key_set(*keys):
    return json.dumps({"keys": keys}).encode()


def claims(**changes):
    now = int(time.time())
    given = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "1234",
        "email": "Anna@example.org",
        "iat": now,
        "exp": now + 300,
    } | changes
    return {name: value for name, value in given.items() if value is not None}


def token_of(key, kid="one", algorithm="RS256", header=None, **changes):
    headers = (header or {}) | ({"kid": kid} if kid else {})
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


@pytest.fixture
def key_file(tmp_path, rsa_key, ec_key):
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(jwk(rsa_key, "one"), jwk(ec_key, "two")))
    return path


@pytest.fixture
async def verifier(key_file):
    verifier = JwtVerifier(issuer=ISSUER, audience=[AUDIENCE], jwks=key_file)
    await verifier.start()
    return verifier


# Good tokens


@pytest.mark.parametrize("name", ["", "Anna@example.org", "anna@EXAMPLE.org"])
async def test_a_good_token_tells_its_user(verifier, rsa_key, name):
    assert "Anna@example.org" == await verifier.verify(name, token_of(rsa_key))


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
async def test_every_rsa_signature_is_verified(verifier, rsa_key, algorithm):
    assert await verifier.verify("", token_of(rsa_key, algorithm=algorithm))


@pytest.mark.parametrize(
    ("make", "algorithm"),
    [
        (lambda: ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (lambda: ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (lambda: ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (ed25519.Ed25519PrivateKey.generate, "EdDSA"),
    ],
)
async def test_elliptic_curves_are_verified(key_file, make, algorithm):
    key = make()
    key_file.write_bytes(key_set(jwk(key, "curve")))
    verifier = JwtVerifier(issuer=ISSUER, audience=[AUDIENCE], jwks=str(key_file))

    assert await verifier.verify("", token_of(key, "curve", algorithm))


async def test_a_token_without_key_id_is_tried_with_every_key_that_fits(verifier, rsa_key, ec_key):
    assert await verifier.verify("", token_of(ec_key, None, "ES256"))
    assert await verifier.verify("", token_of(rsa_key, None))


async def test_the_audience_may_be_one_of_several(key_file, rsa_key):
    verifier = JwtVerifier(issuer=ISSUER, audience=["imap", "pop3hub"], jwks=key_file)

    assert await verifier.verify("", token_of(rsa_key, aud=["web", "pop3hub"]))


async def test_another_claim_can_be_the_name(key_file, rsa_key):
    verifier = JwtVerifier(issuer=ISSUER, audience=[AUDIENCE], jwks=key_file, claim="sub")

    assert "1234" == await verifier.verify("", token_of(rsa_key, email=None))
    assert await verifier.verify("Anna@example.org", token_of(rsa_key)) is None


async def test_clocks_may_differ_by_the_leeway(verifier, rsa_key):
    now = int(time.time())

    assert await verifier.verify("", token_of(rsa_key, exp=now - 30))
    assert await verifier.verify("", token_of(rsa_key, nbf=now + 30))


# Tokens that are not good


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1_000_000_000},
        {"exp": None},
        {"nbf": 99_999_999_999},
        {"aud": "another"},
        {"aud": None},
        {"iss": "https://id.example.com"},
        {"iss": ISSUER + "/"},
        {"iss": None},
        {"email": None},
        {"email": ""},
        {"email": 7},
        {"email": "a\tb"},
        {"email_verified": False},
        {"email_verified": "false"},
        {"email_verified": []},
    ],
)
async def test_a_claim_that_is_not_right_refuses_the_token(verifier, rsa_key, changes):
    """RFC 7519 s4.1, RFC 8725 s3.8, s3.9."""
    assert await verifier.verify("", token_of(rsa_key, **changes)) is None


@pytest.mark.parametrize("name", ["bert@example.org", "Anna", "1234", "Anna@example.org "])
async def test_a_token_of_somebody_else_is_refused(verifier, rsa_key, name):
    """RFC 7628 s3.2.1."""
    assert await verifier.verify(name, token_of(rsa_key)) is None


async def test_a_signature_by_another_key_is_refused(verifier, other_rsa_key):
    assert await verifier.verify("", token_of(other_rsa_key)) is None


async def test_a_changed_claim_is_refused(verifier, rsa_key):
    head, body, signature = token_of(rsa_key).split(".")
    other = token_of(rsa_key, email="bert@example.org").split(".")[1]

    assert body != other
    assert await verifier.verify("", f"{head}.{other}.{signature}") is None


async def test_a_token_without_signature_is_refused(verifier):
    """RFC 8725 s3.2: `none`, in any case."""
    token = jwt.encode(claims(), None, algorithm="none", headers={"kid": "one"})
    assert await verifier.verify("", token) is None
    head = base64.urlsafe_b64encode(b'{"alg":"None","kid":"one"}').decode().rstrip("=")

    assert await verifier.verify("", ".".join([head, token.split(".")[1], ""])) is None


async def test_the_public_key_is_no_secret_of_hs256(verifier, rsa_key):
    """RFC 8725 s2.1: the classic confusion."""
    public = rsa_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signed = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "HS256", "kid": "one"}, claims())
    )
    mac = hmac.digest(public, signed.encode(), hashlib.sha256)
    token = f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    assert await verifier.verify("", token) is None


async def test_a_key_is_not_used_with_another_kinds_algorithm(verifier, rsa_key, ec_key):
    assert await verifier.verify("", token_of(ec_key, "one", "ES256")) is None
    assert await verifier.verify("", token_of(rsa_key, "two")) is None


async def test_an_unknown_key_id_is_refused(verifier, rsa_key):
    assert await verifier.verify("", token_of(rsa_key, "three")) is None


@pytest.mark.parametrize(
    "header", [{"kid": 7}, {"kid": ["one"]}, {"alg": ["RS256"]}, {"alg": None}, []]
)
async def test_a_header_of_another_shape_is_refused(verifier, header):
    if isinstance(header, dict):
        header = {"alg": "RS256"} | header
    head = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")

    assert await verifier.verify("", f"{head}.e30.AAAA") is None


async def test_json_nested_ever_so_deep_is_refused(verifier):
    deep = base64.urlsafe_b64encode(b"[" * 12_000).decode().rstrip("=")

    assert await verifier.verify("", f"{deep}.e30.AAAA") is None


def test_no_token_raises_anything(key_file):
    @given(st.one_of(st.text(max_size=80), st.from_regex(r"e30\.[\w-]*\.[\w-]*", fullmatch=True)))
    def check(token):
        verifier = JwtVerifier(issuer=ISSUER, audience=[AUDIENCE], jwks=key_file)
        assert asyncio.run(verifier.verify("", token)) is None

    check()


# Settings


@pytest.mark.parametrize(
    "url",
    ["http://id.example.org/keys", "ftp://h/keys", "file:///keys", "https://", "http://127.evil/"],
)
def test_keys_come_over_https_or_from_this_machine(url):
    with pytest.raises(ConfigurationError, match="https"):
        KeySet(url)


@pytest.mark.parametrize(
    "document",
    [b"", b"{}", b"[]", b'{"keys": 1}', b'{"keys": []}', b'{"keys": [1]}', b"[" * 100_000],
)
async def test_a_file_without_keys_stops_the_start(tmp_path, document):
    path = tmp_path / "keys.json"
    path.write_bytes(document)
    verifier = JwtVerifier(issuer=ISSUER, audience=[AUDIENCE], jwks=path)

    with pytest.raises(ConfigurationError, match=r"keys\.json"):
        await verifier.start()


async def test_a_file_that_is_not_there_stops_the_start(tmp_path):
    verifier = JwtVerifier(issuer=ISSUER, audience=[AUDIENCE], jwks=tmp_path / "none.json")

    with pytest.raises(ConfigurationError, match=r"none\.json"):
        await verifier.start()


async def test_a_file_that_is_longer_than_any_key_set_is_not_read(tmp_path, rsa_key):
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(jwk(rsa_key, "one")) + b" " * source.MAX_DOCUMENT)

    with pytest.raises(ConfigurationError, match="longer"):
        await KeySet(path).start()


def test_keys_that_can_not_verify_are_ignored(rsa_key, ec_key):
    """RFC 7517 s4: secrets, keys for encryption, weak keys, unknown kinds, and nonsense."""
    document = key_set(
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
        jwk(rsa_key, "encrypts", use="enc"),
        jwk(rsa_key, "hmac", alg="HS256"),
        jwk(rsa.generate_private_key(65537, 1024), "weak"),  # noqa: S505 - that is the point
        jwk(ec.generate_private_key(ec.SECP256K1()), "coin"),
        {"kty": "EC", "crv": "P-256", "kid": "no point"},
        {"kty": "RSA", "kid": "no modulus"},
        {"kty": ["RSA"]},
        "nonsense",
        jwk(ec_key, "good", use="sig", alg="ES256"),
    )

    assert [("good", ("ES256",))] == [(key.kid, key.algorithms) for key in parse_keys(document)]


async def test_a_key_that_names_its_algorithm_is_for_no_other(key_file, rsa_key):
    """RFC 8725 s3.1."""
    key_file.write_bytes(key_set(jwk(rsa_key, "one", alg="RS256")))
    verifier = JwtVerifier(issuer=ISSUER, audience=[AUDIENCE], jwks=key_file)

    assert await verifier.verify("", token_of(rsa_key, algorithm="RS256"))
    assert await verifier.verify("", token_of(rsa_key, algorithm="PS256")) is None


def test_no_private_key_is_loaded(rsa_key):
    document = key_set(json.loads(RSAAlgorithm.to_jwk(rsa_key)) | {"kid": "one"})

    assert isinstance(parse_keys(document)[0].public, rsa.RSAPublicKey)


# Keys that change


async def test_a_changed_file_is_read_again(verifier, key_file, rsa_key, other_rsa_key):
    assert await verifier.verify("", token_of(rsa_key))
    key_file.write_bytes(key_set(jwk(other_rsa_key, "new")))

    assert await verifier.verify("", token_of(other_rsa_key, "new"))
    assert await verifier.verify("", token_of(rsa_key)) is None


async def test_a_file_that_is_half_written_or_gone_leaves_the_old_keys(verifier, key_file, rsa_key):
    document = key_file.read_bytes()
    for spoil in (lambda: key_file.write_bytes(document[:50]), key_file.unlink):
        spoil()
        assert await verifier.verify("", token_of(rsa_key))
    key_file.write_bytes(document)
    os.utime(key_file, ns=(1, 1))

    assert await verifier.verify("", token_of(rsa_key))


class Issuer(BaseHTTPRequestHandler):
    """Serves the document of its server, and counts the requests."""

    def do_GET(self):
        self.server.requests += 1
        status, headers, document = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(document)

    def log_message(self, *_):
        pass


@pytest.fixture
def issuer(rsa_key):
    server = HTTPServer(("127.0.0.1", 0), Issuer)
    server.requests = 0
    server.answer = 200, {}, key_set(jwk(rsa_key, "one"))
    server.url = f"http://127.0.0.1:{server.server_port}/keys"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def remote(issuer, clock):
    return JwtVerifier(issuer=ISSUER, audience=[AUDIENCE], jwks=issuer.url, clock=clock)


async def test_keys_are_fetched_once_and_kept(remote, issuer, rsa_key, clock):
    for _ in range(3):
        assert await remote.verify("", token_of(rsa_key))
        clock.now += 100

    assert 1 == issuer.requests


async def test_keys_are_fetched_again_after_a_while(remote, issuer, rsa_key, other_rsa_key, clock):
    await remote.start()
    issuer.answer = 200, {}, key_set(jwk(other_rsa_key, "one"))
    clock.now += keys.REFRESH

    assert await remote.verify("", token_of(rsa_key)) is None
    assert await remote.verify("", token_of(other_rsa_key))


async def test_a_new_key_id_is_looked_up_but_not_for_every_token(
    remote, issuer, other_rsa_key, clock
):
    await remote.start()
    issuer.answer = 200, {}, key_set(jwk(other_rsa_key, "new"))
    for number in range(20):
        assert await remote.verify("", token_of(other_rsa_key, f"made up {number}")) is None
    assert 1 == issuer.requests
    clock.now += keys.PAUSE

    assert await remote.verify("", token_of(other_rsa_key, "new"))
    assert 2 == issuer.requests


async def test_logins_at_once_share_one_fetch(remote, issuer, rsa_key):
    token = token_of(rsa_key)
    users = await asyncio.gather(*(remote.verify("", token) for _ in range(20)))

    assert ["Anna@example.org"] * 20 == users
    assert 1 == issuer.requests


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}, b""),
        (200, {}, b"no JSON"),
        (302, {"Location": "http://127.0.0.1:9/"}, b""),
        (200, {"Content-Length": "100"}, b"{"),
        (200, {}, b" " * (source.MAX_DOCUMENT + 1)),
    ],
)
async def test_an_issuer_that_fails_is_a_temporary_failure_and_asked_again_later(
    remote, issuer, rsa_key, clock, answer
):
    """RFC 3206 s4: nobody's password is wrong because the issuer is away."""
    good, issuer.answer = issuer.answer, answer
    await remote.start()
    for _ in range(3):
        with pytest.raises(TemporaryFailure):
            await remote.verify("", token_of(rsa_key))
    assert 1 == issuer.requests
    issuer.answer = good
    clock.now += keys.PAUSE

    assert await remote.verify("", token_of(rsa_key))


async def test_old_keys_are_used_while_the_issuer_is_away_but_not_for_ever(
    remote, issuer, rsa_key, clock
):
    await remote.start()
    issuer.answer = 500, {}, b""
    clock.now += keys.KEEP - 1
    assert await remote.verify("", token_of(rsa_key))
    clock.now += 1

    with pytest.raises(TemporaryFailure):
        await remote.verify("", token_of(rsa_key))


async def test_no_redirection_is_followed(remote, issuer):
    issuer.answer = 302, {"Location": issuer.url}, b""
    await remote.start()

    assert 1 == issuer.requests


async def test_a_token_that_is_no_good_anyway_asks_nobody(remote, issuer):
    for token in ("", "x", "a.b.c", jwt.encode(claims(), None, algorithm="none")):
        assert await remote.verify("", token) is None

    assert 0 == issuer.requests
