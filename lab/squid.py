"""Real Squid on a lab host (Debian package squid), one port for each way of letting people in.

    squid = Squid(host, names={"hub.lab": hub.ipv4}, tls=(certificate, key))
    squid.start()                       # the ports in PORTS listen
    squid.stop()                        # every connection ends; it can be started anew

Every port opens tunnels to any port but `only443`; `ntlm` takes any password (Squid's own fake helper).
"""

import pwd
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lab.net import Host, LabError, Process, run

PACKAGE: Final = "squid"
PORTS: Final = {"open": 3128, "basic": 3129, "digest": 3130, "ntlm": 3131, "only443": 3132, "tls": 3133}
USER: Final = "taro"
SECRET: Final = 's3cret, "quoted"'
PATIENCE_S: Final = 60.0  # it starts slowly where all else runs
REALM: Final = "the lab"
HELPERS: Final = Path("/usr/lib/squid")
CONFIG: Final = """\
visible_hostname proxy.lab
pid_filename {folder}/pid
cache_log {folder}/squid.log
access_log stdio:{folder}/access.log
hosts_file {folder}/hosts
coredump_dir none
netdb_filename none
pinger_enable off
cache deny all
dns_nameservers 127.0.0.1
dns_timeout 1 seconds
shutdown_lifetime 0 seconds
auth_param basic program {helpers}/basic_ncsa_auth {folder}/basic
auth_param basic realm {realm}
auth_param basic children 1
auth_param digest program {helpers}/digest_file_auth -c {folder}/digest
auth_param digest realm {realm}
auth_param digest children 1
auth_param ntlm program {helpers}/ntlm_fake_auth
auth_param ntlm children 1
{ports}
acl known proxy_auth REQUIRED
acl https port 443
auth_schemes Basic at_basic
auth_schemes Digest at_digest
auth_schemes NTLM at_ntlm
http_access deny at_basic !known
http_access deny at_digest !known
http_access deny at_ntlm !known
http_access deny at_only443 !https
http_access allow all
"""


def missing() -> str:
    """Which Debian package must be installed; empty if it is there."""
    return "" if shutil.which("squid", path="/usr/sbin:/usr/bin:/sbin") else PACKAGE


class Squid:
    """One proxy with several ports."""

    def __init__(
        self, host: Host, *, names: Mapping[str, str] | None = None, tls: tuple[Path, Path] | None = None
    ) -> None:
        """`names`: what it alone can look up. `tls`: PEM files for the port `tls`, which isn't there without."""
        if gone := missing():
            raise LabError(f"missing Debian packages: {gone}")
        self.host: Final = host
        self.folder: Final = host.folder / "squid"
        self._names, self._tls = dict(names or {}), tls
        self.process: Process | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        if not self.folder.exists():
            self._configure()
        # of its shared memory: several may run
        service = "".join(filter(str.isalnum, self.host.namespace))
        self.process = self.host.spawn(
            ["squid", "-N", "-d", "1", "-n", service, "-f", self.folder / "conf"], log="squid"
        )
        last = f"Accepting HTTP Socket .*:{PORTS['only443']} " if self._tls is None else "Accepting HTTPS"
        self.process.wait_for(last, seconds=PATIENCE_S)

    def stop(self) -> None:
        """End it and its helpers."""
        assert self.process is not None
        self.process.stop()

    def _configure(self) -> None:
        self.folder.mkdir()
        hash_ = run(["openssl", "passwd", "-apr1", SECRET]).strip()
        (self.folder / "basic").write_text(f"{USER}:{hash_}\n")
        first = run(["openssl", "dgst", "-md5", "-r"], stdin=f"{USER}:{REALM}:{SECRET}").split()[0]
        (self.folder / "digest").write_text(f"{USER}:{REALM}:{first}\n")
        (self.folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in self._names.items()))
        lines = []
        for name, port in PORTS.items():
            if name != "tls":
                lines.append(f"http_port {port} name={name}")
            elif self._tls is not None:
                for source, kind in zip(self._tls, ("pem", "key"), strict=True):
                    shutil.copy(source, self.folder / f"tls.{kind}")
                lines.append(f"https_port {port} name=tls tls-cert={self.folder}/tls.pem tls-key={self.folder}/tls.key")
            lines.append(f"acl at_{name} myportname {name}")
        text = CONFIG.format(folder=self.folder, helpers=HELPERS, realm=REALM, ports="\n".join(lines))
        (self.folder / "conf").write_text(text)
        (self.folder / "squid.log").touch()
        its = pwd.getpwnam("proxy")
        for path in (self.folder, *self.folder.iterdir()):
            shutil.chown(path, its.pw_uid, its.pw_gid)
