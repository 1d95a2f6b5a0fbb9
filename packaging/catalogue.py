"""Join `locale/LANGUAGE/*.po` into the one catalogue that gettext reads. Run by the build and by set-up."""

import sys
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path(__file__).resolve().parent.parent / "src" / "ukihashi" / "locale"


def read(language: str) -> Catalog:
    """All messages of one language; two files that translate one message differently are refused."""
    joined = Catalog(locale=language, domain="ukihashi", charset="utf-8")
    for path in sorted((FOLDER / language).glob("*.po")):
        with path.open("rb") as file:
            for message in read_po(file, locale=language, abort_invalid=True):
                if not message.id or not message.string:
                    continue
                known = joined.get(message.id, context=message.context)
                if known is not None and known.string != message.string:
                    sys.exit(f"{path}: {message.id!r} is translated in two ways")
                joined.add(message.id, message.string, flags=message.flags, context=message.context)
    return joined


def compile_all() -> None:
    """Write `ukihashi.mo` for each language that has a folder."""
    for folder in sorted(path for path in FOLDER.iterdir() if any(path.glob("*.po"))):
        target = folder / "LC_MESSAGES" / "ukihashi.mo"
        target.parent.mkdir(exist_ok=True)
        with target.open("wb") as file:
            write_mo(file, read(folder.name))


class CustomBuildHook(BuildHookInterface[Any]):
    """hatchling calls this for each wheel and each editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the files are gathered."""
        del version, build_data
        compile_all()


if __name__ == "__main__":
    compile_all()
