"""The methods beside login (protocol sections 17 and 19.1), to and from PACK as in `messages`."""

from dataclasses import dataclass, field
from typing import Self

from ukihashi.wire.constants import DIGEST_LENGTH
from ukihashi.wire.elements import closed, exact, require, text
from ukihashi.wire.pack import Pack


@dataclass(frozen=True, slots=True)
class EnumHub:
    """Method `enum_hub` (section 17): the names of the virtual hubs."""

    def to_pack(self, pencore: bytes) -> Pack:
        pack = Pack()
        pack.add_str("method", "enum_hub")
        return closed(pack, pencore)


@dataclass(frozen=True, slots=True)
class HubNames:
    """The answer to `EnumHub`."""

    names: tuple[str, ...]

    def to_pack(self, pencore: bytes) -> Pack:
        pack = Pack()
        if self.names:  # a column without values would make the whole PACK unreadable (trap T6)
            pack.add_str("HubName", *self.names)
        pack.add_int("NumHub", len(self.names))
        return closed(pack, pencore)


@dataclass(frozen=True, slots=True)
class PasswordChange:
    """Method `password` (section 17): a user puts a new password in the old one's place."""

    hub: str
    user: str
    secure_old: bytes = field(repr=False)  # the old password's answer to the challenge
    new_hash: bytes = field(repr=False)  # SHA0 form of the new one

    def to_pack(self, pencore: bytes) -> Pack:
        pack = Pack()
        pack.add_str("method", "password")
        pack.add_str("hubname", self.hub)
        pack.add_str("username", self.user)
        pack.add_data("secure_old_password", self.secure_old)
        pack.add_data("new_password", self.new_hash)
        return closed(pack, pencore)

    @classmethod
    def from_pack(cls, pack: Pack) -> Self:
        require(pack, "hubname", "username")
        return cls(
            hub=text(pack, "hubname"),
            user=text(pack, "username"),
            secure_old=exact(pack, "secure_old_password", DIGEST_LENGTH),
            new_hash=exact(pack, "new_password", DIGEST_LENGTH),
        )


@dataclass(frozen=True, slots=True)
class AdminLogin:
    """Method `admin` (19.1): a tool wants to administrate. HTTP is over when it is let in."""

    hub: str  # "" = the whole server
    secure_password: bytes = field(repr=False)
    client: str = ""
    client_version: int = 0
    client_build: int = 0

    def to_pack(self, pencore: bytes) -> Pack:
        pack = Pack()
        pack.add_str("method", "admin")
        pack.add_str("hubname", self.hub)
        pack.add_data("secure_password", self.secure_password)
        pack.add_int("accept_empty_password", 1)
        pack.add_str("client_str", self.client)
        pack.add_int("client_ver", self.client_version)
        pack.add_int("client_build", self.client_build)
        return closed(pack, pencore)

    @classmethod
    def from_pack(cls, pack: Pack) -> Self:
        return cls(
            hub=text(pack, "hubname"),
            secure_password=exact(pack, "secure_password", DIGEST_LENGTH),
            client=text(pack, "client_str"),
            client_version=pack.get_int("client_ver"),
            client_build=pack.get_int("client_build"),
        )


@dataclass(frozen=True, slots=True)
class Done:
    """What was asked for is done: the answer to `PasswordChange` and `AdminLogin`."""

    def to_pack(self, pencore: bytes) -> Pack:
        pack = Pack()
        pack.add_int("error", 0)
        return closed(pack, pencore)
