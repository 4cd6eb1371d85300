"""From a user's name to a Maildir: the operator's pattern, and names that can't leave its root.

Names come from the network. Nothing here touches the file system.
"""

from __future__ import annotations

import re
import string

from pop3hub import ConfigurationError
from pop3hub_maildir.directories import MaildirPath

NAME_LIMIT = 200
"""Octets of a name that becomes part of a path; file systems allow 255 in one component."""

_PLACEHOLDERS = {"user", "domain", "local"}
# No separator, no control character, no leading dot: neither `..` nor a hidden folder.
_SAFE = re.compile(r"[^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]*")


class Pattern:
    """A path with {user}, {local} and {domain}: the name, and what stands around its last `@`.

    root: the folder that all paths lie below.
    """

    def __init__(self, text: str) -> None:
        """Take the pattern; raise ConfigurationError for one that can't work."""
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as exc:
            raise ConfigurationError(f"--maildir {text}: {exc}") from exc
        names = {name for _, name, spec, conversion in parts if name is not None}
        plain = all(not spec and not conversion for _, _, spec, conversion in parts)
        if not names <= _PLACEHOLDERS or not plain:
            raise ConfigurationError(
                f"--maildir {text}: only {{user}}, {{local}} and {{domain}} can stand in braces"
            )
        if not names & {"user", "local"}:
            raise ConfigurationError(
                f"--maildir {text}: without {{user}} or {{local}} all users would have one Maildir"
            )
        self._text = text
        self._names = names
        self._above, slash, _ = parts[0][0].rpartition("/")
        self.root = self._above or slash or "."
        if ".." in text.split("/")[self._above.count("/") + bool(self._above) :]:
            raise ConfigurationError(f"--maildir {text}: nothing behind a brace can be `..`")

    def path(self, user: str) -> MaildirPath | None:
        """Return the Maildir's path, or None for a name that can't have one."""
        local, _, domain = user.rpartition("@") if "@" in user else (user, "", "")
        values = {"user": user, "local": local, "domain": domain}
        for name in self._names:
            value = values[name]
            if not _SAFE.fullmatch(value) or len(value.encode("utf-8", "replace")) > NAME_LIMIT:
                return None
        below = self._text.format_map(values)[len(self._above) :].split("/")
        return MaildirPath(self.root, [part for part in below if part not in {"", "."}])
