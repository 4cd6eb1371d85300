"""Plugins: registered, checked, asked in order, and blamed for what is theirs."""

import asyncio
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pluggy
import pytest
from structlog.testing import capture_logs

from pop3hub import (
    AuthenticationFailed,
    ConfigurationError,
    PermanentFailure,
    PluginFailure,
    PopError,
    PopMessage,
    PopUser,
    TemporaryFailure,
    hookimpl,
)
from pop3hub.hooks.defaults import Defaults
from pop3hub.hooks.interfaces import CALL_BOUNDS
from pop3hub.hooks.plugins import Plugins
from pop3hub.hooks.store import BackendStore
from pop3hub.maildrop import PAGE
from pop3hub.settings import Settings

LUKE = PopUser("luke", "hash")


class Backend:
    """A backend with the three hooks that every one must have."""

    def __init__(self, messages=()):
        self.messages = messages

    @hookimpl
    async def get_user(self, name):
        return LUKE if name == "luke" else None

    @hookimpl
    def receive_messages(self):
        return self.messages

    @hookimpl
    def delete_messages(self, messages):
        return len(messages)


def made(**hooks):
    """An object with one hookimpl for each function given."""
    plugin = type("Made", (), {})()
    for name, function in hooks.items():
        setattr(plugin, name, hookimpl(function))
    return plugin


def plugins(*extensions, backend=None, **settings):
    return Plugins(backend or Backend(), extensions, **settings)


# Order


async def test_an_extension_is_asked_before_the_backend():
    han = PopUser("han")
    asked = plugins(made(get_user=lambda name: han if name == "han" else None))

    assert han == await asked.get_user("han", None)
    assert LUKE == await asked.get_user("luke", None)
    assert None is await asked.get_user("leia", None)
    assert ["Made", "Backend"] == asked.implementers("get_user")


async def test_a_coroutine_that_comes_to_none_lets_the_next_one_answer():
    """pluggy alone would take the first coroutine for an answer."""

    async def nobody(name):
        return None

    assert LUKE == await plugins(made(get_user=nobody)).get_user("luke", None)


async def test_false_ends_the_search_for_who_compares_the_password():
    asked = []
    last = made(compare_password=lambda raw: asked.append(raw) or True)
    first = made(compare_password=lambda: False)

    both = Plugins(Backend(), [last_named(last), first])

    assert False is await both.compare_password("x", LUKE, None)
    assert [] == asked


def last_named(plugin):
    type(plugin).__name__ = "Last"
    return plugin


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda name, contents, uid: (name, contents, uid), "('luke', b'mail', 'u1')"),
        (lambda name, contents, uid=None: (name, contents, uid), "('luke', b'mail', 'u1')"),
        (lambda contents, uid=None, other=7: (contents, uid, other), "(b'mail', 'u1', 7)"),
        (lambda name: name, "luke"),
    ],
)
async def test_a_hookimpl_gets_the_arguments_that_it_names_with_a_default_or_without(
    function, expected
):
    asked = plugins(made(store_message=function))

    assert expected == await BackendStore(asked).store_message("luke", b"mail", "u1")


async def test_what_plugins_bring_at_the_start_comes_in_the_order_of_their_registration():
    """Backend first, then each extension: the last registered has the last word."""
    configured = []

    def bringing(name, base=object):
        mechanism = SimpleNamespace(name="TOKEN", by=name)
        own = SimpleNamespace(name=f"{name}-TOKEN", by=name)
        hooks = {
            "configure": lambda self, options: configured.append((name, options)),
            "register_languages": lambda self: [Path(name)],
            "register_sasl_mechanisms": lambda self: [mechanism, own],
        }
        return type(name, (base,), {each: hookimpl(hook) for each, hook in hooks.items()})()

    asked = Plugins(bringing("Store", Backend), [bringing("First"), bringing("Last")])
    asked.configure({"x": 1})

    order = ["Store", "First", "Last"]
    assert [(name, {"x": 1}) for name in order] == configured
    assert [Path(name) for name in order] == asked.languages()
    assert "Last" == asked.mechanisms()["TOKEN"].by
    assert ["TOKEN", "Store-TOKEN", "First-TOKEN", "Last-TOKEN"] == list(asked.mechanisms())


# Blame


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("luke"), RuntimeError()])
async def test_what_a_hookimpl_raises_is_logged_with_its_name_and_becomes_a_plugin_failure(error):
    async def broken(name):
        raise error

    with capture_logs() as logs, pytest.raises(PluginFailure) as failure:
        await plugins(made(get_user=broken)).get_user("luke", None)

    assert ("get_user", "Made") == (failure.value.hook, failure.value.plugin)
    assert "SYS/TEMP" == failure.value.code
    assert [("hook.failed", "get_user", "Made")] == [
        (line["event"], line["hook"], line["plugin"]) for line in logs
    ]


async def test_a_pop_error_passes_as_it_is():
    error = PermanentFailure(text_id="message-gone")

    async def gone(name):
        raise error

    with pytest.raises(PermanentFailure) as raised:
        await plugins(made(get_user=gone)).get_user("luke", None)

    assert error is raised.value


async def test_a_hook_that_hangs_becomes_a_temporary_failure():
    async def hang(name):
        await asyncio.Event().wait()

    with capture_logs() as logs, pytest.raises(TemporaryFailure):
        await plugins(made(get_user=hang), hook_timeout=0.01).get_user("luke", None)

    assert ["hook.timeout"] == [line["event"] for line in logs]


async def test_a_session_that_is_cancelled_inside_a_hook_is_cancelled():
    inside = asyncio.Event()

    async def hang(name):
        inside.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(plugins(made(get_user=hang)).get_user("luke", None))
    await inside.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_slow_hook_costs_no_other_its_time():
    """The watch cancels the call that is late, and that one only."""

    async def hang(name):
        await asyncio.Event().wait()

    async def wait_a_little(name):
        await asyncio.sleep(0.02)
        return LUKE

    late = plugins(made(get_user=hang), hook_timeout=0.01)
    patient = plugins(made(get_user=wait_a_little), hook_timeout=5)

    results = await asyncio.gather(
        late.get_user("luke", None), patient.get_user("luke", None), return_exceptions=True
    )

    assert [TemporaryFailure, PopUser] == [type(result) for result in results]


async def test_the_watch_looks_again_until_the_last_limit_is_over():
    """Most limits are longer than the time between two looks."""

    async def hang(name):
        await asyncio.Event().wait()

    asked = plugins(made(get_user=hang), hook_timeout=0.01)
    first = asyncio.create_task(asked.get_user("luke", None))
    await asyncio.sleep(0)
    asked.hook_timeout = 0.05

    async with asyncio.timeout(5):
        results = await asyncio.gather(first, asked.get_user("luke", None), return_exceptions=True)

    assert [TemporaryFailure, TemporaryFailure] == [type(result) for result in results]


@pytest.mark.parametrize(
    ("hook", "arguments"),
    [
        ("delete_messages", ([], None)),
        ("remove_user", ("luke",)),
        ("store_message", ("luke", b"mail")),
    ],
)
async def test_removals_and_deliveries_may_take_longer_than_other_hooks(hook, arguments):
    """Half a removal helps nobody."""

    async def slow():
        await asyncio.sleep(0.1)
        return 1

    asked = plugins(made(**{hook: slow}), hook_timeout=0.05)
    more = {"with_mail": True} if hook == "remove_user" else {}

    assert await getattr(asked if hook == "delete_messages" else BackendStore(asked), hook)(
        *arguments, **more
    )


async def test_an_observer_that_fails_stops_nobody():
    heard = []
    broken = made(session_closed=lambda session: 1 / 0)
    working = last_named(made(session_closed=lambda session: heard.append(session)))

    with capture_logs() as logs:
        await plugins(broken, working).session_closed("a session")

    assert (["a session"], ["hook.failed"]) == (heard, [line["event"] for line in logs])


# Registration


def test_a_class_is_refused_where_an_instance_belongs():
    with pytest.raises(ConfigurationError, match="give an instance"):
        Plugins(Backend)


def test_a_misspelt_hook_is_refused_by_name():
    with pytest.raises(ConfigurationError, match=r"'get_usr', which is no hook"):
        plugins(made(get_usr=lambda name: None))


def test_an_argument_that_the_hook_does_not_have_is_refused():
    with pytest.raises(ConfigurationError, match="username"):
        plugins(made(get_user=lambda username: None))


@pytest.mark.parametrize("options", [{"wrapper": True}, {"hookwrapper": True}])
def test_a_wrapper_is_refused_with_the_reason(options):
    plugin = type("Wraps", (), {})()

    def around(name):
        return (yield)

    plugin.get_user = pluggy.HookimplMarker("pop3hub")(**options)(around)

    with pytest.raises(ConfigurationError, match="wrappers are not supported"):
        plugins(plugin)


@pytest.mark.parametrize("hook", ["get_user", "receive_messages", "delete_messages"])
def test_a_backend_without_a_required_hook_is_refused_by_name(hook):
    backend = made(**{
        name: lambda: None
        for name in ("get_user", "receive_messages", "delete_messages")
        if name != hook
    })  # fmt: skip

    with pytest.raises(ConfigurationError, match=f"backend 'Made' .* has no {hook}"):
        Plugins(backend)


def test_two_plugins_of_one_name_are_refused():
    with pytest.raises(ConfigurationError, match="two plugins are named 'Made'"):
        plugins(made(ready=lambda: None), made(ready=lambda: None))


# Start and stop


async def test_plugins_start_in_order_and_stop_in_reverse():
    events = []

    def part(name):
        plugin = made(
            startup=lambda server: events.append(f"start {name}"),
            shutdown=lambda server: events.append(f"stop {name}"),
        )
        type(plugin).__name__ = name
        return plugin

    both = plugins(part("A"), part("B"))
    await both.startup()
    await both.shutdown()

    assert ["start A", "start B", "stop B", "stop A"] == events


async def test_a_startup_that_fails_shuts_down_what_had_started():
    events = []
    first = made(startup=lambda: events.append("start"), shutdown=lambda: events.append("stop"))

    def refuse():
        raise ConfigurationError("no server there")

    second = last_named(made(startup=refuse, shutdown=lambda: events.append("never")))

    with pytest.raises(ConfigurationError, match="no server there"):
        await plugins(first, second).startup()

    assert ["start", "stop"] == events


# Listings


async def test_a_maildrop_may_come_in_pages():
    async def pages():
        yield [PopMessage("a", 1)]
        yield [PopMessage("b", 2), PopMessage("c", 3)]

    maildrop = await plugins(backend=Backend(pages())).receive_messages(LUKE, None)

    assert ["1 a\r\n", "2 b\r\n", "3 c\r\n"] == maildrop.unique_ids(1, 10)


async def test_pages_that_break_off_are_closed_and_fail_the_login():
    closed = []

    async def pages():
        try:
            yield [PopMessage("a", 1)]
            raise OSError("the store went away")
        finally:
            closed.append(True)

    with capture_logs(), pytest.raises(PluginFailure):
        await plugins(backend=Backend(pages())).receive_messages(LUKE, None)

    assert [True] == closed


async def test_a_long_listing_leaves_the_loop_to_others():
    messages = [PopMessage(str(n), 1) for n in range(3 * PAGE)]
    listing = asyncio.create_task(plugins(backend=Backend(messages)).receive_messages(LUKE, None))
    turns = 0
    while not listing.done():
        turns += 1
        await asyncio.sleep(0)

    assert len(messages) == len(await listing)
    assert turns > 3


@pytest.mark.parametrize(
    "uid", ["", "a b", "é", "x" * 71, "line\nbreak", "\x7f", "\n", "a\n"], ids=repr
)
async def test_a_unique_id_that_cannot_be_sent_is_replaced_by_its_hash(uid):
    """RFC 1939 s7: 1 to 70 characters 0x21 to 0x7E."""
    message = PopMessage(uid, 1)

    with capture_logs() as logs:
        maildrop = await plugins(
            backend=Backend([PopMessage("fine", 1), message])
        ).receive_messages(LUKE, None)

    assert 64 == len(maildrop.unique_id(2))
    assert (uid, "fine") == (message.uid, maildrop.unique_id(1))
    assert ["maildrop.uid_replaced"] == [line["event"] for line in logs]


async def test_an_id_that_is_no_string_is_sent_as_one():
    maildrop = await plugins(backend=Backend([PopMessage(7, 1)])).receive_messages(LUKE, None)

    assert ("7", ["1 7\r\n"]) == (maildrop.unique_id(1), maildrop.unique_ids(1, 1))


@pytest.mark.parametrize(
    "messages",
    [
        [PopMessage("same", 1), PopMessage("same", 2)],
        [PopMessage("a", -1)],
        [PopMessage("a", None)],
        [PopMessage("a", 1.5)],
    ],
)
async def test_a_listing_that_cannot_be_true_fails_the_login(messages):
    with capture_logs(), pytest.raises(PermanentFailure, match="maildrop-damaged"):
        await plugins(backend=Backend(messages)).receive_messages(LUKE, None)


# pop3hub's own


async def test_the_default_lock_lets_in_one_session_and_is_released_by_its_context():
    asked = plugins(defaults=Defaults(None, None))

    lock = await asked.lock_maildrop(LUKE, None)
    await lock.enter()
    with pytest.raises(Exception, match="maildrop-in-use"):
        await (await asked.lock_maildrop(LUKE, None)).enter()
    await (await asked.lock_maildrop(PopUser("leia"), None)).enter()
    await lock.leave()
    await (await asked.lock_maildrop(LUKE, None)).enter()


async def test_the_default_remembers_the_last_login():
    asked = plugins(defaults=Defaults(None, None))
    session = SimpleNamespace(settings=Settings(login_delay=60))

    assert float("inf") == await asked.since_last_login(LUKE, session)
    assert 0 <= await asked.since_last_login(LUKE, session) < 60


async def test_the_default_forgets_the_oldest_of_too_many_logins():
    asked = plugins(defaults=Defaults(None, None, remembered=2))
    session = SimpleNamespace(settings=Settings(login_delay=60))
    for name in ("leia", "han", "luke"):
        await asked.since_last_login(PopUser(name), session)

    assert float("inf") > await asked.since_last_login(PopUser("han"), session)
    assert float("inf") == await asked.since_last_login(PopUser("leia"), session)


async def test_an_extensions_lock_takes_the_place_of_the_default():
    held = []

    @asynccontextmanager
    async def lock(user):
        held.append(user.name)
        yield 42
        held.clear()

    asked = plugins(made(lock_maildrop=lock), defaults=Defaults(None, None))
    context = await asked.lock_maildrop(LUKE, None)

    assert (42, ["luke"]) == (await context.enter(), held)
    await context.leave()
    assert [] == held


def test_calls_are_counted_by_hook_and_plugin():
    asked = plugins()
    asyncio.run(asked.get_user("luke", None))

    calls = asked.calls["get_user", "Backend"]
    assert (1, 0) == (calls.number, calls.failures)
    assert calls.seconds > 0


async def test_a_hookimpl_that_cannot_answer_has_failed_and_one_that_refuses_has_not():
    def answer(error):
        async def get_user(name):
            raise error

        return get_user

    async def failures(error):
        asked = plugins(made(get_user=answer(error)))
        with suppress(PopError):
            await asked.get_user("luke", None)
        return asked.calls["get_user", "Made"].failures

    assert 0 == await failures(AuthenticationFailed())
    assert 1 == await failures(TemporaryFailure())
    assert 1 == await failures(PermanentFailure())
    assert 1 == await failures(ValueError("a defect"))


async def test_calls_are_told_apart_by_how_long_they_took():
    async def get_user(name):
        await asyncio.sleep(0.002)

    asked = plugins(made(get_user=get_user))
    await asked.get_user("luke", None)

    calls = asked.calls["get_user", "Made"]
    assert 1 == sum(calls.spans)
    assert 0 == sum(calls.spans[: CALL_BOUNDS.index(0.001) + 1])


async def test_entering_and_leaving_a_lock_counts_as_its_work():
    @asynccontextmanager
    async def lock(user):
        await asyncio.sleep(0.002)
        yield

    asked = plugins(made(lock_maildrop=lock))
    context = await asked.lock_maildrop(LUKE, None)
    await context.enter()
    await context.leave()

    calls = asked.calls["lock_maildrop", "Made"]
    assert 3 == calls.number
    assert calls.seconds >= 0.002


async def test_contents_that_break_off_are_a_failure():
    async def chunks():
        yield b"half"
        raise OSError("the disk is gone")

    asked = plugins(made(load_contents=lambda message: chunks()))
    with pytest.raises(PluginFailure), capture_logs():
        [each async for each in await asked.load_contents(None, None)]

    assert 1 == asked.calls["load_contents", "Made"].failures


# Blame: what breaks is its author's, not that of the extension in front

INNOCENT = {
    "lock_maildrop": lambda user: None,
    "receive_messages": lambda user: None,
    "load_contents": lambda message: None,
}


class Guilty(Backend):
    """A backend whose answers break once they are used."""

    @hookimpl
    @asynccontextmanager
    async def lock_maildrop(self):
        raise RuntimeError("lock")
        yield

    @hookimpl
    async def receive_messages(self):
        yield [PopMessage("a", 1)]
        raise RuntimeError("page")

    @hookimpl
    async def load_contents(self):
        yield b"half"
        raise RuntimeError("stream")


async def use(asked, hook):
    if hook == "lock_maildrop":
        await (await asked.lock_maildrop(LUKE, None)).enter()
    elif hook == "receive_messages":
        await asked.receive_messages(LUKE, None)
    else:
        async for _ in await asked.load_contents(PopMessage("a", 1), None):
            pass


@pytest.mark.parametrize("hook", INNOCENT)
async def test_what_breaks_is_blamed_on_the_plugin_that_answered(hook):
    guarded = plugins(made(**INNOCENT), backend=Guilty())

    with capture_logs() as logs, pytest.raises(PluginFailure) as caught:
        await use(guarded, hook)

    assert "Guilty" == caught.value.plugin
    assert ["Guilty"] == [line["plugin"] for line in logs if line["event"] == "hook.failed"]
    assert (0, 1) == tuple(guarded.calls[hook, name].failures for name in ("Made", "Guilty"))


@pytest.mark.parametrize(
    "answer", [b"hi", "hi", bytearray(b"hi"), None, RuntimeError("no"), TemporaryFailure()]
)
async def test_a_plain_load_contents_is_called_once_whatever_comes_of_it(answer):
    calls = []

    def load_contents(message):
        calls.append(message.uid)
        if isinstance(answer, Exception):
            raise answer
        return answer

    asked = plugins(made(load_contents=load_contents))
    contents = asked.load_contents(PopMessage("a", 2), None)
    if not isinstance(contents, bytes):
        with suppress(PopError):
            contents = await contents

    assert ["a"] == calls
    assert isinstance(answer, Exception | None) or contents == b"hi"
