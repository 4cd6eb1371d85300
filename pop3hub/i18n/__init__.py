"""The texts of replies in each language; one TOML file a language, `en.toml` the reference.

It knows nothing of sessions and prints nothing. May import errors, settings, peer and maildrop.
"""

from pop3hub.i18n.catalogue import Catalogue
from pop3hub.i18n.files import Report, check_file, skeleton
from pop3hub.i18n.language import Language

__all__ = ["Catalogue", "Language", "Report", "check_file", "skeleton"]
