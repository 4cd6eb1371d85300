"""RFC 5034: AUTH in a session. What the mechanisms do with octets is in test_sasl.py."""

import asyncio
import base64
import hashlib
import hmac
import re

import pytest

from pop3hub.peer import Peer, Tls
from tests.support.serving import new_user

WELCOME = b"+OK pass accepted, welcome 'luke'.\r\n"
WRONG = b"-ERR [AUTH] wrong user name or password\r\n"
NOT_BASE64 = b"-ERR that is not valid base64\r\n"
MISFIT = b"-ERR that response does not fit the mechanism\r\n"
CANCELLED = b"-ERR authentication cancelled\r\n"
EMPTY = b"+ \r\n"


def coded(octets):
    return base64.b64encode(octets)


GOOD = coded(b"\0luke\0hello")


async def test_auth_alone_lists_the_mechanisms(dialogue):
    """No RFC has it; Outlook asks so, and goes away where the connection is closed on it."""
    expected = b"+OK mechanisms follow\r\nPLAIN\r\nLOGIN\r\nSCRAM-SHA-256\r\nSCRAM-SHA-1\r\n"
    assert expected + b"OAUTHBEARER\r\nXOAUTH2\r\n.\r\n" == await dialogue.say("AUTH")


async def test_auth_alone_lists_only_what_can_be_used_now(open_dialogue):
    dialogue = await open_dialogue(peer=Peer("192.0.2.7", 4000))

    expected = b"+OK mechanisms follow\r\nSCRAM-SHA-256\r\nSCRAM-SHA-1\r\n.\r\n"
    assert expected == await dialogue.say("AUTH")


@pytest.mark.parametrize("name", ["PLAIN", "plain", "Plain"])
async def test_an_initial_response_logs_in_at_once(dialogue, name):
    """s4; names in any case."""
    assert WELCOME == await dialogue.say(b"AUTH %b %b" % (name.encode(), GOOD))
    assert b"+OK 0 0\r\n" == await dialogue.say("STAT")


async def test_the_example_of_the_rfc_logs_in(dialogue, store):
    """s6: test with the password test, for himself."""
    store.users["test"] = new_user("test", "test")
    store.mail["test"] = {}

    reply = await dialogue.say("AUTH PLAIN dGVzdAB0ZXN0AHRlc3Q=")

    assert b"+OK pass accepted, welcome 'test'.\r\n" == reply


async def test_an_empty_challenge_has_its_space(dialogue):
    """s4: `+ ` and CRLF; clients wait for the space."""
    assert EMPTY == await dialogue.say("AUTH PLAIN")
    assert WELCOME == await dialogue.say(GOOD)


async def test_a_challenge_is_plus_space_base64_and_nothing_more(dialogue):
    """The words that widely used clients look for."""
    assert b"+ VXNlcm5hbWU6\r\n" == await dialogue.say("AUTH LOGIN")
    assert b"+ UGFzc3dvcmQ6\r\n" == await dialogue.say(coded(b"luke"))
    assert WELCOME == await dialogue.say(coded(b"hello"))


async def test_login_takes_the_name_as_initial_response(dialogue):
    assert b"+ UGFzc3dvcmQ6\r\n" == await dialogue.say(b"AUTH LOGIN " + coded(b"luke"))
    assert WELCOME == await dialogue.say(coded(b"hello"))


async def test_an_equals_sign_is_an_empty_initial_response(dialogue):
    """s4: no challenge for it; PLAIN can't be empty."""
    assert MISFIT == await dialogue.say("AUTH PLAIN =")


async def test_an_empty_line_is_an_empty_response(dialogue):
    await dialogue.say("AUTH PLAIN")

    assert MISFIT == await dialogue.say(b"")


async def test_a_server_first_mechanism_refuses_an_initial_response(open_dialogue):
    """s4: MUST."""
    dialogue = await open_dialogue(cram_md5=True)

    expected = b"-ERR this mechanism takes no initial response\r\n"
    assert expected == await dialogue.say(b"AUTH CRAM-MD5 " + coded(b"luke x"))


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256", "XOAUTH2"])
async def test_a_star_cancels_and_the_session_is_as_before(dialogue, mechanism):
    """s4; curl goes on with the next mechanism on the same connection."""
    assert b"+ " == (await dialogue.say(f"AUTH {mechanism}"))[:2]

    assert CANCELLED == await dialogue.say("*")
    assert b"-ERR log in first\r\n" == await dialogue.say("STAT")
    assert WELCOME == await dialogue.say(b"AUTH PLAIN " + GOOD)


@pytest.mark.parametrize(
    "response",
    [
        *(b"!", b"A", b"AA", b"AAA", b"AAAAA", b"=AAA", b"AAA=BBB", b"AA==BBBB", b"A===", b"AAAA="),
        *(b"AAAA====", b"AA AA", b"AAA\0", b"AAA\xff", b"=", b"**", b"A-_A", b"=="),
    ],
)
async def test_a_response_that_is_not_exactly_base64_is_refused(dialogue, response):
    """s4: MUST, and the session is as before."""
    await dialogue.say("AUTH PLAIN")

    assert NOT_BASE64 == await dialogue.say(response)
    assert WELCOME == await dialogue.say(b"AUTH PLAIN " + GOOD)


@pytest.mark.parametrize("response", ["!", "A", "AAA", "AAA=BBB", "=AAA", "A===", "=="])
async def test_an_initial_response_that_is_not_exactly_base64_is_refused(dialogue, response):
    assert NOT_BASE64 == await dialogue.say(f"AUTH PLAIN {response}")


async def test_spaces_behind_a_response_are_passed_over(dialogue):
    await dialogue.say("AUTH PLAIN")

    assert WELCOME == await dialogue.say(GOOD + b" ")


@pytest.mark.parametrize(
    "line", ["AUTH NTLM", "AUTH SCRAM-SHA-256-PLUS", "AUTH EXTERNAL =", "AUTH -"]
)
async def test_a_mechanism_that_is_not_there_is_refused_without_a_code(dialogue, line):
    """EXTERNAL is there for who shows a certificate (RFC 4422 A)."""
    assert b"-ERR this mechanism is not available\r\n" == await dialogue.say(line)


async def test_a_second_auth_after_success_is_refused(dialogue):
    """s4: MUST."""
    await dialogue.say(b"AUTH PLAIN " + GOOD)

    assert b"-ERR not after the login\r\n" == await dialogue.say(b"AUTH PLAIN " + GOOD)
    assert b"-ERR not after the login\r\n" == await dialogue.say("AUTH PLAIN")


async def test_after_a_failure_the_client_may_try_anything_again(dialogue):
    """s4: as if AUTH had not been issued."""
    assert WRONG == await dialogue.say(b"AUTH PLAIN " + coded(b"\0luke\0wrong"))
    assert WRONG == await dialogue.say(b"AUTH PLAIN " + coded(b"\0nobody\0wrong"))

    assert WELCOME == await dialogue.login("luke", "hello")


async def test_the_delay_of_a_failure_counts_from_the_last_response(open_dialogue):
    """A client that is slow to answer a challenge has waited for nothing yet."""
    dialogue = await open_dialogue(failure_delay=0.1)
    loop = asyncio.get_running_loop()
    assert EMPTY == await dialogue.say("AUTH PLAIN")
    await asyncio.sleep(0.1)
    began = loop.time()

    assert WRONG == await dialogue.say(coded(b"\0luke\0wrong"))
    assert 0.1 <= loop.time() - began


async def test_auth_forgets_the_name_of_user(dialogue):
    await dialogue.say("USER luke")
    await dialogue.say("AUTH PLAIN")
    await dialogue.say("*")

    assert b"-ERR PASS must follow USER\r\n" == await dialogue.say("PASS hello")


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        (b"luke\0luke\0hello", WELCOME),
        (b"leia\0luke\0hello", WRONG),
        (b"\0\0hello", WRONG),
        (b"\0luke\0", WRONG),
        (b"\0luke", MISFIT),
        (b"\0luke\0hello\0", MISFIT),
        (b"\0luke\0\xff", MISFIT),
    ],
)
async def test_plain_has_exactly_two_nuls_and_one_user(dialogue, message, reply):
    """RFC 4616 s2; an authorization identity may be the user's own alone."""
    assert reply == await dialogue.say(b"AUTH PLAIN " + coded(message))


async def test_a_maildrop_in_use_is_told_to_auth_too(open_dialogue, serve):
    server = await serve(listen=())
    first, second = await open_dialogue(server), await open_dialogue(server)
    await first.login("luke", "hello")

    expected = b"-ERR [IN-USE] this maildrop is in use by another session\r\n"
    assert expected == await second.say(b"AUTH PLAIN " + GOOD)


@pytest.mark.parametrize("steps", [1, 2])
async def test_a_line_of_auth_may_be_longer_than_255_octets(dialogue, store, steps):
    """conformance.md 8: bearer tokens of 8 KiB come on one line, or behind a challenge."""
    token = "t" * 8192
    store.tokens[token] = "luke"
    response = coded(f"user=luke\x01auth=Bearer {token}\x01\x01".encode())

    if steps == 1:
        reply = await dialogue.say(b"AUTH XOAUTH2 " + response)
    else:
        assert EMPTY == await dialogue.say("AUTH XOAUTH2")
        reply = await dialogue.say(response)

    assert WELCOME == reply


@pytest.mark.parametrize("split", [False, True])
async def test_a_token_of_16_kib_comes_through_a_socket(serve, connect, store, split):
    """A response in several segments, or in one with what follows it."""
    token = "t" * 16_384
    store.tokens[token] = "luke"
    response = coded(f"user=luke\x01auth=Bearer {token}\x01\x01".encode())
    client = await connect(await serve())

    if split:
        assert EMPTY == await client.say(b"AUTH XOAUTH2")
        for start in range(0, len(response), 5000):
            client.send(response[start : start + 5000])
            await client.writer.drain()
            await asyncio.sleep(0)
        client.send(b"\r\nSTAT\r\n")
    else:
        client.send(b"AUTH XOAUTH2\r\n" + response + b"\r\nSTAT\r\n")
        assert EMPTY == await client.line()

    assert [WELCOME, b"+OK 0 0\r\n"] == await client.lines(2)


async def test_an_exchange_of_several_steps_may_come_in_one_segment(serve, connect):
    """Nobody should, but a server must not hang on it."""
    client = await connect(await serve())

    client.send(b"AUTH LOGIN\r\n" + coded(b"luke") + b"\r\n" + coded(b"hello") + b"\r\nSTAT\r\n")

    expected = [b"+ VXNlcm5hbWU6\r\n", b"+ UGFzc3dvcmQ6\r\n", WELCOME, b"+OK 0 0\r\n"]
    assert expected == await client.lines(4)


@pytest.mark.parametrize(
    ("mechanism", "message", "json", "answer"),
    [
        (
            *("OAUTHBEARER", b"n,a=luke,\x01auth=Bearer bad\x01\x01"),
            *(b'{"status":"invalid_token"}', b"AQ=="),
        ),
        (
            *("XOAUTH2", b"user=luke\x01auth=Bearer bad\x01\x01"),
            *(b'{"status":"400","schemes":"Bearer"}', b""),
        ),
    ],
)
async def test_a_refused_token_is_explained_and_then_refused(
    dialogue, mechanism, message, json, answer
):
    """RFC 7628 s3.2.3: the client's dummy response comes before the -ERR."""
    challenge = await dialogue.say(f"AUTH {mechanism} ".encode() + coded(message))

    assert b"+ " + coded(json) + b"\r\n" == challenge
    assert b"-ERR [AUTH] the token was not accepted\r\n" == await dialogue.say(answer)


async def test_cram_md5_proves_the_secret(open_dialogue):
    """RFC 2195."""
    dialogue = await open_dialogue(cram_md5=True)
    challenge = base64.b64decode((await dialogue.say("AUTH CRAM-MD5"))[2:])
    digest = hmac.new(b"tanstaaf", challenge, "md5").hexdigest().encode()

    assert re.fullmatch(rb"<[0-9a-f.]+@pop3hub>", challenge)
    assert WELCOME == await dialogue.say(coded(b"luke " + digest))


class Scram:
    """The client's side of RFC 5802, for the user `user` with the password `pencil`."""

    def __init__(self, algorithm):
        self.algorithm = algorithm
        self.bare = b"n=user,r=fyko+d2lbbFgONRv9qkxdawL"

    def final(self, server_first):
        nonce, salt, rounds = (part[2:] for part in server_first.split(b","))
        salted = hashlib.pbkdf2_hmac(self.algorithm, b"pencil", base64.b64decode(salt), int(rounds))
        bare = b"c=biws,r=" + nonce
        message = b",".join((self.bare, server_first, bare))
        client_key = hmac.digest(salted, b"Client Key", self.algorithm)
        stored = hashlib.new(self.algorithm, client_key).digest()
        signature = hmac.digest(stored, message, self.algorithm)
        server_key = hmac.digest(salted, b"Server Key", self.algorithm)
        self.signature = coded(hmac.digest(server_key, message, self.algorithm))
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return bare + b",p=" + coded(proof)


@pytest.mark.parametrize("name", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
async def test_scram_ends_with_the_servers_signature_and_an_empty_line(dialogue, name):
    """s4: +OK carries no data, so the signature is one more challenge (RFC 5802, RFC 7677)."""
    scram = Scram(name.removeprefix("SCRAM-").replace("-", "").lower())
    first = await dialogue.say(f"AUTH {name} ".encode() + coded(b"n,," + scram.bare))
    final = scram.final(base64.b64decode(first[2:]))

    challenge = await dialogue.say(coded(final))

    assert b"+ " + coded(b"v=" + scram.signature) + b"\r\n" == challenge
    assert b"+OK pass accepted, welcome 'user'.\r\n" == await dialogue.say(b"")


async def test_scram_with_a_busy_maildrop_is_told_so_behind_the_empty_line(open_dialogue, serve):
    server = await serve(listen=())
    busy, dialogue = await open_dialogue(server), await open_dialogue(server)
    await busy.login("user", "pencil")
    scram = Scram("sha256")
    first = await dialogue.say(b"AUTH SCRAM-SHA-256 " + coded(b"n,," + scram.bare))
    await dialogue.say(coded(scram.final(base64.b64decode(first[2:]))))

    expected = b"-ERR [IN-USE] this maildrop is in use by another session\r\n"
    assert expected == await dialogue.say(b"")


async def test_external_logs_in_who_shows_a_certificate(open_dialogue):
    """RFC 4422 appendix A; announced only then."""
    certificate = {"subject": ((("commonName", "luke"),),)}
    tls = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", certificate)
    dialogue = await open_dialogue(tls=tls)

    assert b"EXTERNAL" in await dialogue.say("CAPA")
    assert WELCOME == await dialogue.say("AUTH EXTERNAL =")


async def test_nothing_of_an_exchange_is_logged(open_dialogue, capsys):
    """conformance.md 8: neither the line of AUTH, nor responses, nor PASS."""
    dialogue = await open_dialogue()
    await dialogue.say(b"AUTH PLAIN " + coded(b"\0luke\0wrong-secret"))
    await dialogue.login("luke", "another-secret")
    await dialogue.say("AUTH PLAIN")
    await dialogue.say(GOOD)
    await dialogue.hang_up()

    logged = capsys.readouterr().out
    assert "login.failed" in logged
    assert not re.search("secret|hello|" + GOOD.decode(), logged)
