"""Print docs/hooks.md, made from the hook specifications: `python docs/generate_hooks.py`."""

from __future__ import annotations

import inspect
import re

from pop3hub.hooks import specs

HEAD = """\
# Hooks

Everything that pop3hub asks of a mail store, and everything that it tells others. A plugin is an
object with methods that are marked `@hookimpl` and named as below; each takes the arguments that it
needs, by name. This page is made from `pop3hub/hooks/specs.py` (`python docs/generate_hooks.py`).

- **awaited** hooks may be `def` or `async def`; **plain** ones are `def`, and called at the start.
- **first** hooks ask extensions, then the backend, then pop3hub's own default, until one returns
  something else than None; **all** hooks call everyone.
- A backend must have `get_user`, `receive_messages` and `delete_messages`.

| hook | | asks |
| --- | --- | --- |
"""


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
    return HEAD + "\n".join(rows) + "\n\n" + "\n".join(bodies)


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - that is what it is for
