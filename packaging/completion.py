"""Shell completion for bash, zsh and fish: small files that ask the program itself, made by click's own words.

python packaging/completion.py FOLDER       writes ukihashi.bash, _ukihashi and ukihashi.fish
"""

import sys
from pathlib import Path
from typing import Final

import click
from click.shell_completion import get_completion_class

NAME: Final = "ukihashi"
VARIABLE: Final = "_UKIHASHI_COMPLETE"
SHELLS: Final = ("bash", "zsh", "fish")
PLACES: Final = {  # where Debian's shells look
    "bash": f"usr/share/bash-completion/completions/{NAME}",
    "zsh": f"usr/share/zsh/vendor-completions/_{NAME}",
    "fish": f"usr/share/fish/vendor_completions.d/{NAME}.fish",
}
FILES: Final = {"bash": f"{NAME}.bash", "zsh": f"_{NAME}", "fish": f"{NAME}.fish"}


def script(shell: str) -> str:
    """One shell's file. `sealert` has few options and takes a number: it needs none."""
    maker = get_completion_class(shell)
    assert maker is not None
    made = maker(click.Command(NAME), {}, NAME, VARIABLE)
    text = (made.source_template % made.source_vars()).strip() + "\n"  # `source` would ask for the shell's version
    if (
        shell == "zsh"
    ):  # from its second call on an autoloaded function is a “shfunc”: click's own would then do nothing
        assert "== loadautofunc" in text
        text = text.replace("== loadautofunc", "== *func")
    return text


def main() -> None:
    """Write them."""
    if len(sys.argv) != 2:
        sys.exit((__doc__ or "").strip())
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for shell in SHELLS:
        (folder / FILES[shell]).write_text(script(shell))


if __name__ == "__main__":
    main()
