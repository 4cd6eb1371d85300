"""The language catalogue: every text that a client reads, in each language (RFC 6856 s3).

One TOML file per language; `en.toml` is the reference and the single list of text ids. This module
loads and checks the files, picks plural forms and finds a language by its range (RFC 4647). What it
returns is safe to send: one line, short enough, never the look of a response code. It knows nothing
of sessions and prints nothing.
"""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pop3hub.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

REPLY_LIMIT = 512
"""Octets of a first line with its CRLF (RFC 2449 s4)."""

TEXT_LIMIT = REPLY_LIMIT - len(b"-ERR [LOGIN-DELAY] \r\n")
"""Octets left for a text beside the longest response code of the registry."""

FIELD_LENGTH = 40
"""How long the check takes a field to be: the longest argument that RFC 1939 s3 knows."""

# CLDR's categories, in the order in which their rules are tried.
CATEGORIES = ("zero", "one", "two", "few", "many")

_Rule = Callable[[int], bool]
_Render = Callable[[Mapping[str, Any]], str]

_TAG = re.compile(r"[a-z]{2,8}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?(-[a-z0-9]{5,8})*")
# RFC 4647 s2.1, the basic language range without "*", which is the caller's to answer.
_RANGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")
# Bare names only: str.format would also follow {a.b}, {a[0]} and {a:>99999999}.
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
# What may not stand in a line: controls, line and paragraph separators, halves of surrogates.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# What NFKD leaves whole although there is a customary spelling in ASCII.
_ASCII = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "þ": "th", "Þ": "Th"}
    | dict(zip("øØłŁđĐðÐ\u0131ħĦŧŦ", "oOlLdDdDihHtT", strict=True))
    | dict.fromkeys("\u2018\u2019\u201a\u02bc", "'")
    | dict.fromkeys("\u201c\u201d\u201e«»", '"')
    | dict.fromkeys("\u2010\u2011\u2013\u2014", "-")
)

_RELATION = re.compile(
    r"([nivwftce])(?:\s*%\s*([1-9][0-9]{0,8}))?\s*(!?=)\s*"
    r"([0-9]{1,9}(?:\.\.[0-9]{1,9})?(?:\s*,\s*[0-9]{1,9}(?:\.\.[0-9]{1,9})?)*)"
)


def compile_rule(condition: str) -> _Rule | None:
    """Compile a CLDR plural condition for whole numbers; None if no whole number fulfils it.

    The syntax is CLDR's (UTS 35, language plural rules), so that a rule can be copied from its
    chart: `i` is `n`, and the operands that speak of decimals (v, w, f, t, c, e) are 0.
    Raises ValueError: the condition can't be read.
    """
    alternatives: list[_Rule] = []
    for alternative in re.split(r"\s+or\s+", condition.strip()):
        relations = [_compile_relation(part) for part in re.split(r"\s+and\s+", alternative)]
        if False in relations:
            continue
        rules = [relation for relation in relations if not isinstance(relation, bool)]
        alternatives.append(reduce(_both, rules) if rules else lambda _: True)
    return reduce(_either, alternatives) if alternatives else None


def _compile_relation(relation: str) -> _Rule | bool:
    """Compile `n % 10 = 2..4,9`; a bool where it doesn't depend on the number."""
    match = _RELATION.fullmatch(relation)
    if not match:
        raise ValueError(f"can't read {relation!r}")
    operand, modulus, sign, values = match.groups()
    bounds = [value.strip().partition("..") for value in values.split(",")]
    ranges = [range(int(low), int(high or low) + 1) for low, _, high in bounds]
    wanted = sign == "="
    if operand not in "ni":
        return any(0 in numbers for numbers in ranges) == wanted
    contains = ranges[0].__contains__
    if len(ranges) > 1:

        def contains(number: object, /) -> bool:
            return any(number in numbers for numbers in ranges)

    if modulus:
        divisor = int(modulus)
        return lambda number: contains(number % divisor) == wanted
    return contains if wanted else lambda number: not contains(number)


def _both(first: _Rule, second: _Rule) -> _Rule:
    return lambda number: first(number) and second(number)


def _either(first: _Rule, second: _Rule) -> _Rule:
    return lambda number: first(number) or second(number)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One text id of a file: a template per plural category, and the field that picks one."""

    forms: Mapping[str, str]
    by: str | None
    fields: frozenset[str]

    def compile(self, rules: Mapping[str, _Rule]) -> bytes | _Render:
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

    def in_ascii(self) -> _Entry | None:
        """Return the entry spelled in ASCII; None if that can't be done."""
        forms = {name: _spell_in_ascii(form) for name, form in self.forms.items()}
        # NFKD turns a full-width bracket or brace into the character that the check forbids.
        if any(not form.isascii() or _form_errors(form, self.fields) for form in forms.values()):
            return None
        return _Entry(forms, self.by, self.fields)


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
        rules: Mapping[str, _Rule],
        entries: Mapping[str, _Entry],
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
            text = _CONTROLS.sub("?", text)
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


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found in one file.

    errors: a line each, and what to do about it; with any of them the file isn't used.
    missing: the text ids that the file leaves to English; that is no error.
    language: the file's language, None if there are errors.
    """

    path: Path
    errors: tuple[str, ...]
    missing: tuple[str, ...]
    language: Language | None


def check_file(path: Path, reference: Language | None) -> Report:
    """Read a language file and find what is wrong with it; reference None: it is the reference."""
    try:
        data = tomllib.loads(path.read_bytes().decode())
    except OSError as exc:
        return Report(path, (f"can't be read: {exc.strerror}",), (), None)
    except ValueError as exc:
        return Report(path, (f"is not TOML in UTF-8: {exc}",), (), None)

    errors = _head_errors(path, data)
    rules, categories = _read_rules(data.get("plural", {}), errors)
    texts = data.get("text", {})
    if not isinstance(texts, dict):
        errors.append("text: wanted is a table, [text]")
        texts = {}
    models = reference.entries if reference else {}
    entries: dict[str, _Entry] = {}
    for text_id, value in texts.items():
        if reference and text_id not in models:
            errors.append(f"{text_id}: unknown text id; en.toml has the list")
            continue
        entry, found = _read_entry(value, categories, models.get(text_id))
        errors.extend(f"{text_id}: {error}" for error in found)
        if entry:
            entries[text_id] = entry

    missing = tuple(text_id for text_id in models if text_id not in texts)
    if errors:
        return Report(path, tuple(errors), missing, None)
    language = Language(data["tag"], data["name"], rules, entries, reference)
    return Report(path, (), missing, language)


def _head_errors(path: Path, data: Mapping[str, Any]) -> list[str]:
    errors: list[str] = [
        f"{key}: unknown key; a file has tag, name, [plural] and [text]"
        for key in data.keys() - {"tag", "name", "plural", "text"}
    ]
    tag, name = data.get("tag"), data.get("name")
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        errors.append('tag: wanted is a BCP 47 tag in its usual case, such as "nl" or "zh-Hans"')
    elif path.name != f"{tag}.toml":
        errors.append(f"tag: the file of {tag} must be named {tag}.toml")
    if not isinstance(name, str) or not name.strip() or _CONTROLS.search(name):
        errors.append("name: wanted is the language's name in the language itself, in one line")
    return errors


def _read_rules(conditions: object, errors: list[str]) -> tuple[dict[str, _Rule], frozenset[str]]:
    """Return the rules in the order to try them, and the categories that a text must have."""
    if not isinstance(conditions, dict):
        errors.append("plural: wanted is a table, [plural]")
        conditions = {}
    rules: dict[str, _Rule] = {}
    errors.extend(
        f'plural.{category}: not one of {", ".join(CATEGORIES)}; "other" needs no rule'
        for category in sorted(conditions.keys() - set(CATEGORIES))
    )
    for category in CATEGORIES:
        if category not in conditions:
            continue
        try:
            rule = compile_rule(str(conditions[category]))
        except ValueError as exc:
            errors.append(f'plural.{category}: {exc}; wanted is a CLDR rule such as "n = 1"')
        else:
            if rule:
                rules[category] = rule
    return rules, frozenset(rules) | {"other"}


def _read_entry(
    value: object, categories: frozenset[str], model: _Entry | None
) -> tuple[_Entry | None, list[str]]:
    """Return an entry or what is wrong with it; model is English's, None in the reference."""
    if isinstance(value, str):
        forms, by = {"other": value}, None
    elif isinstance(value, dict) and all(isinstance(form, str) for form in value.values()):
        forms = dict(value)
        by = forms.pop("by", None)
        if errors := _plural_errors(forms, by, categories, model):
            return None, errors
    else:
        return None, ["wanted is a text, or a table of texts by plural category"]

    fields = model.fields if model else frozenset(_PLACEHOLDER.findall(forms["other"]))
    if isinstance(value, dict) and not by:
        by = model.by if model else next(iter(fields))
    errors = [
        error if len(forms) == 1 else f"{category}: {error}"
        for category, form in forms.items()
        for error in _form_errors(form, fields)
    ]
    return (None, errors) if errors else (_Entry(forms, by, fields), [])


def _plural_errors(
    forms: Mapping[str, str], by: str | None, categories: frozenset[str], model: _Entry | None
) -> list[str]:
    if lacking := sorted(categories - forms.keys()):
        return [f"plural form missing: {', '.join(lacking)}"]
    if unruled := sorted(forms.keys() - categories):
        return [f"no rule in [plural] ever gives this form: {', '.join(unruled)}"]
    if model:
        if not model.by:
            return ["has no plural forms in en.toml: one text is wanted"]
        return [f'by: en.toml has by = "{model.by}"'] if by not in {None, model.by} else []
    fields = set(_PLACEHOLDER.findall(forms["other"]))
    if by not in fields and (by or len(fields) != 1):
        return ["by: wanted is the field whose number picks the form"]
    return []


def _form_errors(form: str, fields: frozenset[str]) -> list[str]:
    errors = []
    if not form.strip():
        return ["is empty"]
    if form != form.strip():
        errors.append("begins or ends with a space")
    if _CONTROLS.search(form):
        errors.append("holds a line break or another control character")
    if form.startswith("["):
        errors.append('begins with "[": a client would read a response code (RFC 2449 s8)')
    if "<" in form or ">" in form:
        errors.append('holds "<" or ">": a client would look for the APOP stamp (RFC 1939 s7)')
    if re.search("[{}]", _PLACEHOLDER.sub("", form)):
        errors.append("holds a brace that is no placeholder: only bare names, such as {count}")
    elif (found := set(_PLACEHOLDER.findall(form))) != fields:
        wanted = ", ".join(f"{{{field}}}" for field in sorted(fields)) or "no placeholder"
        given = ", ".join(f"{{{field}}}" for field in sorted(found)) or "none"
        errors.append(f"wanted: {wanted}, as in en.toml; found: {given}")
    longest = len(_PLACEHOLDER.sub("x" * FIELD_LENGTH, form).encode("utf-8", "replace"))
    if longest > TEXT_LIMIT:
        errors.append(f"can become {longest} octets long; {TEXT_LIMIT} fit in a reply")
    return errors


_SKELETON = """\
# {tag}: not yet read by a native reader; one is wanted.
# Fill in `name`, the plural rules and the texts; take the "# " away from each line you translate.
# What you leave out stays English. Check: pop3hub languages check {tag}.toml

tag = "{tag}"
name = ""

# CLDR's cardinal rules for this language; none for a language that has no plural forms.
# Each category of this table, and "other", is then a form in the tables below.
# "by" names the number that picks the form.
[plural]
# one = "n = 1"

[text]
"""


def skeleton(tag: str, reference: Language) -> str:
    """Return a file for a new language: every text in English, commented out.

    Raises ConfigurationError: the tag is malformed.
    """
    if not _TAG.fullmatch(tag):
        raise ConfigurationError(
            f'{tag!r} is no language tag in its usual case, such as "fr" or "zh-Hans"'
        )
    lines = [_SKELETON.format(tag=tag)]
    for text_id, entry in reference.entries.items():
        if len(entry.forms) == 1:
            value = json.dumps(entry.forms["other"])
        else:
            pairs = {"by": entry.by, **entry.forms}.items()
            value = "{ " + ", ".join(f"{key} = {json.dumps(form)}" for key, form in pairs) + " }"
        lines.append(f"# {text_id} = {value}\n")
    return "".join(lines)


class Catalogue:
    """Every language that a server speaks.

    default: the language that a session begins in.
    reference: the English that came with pop3hub, which every other file is checked against.
    languages: all of them, sorted by tag.
    """

    __slots__ = ("_by_tag", "default", "languages", "reference")

    def __init__(self, reference: Language, languages: Iterable[Language], *, default: str) -> None:
        self.reference = reference
        self.languages: Sequence[Language] = sorted(languages, key=lambda each: each.tag.lower())
        self._by_tag = {language.tag.lower(): language for language in self.languages}
        found = self.find(default)
        if not found:
            known = ", ".join(language.tag for language in self.languages)
            raise ConfigurationError(f"language {default!r} is not known: choose one of {known}")
        self.default = found

    @classmethod
    def load(cls, directories: Iterable[Path] = (), *, default: str = "en") -> Catalogue:
        """Load the languages of pop3hub, then those of the directories; the last one of a tag wins.

        Raises ConfigurationError: a directory has no language files, a file has errors, or the
        default isn't there.
        """
        shipped = _shipped()
        reference = _language(check_file(shipped / "en.toml", None))
        languages: dict[str, Language] = {}
        for directory in (shipped, *directories):
            paths = sorted(directory.glob("*.toml"))
            if not paths:
                raise ConfigurationError(
                    f"{directory} has no language files: give a directory that holds TAG.toml"
                )
            for path in paths:
                language = _language(check_file(path, reference))
                languages[language.tag] = language
        return cls(reference, languages.values(), default=default)

    def find(self, language_range: str) -> Language | None:
        """Return the language for a range, or None: no such language, or no range at all.

        The same tag; else the first that begins with the range (`pt` finds pt-BR); else what is
        left of the range when it is cut from the right (`nl-BE` finds nl). RFC 4647 s3.3.1, s3.4.
        """
        if not _RANGE.fullmatch(language_range):
            return None
        wanted = language_range.lower()
        if exact := self._by_tag.get(wanted):
            return exact
        for tag, language in self._by_tag.items():
            if tag.startswith(f"{wanted}-"):
                return language
        subtags = wanted.split("-")[:-1]
        while subtags:
            if found := self._by_tag.get("-".join(subtags)):
                return found
            subtags.pop()
        return None


def _shipped() -> Path:
    """Return the directory of our own files: in a wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / "languages"
    return inside if inside.is_dir() else package.parent / "languages"


def _language(report: Report) -> Language:
    if report.language:
        return report.language
    more = f" (and {len(report.errors) - 1} more)" if len(report.errors) > 1 else ""
    raise ConfigurationError(
        f"language file {report.path}: {report.errors[0]}{more};"
        f" see `pop3hub languages check {report.path}`"
    )
