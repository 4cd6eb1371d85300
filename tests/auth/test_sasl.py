"""The SASL mechanisms against scripted clients, octet for octet (RFC 5034 and each mechanism's)."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3hub.auth import sasl
from pop3hub.auth.passwords import Hasher
from pop3hub.auth.sasl import (
    MECHANISMS,
    Exchange,
    certificate_names,
    decode_initial,
    decode_response,
)
from pop3hub.auth.scram import ScramKeys, scram_keys
from pop3hub.auth.users import PopUser, UnknownHash
from pop3hub.errors import AuthenticationFailed, CommandError, PopError

SCRAM = ("SCRAM-SHA-1", "SCRAM-SHA-256")
HASHES = dict(zip(SCRAM, ("sha1", "sha256"), strict=True))
COST = 4  # the least that bcrypt has


def b64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


class Users:
    """Users in a dictionary, compared by the real bcrypt; notes what it was asked."""

    def __init__(self, *users, tokens=None):
        self.users = {user.name: user for user in users}
        self.tokens = tokens or {}
        self.asked = []
        self.hasher = Hasher(threads=1, cost=COST)

    async def get_user(self, name):
        self.asked.append(name)
        return self.users.get(name)

    async def compare_password(self, raw, user):
        if user is None or user.password is None:
            self.asked.append("dummy")
            return await self.hasher.check_dummy(raw)
        return await self.hasher.check(raw, user.password)

    async def verify_token(self, name, token):
        self.asked.append((name, token))
        return self.tokens.get((name, token))


class Client:
    """Answers challenges from a script; a step is a raw line, or a function of the challenge."""

    def __init__(self, *script):
        self.script = list(script)
        self.challenges = []

    async def ask(self, challenge):
        self.challenges.append(challenge)
        step = self.script.pop(0)
        return step(base64.b64decode(challenge)) if callable(step) else step


def exchange_of(mechanism, client, users, *, initial=None, tls=None, **settings):
    settings = {"salt_key": b"key of this server", "host": "pop.example.org"} | settings
    return Exchange(
        mechanism=mechanism,
        certificate=(tls and tls.peer_certificate) or {},
        ask=client.ask,
        authenticator=users,
        initial=initial,
        **settings,
    )


async def log_in(mechanism, users, *script, **settings):
    """Run a mechanism to its end; return the user and what was challenged."""
    client = Client(*script)
    user = await MECHANISMS[mechanism].run(exchange_of(mechanism, client, users, **settings))
    assert not client.script, "the exchange ended before the client was done"
    return user.name, client.challenges


async def refusal(mechanism, users, *script, **settings):
    """Run a mechanism that is refused; return the error's class, code and text id."""
    with pytest.raises(PopError) as caught:
        await log_in(mechanism, users, *script, **settings)
    return type(caught.value), caught.value.code, caught.value.text_id


FAILED = (AuthenticationFailed, "AUTH", "authentication-failed")
MALFORMED = (CommandError, None, "exchange-malformed")
NOT_BASE64 = (CommandError, None, "base64-invalid")
CANCELLED = (CommandError, None, "authentication-cancelled")
TOKEN_REFUSED = (AuthenticationFailed, "AUTH", "token-invalid")


@pytest.fixture(scope="module")
def people():
    def hashed(password):
        hasher = Hasher(threads=1)
        try:
            return asyncio.run(hasher.hash(password, COST))
        finally:
            hasher.close()

    return (
        PopUser("test", hashed("test")),
        PopUser("tim", hashed("tanstaaftanstaaf"), "tanstaaftanstaaf"),
        PopUser("caf\u00e9", hashed("caf\u00e9")),
        PopUser("user@example.com"),
        PopUser("user", scram={name: scram_keys("pencil", name) for name in SCRAM}),
        PopUser("a,b=c", scram={name: scram_keys("pencil", name, 4096) for name in SCRAM}),
        PopUser("damaged", scram=dict.fromkeys(SCRAM, "4096:no:keys")),
    )


@pytest.fixture
def users(people):
    users = Users(*people)
    users.tokens = {
        ("user@example.com", "tok123"): users.users["user@example.com"],
        ("", "tok123"): users.users["user@example.com"],
    }
    yield users
    users.hasher.close()


# The exchange


@pytest.mark.parametrize(
    ("line", "octets"),
    [(b"", b""), (b"dGVzdA==", b"test"), (b"dGVzdA== \t\r", b"test"), (b"+/+/", b"\xfb\xff\xbf")],
)
def test_a_response_is_base64(line, octets):
    assert octets == decode_response(line)


@pytest.mark.parametrize(
    "line",
    [
        b"=",
        b"====",
        b"=AAA",
        b"AAA=BBB",
        b"AA==AA==",
        b"AAAAA",
        b"AA",
        b"AAA",
        b"A===",
        b"AAAA=",
        b"AAAA====",
        b"AA-_",
        b" AAAA",
        b"AA AA",
        b"AAAA\nAAAA",
        b"\xc3\xa9AA",
        b"\xff",
    ],
)
def test_what_is_not_exactly_base64_is_refused(line):
    """RFC 5034 s4: must be -ERR."""
    with pytest.raises(CommandError) as caught:
        decode_response(line)

    assert "base64-invalid" == caught.value.text_id


def test_an_equals_sign_alone_is_an_empty_initial_response():
    """RFC 5034 s4."""
    assert b"" == decode_initial("=")
    assert b"test" == decode_initial("dGVzdA==")


@pytest.mark.parametrize("argument", ["==", "\u00e9", "*"])
def test_an_initial_response_is_as_strict_as_any(argument):
    with pytest.raises(CommandError):
        decode_initial(argument)


async def test_the_client_is_asked_by_an_empty_challenge_when_it_must_speak_first(users):
    name, challenges = await log_in("PLAIN", users, b64(b"\0test\0test"))

    assert ("test", [b""]) == (name, challenges)


async def test_an_empty_initial_response_is_a_response(users):
    assert MALFORMED == await refusal("PLAIN", users, initial=b"")


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_star_cancels_at_the_first_challenge(users, mechanism):
    """RFC 5034 s4."""
    assert CANCELLED == await refusal(mechanism, users, b"*")


async def test_a_star_cancels_after_any_challenge(users):
    assert CANCELLED == await refusal("LOGIN", users, b64(b"test"), b"*")
    assert CANCELLED == await refusal("CRAM-MD5", users, b"*")
    assert CANCELLED == await refusal("SCRAM-SHA-256", users, b"*", initial=b"n,,n=user,r=abc")


async def test_only_a_server_first_mechanism_refuses_an_initial_response(users):
    """RFC 5034 s4: must be -ERR."""
    expected = (CommandError, None, "initial-response-unexpected")

    assert expected == await refusal("CRAM-MD5", users, initial=b"")
    assert ["CRAM-MD5"] == [m.name for m in MECHANISMS.values() if m.server_first]


def test_mechanisms_that_give_a_secret_away_are_marked():
    """RFC 5034 s4; RFC 7628 s3 requires TLS for tokens."""
    marked = {mechanism.name for mechanism in MECHANISMS.values() if mechanism.plaintext}

    assert {"PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"} == marked


async def test_the_name_that_was_claimed_is_kept_for_the_log(users):
    client = Client(b64(b"\0nobody\0x"))
    exchange = exchange_of("PLAIN", client, users)
    with pytest.raises(AuthenticationFailed):
        await MECHANISMS["PLAIN"].run(exchange)

    assert "nobody" == exchange.name
    assert b"\0nobody" not in repr(exchange).encode()


# PLAIN


@pytest.mark.parametrize(
    ("line", "name"),
    [("dGVzdAB0ZXN0AHRlc3Q=", "test"), ("AHRpbQB0YW5zdGFhZnRhbnN0YWFm", "tim")],
)
async def test_plain_takes_the_vectors_of_the_rfcs(users, line, name):
    """RFC 5034 s6, RFC 4616 s4."""
    assert (name, []) == await log_in("PLAIN", users, initial=decode_initial(line))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"test",
        b"test\0test",
        b"\0test\0test\0",
        b"\0\0\0\0",
        b"\0test\0\xff",
        b"\0\xc0\xaf\0x",
    ],
)
async def test_plain_has_two_nuls_and_utf_8(users, message):
    assert MALFORMED == await refusal("PLAIN", users, initial=message)


@pytest.mark.parametrize(
    "message",
    [
        b"\0test\0wrong",
        b"\0nobody\0test",
        b"\0\0test",
        b"\0test\0",
        b"tim\0test\0test",
        b"t\tm\0test\0test",
        b"\0t\test\0test",
        b"\0test\0te\x01st",
        b"\0" + b"a" * 5000 + b"\0test",
    ],
)
async def test_plain_refuses_wrong_credentials_all_in_the_same_words(users, message):
    assert FAILED == await refusal("PLAIN", users, initial=message)


async def test_plain_takes_names_and_passwords_in_any_normal_form(users):
    """RFC 4616 s2: both are prepared by SASLprep."""
    message = "\0cafe\u0301\0cafe\u0301".encode()

    assert ("caf\u00e9", []) == await log_in("PLAIN", users, initial=message)


async def test_an_authorization_identity_may_be_the_users_own_in_any_form(users):
    message = "cafe\u0301\0caf\u00e9\0caf\u00e9".encode()

    assert ("caf\u00e9", []) == await log_in("PLAIN", users, initial=message)


async def test_an_unknown_user_costs_a_comparison_too(users):
    await refusal("PLAIN", users, initial=b"\0nobody\0test")

    assert ["nobody", "dummy"] == users.asked


# LOGIN


async def test_login_asks_in_the_words_that_clients_look_for(users):
    answer = await log_in("LOGIN", users, b64(b"test"), b64(b"test"))

    assert ("test", [b"VXNlcm5hbWU6", b"UGFzc3dvcmQ6"]) == answer


async def test_login_takes_the_name_as_initial_response(users):
    answer = await log_in("LOGIN", users, b64(b"test"), initial=b"test")

    assert ("test", [b"UGFzc3dvcmQ6"]) == answer


@pytest.mark.parametrize(
    ("name", "password", "expected"),
    [
        (b"test", b"wrong", FAILED),
        (b"nobody", b"test", FAILED),
        (b"", b"test", FAILED),
        (b"test", b"", FAILED),
        (b"\xff", b"test", MALFORMED),
        (b"test", b"\xff", MALFORMED),
    ],
)
async def test_login_refuses(users, name, password, expected):
    assert expected == await refusal("LOGIN", users, b64(name), b64(password))


# CRAM-MD5


def cram(name, secret, case=bytes.lower):
    def respond(challenge):
        digest = hmac.new(secret, challenge, "md5").hexdigest().encode()
        return b64(name + b" " + case(digest))

    return respond


async def test_cram_md5_takes_the_vector_of_rfc_2195(users, monkeypatch):
    """RFC 2195 s2."""
    stamp = "<1896.697170952@postoffice.reston.mci.net>"
    monkeypatch.setattr(sasl, "new_stamp", lambda _: stamp)
    line = b"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"

    assert ("tim", [b64(stamp.encode())]) == await log_in("CRAM-MD5", users, line)


async def test_cram_md5_never_gives_the_same_challenge(users):
    seen = {
        (await log_in("CRAM-MD5", users, cram(b"tim", b"tanstaaftanstaaf")))[1][0]
        for _ in range(20)
    }

    assert 20 == len(seen)
    assert all(b"@pop.example.org>" in base64.b64decode(challenge) for challenge in seen)


async def test_cram_md5_takes_upper_case_digests(users):
    step = cram(b"tim", b"tanstaaftanstaaf", bytes.upper)

    assert "tim" == (await log_in("CRAM-MD5", users, step))[0]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (cram(b"tim", b"wrong"), FAILED),
        (cram(b"nobody", b""), FAILED),
        (cram(b"test", b""), FAILED),
        (cram(b"", b"x"), FAILED),
        (b64(b"tim "), FAILED),
        (b64(b"tim \xff\xff"), FAILED),
        (b64(b"\xff 00"), MALFORMED),
        (b64(b"tim"), MALFORMED),
        (b"", MALFORMED),
    ],
)
async def test_cram_md5_refuses(users, step, expected):
    assert expected == await refusal("CRAM-MD5", users, step)


# SCRAM


class ScramClient:
    """A client of RFC 5802, honest unless a test gives it other parts."""

    def __init__(self, mechanism, *, first=b"n,,n=user,r=abc", password="pencil", tamper=None):
        self.algorithm = HASHES[mechanism]
        self.first = first
        self.password = password.encode()
        self.tamper = tamper or (lambda parts: parts)
        self.server_first = b""

    def final(self, server_first):
        self.server_first = server_first
        fields = dict(part.split(b"=", 1) for part in server_first.split(b","))
        gs2 = b",".join(self.first.split(b",")[:2]) + b","
        bare = self.first[len(gs2) :]
        parts = self.tamper({"c": b64(gs2), "r": fields[b"r"], "extra": b"", "p": None})
        without_proof = b"c=%(c)b,r=%(r)b%(extra)b" % {k.encode(): v for k, v in parts.items()}
        salted = hashlib.pbkdf2_hmac(
            self.algorithm, self.password, base64.b64decode(fields[b"s"]), int(fields[b"i"])
        )
        message = b",".join((bare, server_first, without_proof))
        client_key = hmac.digest(salted, b"Client Key", self.algorithm)
        stored_key = hashlib.new(self.algorithm, client_key).digest()
        signature = hmac.digest(stored_key, message, self.algorithm)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        server_key = hmac.digest(salted, b"Server Key", self.algorithm)
        self.server_final = b"v=" + b64(hmac.digest(server_key, message, self.algorithm))
        return b64(without_proof + b",p=" + (parts["p"] or b64(proof)))

    def end(self, server_final):
        assert self.server_final == server_final
        return b""

    async def log_in(self, mechanism, users, **settings):
        answer = await log_in(
            mechanism, users, self.final, self.end, initial=self.first, **settings
        )
        return answer[0]

    async def refusal(self, mechanism, users, **settings):
        return await refusal(mechanism, users, self.final, initial=self.first, **settings)


VECTORS = {
    "SCRAM-SHA-1": {
        "salt": "QSXCR+Q6sek8bf92",
        "nonce": "3rfcNHYJY1ZVvWVs7j",
        "first": "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
        "server-first": "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        "final": "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,"
        "p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        "server-final": "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    },
    "SCRAM-SHA-256": {
        "salt": "W22ZaJ0SNY7soEsUEjb6gQ==",
        "nonce": "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        "first": "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        "server-first": "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        "final": "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "server-final": "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    },
}


@pytest.mark.parametrize("mechanism", SCRAM)
async def test_scram_takes_the_vectors_of_the_rfcs(monkeypatch, mechanism):
    """RFC 5802 s5, RFC 7677 s3; the server's signature is a challenge of its own (RFC 5034 s4)."""
    vector = VECTORS[mechanism]
    keys = scram_keys("pencil", mechanism, 4096, base64.b64decode(vector["salt"]))
    users = Users(PopUser("user", scram={mechanism: keys}))
    monkeypatch.setattr(sasl.secrets, "token_urlsafe", lambda _: vector["nonce"])

    name, challenges = await log_in(
        mechanism, users, b64(vector["final"].encode()), b"", initial=vector["first"].encode()
    )

    assert "user" == name
    assert [vector["server-first"], vector["server-final"]] == [
        base64.b64decode(challenge).decode() for challenge in challenges
    ]


@pytest.mark.parametrize("mechanism", SCRAM)
@pytest.mark.parametrize(
    "first",
    [
        b"n,,n=user,r=abc",
        b"y,,n=user,r=abc",
        b"n,a=user,n=user,r=abc",
        b"n,,n=user,r=abc,x=unknown,y=2",
        b"n,,n=us\xc2\xader,r=abc",
        b"n,a=a=2Cb=3Dc,n=a=2Cb=3Dc,r=abc",
    ],
)
async def test_scram_takes_what_rfc_5802_allows(users, mechanism, first):
    """RFC 5802 s5.1, s7: authzid, unknown extensions, quoted names, names to prepare."""
    name = await ScramClient(mechanism, first=first).log_in(mechanism, users)

    assert name in {"user", "a,b=c"}


async def test_scram_takes_an_unknown_extension_before_the_proof(users):
    client = ScramClient("SCRAM-SHA-256", tamper=lambda parts: parts | {"extra": b",x=1"})

    assert "user" == await client.log_in("SCRAM-SHA-256", users)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n,,",
        b"n=user,r=abc",
        b"z,,n=user,r=abc",
        b"N,,n=user,r=abc",
        b"p=tls-unique,,n=user,r=abc",
        b"n,,r=abc,n=user",
        b"n,,n=,r=abc",
        b"n,,n=user,r=",
        b"n,,n=user",
        b"n,,n=us=er,r=abc",
        b"n,,n=user=2,r=abc",
        b"n,,n=user=2c,r=abc",
        b"n,,m=x,n=user,r=abc",
        b"n,,n=user,r=abc,m=x",
        b"n,,n=user,r=a\x7fc",
        b"n,,n=user,r=abc,",
        b"n,,n=user,r=abc,1=x",
        b"n,user,n=user,r=abc",
        b"n,a=,n=user,r=abc",
        b"n,,n=us\0er,r=abc",
        b"n,,n=\xff,r=abc",
        b"n,,n=user,r=abc\n",
    ],
)
async def test_scram_refuses_what_rfc_5802_does_not_allow(users, first):
    assert MALFORMED == await refusal("SCRAM-SHA-256", users, initial=first)


@pytest.mark.parametrize(
    "first", [b"n,a=tim,n=user,r=abc", b"n,,n=a\tb,r=abc", b"n,,n=\xc2\xad,r=abc"]
)
async def test_scram_fails_for_another_authorization_identity_and_for_nobodys_name(users, first):
    assert FAILED == await refusal("SCRAM-SHA-256", users, initial=first)


@pytest.mark.parametrize("mechanism", SCRAM)
@pytest.mark.parametrize(
    "tamper",
    [
        {"r": b"abc"},
        {"c": b64(b"y,,")},
        {"c": b64(b"n,a=user,")},
        {"p": b64(b"\0" * 20)},
        {"p": b64(b"\0" * 32)},
        {"p": b64(b"x")},
        {"p": b64(b"\0" * 500)},
    ],
)
async def test_scram_fails_when_any_part_is_tampered_with(users, mechanism, tamper):
    client = ScramClient(mechanism, tamper=lambda parts: parts | tamper)

    assert FAILED == await client.refusal(mechanism, users)


async def test_scram_takes_no_proof_with_octets_behind_it(users):
    client = ScramClient("SCRAM-SHA-256")

    def final(server_first):
        without, _, proof = base64.b64decode(client.final(server_first)).rpartition(b",p=")
        return b64(without + b",p=" + b64(base64.b64decode(proof) + b"x"))

    answer = await refusal("SCRAM-SHA-256", users, final, initial=client.first)

    assert FAILED == answer


@pytest.mark.parametrize(
    "final",
    [b"", b"c=biws", b"c=biws,r=abc", b"r=abc,c=biws,p=AAAA", b"c=biws,r=abc,p=", b"\xff", b"p=AA"],
)
async def test_scram_refuses_a_final_message_that_is_none(users, final):
    assert MALFORMED == await refusal(
        "SCRAM-SHA-256", users, b64(final), initial=b"n,,n=user,r=abc"
    )


async def test_scram_refuses_a_mandatory_extension_before_the_proof(users):
    """RFC 5802 s5.1: `m=` must fail."""
    client = ScramClient("SCRAM-SHA-256", tamper=lambda parts: parts | {"extra": b",m=1"})

    assert MALFORMED == await client.refusal("SCRAM-SHA-256", users)


async def test_scram_wants_nothing_but_an_empty_line_after_its_signature(users):
    client = ScramClient("SCRAM-SHA-256")

    assert MALFORMED == await refusal(
        "SCRAM-SHA-256", users, client.final, b64(b"x"), initial=client.first
    )
    assert CANCELLED == await refusal(
        "SCRAM-SHA-256", users, client.final, b"*", initial=client.first
    )


async def test_scram_fails_for_a_wrong_password(users):
    client = ScramClient("SCRAM-SHA-256", password="crayon")

    assert FAILED == await client.refusal("SCRAM-SHA-256", users)


def salt_and_rounds(server_first):
    return server_first.split(b",")[1:]


@pytest.mark.parametrize("name", [b"nobody", b"tim"])
async def test_scram_looks_the_same_for_who_is_unknown_or_has_no_keys(users, name):
    """The salt is as long as a real one and stays; the proof is what fails."""
    seen = []
    for _ in range(2):
        client = ScramClient("SCRAM-SHA-256", first=b"n,,n=" + name + b",r=abc")
        assert FAILED == await client.refusal("SCRAM-SHA-256", users)
        seen.append(salt_and_rounds(client.server_first))
    real = ScramClient("SCRAM-SHA-256")
    await real.log_in("SCRAM-SHA-256", users)

    assert seen[0] == seen[1]
    assert len(real.server_first) == len(client.server_first)
    assert salt_and_rounds(real.server_first)[1] == seen[0][1]


async def test_a_made_up_salt_depends_on_name_mechanism_and_the_servers_key(users):
    salts = set()
    for mechanism, name, key in [
        ("SCRAM-SHA-256", b"nobody", b"key"),
        ("SCRAM-SHA-256", b"noone", b"key"),
        ("SCRAM-SHA-1", b"nobody", b"key"),
        ("SCRAM-SHA-256", b"nobody", b"other key"),
    ]:
        client = ScramClient(mechanism, first=b"n,,n=" + name + b",r=abc")
        await client.refusal(mechanism, users, salt_key=key)
        salts.add(salt_and_rounds(client.server_first)[0])

    assert 4 == len(salts)


async def test_damaged_keys_show_only_at_the_end_and_are_told_to_the_operator(users):
    client = ScramClient("SCRAM-SHA-256", first=b"n,,n=damaged,r=abc")

    with pytest.raises(UnknownHash):
        await log_in("SCRAM-SHA-256", users, client.final, initial=client.first)
    assert client.server_first


async def test_the_servers_nonce_is_new_each_time_and_long_enough(users):
    """At least 18 random characters."""
    nonces = set()
    for _ in range(10):
        client = ScramClient("SCRAM-SHA-1")
        await client.log_in("SCRAM-SHA-1", users)
        nonces.add(client.server_first.split(b",")[0])

    assert 10 == len(nonces)
    assert all(len(nonce) >= len("r=abc") + 18 for nonce in nonces)


async def test_keys_from_elsewhere_keep_their_salt_and_rounds(users):
    keys = scram_keys("pencil", "SCRAM-SHA-256", 5000, b"8 octets")
    users.users["moved"] = PopUser("moved", scram={"SCRAM-SHA-256": keys})
    client = ScramClient("SCRAM-SHA-256", first=b"n,,n=moved,r=abc")

    assert "moved" == await client.log_in("SCRAM-SHA-256", users)
    assert [b"s=" + b64(b"8 octets"), b"i=5000"] == salt_and_rounds(client.server_first)
    assert 5000 == ScramKeys.parse(keys, "SCRAM-SHA-256").iterations


# Bearer tokens

OAUTHBEARER = (
    "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9cG9wLmV4YW1wbGUuY29tAXBvcnQ9OTk1AWF1dGg9QmVhcmVyIHRvazEy"
    "MwEB"
)
XOAUTH2 = "dXNlcj11c2VyQGV4YW1wbGUuY29tAWF1dGg9QmVhcmVyIHRvazEyMwEB"


@pytest.mark.parametrize(
    ("mechanism", "line"), [("OAUTHBEARER", OAUTHBEARER), ("XOAUTH2", XOAUTH2)]
)
async def test_bearer_mechanisms_take_the_vectors_in_one_step_and_in_two(users, mechanism, line):
    """RFC 7628 s4.1; long tokens come in two steps."""
    one = await log_in(mechanism, users, initial=decode_initial(line))
    two = await log_in(mechanism, users, line.encode())

    assert [("user@example.com", []), ("user@example.com", [b""])] == [one, two]
    assert [("user@example.com", "tok123")] * 2 == users.asked


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
async def test_a_token_of_16_kib_is_handed_on_whole(users, mechanism):
    token = "t" * 16384
    users.tokens["user@example.com", token] = users.users["user@example.com"]
    head = {"OAUTHBEARER": "n,a=user@example.com,\x01", "XOAUTH2": "user=user@example.com\x01"}
    message = f"{head[mechanism]}auth=Bearer {token}\x01\x01".encode()

    assert "user@example.com" == (await log_in(mechanism, users, b64(message)))[0]


@pytest.mark.parametrize(
    "message",
    [
        b"n,,\x01auth=Bearer tok123\x01\x01",
        b"y,,\x01auth=bEARER tok123\x01\x01",
        b"n,,\x01host=h\x01auth=bearer  tok123\x01mtu=9 9\x01\x01",
    ],
)
async def test_oauthbearer_without_authzid_lets_the_token_say_who_it_is(users, message):
    """RFC 7628 s3.1: unknown keys are passed over, the scheme has no case."""
    assert "user@example.com" == (await log_in("OAUTHBEARER", users, initial=message))[0]
    assert [("", "tok123")] == users.asked


@pytest.mark.parametrize("answer", [b"AQ==", b"*", b"", b"!", b64(b"anything")])
async def test_a_refused_token_is_explained_in_json_and_the_answer_says_nothing(users, answer):
    """RFC 7628 s3.2.2, s3.2.3."""
    client = Client(answer)
    exchange = exchange_of(
        "OAUTHBEARER", client, users, initial=b"n,a=user@example.com,\x01auth=Bearer no\x01\x01"
    )
    with pytest.raises(AuthenticationFailed) as caught:
        await MECHANISMS["OAUTHBEARER"].run(exchange)

    assert [b"eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0="] == client.challenges
    assert ("AUTH", "token-invalid") == (caught.value.code, caught.value.text_id)


@pytest.mark.parametrize("answer", [b"", b"AQ==", b"*"])
async def test_xoauth2_refuses_a_token_in_the_same_way(users, answer):
    client = Client(answer)
    exchange = exchange_of(
        "XOAUTH2",
        client,
        users,
        initial=b"user=user@example.com\x01auth=Bearer no\x01\x01",
        discovery={"scope": "mail"},
    )
    with pytest.raises(AuthenticationFailed):
        await MECHANISMS["XOAUTH2"].run(exchange)

    refused = json.loads(base64.b64decode(client.challenges[0]))
    assert {"status": "400", "schemes": "Bearer", "scope": "mail"} == refused


@pytest.mark.parametrize(
    "auth", [b"", b"Bearer", b"Bearer ", b"Basic dGVzdA==", b"Bearer t\xc3\xa9"]
)
async def test_what_is_no_bearer_token_is_refused_as_one_and_shown_to_nobody(users, auth):
    """RFC 7628 s3.2.2: an empty `auth` asks for the JSON."""
    message = b"n,,\x01auth=" + auth + b"\x01\x01"

    assert TOKEN_REFUSED == await refusal("OAUTHBEARER", users, b"AQ==", initial=message)
    assert [] == users.asked


@pytest.mark.parametrize(
    ("mechanism", "message"),
    [
        ("OAUTHBEARER", b""),
        ("OAUTHBEARER", b"\x01"),
        ("OAUTHBEARER", b"n,,\x01\x01"),
        ("OAUTHBEARER", b"n,,\x01host=h\x01\x01"),
        ("OAUTHBEARER", b"n,,\x01auth=Bearer tok123\x01"),
        ("OAUTHBEARER", b"n,,auth=Bearer tok123\x01\x01"),
        ("OAUTHBEARER", b"p=tls-unique,,\x01auth=Bearer tok123\x01\x01"),
        ("OAUTHBEARER", b"n,,\x01au-th=x\x01auth=Bearer tok123\x01\x01"),
        ("OAUTHBEARER", b"n,a=x=y,\x01auth=Bearer tok123\x01\x01"),
        ("OAUTHBEARER", b"n,,\x01auth=\xff\x01\x01"),
        ("XOAUTH2", b""),
        ("XOAUTH2", b"user=u\x01\x01"),
        ("XOAUTH2", b"auth=Bearer tok123\x01user=u\x01\x01"),
        ("XOAUTH2", b"user=u\x01auth=Bearer tok123\x01"),
    ],
)
async def test_bearer_mechanisms_refuse_messages_that_are_none(users, mechanism, message):
    assert MALFORMED == await refusal(mechanism, users, initial=message)


@pytest.mark.parametrize("head", ["n,a=cafe\u0301,", "user=cafe\u0301"])
async def test_the_name_beside_a_token_is_prepared_and_kept_for_the_log(users, head):
    mechanism = "XOAUTH2" if head.startswith("user") else "OAUTHBEARER"
    client = Client(b"AQ==")
    message = f"{head}\x01auth=Bearer t\x01\x01".encode()
    exchange = exchange_of(mechanism, client, users, initial=message)
    with pytest.raises(AuthenticationFailed):
        await MECHANISMS[mechanism].run(exchange)

    assert "caf\u00e9" == exchange.name
    assert [("caf\u00e9", "t")] == users.asked


async def test_oauthbearer_unquotes_the_authorization_identity(users):
    message = b"n,a=a=2Cb=3Dc,\x01auth=Bearer t\x01\x01"
    await refusal("OAUTHBEARER", users, b"AQ==", initial=message)

    assert [("a,b=c", "t")] == users.asked


# EXTERNAL


def certificate(*addresses, common_name="test"):
    """What `ssl.SSLSocket.getpeercert` returns, in its parts that matter."""
    return {
        "subject": ((("countryName", "NL"),), (("commonName", common_name),)),
        "subjectAltName": (("DNS", "tim"), *(("email", address) for address in addresses)),
    }


def tls(peer_certificate):
    return SimpleNamespace(peer_certificate=peer_certificate)


@pytest.mark.parametrize(
    ("shown", "authzid", "name"),
    [
        (certificate("user@example.com", "tim"), b"", "user@example.com"),
        (certificate("user@example.com", "tim"), b"tim", "tim"),
        (certificate(), b"", "test"),
        (certificate(), b"test", "test"),
        (certificate("cafe\u0301"), b"", "caf\u00e9"),
    ],
)
async def test_external_goes_by_mail_addresses_and_else_by_common_name(users, shown, authzid, name):
    """RFC 4422 appendix A."""
    assert (name, []) == await log_in("EXTERNAL", users, initial=authzid, tls=tls(shown))


@pytest.mark.parametrize(
    ("shown", "authzid"),
    [
        (tls(certificate("user@example.com")), b"tim"),
        (tls(certificate("user@example.com")), b"test"),
        (tls(certificate("nobody")), b""),
        (tls(certificate(common_name="")), b""),
        (tls({}), b"tim"),
        (tls(None), b""),
        (None, b"tim"),
    ],
)
async def test_external_fails_for_any_other_name_and_without_a_certificate(users, shown, authzid):
    assert FAILED == await refusal("EXTERNAL", users, initial=authzid, tls=shown)


def test_a_name_that_can_not_be_prepared_is_no_name_of_a_certificate():
    assert ["tim"] == certificate_names(certificate("a\0b", "\u00ad", "tim"))


# Hostile clients


@pytest.mark.parametrize("mechanism", MECHANISMS)
@given(
    lines=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.binary(max_size=60).map(base64.b64encode),
            st.text("n,=ar\0\x01auth=Bearer tc\u00e9\u00ad ", max_size=60).map(
                lambda text: base64.b64encode(text.encode())
            ),
        ),
        min_size=4,
        max_size=4,
    )
)
def test_no_response_raises_what_a_client_can_not_be_told(mechanism, lines):
    """Random octets, random base64 and almost-messages end in a PopError."""
    users = Users(PopUser("a", "not a hash that is ever compared", "t"))
    users.compare_password = lambda *_: asyncio.sleep(0, result=False)
    client = Client(*lines)
    exchange = exchange_of(mechanism, client, users, tls=tls(certificate()))

    with contextlib.suppress(PopError):
        asyncio.run(MECHANISMS[mechanism].run(exchange))
