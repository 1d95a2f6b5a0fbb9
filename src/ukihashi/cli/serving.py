"""`ukihashi hub serve`: puts the hub together from configuration, key, supervisor, control process and web page.

Everything is imported and read before the supervisor forks: its children give up their rights at once and may reach no
file of ours afterwards. With `--check` it ends there: what a person, or a hub before its upgrade, wants to know first.
"""

import asyncio
import codecs
import datetime as dt
import gc
import importlib
import os
import socket
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ukihashi import __version__
from ukihashi.card import cascade, log_texts
from ukihashi.cli.output import moment, say_aside, write
from ukihashi.config import places
from ukihashi.config.hub import Endpoint, HubConfig, load_hub, parse_listen
from ukihashi.errors import N_, EnvironmentLacks
from ukihashi.ether import segment
from ukihashi.hub import control, supervisor
from ukihashi.hub.backstage import Facts
from ukihashi.hub.bridges import wanted_bridges
from ukihashi.hub.events import EVENTS
from ukihashi.hub.handover import FORM
from ukihashi.hub.limits import Limits
from ukihashi.hub.live_options import LiveOptions
from ukihashi.hub.start import ControlStart, Supervisor
from ukihashi.locale import LANGUAGES, _, catalogue
from ukihashi.net.host import own_address
from ukihashi.net.privileges import identity, is_root
from ukihashi.net.suites import NO_PICK, Pick, check_key, check_pick, usual_names
from ukihashi.net.tls import server_context, tls_library
from ukihashi.ops import log, notify
from ukihashi.pki import ca
from ukihashi.store.db import check_form, migrations
from ukihashi.web import render
from ukihashi.web.app import build_app
from ukihashi.web.serve import serve

HTTPS: Final = 443
LATE_MODULES: Final = (  # what libraries import by name, or only when they come to it
    "anyio._backends._asyncio",
    "linecache",
    "stringprep",
    "uvicorn.lifespan.off",
    "uvicorn.loops.asyncio",
    "uvicorn.protocols.http.h11_impl",
)
LATE_CODECS: Final = ("ascii", "latin-1", "utf-8", "idna", "punycode", "unicode-escape", "raw-unicode-escape")
DATABASE: Final = "hub.db"  # in the control process's own folder, which is its working folder


def serve_hub(*, listen: Sequence[str], first: bool, log_format: str, workers: int = 0) -> int:
    """Run a hub until it is told to end; the exit status.

    Args:
        workers: processes that carry frames; 0 = as hub.toml says.
    Raises:
        UkihashiError: it can't start. The sentence says why; nothing is left running.
    """
    ready = _prepare(listen, log_format)
    serving = _Serving(ready.options, ready.pick, ready.tls, first=first)
    settings = Supervisor(
        listen=[(one.address, one.port) for one in _bindable(ready.endpoints)],
        state_dir=ready.state / "hub",
        runtime_dir=places.runtime_dir(),
        certificate=ready.options.identity.certificate,
        key=ready.options.identity.key,
        program=(sys.executable, *sys.orig_argv[1:]),
        options=ready.options,
        limits=Limits.of(ready.options.config),
        workers=workers or ready.options.config.workers,
        congestion=ready.options.config.congestion,
        uplinks=ready.options.config.uplinks(),
        bridges=wanted_bridges(ready.options.config),
        pick=ready.pick,
        cascade=cascade.live,
        manager=notify.Notifier(),
        handed_over=notify.listening(),
        ready=serving.both_are_ready,
    )
    return supervisor.run(settings, control=serving.live_as_control)


def check_hub(*, listen: Sequence[str], log_format: str) -> dict[str, Any]:
    """Everything of `serve_hub` before anything is opened; what the hub would be. Raises: UkihashiError."""
    ready = _prepare(listen, log_format)
    check_form(ready.state / "hub" / DATABASE)
    return {
        "version": __version__,
        "form": FORM,
        "pin": ready.options.identity.pin.hex(),
        "listen": [str(one) for one in ready.endpoints],
    }


@dataclass(frozen=True, slots=True)
class _Ready:
    """All that a hub needs, read and found good."""

    options: LiveOptions
    endpoints: Sequence[Endpoint]
    state: Path
    pick: Pick
    tls: str  # library


def _prepare(listen: Sequence[str], log_format: str) -> _Ready:
    config = load_hub(places.hub_config())
    log.configure(log_format or config.log_format, {**EVENTS, **log_texts.LOG_TEXTS})
    endpoints = parse_listen(listen) if listen else config.endpoints()
    state = places.state_dir()
    _prepare_state(state)
    identity_ = _key(config, state)
    pick = check_pick(config.tls.ciphers) if config.tls.ciphers else NO_PICK
    check_key(pick, identity_.kind)
    # what is wrong is said here, before anything opens
    tls = tls_library(server_context(identity_.certificate, identity_.key, pick=pick))
    _warm_up()
    if config.super_frames:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start threads, for what nobody here asks of it
        segment.preload()
    gc.collect()
    gc.freeze()  # else each child's collector would look at all this, and writing to do so, make a copy of its own
    options = LiveOptions(places.hub_config(), config, identity_, lambda: _key(config, state))
    return _Ready(options, endpoints, state, pick, tls)


class _Serving:
    """What the supervisor calls back."""

    def __init__(self, options: LiveOptions, pick: Pick, tls: str, *, first: bool) -> None:
        self._options = options
        self._tls = tls
        self._ciphers = pick.tls13 + pick.tls12 or usual_names()
        self._first = first
        self._serves = False  # set in the supervisor: a control process started anew inherits it

    def both_are_ready(self, _endpoints: Sequence[tuple[str, int]]) -> None:
        """In the supervisor, once."""
        self._serves = True

    def live_as_control(self, start: ControlStart) -> int:
        """The control process's life."""
        config, key = self._options.config, self._options.identity
        facts = Facts(
            version=__version__,
            endpoints=tuple(Endpoint(*one) for one in start.endpoints),
            pin=key.pin,
            public_address=config.public_address,
            session_timeout_s=config.session_timeout_s,
            mac_ageing_s=config.mac_ageing_s,
            host_ports=start.host_ports,
            certificate=key.der,
            uplinks=frozenset(config.uplinks()),
            bridges=bool(config.bridges),
            ciphers=self._ciphers,
            tls=self._tls,
        )
        log.keep(facts.log.note)
        page_dir = Path(config.page_dir) if config.page_dir else None

        async def web(listener: socket.socket, api: control.WebApi) -> None:
            app = build_app(
                api, page_dir=page_dir, version=__version__, json_rpc=api.calls, upstream=config.web.origin()
            )
            await serve(listener, app)

        return control.run(
            start,
            facts,
            Path(DATABASE),
            web=web,
            announce=None if self._serves else lambda birth: _announce(birth, facts, key),
            first=self._first and not self._serves,
        )


def _announce(birth: control.Birth, facts: Facts, key: ca.Identity) -> None:
    """What a person wants to know when a hub begins to serve."""
    write(_("ukihashi hub {version} serves.").format(version=facts.version))
    urls = page_urls(facts, skip={birth.host_port})
    for url in urls:
        write(_("  page:         {url}").format(url=url))
    write(_("  key pin:      {pin}").format(pin=ca.pin_text(key.pin)))
    write(_("  certificate:  SHA-256 {print}").format(print=ca.pin_text(key.fingerprint)))
    if birth.secret:
        write(_("  admin secret: {secret}").format(secret=birth.secret))
        say_aside(
            _("The secret is shown only this once. Sign in with it at {url}admin and choose a password.").format(
                url=urls[0]
            )
        )
    for row in birth.invites:
        told = _("  join link:    for user {user} of virtual hub {hub}, works once, until {until}")
        write(told.format(user=row["user"], hub=row["hub"], until=moment(row["expires_at"])))
        write(row["link"])
        write(_("On another Linux machine, as root: {command}").format(command=row["command"]))
    sys.stdout.flush()


def page_urls(facts: Facts, skip: set[str]) -> list[str]:
    """Addresses of the page, one a listening address; where that is "all", the one others most likely reach."""
    urls: list[str] = []
    for endpoint in facts.endpoints:
        address = endpoint.address
        if address in ("0.0.0.0", "::"):  # noqa: S104 - a comparison
            address = own_address(skip, socket.AF_INET6 if ":" in address else socket.AF_INET)
        host = f"[{address}]" if ":" in address else address
        url = f"https://{host}/" if endpoint.port == HTTPS else f"https://{host}:{endpoint.port}/"
        if url not in urls:
            urls.append(url)
    return urls


def _bindable(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Without the IPv6 wildcard where this machine has no IPv6."""
    if Path("/proc/net/if_inet6").exists():
        return list(endpoints)
    return [one for one in endpoints if one.address != "::"] or list(endpoints)


def _key(config: HubConfig, state: Path) -> ca.Identity:
    if config.tls.certificate:
        return ca.load_given(Path(config.tls.certificate), Path(config.tls.key))
    return ca.load_or_make(state / "pki", name=socket.gethostname(), now=dt.datetime.now(dt.UTC))


def _prepare_state(state: Path) -> None:
    """The folder must exist, and where rights are given up, the control process must reach its own below it."""
    try:
        state.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentLacks(
            N_("the state folder {path} can't be made: {reason}; run this as root (sudo), or choose --state-dir"),
            path=state,
            reason=error.strerror,
        ) from error
    if not is_root():
        return
    who = identity("ukihashi")
    for folder in [*reversed(state.resolve().parents), state.resolve()]:
        status = folder.stat()
        own = (status.st_uid == who.uid and status.st_mode & stat.S_IXUSR) or (
            status.st_gid == who.gid and status.st_mode & stat.S_IXGRP
        )
        if not (own or status.st_mode & stat.S_IXOTH):
            raise EnvironmentLacks(
                N_(
                    "the hub's database would be in {state}, but {folder} is closed to the account it works as"
                    " (uid {uid}); choose another --state-dir, or open that folder: chmod o+x {folder}"
                ),
                state=state,
                folder=folder,
                uid=who.uid,
            )


def _warm_up() -> None:
    """Read what the children need later: even Python's own library may lie where only root gets in."""
    for name in LATE_MODULES:
        importlib.import_module(name)
    for name in LATE_CODECS:
        codecs.lookup(name)
    for language in LANGUAGES:
        catalogue(language)
    migrations()
    render.preload()
    asyncio.new_event_loop().close()
