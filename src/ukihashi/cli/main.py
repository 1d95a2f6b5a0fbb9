"""`ukihashi`: one command, three programs and a doctor. Sets the language before anything that speaks is imported.

Exit status: 0 done, 2 wrong usage or a file that can't be used, 3 this machine lacks something, 4 no daemon, 5 refused,
6 not trusted, 7 no connection, 130 interrupted, 70 a fault of our own (sysexits(3): EX_SOFTWARE).
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from ukihashi import __version__
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError
from ukihashi.locale import LANGUAGES, _, language_of, say, set_language

INTERRUPTED: Final = 130
FAULT: Final = 70
COMPLETING: Final = "_UKIHASHI_COMPLETE"  # set by a shell's completion, which click answers

# name -> module, attribute, summary; a program is imported only when it is called
PROGRAMS: Final = {
    "hub": ("ukihashi.cli.hub", "hub", N_("The virtual HUB: serve it, look into it, invite people.")),
    "card": ("ukihashi.cli.card", "card", N_("The virtual LAN card: join a hub and leave it.")),
    "alert": ("ukihashi.cli.alert", "alert", N_("The detector: find such tunnels on a network.")),
    "doctor": ("ukihashi.cli.host_doctor", "doctor", N_("Is this machine fit for hub or card? What to do where not.")),
}


class Programs(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of a newcomer's needs."""
        del ctx
        return list(PROGRAMS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        del ctx
        if cmd_name not in PROGRAMS:
            return None
        module, attribute, _summary = PROGRAMS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        if COMPLETING in os.environ:
            from ukihashi.cli.completion import teach

            teach(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        del ctx
        with formatter.section(click_word("Commands")):
            formatter.write_dl([(name, _(summary)) for name, (_module, _name, summary) in PROGRAMS.items()])


def click_word(word: str) -> str:
    """A word of click's in the chosen language."""
    return _(word)


def build() -> click.Command:
    """The command, with its help in the language chosen before."""

    @click.group(cls=Programs, help=_("ukihashi: Ethernet over HTTPS."), no_args_is_help=True)
    @click.option(
        "--lang", type=click.Choice(LANGUAGES), help=_("Language of everything that is said [LANGUAGE, LC_ALL, LANG].")
    )
    @click.version_option(__version__, prog_name="ukihashi", message="%(prog)s %(version)s")
    def ukihashi(lang: str | None) -> None:
        del lang  # read by `wanted_language` before this existed

    return ukihashi


def wanted_language(argv: Sequence[str]) -> str:
    """The language of `--lang` before the first command, else what the environment asks for."""
    for place, word in enumerate(argv):
        if word.startswith("--lang="):
            found = word.partition("=")[2]
        elif word == "--lang":
            found = argv[place + 1] if place + 1 < len(argv) else ""
        elif word.startswith("-") or (place and argv[place - 1] == "--lang"):
            continue
        else:
            break
        if found in LANGUAGES:
            return found
    return language_of(os.environ)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process."""
    words = list(sys.argv[1:] if argv is None else argv)
    set_language(wanted_language(words))
    status = run(build(), words)
    try:
        sys.stdout.flush()
    except OSError:  # the reader has gone: nothing is left to say, not even by the interpreter at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = status or 1
    sys.exit(status)


def run(command: click.Command, words: Sequence[str], *, name: str = "ukihashi") -> int:
    """Run a click command; whatever goes wrong becomes a sentence on standard error and an exit status."""
    try:
        result = command.main(list(words), prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except UkihashiError as error:
        _tell(error)
        return error.exit_status
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return 1
    except OSError as error:
        lacks = EnvironmentLacks(
            N_("{what}: {reason}"), what=error.filename or name, reason=error.strerror or type(error).__name__
        )
        _tell(lacks)
        return lacks.exit_status
    except Exception as error:  # noqa: BLE001 - the last line of defence: no trace reaches a user
        return _confess(error)
    return result if isinstance(result, int) else 0


def _confess(error: Exception) -> int:
    from ukihashi.ops.report import write_report

    report = write_report(error)
    click.echo(
        _("ukihashi failed inside ({kind}). This is our fault; please send us the report {report}").format(
            kind=type(error).__name__, report=report or "-"
        ),
        err=True,
    )
    return FAULT


def _tell(error: UkihashiError) -> None:
    click.echo(f"ukihashi: {say(error)}", err=True)


if __name__ == "__main__":
    main()
