"""The languages that pop3hub ships, by their English names."""

from __future__ import annotations

from enum import StrEnum


class LanguageName(StrEnum):
    """The language of a server's texts; the value is the tag that LANG takes (RFC 6856 s3)."""

    Arabic = "ar"
    Czech = "cs"
    Danish = "da"
    Dutch = "nl"
    English = "en"
    Finnish = "fi"
    French = "fr"
    German = "de"
    Italian = "it"
    Japanese = "ja"
    Norwegian = "nb"
    Polish = "pl"
    Portuguese = "pt"
    Russian = "ru"
    SimplifiedChinese = "zh-Hans"
    Spanish = "es"
    Swedish = "sv"
    Turkish = "tr"
    Ukrainian = "uk"


def get_language(name: LanguageName | str) -> str:
    """Return the tag of a language, as `PopServer(default_language=...)` takes it."""
    return str(name)
