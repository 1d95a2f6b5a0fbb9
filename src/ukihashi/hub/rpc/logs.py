"""Calls about log files: one for the whole, one for each virtual hub; see `hub.log_ring`."""

import platform
from typing import Final

from ukihashi.hub.rpc.method import Backing, Caller, Method, Right, refused
from ukihashi.store import hubs
from ukihashi.wire import rpc_structs as s
from ukihashi.wire.constants import Code
from ukihashi.wire.rpc import Values

WHOLE: Final = "server.log"
SUFFIX: Final = ".log"
FOLDER: Final = "hub/"  # no hub's name contains a slash


def methods(backing: Backing) -> list[Method]:
    """The family."""
    family = _Logs(backing)
    return [
        Method("EnumLogFile", s.NOTHING, s.LOG_FILES, family.enum, Right.ANY),
        Method("ReadLogFile", s.LOG_PART, s.LOG_PART, family.read, Right.ANY),
    ]


class _Logs:
    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def enum(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """What may be read."""
        known = await self._backing.storage.read(hubs.all_hubs)
        files = [] if caller.hub else [(WHOLE, "")]
        files += [(f"{FOLDER}{hub.name}{SUFFIX}", hub.name) for hub in known if caller.owns(hub.name)]
        now, name = self._backing.clock(), platform.node()
        rows = [
            {"ServerName": name, "FilePath": path, "FileSize": len(self._text(hub)), "UpdatedTime": now}
            for path, hub in files
        ]
        return {"NumItem": len(rows), "LogFiles": rows}

    async def read(self, caller: Caller, given: Values) -> Values:
        """Everything from an offset on."""
        path, offset = given["FilePath"], given["Offset"]
        hub = path.removeprefix(FOLDER).removesuffix(SUFFIX) if path.startswith(FOLDER) else ""
        if not caller.owns(hub):
            raise refused(Code.NOT_ENOUGH_RIGHT)
        if path != WHOLE and (not hub or await self._backing.storage.read(hubs.find, hub) is None):
            raise refused(Code.OBJECT_NOT_FOUND)
        rest = self._text(hub)[offset:]
        return given | ({"Buffer": rest} if rest else {})  # a tool asks on until there is none

    def _text(self, hub: str) -> bytes:
        return self._backing.facts.log.text(hub)
