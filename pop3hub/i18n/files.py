"""Language files: read, checked, and begun anew (docs/languages.md).

One TOML file per language; `en.toml` is the reference and the single list of text ids.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pop3hub.errors import ConfigurationError
from pop3hub.i18n.language import (
    CATEGORIES,
    CONTROLS,
    PLACEHOLDER,
    Entry,
    Language,
    form_errors,
)
from pop3hub.i18n.plurals import Rule, compile_rule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TAG = re.compile(r"[a-z]{2,8}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?(-[a-z0-9]{5,8})*")


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
    entries: dict[str, Entry] = {}
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
    if not isinstance(name, str) or not name.strip() or CONTROLS.search(name):
        errors.append("name: wanted is the language's name in the language itself, in one line")
    return errors


def _read_rules(conditions: object, errors: list[str]) -> tuple[dict[str, Rule], frozenset[str]]:
    """Return the rules in the order to try them, and the categories that a text must have."""
    if not isinstance(conditions, dict):
        errors.append("plural: wanted is a table, [plural]")
        conditions = {}
    rules: dict[str, Rule] = {}
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
    value: object, categories: frozenset[str], model: Entry | None
) -> tuple[Entry | None, list[str]]:
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

    fields = model.fields if model else frozenset(PLACEHOLDER.findall(forms["other"]))
    if isinstance(value, dict) and not by:
        by = model.by if model else next(iter(fields))
    errors = [
        error if len(forms) == 1 else f"{category}: {error}"
        for category, form in forms.items()
        for error in form_errors(form, fields)
    ]
    return (None, errors) if errors else (Entry(forms, by, fields), [])


def _plural_errors(
    forms: Mapping[str, str], by: str | None, categories: frozenset[str], model: Entry | None
) -> list[str]:
    if lacking := sorted(categories - forms.keys()):
        return [f"plural form missing: {', '.join(lacking)}"]
    if unruled := sorted(forms.keys() - categories):
        return [f"no rule in [plural] ever gives this form: {', '.join(unruled)}"]
    if model:
        if not model.by:
            return ["has no plural forms in en.toml: one text is wanted"]
        return [f'by: en.toml has by = "{model.by}"'] if by not in {None, model.by} else []
    fields = set(PLACEHOLDER.findall(forms["other"]))
    if by not in fields and (by or len(fields) != 1):
        return ["by: wanted is the field whose number picks the form"]
    return []


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
