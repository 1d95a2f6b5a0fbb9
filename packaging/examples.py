"""Write `packaging/config/*.toml` from the table of all settings. Run after a setting or its words have changed."""

from pathlib import Path

from ukihashi.config.example import toml
from ukihashi.config.options import KINDS

FOLDER = Path(__file__).resolve().parent / "config"


if __name__ == "__main__":
    for kind in KINDS:
        (FOLDER / f"{kind}.toml").write_text(toml(kind), encoding="utf-8")
