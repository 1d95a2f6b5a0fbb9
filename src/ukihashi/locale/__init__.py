"""Japanese and English from one catalogue (A2, D15).

English stands in the source; Japanese in `ja/*.po`, a file per area, joined into one `ukihashi.mo` when the package is
built or set up (`packaging/catalogue.py`). click asks Python's own `gettext.gettext` for its words, so the choice is
made there too.
"""

import gettext
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ukihashi.errors import UkihashiError

DOMAIN: Final = "ukihashi"
LANGUAGES: Final = ("en", "ja")
FOLDER: Final = Path(__file__).parent

_current = "en"
_loaded: dict[str, gettext.NullTranslations] = {"en": gettext.NullTranslations()}


def catalogue(language: str) -> gettext.NullTranslations:
    """The catalogue of one of `LANGUAGES`; English where none is installed."""
    if language not in _loaded:
        _loaded[language] = gettext.translation(DOMAIN, FOLDER, [language], fallback=True)
    return _loaded[language]


def language_of(environ: Mapping[str, str]) -> str:
    """The language a person's environment asks for, by gettext's order: LANGUAGE, LC_ALL, LC_MESSAGES, LANG."""
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        for wish in environ.get(name, "").split(":"):
            if wish[:2] in LANGUAGES:
                return wish[:2]
            if wish:
                break
    return "en"


def set_language(language: str) -> None:
    """Speak `language` from now on, in this process and in those it starts; click's words included."""
    global _current  # noqa: PLW0603 - one speaker a process
    _current = language
    os.environ["LANGUAGE"] = language
    gettext.bindtextdomain(DOMAIN, str(FOLDER))
    gettext.textdomain(DOMAIN)


def current_language() -> str:
    """What `set_language` chose last."""
    return _current


def _(message: str) -> str:
    """`message` in the language chosen by `set_language`."""
    return catalogue(_current).gettext(message)


def say(error: UkihashiError) -> str:
    """An error's sentence in the language chosen by `set_language`."""
    return error.render(_)
