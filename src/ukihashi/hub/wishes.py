"""What an admin may wish of the supervisor while the hub runs: options, reload, upgrade. Asked by control (`Wish`),
which strangers can see: so nothing here follows its words further than to numbers of hub.toml.
"""

import contextlib
import dataclasses
import os
import select
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ukihashi import __version__
from ukihashi.config.option_texts import Effect
from ukihashi.config.options import Change, change_rows
from ukihashi.errors import N_, EnvironmentLacks, UkihashiError, UsageError
from ukihashi.hub.limits import Limits
from ukihashi.hub.live_options import LiveOptions
from ukihashi.hub.machine import Machine
from ukihashi.hub.messages import CertificatePut, Granted, LimitsPut, Message, OptionsPut, Wish
from ukihashi.hub.upgrade import Check, Checked, agree
from ukihashi.pki.ca import Identity, pin_text


class House(Protocol):
    """What wishes may do in the supervisor."""

    number: int  # of upgrades since the hub's first start
    limits: Limits  # for workers that are started from now on

    @property
    def workers(self) -> Sequence[str]:
        """The names of all, heirs included."""

    def send(self, name: str, message: Message, fds: Sequence[int] = ()) -> None:
        """To a process; nothing if there is none."""

    def tell(self, error: UkihashiError) -> None:
        """A sentence for the log."""

    def is_upgrading(self) -> bool:
        """The last upgrade isn't finished."""

    def set_congestion(self, name: str) -> None:
        """Of the connections that are accepted from now on."""

    def become_new(self) -> None:
        """Go on as the new program. Returns only with an error: nothing has changed."""


class Wishes:
    """See the module."""

    def __init__(
        self,
        house: House,
        options: LiveOptions | None,
        program: Sequence[str],
        poll: select.poll,
        machine: Machine,
    ) -> None:
        self._house = house
        self._machine = machine
        self._options = options
        self._program = program
        self._poll = poll
        self._check: Check | None = None

    def hear(self, wish: Wish) -> None:
        """Carry it out and answer; the answer to an upgrade comes when the new program has been tried out."""
        granting: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "options": lambda: self._live().rows(),
            "set_option": lambda: self._apply(lambda live: live.put(wish.key, wish.value)),
            "reload": lambda: self._apply(lambda live: live.read_again()),
            "uplinks": self._machine.uplinks.rows,
            "bridges": self._machine.bridges.rows,
        }
        try:
            if wish.what == "upgrade":
                self._begin_check(wish.ask)
            elif wish.what in granting:
                self._answer(wish.ask, granting[wish.what]())
        except UkihashiError as error:
            self._refuse(wish.ask, error)

    def reload(self) -> None:
        """As SIGHUP asks; there is nobody to answer but the log."""
        try:
            rows = self._apply(lambda live: live.read_again())
        except UkihashiError as error:
            self._house.tell(error)
            return
        pending = [str(row["option"]) for row in rows if row["effect"] == Effect.NEXT_START]
        if pending:
            self._house.tell(
                UkihashiError(
                    N_("hub.toml was read again; at the next start or `ukihashi hub upgrade`: {options}"),
                    options=", ".join(pending),
                )
            )

    # -- options --------------------------------------------------------------------------------------------------

    def _live(self) -> LiveOptions:
        if self._options is None:
            raise EnvironmentLacks(N_("this hub was started without hub.toml; nothing can be changed while it runs"))
        return self._options

    def _apply(self, change: Callable[[LiveOptions], list[Change]]) -> list[dict[str, Any]]:
        """Let `change` happen and everybody heed it; the rows of what has changed."""
        live = self._live()
        before, identity = live.config, live.identity
        rows = change_rows("hub", change(live))
        old, new = Limits.of(before), Limits.of(live.config)
        values = {one.name: getattr(new, one.name) for one in dataclasses.fields(Limits)}
        values = {name: value for name, value in values.items() if value != getattr(old, name)}
        if values:
            self._house.limits = dataclasses.replace(self._house.limits, **values)
            for name in self._house.workers:
                self._house.send(name, LimitsPut(values))
        if live.config.congestion != before.congestion:
            self._house.set_congestion(live.config.congestion)
        self._machine.heed(before, live.config)
        if live.identity.fingerprint != identity.fingerprint:
            rows.append(self._renew(identity, live.identity))
        if rows:
            config = live.config
            self._house.send(
                "control",
                OptionsPut(
                    config.public_address,
                    config.session_timeout_s,
                    config.mac_ageing_s,
                    rows,
                    live.identity.der,
                    list(config.uplinks()),
                    bool(config.bridges),
                ),
            )
        return rows

    def _renew(self, old: Identity, new: Identity) -> dict[str, Any]:
        """The workers have no right to any file, so they get key and certificate open."""
        fds = [_in_memory(new.certificate), _in_memory(new.key)]
        for name in self._house.workers:
            self._house.send(name, CertificatePut(), fds)
        for fd in fds:
            os.close(fd)
        self._house.tell(
            UkihashiError(
                N_(
                    "the certificate was renewed around the same key, now SHA-256 {print}; official clients with"
                    " several connections log in again when they open the next one"
                ),
                print=pin_text(new.fingerprint),
            )
        )
        told = {"old": pin_text(old.fingerprint), "new": pin_text(new.fingerprint)}
        return {"option": "tls.certificate", **told, "effect": str(Effect.NEXT_CONNECTION)}

    # -- upgrade --------------------------------------------------------------------------------------------------

    def _begin_check(self, ask: int) -> None:
        if not self._program:
            raise EnvironmentLacks(N_("this hub was not started by `ukihashi hub serve`, so it can't be upgraded"))
        if self._check is not None or self._house.is_upgrading():
            raise UsageError(N_("an upgrade is under way already"))
        self._check = Check(self._program, ask)
        self._poll.register(self._check.fileno(), select.POLLIN)

    @property
    def patience_s(self) -> float | None:
        """When to `look` again, if nothing happens."""
        dues = (self._machine.patience_s, None if self._check is None else self._check.left_s)
        return min((due for due in dues if due is not None), default=None)

    def look(self, ready: set[int]) -> None:
        """Has the check ended, or taken too long? Has the network of this machine changed?"""
        self._machine.look(ready)
        check = self._check
        if check is None or (check.fileno() not in ready and check.left_s > 0):
            return
        self._forget_check()
        try:
            checked = check.result()
            agree(checked, self._options.identity.pin if self._options is not None else b"")
            self._upgrade(check.asked_by, checked)
        except UkihashiError as error:
            self._refuse(check.asked_by, error)

    def _upgrade(self, ask: int, checked: Checked) -> None:
        number = self._house.number + 1
        self._answer(ask, [{"from": __version__, "to": checked.version, "number": number}])
        try:
            self._house.become_new()
        except UkihashiError as error:  # the answer is out; the one who asked will see that nothing came of it
            self._house.tell(error)

    def stop(self) -> None:
        """The hub ends: so does a check that is under way."""
        check = self._check
        if check is not None:
            self._forget_check()
            with contextlib.suppress(UkihashiError):
                check.result()

    def _forget_check(self) -> None:
        assert self._check is not None
        self._poll.unregister(self._check.fileno())
        self._check = None

    # -- answers --------------------------------------------------------------------------------------------------

    def _answer(self, ask: int, rows: list[dict[str, Any]]) -> None:
        self._house.send("control", Granted(ask, rows))

    def _refuse(self, ask: int, error: UkihashiError) -> None:
        plain = int | float | str
        values = {name: one if isinstance(one, plain) else str(one) for name, one in error.values.items()}
        refusal = Granted(ask, template=error.template, values=values, exit_status=error.exit_status)
        self._house.send("control", refusal)


def _in_memory(path: Path) -> int:
    fd = os.memfd_create(path.name)
    os.write(fd, path.read_bytes())
    return fd
