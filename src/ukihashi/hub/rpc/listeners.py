"""Calls about where and how the hub listens: ports, certificate, cipher suites, and the password for tools.

Ports, certificate and suites come from hub.toml. They can be looked at here; changes are refused, and the log says why.
"""

from typing import Final

from ukihashi.auth.password import admin_hash
from ukihashi.errors import N_
from ukihashi.hub.rpc.method import Backing, Caller, Method, Right, not_ours
from ukihashi.net.suites import available
from ukihashi.wire import rpc_structs as s
from ukihashi.wire.constants import DIGEST_LENGTH
from ukihashi.wire.rpc import Struct, Values

SELF_SIGNED: Final = 1  # `Flag1` of GetServerCert


def methods(backing: Backing) -> list[Method]:
    """The family."""
    family = _Listeners(backing)
    whole = Right.WHOLE
    return [
        Method("EnumListener", s.NOTHING, s.LISTENERS, family.enum, whole),
        Method("CreateListener", s.LISTENER, s.LISTENER, family.change, whole),
        Method("DeleteListener", s.LISTENER, s.LISTENER, family.change, whole),
        Method("EnableListener", s.LISTENER, s.LISTENER, family.change, whole),
        Method("SetServerPassword", s.SERVER_PASSWORD, s.SERVER_PASSWORD, family.set_password, whole),
        Method("GetServerCert", s.NOTHING, s.KEY_PAIR, family.certificate, Right.ANY),
        Method("SetServerCert", s.KEY_PAIR, s.KEY_PAIR, family.change_certificate, whole),
        Method("RegenerateServerCert", Struct("StrValue s"), Struct("StrValue s"), family.change_certificate, whole),
        Method("GetServerCipher", s.NOTHING, s.TEXT, family.cipher, Right.ANY),
        Method("SetServerCipher", s.TEXT, s.TEXT, family.set_cipher, whole),
        Method("GetServerCipherList", s.NOTHING, s.TEXT, family.ciphers, Right.ANY),
    ]


class _Listeners:
    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    # -- ports ----------------------------------------------------------------------------------------------------

    async def enum(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """The ports of hub.toml; all of them are open, or the hub would not run."""
        ports = dict.fromkeys(one.port for one in self._backing.facts.endpoints)
        return {"ListenerList": [{"Ports": port, "Enables": True} for port in ports]}

    async def change(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Not from here."""
        raise not_ours(N_("where the hub listens stands in hub.toml: write it there, then: ukihashi hub upgrade"))

    # -- password for tools ---------------------------------------------------------------------------------------

    async def set_password(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Another password for tools of the whole; the one of the web page and the command line stays."""
        hashed, plain = given["HashedPassword"], given["PlainTextPassword"]
        if not any(hashed):
            hashed = admin_hash(plain)
        await self._backing.access.set_password(hashed)
        return {"HashedPassword": bytes(DIGEST_LENGTH)}

    # -- certificate and suites -----------------------------------------------------------------------------------

    async def certificate(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """The certificate that everybody is shown; the key stays where it is."""
        return {"Cert": self._backing.facts.certificate, "Flag1": SELF_SIGNED}

    async def change_certificate(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Not from here: cards know the hub by its key."""
        raise not_ours(N_("key and certificate stand in hub.toml: write them there, then: ukihashi hub reload"))

    async def cipher(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """What is offered, the first liked best."""
        return {"String": ":".join(self._backing.facts.ciphers)}

    async def set_cipher(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """Not from here."""
        raise not_ours(N_("cipher suites stand in hub.toml, tls.ciphers: write them there, then: ukihashi hub upgrade"))

    async def ciphers(self, caller: Caller, given: Values) -> Values:  # noqa: ARG002 - part of Handler
        """All that may be picked."""
        return {"String": ";".join(suite.name for suite in available() if suite.usable)}
