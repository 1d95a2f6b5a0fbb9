"""Read a sensor's bus for as long as one likes: sensors come and go, the reader stays."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ukihashi.errors import N_, EnvironmentLacks

RETRY_S: Final = 1.0
MAX_LINE: Final = 32 << 20  # bytes; the snapshot holds 256 findings
SILENT_S: Final = 30.0  # a sensor speaks every second; one that does not so long hangs


async def follow(path: Path, took: Callable[[bytes], None], lost: Callable[[], None]) -> None:
    """Give each line of the bus to `took`, until cancelled; `lost` is called at each attempt in vain and each end.

    Raises:
        EnvironmentLacks: the bus is there, and this user may not read it.
    """
    while True:
        writer = None
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE)
            while True:
                async with asyncio.timeout(SILENT_S):
                    line = await reader.readline()
                if not line.endswith(b"\n"):
                    break
                took(line)
        except PermissionError as error:
            raise EnvironmentLacks(
                N_("no right to read {path}; ask as the user who runs the sensor, or as root"), path=path
            ) from error
        except (OSError, TimeoutError, ValueError):  # ValueError: a line beyond all bounds
            pass
        finally:
            if writer is not None:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        lost()
        await asyncio.sleep(RETRY_S)
