"""What becomes of a fault of our own: a report file for the developers, one sentence for the user.

`UKIHASHI_DEBUG=1` shows the trace on the screen as well.
"""

import os
import platform
import sys
import tempfile
import traceback
from pathlib import Path

from ukihashi import __version__


def debugging() -> bool:
    """Whether the user asked to see traces."""
    return os.environ.get("UKIHASHI_DEBUG", "") not in ("", "0")


def write_report(error: BaseException) -> Path | None:
    """Keep the trace in a file that only this user reads; None if no place takes it. Secrets are not in traces."""
    if debugging():
        traceback.print_exception(error, file=sys.stderr)
    text = "".join(
        [
            f"ukihashi {__version__}, Python {platform.python_version()}, {platform.platform()}\n",
            *traceback.format_exception(error),
        ]
    )
    try:
        handle, name = tempfile.mkstemp(prefix="ukihashi-report-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return None
    return Path(name)
