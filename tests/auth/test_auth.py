"""Names, passwords, shared secrets and keys: what `pop3hub.auth` compares, and how."""

import asyncio
import base64
import hashlib
import re
import threading

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3hub.auth.passwords import Hasher, PasswordCache
from pop3hub.auth.scram import ScramKeys, scram_keys
from pop3hub.auth.users import (
    PopUser,
    UnknownHash,
    apop_digest,
    check_apop,
    new_stamp,
    prepare,
    prepare_name,
    shared_secret,
)
from pop3hub.errors import AuthenticationFailed, TemporaryFailure

COST = 4  # the least that bcrypt has: these tests are about more than its price


@pytest.fixture
async def hasher():
    hasher = Hasher(threads=2, cost=COST)
    yield hasher
    hasher.close()


def hashed(password: bytes, prefix: bytes = b"2b") -> str:
    return bcrypt.hashpw(password, bcrypt.gensalt(COST, prefix)).decode()


# SASLprep


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
    ],
)
def test_prepare_gives_the_examples_of_rfc_4013(text, prepared):
    """RFC 4013 s3."""
    assert prepared == prepare(text)


@pytest.mark.parametrize("text", ["\u0007", "\u0627\u0031"])
def test_prepare_refuses_the_bad_examples_of_rfc_4013(text):
    """RFC 4013 s3: a prohibited character, and a bidirectional check that fails."""
    with pytest.raises(ValueError, match=r"RFC (4013|3454)"):
        prepare(text)


@pytest.mark.parametrize(
    "text",
    [
        "a\tb",
        "a\x7fb",
        "\u0085",
        "\ue000",
        "\ufdd0",
        "\ud800",
        "\ufff9",
        "\u2ff0",
        "\u0340\u200e",
        "\U000e0001",
    ],
)
def test_prepare_refuses_every_table_of_prohibited_characters_without_showing_them(text):
    """RFC 4013 s2.3."""
    with pytest.raises(ValueError, match="SASLprep prohibits") as caught:
        prepare(text)

    assert text not in str(caught.value)


def test_a_stored_string_may_hold_only_what_unicode_3_2_knows():
    """RFC 4013 s2.5: a query string may hold more."""
    assert "\U0001f511" == prepare("\U0001f511")
    with pytest.raises(ValueError, match=r"Unicode 3\.2"):
        prepare("\U0001f511", stored=True)


def test_other_spaces_become_spaces_and_both_normal_forms_the_same():
    """RFC 4013 s2.1, s2.2."""
    assert "a b" == prepare("a\u00a0b")
    assert prepare("caf\u00e9") == prepare("cafe\u0301")


@given(st.text(max_size=40))
def test_preparing_twice_changes_nothing(text):
    try:
        once = prepare(text)
    except ValueError:
        return
    assert once == prepare(once)


@pytest.mark.parametrize("text", ["a" * 1025, "\u00e9" * 1025])
def test_no_text_is_prepared_that_is_longer_than_any_name(text):
    with pytest.raises(ValueError, match="1024"):
        prepare(text)


@pytest.mark.parametrize("name", ["", "\u00ad", "a\tb", "a" * 1025])
def test_a_name_that_can_be_nobodys_fails_as_any_login(name):
    """RFC 5034 s4: a preparation that fails or leaves nothing fails the authentication."""
    with pytest.raises(AuthenticationFailed):
        prepare_name(name)


# Shared secrets


def test_apop_gives_the_digest_of_rfc_1939():
    """RFC 1939 s7."""
    digest = apop_digest("<1896.697170952@dbc.mtview.ca.us>", "tanstaaf")

    assert "c4c9334bac560ecc979e58001b3e22fb" == digest


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("mail.example.com", "mail.example.com"),
        ("Luke-POP3", "Luke-POP3"),
        ("Example Mail (new)", "Example.Mail.new"),
        ("==", "pop3hub"),
    ],
)
def test_whatever_the_name_a_stamp_ends_in_plain_atoms(name, host):
    assert new_stamp(name).endswith(f"@{host}>")


def test_a_stamp_is_made_of_plain_atoms_and_never_the_same():
    """RFC 1939 s7; mpop passes over anything else between < and @."""
    stamps = {new_stamp("pop.example.org") for _ in range(1000)}

    assert 1000 == len(stamps)
    assert all(re.fullmatch(r"<[0-9a-f]{16}\.[0-9a-f]+@pop\.example\.org>", s) for s in stamps)


@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_a_right_digest_is_right_in_either_case(case):
    digest = apop_digest("<1.2@h>", "tanstaaf")

    assert check_apop("<1.2@h>", case(digest), PopUser("tim", secret="tanstaaf"))


@pytest.mark.parametrize("user", [None, PopUser("tim"), PopUser("tim", secret="")])
def test_no_digest_is_right_for_a_user_without_a_secret(user):
    digest = apop_digest("<1.2@h>", "")

    assert not check_apop("<1.2@h>", digest, user)


@pytest.mark.parametrize("digest", ["", "0" * 32, "\u00e9" * 32, "c4c9"])
def test_a_wrong_digest_is_wrong_whatever_it_is_made_of(digest):
    assert not check_apop("<1.2@h>", digest, PopUser("tim", secret="tanstaaf"))


def test_a_secret_is_compared_as_saslprep_makes_it():
    """RFC 6856 s2.2: with APOP the server must."""
    user = PopUser("tim", secret="cafe\u0301")

    assert check_apop("<1.2@h>", apop_digest("<1.2@h>", "caf\u00e9"), user)


def test_a_secret_that_can_not_be_prepared_fits_nobody():
    assert "" == shared_secret(PopUser("tim", secret="a\tb"))


# bcrypt


@pytest.mark.parametrize("prefix", [b"2a", b"2b"])
async def test_the_right_password_is_right_and_another_is_wrong(hasher, prefix):
    stored = hashed(b"hello", prefix)

    assert await hasher.check("hello", stored)
    assert not await hasher.check("Hello", stored)


async def test_a_hash_from_php_is_read(hasher):
    assert await hasher.check("hello", "$2y$" + hashed(b"hello")[4:])


async def test_spaces_of_a_password_count(hasher):
    """RFC 1939 s7: PASS may have spaces in its argument."""
    stored = hashed(b" a  b ")

    assert await hasher.check(" a  b ", stored)
    assert not await hasher.check("a  b", stored)


async def test_a_password_is_right_in_its_prepared_form_and_as_it_was_typed(hasher):
    """RFC 4616 s2 wants the prepared form; other programs hashed what they were given."""
    composed, decomposed = "caf\u00e9", "cafe\u0301"

    assert await hasher.check(decomposed, hashed(composed.encode()))
    assert await hasher.check(decomposed, hashed(decomposed.encode()))
    assert not await hasher.check(composed, hashed(decomposed.encode()))


@pytest.mark.parametrize("raw", ["", "\u00ad", "a\0b", "a\tb", "x" * 73, "\u00e9" * 37, "x" * 5000])
async def test_what_bcrypt_or_saslprep_can_not_take_is_a_failed_login(hasher, raw):
    assert await hasher.check(raw, hashed(b"x" * 72)) is False
    assert await hasher.check_dummy(raw) is False


async def test_a_password_of_which_nothing_is_left_is_never_right(hasher):
    """RFC 4616 s2: an empty prepared password fails."""
    assert not await hasher.check("\u00ad", hashed(b""))
    assert not await hasher.check("\u00ad", hashed("\u00ad".encode()))


async def test_72_octets_are_all_compared(hasher):
    stored = hashed(b"x" * 71 + b"y")

    assert await hasher.check("x" * 71 + "y", stored)
    assert not await hasher.check("x" * 72, stored)


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "hello",
        "{BLF-CRYPT}$2b$04$" + "." * 53,
        "$2b$04$short",
        "$2b$03$" + "." * 53,
        "$2b$32$" + "." * 53,
        "$2x$04$" + "." * 53,
        "$2b$04$" + "z" * 53,
        "$2b$04$" + "." * 53 + "\n",
        "$2b$04$" + "\u0660" * 53,
    ],
)
async def test_what_is_no_bcrypt_hash_is_told_apart_and_not_shown(hasher, stored):
    with pytest.raises(UnknownHash) as caught:
        await hasher.check("hello", stored)

    assert not stored or stored not in str(caught.value)


async def test_an_unknown_user_costs_what_the_last_known_one_did(hasher, monkeypatch):
    compared = []
    monkeypatch.setattr(bcrypt, "checkpw", lambda raw, stored: compared.append((raw, stored)))
    await hasher.check_dummy("caf\u0065\u0301")
    await hasher.check("hello", "$2b$07$" + "." * 53)
    await hasher.check_dummy("hello")

    costs = [stored[:7] for _, stored in compared]
    assert [b"$2b$04$", b"$2b$04$", b"$2b$07$", b"$2b$07$"] == costs
    assert "cafe\u0301".encode() == compared[1][0], "both forms, as for a user who exists"


async def test_the_hash_that_stands_for_nobody_is_one_that_bcrypt_compares():
    assert bcrypt.checkpw(b"x", b"$2b$04$" + b"." * 53) is False


async def test_a_new_hash_is_of_the_prepared_form_and_has_its_cost(hasher):
    stored = await hasher.hash("cafe\u0301", COST)

    assert stored.startswith("$2b$04$")
    assert bcrypt.checkpw("caf\u00e9".encode(), stored.encode())


@pytest.mark.parametrize(
    ("raw", "says"),
    [("", "empty"), ("\u00e9" * 37, "72 octets"), ("a\nb", "prohibits")],
)
async def test_no_hash_is_made_of_a_password_that_could_never_log_in(hasher, raw, says):
    with pytest.raises(ValueError, match=says):
        await hasher.hash(raw, COST)


async def test_hashing_does_not_run_on_the_event_loop(hasher):
    assert threading.get_ident() != await hasher.run(threading.get_ident)


async def test_what_a_called_function_raises_comes_back(hasher):
    with pytest.raises(ZeroDivisionError):
        await hasher.run(divmod, 1, 0)


async def test_a_function_that_leaves_by_stop_iteration_is_not_waited_for(hasher):
    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await hasher.run(next, iter(()))


async def test_a_flood_is_refused_when_the_waiting_room_is_full_and_served_again_after():
    hasher = Hasher(threads=1, waiting=2)
    gate = threading.Event()
    jobs = [asyncio.ensure_future(hasher.run(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)  # all three are handed over

    with pytest.raises(TemporaryFailure):
        await hasher.run(int)
    gate.set()
    await asyncio.gather(*jobs)

    assert 0 == await hasher.run(int)
    hasher.close()


async def test_a_session_that_gives_up_keeps_its_place_while_its_thread_works():
    hasher = Hasher(threads=1, waiting=0)
    started, gate = threading.Event(), threading.Event()
    job = asyncio.ensure_future(hasher.run(lambda: (started.set(), gate.wait())))
    await asyncio.to_thread(started.wait)
    job.cancel()
    await asyncio.wait([job])

    with pytest.raises(TemporaryFailure):
        await hasher.run(int)
    gate.set()
    hasher.close()


async def test_a_closed_hasher_is_a_temporary_failure():
    hasher = Hasher(threads=1)
    hasher.close()

    for _ in range(3):
        with pytest.raises(TemporaryFailure):
            await hasher.run(int)


# The password cache


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_password_is_known_until_its_time_is_over(clock):
    cache = PasswordCache(300, clock=clock)
    cache.remember("tim", "hash", "hello")
    clock.now += 299.9
    assert cache.knows("tim", "hash", "hello")
    clock.now += 0.1

    assert not cache.knows("tim", "hash", "hello")
    assert 0 == len(cache), "what is over is not kept either"


@pytest.mark.parametrize(
    "asked",
    [
        ("tom", "hash", "hello"),
        ("tim", "changed", "hello"),
        ("tim", "hash", "Hello"),
        ("timh", "ash", "hello"),
        ("tim", "hashh", "ello"),
        ("", "timhash", "hello"),
    ],
)
def test_another_name_hash_or_password_misses(clock, asked):
    cache = PasswordCache(300, clock=clock)
    cache.remember("tim", "hash", "hello")

    assert not cache.knows(*asked)


def test_a_hit_does_not_lengthen_the_time(clock):
    cache = PasswordCache(10, clock=clock)
    cache.remember("tim", "hash", "hello")
    clock.now += 9
    cache.knows("tim", "hash", "hello")
    clock.now += 1

    assert not cache.knows("tim", "hash", "hello")


def test_the_oldest_goes_when_the_cache_is_full(clock):
    cache = PasswordCache(300, limit=2, clock=clock)
    for name in ("a", "b", "a", "c"):
        cache.remember(name, "hash", "hello")

    assert [True, False, True] == [cache.knows(name, "hash", "hello") for name in "abc"]


def test_a_cache_of_no_seconds_remembers_nothing(clock):
    cache = PasswordCache(0, clock=clock)
    cache.remember("tim", "hash", "hello")

    assert 0 == len(cache)


def test_two_caches_share_no_key(clock):
    first, second = PasswordCache(300, clock=clock), PasswordCache(300, clock=clock)
    first.remember("tim", "hash", "hello")
    second.remember("tim", "hash", "hello")

    assert first._ends.keys() != second._ends.keys()


# SCRAM keys


@pytest.mark.parametrize(
    ("mechanism", "salt", "stored_key", "server_key"),
    [
        (
            "SCRAM-SHA-1",
            "QSXCR+Q6sek8bf92",
            "6dlGYMOdZcOPutkcNY8U2g7vK9Y=",
            "D+CSWLOshSulAsxiupA+qs2/fTE=",
        ),
        (
            "SCRAM-SHA-256",
            "W22ZaJ0SNY7soEsUEjb6gQ==",
            "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
            "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        ),
    ],
)
def test_keys_are_those_of_the_rfcs_examples(mechanism, salt, stored_key, server_key):
    """RFC 5802 s5, RFC 7677 s3."""
    text = scram_keys("pencil", mechanism, 4096, base64.b64decode(salt))

    assert f"4096:{salt}${stored_key}:{server_key}" == text
    assert text == str(ScramKeys.parse(text, mechanism))


def test_new_keys_have_salt_and_rounds_of_their_own():
    """RFC 7677 s4: 15,000 rounds or more."""
    first, second = (
        ScramKeys.parse(scram_keys("pencil", "SCRAM-SHA-256"), "SCRAM-SHA-256") for _ in range(2)
    )

    assert first.salt != second.salt
    assert first.iterations >= 15_000


def test_both_normal_forms_of_a_password_make_the_same_keys():
    composed, decomposed = (
        scram_keys(password, "SCRAM-SHA-256", 4096, b"salt")
        for password in ("caf\u00e9", "cafe\u0301")
    )

    assert composed == decomposed


@pytest.mark.parametrize("password", ["", "\u00ad", "a\tb", "\U0001f511"])
def test_no_keys_are_made_of_a_password_that_scram_can_not_store(password):
    """RFC 5802 s2.2: a stored string."""
    with pytest.raises(ValueError, match=r"empty|SASLprep|Unicode"):
        scram_keys(password, "SCRAM-SHA-256", 4096)


KEY = base64.b64encode(hashlib.sha256().digest()).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pencil",
        f"4095:c2FsdA==${KEY}:{KEY}",
        f"04096:c2FsdA==${KEY}:{KEY}",
        f"4096:c2FsdA=${KEY}:{KEY}",
        f"4096:c2FsdA==${KEY}",
        f"4096:c2FsdA==${KEY}:c2FsdA==",
        f"SCRAM-SHA-256$4096:c2FsdA==${KEY}:{KEY}",
        f"99999999999:c2FsdA==${KEY}:{KEY}",
    ],
)
def test_damaged_keys_are_told_apart_and_not_shown(text):
    with pytest.raises(UnknownHash) as caught:
        ScramKeys.parse(text, "SCRAM-SHA-256")

    assert not text or text not in str(caught.value)


def test_no_secret_shows_in_what_a_user_or_key_prints():
    user = PopUser("tim", "$2b$hash", "tanstaaf", scram={"SCRAM-SHA-1": "4096:c2Fs"})
    keys = ScramKeys(4096, b"salt", b"stored-key", b"server-key")

    assert "PopUser(name='tim', data=None)" == repr(user)
    assert "ScramKeys(iterations=4096, salt=b'salt')" == repr(keys)
