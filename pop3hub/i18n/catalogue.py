"""The languages of a server, found by range (RFC 4647)."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pop3hub.errors import ConfigurationError
from pop3hub.i18n.files import Report, check_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pop3hub.i18n.language import Language

# RFC 4647 s2.1, the basic language range without "*", which is the caller's to answer.
_RANGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")


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
        reference, languages = _read_shipped()
        languages = dict(languages)
        for directory in directories:
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


@cache
def _read_shipped() -> tuple[Language, Mapping[str, Language]]:
    """Return English, and our own languages by tag: read once for a process, since they stay."""
    shipped = _shipped()
    reference = _language(check_file(shipped / "en.toml", None))
    found = (_language(check_file(path, reference)) for path in sorted(shipped.glob("*.toml")))
    return reference, {language.tag: language for language in found}


def _shipped() -> Path:
    """Return the directory of our own files: in a wheel, or beside the package in a checkout."""
    room = Path(__file__).parent
    inside = room / "languages"
    return inside if inside.is_dir() else room.parents[1] / "languages"


def _language(report: Report) -> Language:
    if report.language:
        return report.language
    more = f" (and {len(report.errors) - 1} more)" if len(report.errors) > 1 else ""
    raise ConfigurationError(
        f"language file {report.path}: {report.errors[0]}{more};"
        f" see `pop3hub languages check {report.path}`"
    )
