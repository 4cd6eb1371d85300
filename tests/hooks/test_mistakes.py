"""Ordinary mistakes: each is one line that says what came and what should, never a traceback."""

import pytest
from structlog.testing import capture_logs

from pop3hub import (
    Callbacks,
    ConfigurationError,
    Limits,
    PopMessage,
    PopServer,
    PopUser,
    Settings,
    TemporaryFailure,
)
from pop3hub.testing import Dialogue

LUKE = PopUser("luke", "hello")
MAIL = b"Subject: hi\r\n\r\nhello\r\n"

RIGHT = {
    "get_user": lambda name: LUKE if name == "luke" else None,
    "compare_password": lambda raw, hash: raw == hash,
    "receive_messages": lambda session: [PopMessage("a", len(MAIL), MAIL)],
    "delete_messages": lambda session, messages: len(messages),
}


def without(*names):
    return {name: value for name, value in RIGHT.items() if name not in names}


# What can be known at the start

AT_START = {
    "recieve_messages": ({"recieve_messages": print}, "did you mean 'receive_messages'"),
    "alow_plaintext": ({"alow_plaintext": True}, "did you mean 'allow_plaintext'"),
    "get_users": ({"get_users": print}, "did you mean 'get_user'"),
    "lissten": ({"lissten": ()}, "did you mean 'listen'"),
    "tls_certs": ({"tls_certs": "x"}, "did you mean 'tls_cert'"),
    "idle": ({"idle": 900}, "limits=Limits(idle=...)"),
    "idel": ({"idel": 900}, "did you mean 'idle'"),
    "nothing like it": ({"zzzzzz": 1}, "docs/embedding.md"),
    "get_user=None": ({"get_user": None}, "get_user must be a function, and is NoneType"),
    "is_in_use=None": ({"is_in_use": None}, "is_in_use must be a function, and is NoneType"),
    "is_in_use=False": ({"is_in_use": False}, "is_in_use must be a function, and is bool"),
    "load_contents=bytes": ({"load_contents": b"x"}, "must be a function, and is bytes"),
    "too many arguments": (
        {"get_user": lambda name, session, more: None},
        "get_user wants the arguments name, session, more, and is given by position name, session",
    ),
    "an argument by name": (
        {"get_user": eval("lambda *, name: None")},  # noqa: S307
        "get_user wants the arguments name, and is given by position name, session",
    ),
    "one for all": ({"session_closed": lambda a, b: None}, "session_closed wants the arguments"),
    "a backend too": ({"backend": object()}, "give either callbacks, or a backend"),
    "callbacks twice": ({"callbacks": Callbacks(**RIGHT)}, "as one object or as keywords"),
    "settings twice": (
        {"settings": Settings(), "apop": True},
        "give 'apop' in settings=Settings(...)",
    ),
    "a name with a stamp": ({"name": "<x>"}, "must be 1 to 64 printable ASCII characters"),
    "a URL of another kind": ({"listen": "http://x"}, "write it as pop3://HOST:PORT"),
    "POP3S without a certificate": ({"listen": "pop3s://127.0.0.1:0"}, "needs a certificate"),
}


@pytest.mark.parametrize(("more", "said"), AT_START.values(), ids=AT_START)
def test_what_can_be_known_at_the_start_is_one_line_then(more, said):
    with pytest.raises(ConfigurationError) as caught:
        PopServer(**{"listen": (), **RIGHT, **more})

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["get_user", "receive_messages", "delete_messages"])
def test_a_callback_that_is_missing_is_named(name):
    with pytest.raises(ConfigurationError, match=f"the callbacks lack {name}: "):
        PopServer(listen=(), **without(name))


def test_nothing_at_all_is_one_line():
    with pytest.raises(ConfigurationError, match="give either callbacks, or a backend"):
        PopServer(listen=())


def test_callbacks_and_settings_may_be_objects():
    server = PopServer(
        Callbacks(**RIGHT), settings=Settings(apop=True, limits=Limits(idle=900)), listen=()
    )

    assert (True, 900) == (server.settings.apop, server.settings.limits.idle)


# What shows at the first call


class Lazy(PopMessage):
    """A subclass that forgets its base."""

    def __init__(self, uid):
        self.row = uid


class Plain(PopMessage):
    """A subclass whose load_contents is plain."""

    def load_contents(self):
        return MAIL


AT_FIRST_CALL = {
    "get_user: dict": ("get_user", lambda name: {"name": name}, "a dict, and must return a PopU"),
    "get_user: True": ("get_user", lambda name: True, "a bool, and must return a PopUser or None"),
    "get_user: str": ("get_user", lambda name: name, "a str, and must return a PopUser or None"),
    "get_user: tuple": ("get_user", lambda name: (name, "x"), "a tuple, and must return"),
    "compare_password: str": ("compare_password", lambda raw, hash: "yes", "a str, and must"),
    "compare_password: int": ("compare_password", lambda raw, hash: 1, "an int, and must"),
    "is_in_use: str": ("is_in_use", lambda session: "no", "a str, and must return True, False"),
    "receive_messages: generator": (
        "receive_messages",
        lambda session: (PopMessage("a", 1) for _ in range(1)),
        "a generator, and must return a list of PopMessage",
    ),
    "receive_messages: map": ("receive_messages", lambda s: map(str, ()), "a map, and must"),
    "receive_messages: dicts": ("receive_messages", lambda s: [{"uid": 1}], "a dict in its list"),
    "receive_messages: tuples": ("receive_messages", lambda s: [("a", 1)], "a tuple in its list"),
    "receive_messages: str": ("receive_messages", lambda s: "mail", "a str, and must return"),
    "receive_messages: True": ("receive_messages", lambda s: True, "a bool, and must return"),
    "receive_messages: dict": ("receive_messages", lambda s: {}, "a dict, and must return"),
    "receive_messages: no super": ("receive_messages", lambda s: [Lazy("a")], "super().__init__"),
    "PopMessage: number": ("receive_messages", lambda s: [PopMessage("a", 1, 7)], "not as int"),
    "load_contents: int": ("load_contents", lambda message: 7, "an int, and must return bytes"),
    "load_contents: list": ("load_contents", lambda message: [b"a"], "a list, and must return"),
    "load_contents: dict": ("load_contents", lambda message: {}, "a dict, and must return"),
    "delete_messages: list": ("delete_messages", lambda s, m: m, "a list, and must return how"),
    "delete_messages: True": ("delete_messages", lambda s, m: True, "a bool, and must return how"),
    "delete_messages: str": ("delete_messages", lambda s, m: "1", "a str, and must return how"),
}


async def run(callbacks):
    """Log in, retrieve, delete and quit; return what was logged and whether it was a defect."""
    with capture_logs() as logs:
        server = PopServer(listen=(), failure_delay=0, **callbacks)
        async with server, Dialogue(server) as dialogue:
            said = [await dialogue.login("luke", "hello")]
            said += [
                await dialogue.say(line)
                for line in ("RETR 1", "DELE 1", "QUIT")
                if not dialogue.closed
            ]
            reason = dialogue.session.reason
    return logs, said, reason


@pytest.mark.parametrize(("hook", "callback", "error"), AT_FIRST_CALL.values(), ids=AT_FIRST_CALL)
async def test_a_wrong_answer_is_one_line_that_names_hook_and_plugin(hook, callback, error):
    logs, said, reason = await run({**RIGHT, hook: callback})
    lines = [line for line in logs if line["log_level"] in {"error", "warning"}]

    assert [("hook.wrong_answer", hook, "Callbacks")] == [
        (line["event"], line["hook"], line["plugin"]) for line in lines if "hook" in line
    ]
    assert any(error in line.get("error", "") for line in lines)
    assert not any("exc_info" in line for line in logs)
    assert any(each.startswith(b"-ERR [SYS/TEMP]") for each in said)
    assert reason != "defect"


async def test_a_chunk_that_is_not_octets_cuts_the_reply_with_one_line():
    async def chunks(message):
        yield b"Subject: hi\r\n\r\n"
        yield "text"

    logs, said, _ = await run({**RIGHT, "load_contents": chunks})

    assert ["gave a str as a chunk, and must give bytes"] == [
        line["error"] for line in logs if line["event"] == "hook.wrong_answer"
    ]
    assert not said[1].endswith(b"\r\n.\r\n")


# What is no mistake


@pytest.mark.parametrize(
    "more",
    [
        {"receive_messages": lambda session: [PopMessage("a", 4, "text")]},
        {"receive_messages": lambda session: [Plain("a", len(MAIL))]},
        {"load_contents": lambda message: MAIL.decode()},
        {"load_contents": lambda message: bytearray(MAIL)},
        {"get_user": lambda *given: LUKE},
        {"delete_messages": lambda session, messages: None},
        {"is_in_use": lambda session: session.user is None},
        {"receive_messages": lambda session: [PopMessage(session.user.name, len(MAIL), MAIL)]},
    ],
    ids=[
        "text in PopMessage",
        "a plain load_contents",
        "text",
        "a bytearray",
        "any arguments",
        "None for all",
        "session.user in is_in_use",
        "session.user in receive_messages",
    ],
)
async def test_what_people_write_just_works(more):
    _, said, _ = await run({**RIGHT, **more})

    assert [b"+OK"] * 4 == [each[:3] for each in said]


@pytest.mark.parametrize("hook", ["get_user", "receive_messages", "load_contents"])
async def test_an_errors_own_words_are_for_the_log(hook):
    """A driver's message may hold the password of the database."""
    secret = "mongodb://shop:MySecretPw1@db"

    def broken(*_):
        raise TemporaryFailure(OSError(secret))

    logs, said, _ = await run({**RIGHT, hook: broken})

    assert not any(secret.encode() in each for each in said)
    assert [secret] == [line["error"] for line in logs if line["event"] == "hook.failed"]


@pytest.mark.slow
def test_the_types_refuse_what_the_server_refuses(tmp_path):
    """`mypy --strict` reads the keywords too."""
    mypy = pytest.importorskip("mypy.api")
    program = tmp_path / "program.py"
    program.write_text(
        "from pop3hub import PopServer, PopUser\n"
        "def user(name: str) -> PopUser | None: return None\n"
        "def mail(session: object) -> list[object]: return []\n"
        "def gone(session: object, messages: object) -> None: ...\n"
        "PopServer(get_user=user, receive_messages=mail, delete_messages=gone, apop=True)\n"
        "PopServer(get_user=user, recieve_messages=mail, delete_messages=gone)\n"
        "PopServer(get_user=user, receive_messages=mail, delete_messages=gone, alow_plaintext=1)\n"
    )

    out, _, _ = mypy.run(["--strict", "--cache-dir", str(tmp_path / "cache"), str(program)])

    assert ["6", "7"] == [line.split(":")[1] for line in out.splitlines() if ": error:" in line]
