"""One call: bytes in, bytes out; or JSON values in, JSON values out.

Only who was let in gets here, and what comes is bounded before it is read. Whatever goes wrong inside is one error code
in the answer; the reason is in the hub's log.
"""

from collections.abc import Mapping
from typing import Any, Final

import structlog

from ukihashi.errors import PeerViolation, Refused, UkihashiError, UsageError
from ukihashi.hub.rpc import access_list, hubs, links, listeners, logs, people, sessions, whole
from ukihashi.hub.rpc.method import Backing, Caller, Method, Right, refused
from ukihashi.net.control_socket import asker
from ukihashi.wire.constants import Code
from ukihashi.wire.pack import Pack
from ukihashi.wire.rpc import Values, error_pack

MAX_REQUEST: Final = 8 * 1024 * 1024  # bytes
FUNCTION: Final = "function_name"
FAMILIES: Final = (whole, hubs, people, sessions, access_list, links, listeners, logs)

_log = structlog.get_logger()


class Calls:
    """Answers the calls of tools."""

    def __init__(self, backing: Backing) -> None:
        self.access: Final = backing.access
        methods: list[Method] = [method for family in FAMILIES for method in family.methods(backing)]
        self._methods: Final = {method.name.casefold(): method for method in methods}

    @property
    def names(self) -> list[str]:
        """Every call that is answered."""
        return [method.name for method in self._methods.values()]

    async def call(self, hub: str, request: bytes, peer: str) -> bytes:
        """The answer to a PACK; b"" if it can't be read or tools are allowed no more, and the connection must end.

        Args:
            hub: for which the caller was let in; "" = the whole.
        """
        try:
            pack = Pack.decode(request, max_bytes=MAX_REQUEST)
        except PeerViolation as violation:
            _log.warning("tool_refused", peer=peer, hub=hub, reason=str(violation))
            return b""
        caller, name = Caller(hub, peer), pack.get_str(FUNCTION)
        try:
            if not await self.access.is_allowed(hub):
                return b""
            method = self._method(name)
            given = method.takes.from_pack(pack)
            answer = method.gives.to_pack(await self._carry_out(method, caller, given))
        except Exception as error:  # noqa: BLE001 - one call's fault is one error code
            answer = error_pack(_code(error, caller, name))
        return answer.encode()

    async def password_login(self, hub: str, password: str, peer: str) -> int:
        """As `Access.password_login`."""
        return await self.access.password_login(hub, password, peer)

    async def call_json(self, hub: str, name: str, params: Mapping[str, Any], peer: str) -> Values:
        """The result object. Raises: Refused: with the error's code."""
        caller = Caller(hub, peer)
        try:
            method = self._method(name)
            given = method.takes.from_json(params)
            return method.gives.to_json(await self._carry_out(method, caller, given))
        except Exception as error:
            raise refused(_code(error, caller, name)) from error

    def _method(self, name: str) -> Method:
        method = self._methods.get(name.casefold())
        if method is None:
            raise refused(Code.NOT_SUPPORTED)
        return method

    async def _carry_out(self, method: Method, caller: Caller, given: Values) -> Values:
        named = str(given.get(method.hub_field, ""))
        if method.right is Right.WHOLE and caller.hub:
            raise refused(Code.NOT_ENOUGH_RIGHT)
        if method.right is Right.HUB and not caller.owns(named):
            raise refused(Code.NOT_ENOUGH_RIGHT)
        mark = asker.set(f"tool {caller.peer}" + (f" for {caller.hub}" if caller.hub else ""))
        try:
            return await method.handle(caller, given)
        finally:
            asker.reset(mark)


def _code(error: Exception, caller: Caller, name: str) -> int:
    """The code that says it, and a line in the log."""
    if isinstance(error, Refused) and error.code:
        code = int(error.code)
    elif isinstance(error, UsageError):
        code = int(Code.INVALID_PARAMETER)
    else:
        code = int(Code.INTERNAL_ERROR)
    fields = {"function": name[:64], "code": code, "hub": caller.hub, "peer": caller.peer}
    if isinstance(error, UkihashiError):
        _log.warning("tool_refused", reason=str(error), **fields)
    else:
        _log.error("internal_error", exc_info=error, **fields)
    return code
