"""One language: its texts as octets, with their plural forms (RFC 6856 s3).

What it returns is safe to send: one line, short enough, never the look of a response code.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pop3hub.i18n.plurals import Rule


REPLY_LIMIT = 512
"""Octets of a first line with its CRLF (RFC 2449 s4)."""
TEXT_LIMIT = REPLY_LIMIT - len(b"-ERR [LOGIN-DELAY] \r\n")
"""Octets left for a text beside the longest response code of the registry."""
FIELD_LENGTH = 40
"""How long the check takes a field to be: the longest argument that RFC 1939 s3 knows."""
CATEGORIES = ("zero", "one", "two", "few", "many")
"""CLDR's categories, in the order in which their rules are tried."""

_Render = Callable[[Mapping[str, Any]], str]
# What NFKD leaves whole although there is a customary spelling in ASCII.
_ASCII = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "þ": "th", "Þ": "Th"}
    | dict(zip("øØłŁđĐðÐ\u0131ħĦŧŦ", "oOlLdDdDihHtT", strict=True))
    | dict.fromkeys("\u2018\u2019\u201a\u02bc", "'")
    | dict.fromkeys("\u201c\u201d\u201e«»", '"')
    | dict.fromkeys("\u2010\u2011\u2013\u2014", "-")
)
PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
"""Bare names only: str.format would also follow {a.b}, {a[0]} and {a:>99999999}."""
# What no line may hold: controls, line and paragraph separators, halves of surrogates.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One text id of a file: a template per plural category, and the field that picks one."""

    forms: Mapping[str, str]
    by: str | None
    fields: frozenset[str]

    def compile(self, rules: Mapping[str, Rule]) -> bytes | _Render:
        """Return the octets where nothing has to be filled in, else what fills the fields in."""
        other = self.forms["other"].format_map
        if not self.fields:
            return other({}).encode()
        if len(self.forms) == 1:
            return other
        by = self.by or ""
        choices = [(rule, self.forms[name].format_map) for name, rule in rules.items()]

        def render(fields: Mapping[str, Any]) -> str:
            number = fields[by]
            if isinstance(number, int):
                for rule, form in choices:
                    if rule(number):
                        return form(fields)
            return other(fields)

        return render

    def in_ascii(self) -> Entry | None:
        """Return the entry spelled in ASCII; None if that can't be done."""
        forms = {name: _spell_in_ascii(form) for name, form in self.forms.items()}
        # NFKD turns a full-width bracket or brace into the character that the check forbids.
        if any(not form.isascii() or form_errors(form, self.fields) for form in forms.values()):
            return None
        return Entry(forms, self.by, self.fields)


class Language:
    """The texts of one language; what its file lacks is in English.

    tag: the BCP 47 tag, as LANG answers it.
    name: the language's own name for itself, not ASCII in most (RFC 6856 s3.2).
    entries: what stands in its file, by text id.
    compiled: octets, or what fills fields in, by text id; twice: is ASCII wanted, or not.
    """

    __slots__ = ("compiled", "entries", "name", "tag")

    def __init__(
        self,
        tag: str,
        name: str,
        rules: Mapping[str, Rule],
        entries: Mapping[str, Entry],
        reference: Language | None,
    ) -> None:
        self.tag = tag
        self.name = name
        self.entries = entries
        self.compiled: dict[bool, dict[str, bytes | _Render]] = {
            ascii_only: dict(reference.compiled[ascii_only]) if reference else {}
            for ascii_only in (False, True)
        }
        for text_id, entry in entries.items():
            self.compiled[False][text_id] = entry.compile(rules)
            if spelled := entry.in_ascii():
                self.compiled[True][text_id] = spelled.compile(rules)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tag!r})"

    def text(
        self,
        text_id: str,
        /,
        *,
        ascii: bool,  # noqa: A002 - the protocol's word for what it does
        limit: int = TEXT_LIMIT,
        **fields: object,
    ) -> bytes:
        """Return a text as octets that may follow a status, with the fields filled in.

        `ascii`: before LANG and UTF8 a reply is ASCII (RFC 1939 s3); a text that has no ASCII
        spelling is then in English. `limit` counts octets. A field may hold anything: what can't
        be sent is "?". A field that is not given is "?" too, and an id that the catalogue doesn't
        have stands for itself, so that a plugin's error can bring its own sentence.
        """
        found = self.compiled[ascii].get(text_id)
        if isinstance(found, bytes):
            return found if len(found) <= limit else _cut(found, limit)
        text = text_id
        if found:
            try:
                text = found(fields)
            except KeyError:
                text = found(defaultdict(lambda: "?", fields))
        if ascii and not text.isascii():
            text = _spell_in_ascii(text).encode("ascii", "replace").decode()
        if not text.isprintable():
            text = CONTROLS.sub("?", text)
        if text.startswith(("[", " ")):
            # RFC 2449 s8: a text that begins with "[" is a response code.
            text = f"- {text.lstrip()}"
        octets = text.encode()
        return octets if len(octets) <= limit else _cut(octets, limit)


def _cut(octets: bytes, limit: int) -> bytes:
    return octets[:limit].decode("utf-8", "ignore").encode()


def _spell_in_ascii(text: str) -> str:
    """Leave marks and ligatures out; other scripts stay as they are."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_ASCII)).translate(_ASCII)
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def form_errors(form: str, fields: frozenset[str]) -> list[str]:
    """Return what is wrong with one form of a text whose placeholders are `fields`."""
    errors = []
    if not form.strip():
        return ["is empty"]
    if form != form.strip():
        errors.append("begins or ends with a space")
    if CONTROLS.search(form):
        errors.append("holds a line break or another control character")
    if form.startswith("["):
        errors.append('begins with "[": a client would read a response code (RFC 2449 s8)')
    if "<" in form or ">" in form:
        errors.append('holds "<" or ">": a client would look for the APOP stamp (RFC 1939 s7)')
    if re.search("[{}]", PLACEHOLDER.sub("", form)):
        errors.append("holds a brace that is no placeholder: only bare names, such as {count}")
    elif (found := set(PLACEHOLDER.findall(form))) != fields:
        wanted = ", ".join(f"{{{field}}}" for field in sorted(fields)) or "no placeholder"
        given = ", ".join(f"{{{field}}}" for field in sorted(found)) or "none"
        errors.append(f"wanted: {wanted}, as in en.toml; found: {given}")
    longest = len(PLACEHOLDER.sub("x" * FIELD_LENGTH, form).encode("utf-8", "replace"))
    if longest > TEXT_LIMIT:
        errors.append(f"can become {longest} octets long; {TEXT_LIMIT} fit in a reply")
    return errors
