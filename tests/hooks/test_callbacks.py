"""Callbacks of any shape: plain or async, with as many arguments as they like."""

import threading

import pytest

from pop3hub import ConfigurationError, PopMessage, PopServer, PopUser
from pop3hub.testing.dialogue import Dialogue

MAIL = b"Subject: x\r\n\r\nHello\r\n"


def server(**callbacks):
    given = {
        "get_user": lambda name: PopUser(name, "hello") if name == "luke" else None,
        "compare_password": lambda raw, hash: raw == hash,
        "receive_messages": lambda session: [PopMessage("one", len(MAIL), MAIL)],
        "delete_messages": lambda session, messages: None,
    }
    return PopServer(listen=(), failure_delay=0, **(given | callbacks))


async def spoken(running, *lines):
    async with running, Dialogue(running) as dialogue:
        await dialogue.login("luke", "hello")
        return [await dialogue.say(line) for line in lines]


async def test_a_delete_messages_that_returns_nothing_has_deleted_all():
    removed = []
    running = server(delete_messages=lambda session, messages: removed.extend(messages))

    assert [b"+OK message 1 deleted.\r\n", b"+OK pop3hub signing off.\r\n"] == await spoken(
        running, "DELE 1", "QUIT"
    )
    assert ["one"] == [message.uid for message in removed]


async def test_a_delete_messages_that_counts_less_is_an_error():
    running = server(delete_messages=lambda session, messages: 0)

    assert (
        b"-ERR [SYS/TEMP] 1 message could not be removed, try again later\r\n"
        == (await spoken(running, "DELE 1", "QUIT"))[1]
    )


async def test_a_plain_comparison_runs_in_a_hash_thread():
    threads = []

    def compare(raw):
        threads.append(threading.current_thread())
        return True

    await spoken(server(compare_password=compare))

    assert threads
    assert threading.main_thread() not in threads


async def test_an_async_comparison_runs_on_the_loop():
    threads = []

    async def compare(raw, hash, user, session):
        threads.append(threading.current_thread())
        return user.name == "luke"

    await spoken(server(compare_password=compare))

    assert [threading.main_thread()] == threads


async def test_is_in_use_refuses_a_second_session():
    """The callback is asked while the lock is held, so two logins can't both hear no."""
    running = server(is_in_use=lambda session: True)
    async with running, Dialogue(running) as dialogue:
        reply = await dialogue.login("luke", "hello")

    assert b"-ERR [IN-USE] this maildrop is in use by another session\r\n" == reply


async def test_load_contents_may_be_a_callback():
    running = server(
        receive_messages=lambda *everything: [PopMessage("lazy", 3)],
        load_contents=lambda message: b"hi\n",
    )

    assert [b"+OK 3 octets\r\nhi\r\n.\r\n"] == await spoken(running, "RETR 1")


async def test_what_no_callback_answers_is_an_error_for_that_message_only():
    running = server(receive_messages=lambda: [PopMessage("lazy", 3)])

    replies = await spoken(running, "RETR 1", "NOOP")

    assert [
        b"-ERR [SYS/TEMP] temporary failure, try again later\r\n",
        b"+OK nothing done\r\n",
    ] == replies


def test_a_callback_must_be_callable():
    with pytest.raises(ConfigurationError, match="get_user must be a function"):
        server(get_user="luke")


def test_required_callbacks_are_required():
    with pytest.raises(ConfigurationError, match="receive_messages"):
        PopServer(get_user=lambda name: None, listen=())


def test_a_name_that_is_no_callback_and_no_setting_is_an_error():
    with pytest.raises(ConfigurationError, match="get_users"):
        server(get_users=lambda name: None)
