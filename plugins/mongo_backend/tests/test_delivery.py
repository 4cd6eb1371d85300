"""Delivery: durable, whole or not at all, in the form that goes out."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3hub import NoSuchUser, PopUser, TemporaryFailure, UniqueIdTaken, WireForm
from pop3hub.protocol import message as protocol
from pop3hub_mongo.message_bodies import CHUNK, INLINE

pytestmark = pytest.mark.mongo

LETTERS = st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\n.", b"\xc3"]))


@given(LETTERS)
def test_what_is_stored_is_what_is_sent_but_for_the_dots(pieces):
    form = WireForm()

    stored = b"".join(map(form.feed, pieces)) + form.end()

    whole = b"".join(pieces)
    sent = protocol.MessageEncoder()
    as_sent = sent.feed(whole) + sent.end()
    assert stored.replace(b"\n.", b"\n..") in {as_sent[:-3], as_sent[1:-3]}
    assert sent.octets == form.octets == len(stored)
    assert protocol.is_wire_ready(stored) == form.wire_ready
    assert whole.isascii() == form.ascii


async def in_pieces(contents, size=100_000):
    for start in range(0, len(contents), size):
        yield contents[start : start + size]


async def read(backend, message):
    contents = await backend.open_contents(message, PopUser("luke"))
    if isinstance(contents, bytes):
        return contents
    return b"".join([chunk async for chunk in contents])


async def listed(backend, name="luke"):
    return [m async for page in backend.list_messages(PopUser(name)) for m in page]


@pytest.mark.parametrize("size", [0, 1, INLINE - 2, INLINE - 1, 4 * CHUNK + 7])
async def test_a_message_is_kept_as_retr_sends_it(backend, size):
    contents = (b"0123456789\n" * (size // 11 + 1))[:size]
    await backend.store_message("luke", in_pieces(contents), None)

    (message,) = await listed(backend)

    wire = protocol.wire_form(contents)
    assert (len(wire), wire) == (message.size, await read(backend, message))


async def test_bodies_are_inline_up_to_256_kib_and_chunked_above(backend, database):
    for size in (INLINE, INLINE + 1):
        await backend.store_message("luke", b"x" * (size - 2), None)

    first, second = database.messages.find().sort("_id")
    assert INLINE == len(first["body"])
    chunks = list(database["bodies.chunks"].find({"files_id": second["_id"]}).sort("n"))
    assert ["body" in second, second["chunks"]] == [False, 2]
    assert [CHUNK, INLINE + 1 - CHUNK] == [len(chunk["data"]) for chunk in chunks]


@pytest.mark.parametrize(("contents", "ready"), [(b"a\n", True), (b"a\n.b", False), (b".", False)])
async def test_a_loaded_message_says_whether_it_can_be_sent_as_it_is(backend, contents, ready):
    await backend.store_message("luke", contents, None)
    (message,) = await listed(backend)

    await read(backend, message)

    assert ready == message.wire_ready


async def test_an_interrupted_delivery_leaves_nothing(backend, database):
    async def broken():
        yield b"x" * (8 * CHUNK)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await backend.store_message("luke", broken(), None)

    assert 0 == database["bodies.chunks"].count_documents({})
    assert 0 == database.messages.count_documents({})


async def test_a_cancelled_delivery_leaves_nothing(backend, database):
    written = asyncio.Event()

    async def slow():
        yield b"x" * (8 * CHUNK)
        written.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(backend.store_message("luke", slow(), None))
    await written.wait()
    task.cancel()
    await asyncio.wait([task])

    assert 0 == database["bodies.chunks"].count_documents({})


async def test_unique_ids_of_another_server_are_kept_and_never_doubled(backend):
    assert "dovecot-1" == await backend.store_message("luke", b"one", "dovecot-1")
    own = await backend.store_message("luke", b"two", None)

    for taken in ("dovecot-1", own):
        with pytest.raises(UniqueIdTaken):
            await backend.store_message("luke", b"again", taken)

    assert ["dovecot-1", own] == [message.uid for message in await listed(backend)]


async def test_two_imports_at_once_keep_a_unique_id_once(backend, start):
    other = await start()

    results = await asyncio.gather(
        *(node.store_message("luke", b"x", "same") for node in (backend, other) for _ in range(10)),
        return_exceptions=True,
    )

    assert 1 == results.count("same")
    assert all(isinstance(result, UniqueIdTaken) for result in results if result != "same")


async def test_nobodys_mail_is_refused(backend, database):
    with pytest.raises(NoSuchUser):
        await backend.store_message("nobody", b"x", None)

    assert 0 == database.messages.count_documents({})


async def test_messages_of_one_second_are_in_the_order_of_arrival_from_any_node(backend, start):
    other = await start()
    nodes = [backend, other] * 20

    uids = [await node.store_message("luke", b"x", None) for node in nodes]

    assert uids == [message.uid for message in await listed(backend)]


async def test_ids_rise_when_the_servers_clock_is_put_back(backend):
    ids = backend.store._ids
    before = ids.new(2_000_000_000_000)

    assert before < ids.new(1_000_000_000)


async def test_a_delivery_that_no_majority_confirms_fails(backend, fail_point):
    """64 is WriteConcernTimeout: the message may be there or not, and was not promised."""
    fail_point(
        failCommands=["insert"], writeConcernError={"code": 64, "errmsg": "waiting timed out"}
    )

    with pytest.raises(TemporaryFailure):
        await backend.store_message("luke", b"x", None)


async def test_a_delivery_whose_chunks_were_swept_is_not_acknowledged(backend, database):
    """It takes longer than what it has written is young for the sweeper."""

    async def slow():
        yield b"x" * (8 * CHUNK)
        await backend.sweep(0)
        yield b"x" * CHUNK

    with pytest.raises(TemporaryFailure):
        await backend.store_message("luke", slow(), None)

    assert [] == await listed(backend)
    assert 0 == database["bodies.chunks"].count_documents({})


async def test_a_delivery_that_lost_one_chunk_is_not_acknowledged(backend, database):
    async def slow():
        yield b"x" * (8 * CHUNK)
        database["bodies.chunks"].delete_one({"n": 3})
        yield b"x" * CHUNK

    with pytest.raises(TemporaryFailure):
        await backend.store_message("luke", slow(), None)

    assert [] == await listed(backend)


@pytest.fixture
def steps(backend, monkeypatch):
    """Let a sweep go on to its next look at the messages only when a test says so."""
    look, looks = backend.sweeper._messages_of, asyncio.Queue()

    async def when_told(*arguments):
        found = await look(*arguments)
        arrived, go_on = asyncio.Event(), asyncio.Event()
        looks.put_nowait((arrived, go_on))
        await go_on.wait()
        return found

    monkeypatch.setattr(backend.sweeper, "_messages_of", when_told)

    async def next_look():
        _, go_on = await asyncio.wait_for(looks.get(), 5)
        return go_on

    return next_look


@pytest.mark.parametrize("commits_after", [0, 1])
async def test_a_sweep_and_a_commit_at_one_moment_keep_the_message_or_refuse_it(
    backend, steps, commits_after
):
    """The message comes after the sweep's first look, before its second, or after that."""
    written, commit = asyncio.Event(), asyncio.Event()

    async def slow():
        yield b"x" * (8 * CHUNK)
        written.set()
        await commit.wait()

    delivery = asyncio.create_task(backend.store_message("luke", slow(), None))
    await written.wait()
    sweep = asyncio.create_task(backend.sweep(0))
    look = await steps()
    if commits_after == 0:
        commit.set()
        await asyncio.wait([delivery])
    look.set()
    look = await steps()
    if commits_after == 1:
        commit.set()
        await asyncio.wait([delivery])
    look.set()
    await sweep

    if delivery.exception() is None:
        (message,) = await listed(backend)
        assert 8 * CHUNK + 2 == len(await read(backend, message))
        assert commits_after == 0
    else:
        assert isinstance(delivery.exception(), TemporaryFailure)
        assert [] == await listed(backend)


async def test_a_delivery_that_is_cancelled_within_its_commit_leaves_nothing(
    backend, database, fail_point
):
    """With motor, the insertion goes on in its thread."""
    fail_point(mode={"times": 1}, failCommands=["insert"], blockConnection=True, blockTimeMS=300)
    task = asyncio.create_task(backend.store_message("luke", b"x", None))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert 0 == database.messages.count_documents({})
