"""Print docs/hooks.md, made from the hook specifications: `python docs/generate_hooks.py`."""

from __future__ import annotations

import inspect
import re

from pop3hub import errors
from pop3hub.hooks import interfaces, specs
from pop3hub.i18n import Catalogue

HEAD = """\
# Hooks

Everything that pop3hub asks of a mail store, and everything that it tells others. A plugin is an
object with methods that are marked `@hookimpl` and named as below; each takes the arguments that it
needs, by name. This page is made from `pop3hub/hooks/specs.py` (`python docs/generate_hooks.py`).

- **awaited** hooks may be `def` or `async def`; **plain** ones are `def` and must not block: most
  are called at the start, `default_language` for each connection and `capabilities` for each CAPA.
- **first** hooks ask extensions, then the backend, then pop3hub's own default, until one returns
  something else than None; **all** hooks call everyone.
- A backend must have `get_user`, `receive_messages` and `delete_messages`.

| hook | | asks |
| --- | --- | --- |
"""

HANDED = """\
## What a plugin is handed

Hooks get a `Session`, and `startup` a `Server` (or None where a command uses the store without
serving). They have these members and nothing else; both are protocols that `pop3hub` exports, for
annotations.

"""

RAISED = """\
## What a hook may raise

`detail` is for the operator: a text, or the error that was the cause. It is logged as `hook.failed`
and never sent. `text_id=` chooses another text that the client hears, by its id in
`languages/en.toml`, and further keywords fill its placeholders; `code=` another response code.

| raise | the client hears | the log says |
| --- | --- | --- |
"""

OTHERS = """\
`ConfigurationError(text)` stops the start, from `configure` and `startup`; the operator reads its
one line. Any other exception is logged as `hook.failed` with its traceback, without values of
variables, and an answer of a wrong type as `hook.wrong_answer`; the client hears what
TemporaryFailure says. A hook that takes longer than `--hook-timeout` is a TemporaryFailure too
(`hook.timeout`).

"""

_FAILED = "`hook.failed` with the detail, if there is one"
LOGGED = {
    "TemporaryFailure": _FAILED,
    "PermanentFailure": _FAILED,
    "AuthenticationFailed": "`login.failed`, as for a wrong password",
    "MaildropInUse": "nothing: it is an answer",
    "LoginDelayed": "nothing: it is an answer",
    "NoSuchUser": "nothing; the command line exits with 67",
    "MaildropNotEmpty": "nothing; the command line says so",
    "UniqueIdTaken": "nothing; the command line says so",
}
ERRORS = tuple(LOGGED)


def sections() -> list[tuple[str, list[str]]]:
    """Return the headings of specs.py with the hooks below each."""
    found: list[tuple[str, list[str]]] = []
    for line in inspect.getsource(specs).splitlines():
        if match := re.fullmatch(r"# ([A-Z].*)", line):
            found.append((match[1], []))
        elif (match := re.match(r"(?:async )?def (\w+)", line)) and found:
            found[-1][1].append(match[1])
    return found


def page() -> str:
    """Return the whole page."""
    rows, bodies = [], []
    for title, hooks in sections():
        bodies.append(f"## {title}\n")
        for name in hooks:
            function = getattr(specs, name)
            options = function.pop3hub_spec
            kind = "awaited" if inspect.iscoroutinefunction(function) else "plain"
            asks = "first" if options["firstresult"] else "all"
            summary = inspect.getdoc(function) or ""
            rows.append(f"| [`{name}`](#{name}) | {kind} | {asks} |")
            signature = re.sub(r"'([^']*)'", r"\1", str(inspect.signature(function)))
            bodies.append(
                f"### {name}\n\n```python\n{'async ' * (kind == 'awaited')}def {name}{signature}\n"
                f"```\n\n{summary}\n"
            )
    return HEAD + "\n".join(rows) + "\n\n" + HANDED + members() + raised() + "\n".join(bodies)


def members() -> str:
    """Return the members of the protocols that plugins are handed."""
    parts = []
    for protocol in (interfaces.Session, interfaces.Server, interfaces.Store, interfaces.Lockouts):
        parts.append(f"### {protocol.__name__}\n\n{inspect.getdoc(protocol)}\n")
        parts.append("| member | |\n| --- | --- |")
        for name, member in vars(protocol).items():
            if name.startswith("_"):
                continue
            call = "" if isinstance(member, property) else _signature(member)
            text = " ".join((inspect.getdoc(member) or "").split())
            parts.append(f"| `{name}{call}` | {text} |")
        parts.append("")
    return "\n".join(parts) + "\n"


def _signature(function: object) -> str:
    signature = inspect.signature(function)  # type: ignore[arg-type]
    names = [name for name in signature.parameters if name != "self"]
    return f"({', '.join(names)})"


def raised() -> str:
    """Return the table of the errors that a hook may raise."""
    texts = Catalogue.load().reference
    rows = []
    for name in ERRORS:
        kind: type[errors.PopError] = getattr(errors, name)
        names = [each for each in inspect.signature(kind).parameters if each != "fields"]
        shown = texts.entries[kind.text_id].forms["other"]
        code = f"[{kind.code}] " if kind.code else ""
        rows.append(f"| `{name}({', '.join(names)})` | `-ERR {code}{shown}` | {LOGGED[name]} |")
    return RAISED + "\n".join(rows) + "\n\n" + OTHERS


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - that is what it is for
