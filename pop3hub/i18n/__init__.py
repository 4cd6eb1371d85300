"""The texts of replies in each language; one TOML file a language, `en.toml` the reference.

It knows nothing of sessions and prints nothing. May import errors, settings, peer and maildrop.
"""

from pop3hub.i18n.catalogue import Catalogue
from pop3hub.i18n.files import Report, check_file, skeleton
from pop3hub.i18n.language import Language
from pop3hub.i18n.names import LanguageName, get_language

__all__ = [
    "Catalogue",
    "Language",
    "LanguageName",
    "Report",
    "check_file",
    "get_language",
    "skeleton",
]
