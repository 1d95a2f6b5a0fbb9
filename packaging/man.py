"""Manual pages from the program's own help and option texts: nothing is written twice.

    python packaging/man.py LANGUAGE FOLDER [DATE]      en or ja; writes FOLDER/man1/ukihashi.1 ... (ja: FOLDER/ja/man1)

A process speaks one language, because help is made when the commands are imported; so call it once for each.
"""

import datetime as dt
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LANGUAGES: Final = ("en", "ja")

if __name__ == "__main__":
    from ukihashi.locale import set_language

    set_language(sys.argv[1] if len(sys.argv) > 1 else "en")  # before anything is imported that speaks

import click  # noqa: E402

from ukihashi import __version__  # noqa: E402
from ukihashi.cli import alert_classic  # noqa: E402
from ukihashi.cli.main import PROGRAMS, build  # noqa: E402
from ukihashi.config.option_texts import SECTIONS  # noqa: E402
from ukihashi.config.options import Kind, effect_words, rows, shown  # noqa: E402
from ukihashi.locale import _, current_language  # noqa: E402

HEADINGS: Final = {
    "NAME": "名前",
    "SYNOPSIS": "書式",
    "DESCRIPTION": "説明",
    "OPTIONS": "オプション",
    "COMMANDS": "コマンド",
    "SETTINGS": "設定項目",
    "EXIT STATUS": "終了ステータス",
    "ENVIRONMENT": "環境変数",
    "FILES": "ファイル",
    "SEE ALSO": "関連項目",
}
ABOUT: Final = {  # what no help text says; English, Japanese
    "manual": ("ukihashi manual", "ukihashi マニュアル"),
    "sub": ("Commands are listed with their options below.", "各コマンドとオプションは以下のとおりです。"),
    "more": ("Each command explains itself with --help.", "各コマンドの説明は --help でも表示できます。"),
    "toml": (
        "A file in TOML. Settings stand with their defaults. In brackets: what is allowed, and when it takes effect.",
        "TOML 形式のファイルです。各項目を既定値とともに示します。[ ] の中は、指定できる値と変更が有効になる時点です。",
    ),
    "ukihashi": ("Ethernet over HTTPS", "HTTPS 越しの Ethernet"),
    "sealert": ("tunnel detector, operated as in 2004", "2004 年と同じ操作のトンネル検知器"),
    "hub.toml": (
        "settings of the machine that runs ukihashi's virtual hubs",
        "ukihashi の仮想 HUB を動かすマシンの設定",
    ),
    "card.toml": ("settings of one ukihashi virtual LAN card", "ukihashi の仮想 LAN カード 1 枚の設定"),
    "alert.toml": ("settings of ukihashi's tunnel detector", "ukihashi のトンネル検知器の設定"),
}
STATUSES: Final = (
    (0, "Done.", "正常に終了した。"),
    (2, "Wrong usage, name, value or file.", "使い方、名前、値またはファイルの誤り。"),
    (3, "This machine lacks a right, a free port, room or the like.", "権限、空きポート、空き容量などが足りない。"),
    (4, "No daemon answers.", "デーモンが応答しない。"),
    (5, "Refused by the hub.", "HUB に拒否された。"),
    (6, "The hub's key is not the one that is trusted.", "HUB の鍵が信頼しているものと異なる。"),
    (7, "No connection.", "接続できない。"),
    (70, "A fault in ukihashi.", "ukihashi 内部の誤り。"),
    (130, "Interrupted.", "中断された。"),
)  # fmt: skip
ENVIRONMENT: Final = (
    ("UKIHASHI_CONFIG_DIR", "Where settings are [/etc/ukihashi].", "設定の置き場所 [/etc/ukihashi]。"),
    ("UKIHASHI_STATE_DIR", "Where state is kept [/var/lib/ukihashi].", "状態の置き場所 [/var/lib/ukihashi]。"),
    ("UKIHASHI_RUNTIME_DIR", "Where sockets are [/run/ukihashi].", "ソケットの置き場所 [/run/ukihashi]。"),
    ("LANGUAGE, LC_ALL, LANG", "The language of everything that is said.", "表示に使う言語。"),
)
FILES: Final = {
    "hub": ("/etc/ukihashi/hub.toml", "/var/lib/ukihashi", "/run/ukihashi/hub.sock"),
    "card": ("/etc/ukihashi/card.d/ACCOUNT.toml", "/var/lib/ukihashi/log", "/run/ukihashi"),
    "alert": ("/etc/ukihashi/alert.toml", "/var/log/ukihashi", "/run/ukihashi/alert.sock"),
}
PAGES: Final = (
    *("ukihashi(1)", *(f"ukihashi-{name}(1)" for name in PROGRAMS), "sealert(1)"),
    *("ukihashi-hub.toml(5)", "card.toml(5)", "ukihashi-alert.toml(5)"),
)
# a wide letter before another one that may begin a line
WIDE: Final = re.compile(r"[\u201d\u3000-\u30ff\u3400-\u9fff\uff00-\uffef](?=[\u201c\u3041-\u30fa\u3400-\u9fff])")
TOML: Final[dict[Kind, str]] = {"hub": "ukihashi-hub.toml", "card": "card.toml", "alert": "ukihashi-alert.toml"}
PLACES: Final[dict[Kind, str]] = {
    "hub": "/etc/ukihashi/hub.toml",
    "card": "/etc/ukihashi/card.d/ACCOUNT.toml",
    "alert": "/etc/ukihashi/alert.toml",
}


def both(english: str, japanese: str) -> str:
    """The one in the language that is spoken."""
    return japanese if current_language() == "ja" else english


def heading(word: str) -> str:
    """A section."""
    return f".SH {both(word, HEADINGS[word])}" if current_language() == "ja" else f'.SH "{word}"'


def text(words: str) -> str:
    """Plain text as roff takes it: one line, nothing in it is an order, and Japanese may be broken anywhere."""
    line = " ".join(words.split()).replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    line = WIDE.sub(r"\g<0>\\:", line)
    return "\\&" + line if line[:1] in {".", "'"} else line


def bold(words: str) -> str:
    """As one types it."""
    return f"\\fB{text(words)}\\fR"


class Page:
    """One page, line by line."""

    def __init__(self, name: str, section: int, summary: str, date: str) -> None:
        self.name, self.section = name, section
        self._lines = [
            f'.TH "{name.upper()}" "{section}" "{date}" "ukihashi {__version__}" "{both(*ABOUT["manual"])}"',
            ".nh",
            ".ad l",
            heading("NAME"),
            f"{text(name)} \\- {text(summary.rstrip('.。'))}",
        ]

    def put(self, *lines: str) -> None:
        """Lines of roff."""
        self._lines += lines

    def entry(self, term: str, *about: str) -> None:
        """A term and what it means."""
        self._lines += [".TP", term, *(text(one) for one in about if one)]

    def see(self) -> None:
        """The other pages."""
        others = [one for one in PAGES if one != f"{self.name}({self.section})"]
        self.put(
            heading("SEE ALSO"), *(f".BR {text(one[:-3])} {one[-3:]}{',' * (one != others[-1])}" for one in others)
        )

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"


def context_of(command: click.Command, words: str, parent: click.Context | None = None) -> click.Context:
    """For click to describe it."""
    return click.Context(command, parent, info_name=words, terminal_width=1000, max_content_width=1000)


def usage(command: click.Command, context: click.Context) -> str:
    """After the command's own words."""
    return " ".join(command.collect_usage_pieces(context))


def options_of(page: Page, command: click.Command, context: click.Context, *, inner: bool = False) -> None:
    """Each option of a command; every one has --help, which is said once a page."""
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if (
            record is not None
            and (record[1] or isinstance(param, click.Option))
            and not (inner and param.name == "help")
        ):
            page.entry(bold(re.sub(r" {2,}", " ", record[0])), record[1])


def subcommands(
    page: Page, group: click.Group, context: click.Context, words: str
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """All below a group, depth first, those that are groups besides too."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = context_of(command, name, context)
        yield f"{words} {name}", command, inner
        if isinstance(command, click.Group):
            yield from subcommands(page, command, inner, f"{words} {name}")


def program(name: str, command: click.Command, date: str) -> Page:
    """`ukihashi-hub` and its like: all of its commands on one page."""
    words = name.replace("-", " ")
    context = context_of(command, words)
    summary = _(PROGRAMS[name.partition("-")[2]][2]) if "-" in name else both(*ABOUT[name])
    page = Page(name, 1, summary, date)
    page.put(heading("SYNOPSIS"), f"{bold(words)} {text(usage(command, context))}", heading("DESCRIPTION"))
    page.put(text(command.help or ""))
    page.put(heading("OPTIONS"))
    options_of(page, command, context)
    if isinstance(command, click.Group) and name != "ukihashi":
        page.put(heading("COMMANDS"), text(both(*ABOUT["sub"])))
        for title, one, inner in subcommands(page, command, context, words.partition(" ")[2]):
            page.put(f".SS {bold(title)} {text(usage(one, inner))}".replace('"', "\\(dq"), text(one.help or ""))
            options_of(page, one, inner, inner=True)
    elif isinstance(command, click.Group):
        page.put(heading("COMMANDS"))
        for other, (_module, _attribute, about) in PROGRAMS.items():
            page.entry(bold(f"ukihashi {other}"), _(about))
        page.put(".PP", text(both(*ABOUT["more"])))
    page.put(heading("EXIT STATUS"))
    for status, english, japanese in STATUSES:
        page.entry(bold(str(status)), both(english, japanese))
    page.put(heading("ENVIRONMENT"))
    for variable, english, japanese in ENVIRONMENT:
        page.entry(bold(variable), both(english, japanese))
    files = FILES.get(name.partition("-")[2] if "-" in name else "alert" if name == "sealert" else "", ())
    if files:
        page.put(heading("FILES"), "\n.br\n".join(bold(file) for file in files))
    page.see()
    return page


def settings(kind: Kind, date: str) -> Page:
    """A file's page."""
    page = Page(TOML[kind], 5, both(*ABOUT[f"{kind}.toml"]), date)
    page.put(heading("SYNOPSIS"), bold(PLACES[kind]), heading("DESCRIPTION"), text(both(*ABOUT["toml"])))
    page.put(heading("SETTINGS"))
    section = ""
    for row in rows(kind, None, current_language()):
        key = str(row["option"])
        if (this := key.rpartition(".")[0]) != section:
            section = this
            page.put(f".SS {text(f'[{section}]')}", text(_(SECTIONS[kind].get(section, ""))))
        remarks = [str(row.get("allowed", "")), effect_words(str(row.get("effect", "")), _)]
        default = "" if row.get("required") else f" = {text(str(shown(row, 'default', _)))}"
        page.entry(f"{bold(key.rpartition('.')[2])}{default}", f"{row['meaning']} [{'; '.join(filter(None, remarks))}]")
    page.see()
    return page


def pages(date: str) -> Iterator[Page]:
    """All of them, in the language that is spoken."""
    root = build()
    assert isinstance(root, click.Group)
    yield program("ukihashi", root, date)
    for name in PROGRAMS:
        command = root.get_command(context_of(root, "ukihashi"), name)
        assert command is not None
        yield program(f"ukihashi-{name}", command, date)
    yield program("sealert", alert_classic.command(), date)
    for kind in TOML:
        yield settings(kind, date)


def main() -> None:
    """See the module."""
    if len(sys.argv) not in {3, 4} or sys.argv[1] not in LANGUAGES:
        sys.exit((__doc__ or "").strip())
    date = sys.argv[3] if len(sys.argv) > 3 else dt.datetime.now(dt.UTC).date().isoformat()
    folder = Path(sys.argv[2]) / ("" if sys.argv[1] == "en" else sys.argv[1])
    for page in pages(date):
        path = folder / f"man{page.section}" / f"{page.name}.{page.section}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(page), encoding="utf-8")


if __name__ == "__main__":
    os.environ.pop("COLUMNS", None)
    main()
