"""Servers of other protocols inside TLS: mail, messages, chat, databases, directories, names, media relay, screens."""

import pwd
import shutil
from pathlib import Path
from typing import Final

from lab.look_alikes.scene import Scene
from lab.net import run

USER: Final = "taro"
SECRET: Final = "s3cret"
DOVECOT: Final = """\
base_dir = {folder}/run
state_dir = {folder}/run
log_path = /dev/stderr
protocols = imap
listen = {address}
ssl = required
ssl_cert = <{certificate}
ssl_key = <{key}
mail_location = maildir:{folder}/mail
first_valid_uid = 8
passdb {{
  driver = static
  args = password={secret}
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={folder}
}}
"""
MOSQUITTO: Final = "listener 8883\nallow_anonymous true\ncertfile {chain}\nkeyfile {key}\nuser root\n"
NGIRCD: Final = """\
[Global]
Name = irc.lab
Info = lab
Listen = {address}
ServerUID = irc
[Limits]
MaxConnectionsIP = 0
PingTimeout = 12
[Options]
DNS = no
Ident = no
PAM = no
[SSL]
CertFile = {certificate}
KeyFile = {key}
Ports = 6697
"""
PROSODY: Final = """\
pidfile = "{folder}/pid"
data_path = "{folder}/data"
interfaces = {{ "{address}" }}
run_as_root = true
log = {{ info = "*console" }}
modules_enabled = {{ "roster", "saslauth", "tls", "ping", "presence", "message", "iq" }}
modules_disabled = {{ "s2s" }}
c2s_direct_tls_ports = {{ 5223 }}
c2s_direct_tls_ssl = {{ certificate = "{certificate}"; key = "{key}"; }}
authentication = "internal_plain"
VirtualHost "lab"
    ssl = {{ certificate = "{certificate}"; key = "{key}"; }}
"""
SLAPD: Final = """\
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload syncprov
pidfile {folder}/pid
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
database mdb
suffix dc=lab
rootdn cn=admin,dc=lab
rootpw {secret}
directory {folder}
overlay syncprov
"""
EXIM: Final = """\
spool_directory = {folder}
log_file_path = {folder}/%slog
primary_hostname = server.lab
local_interfaces = {address}
daemon_smtp_ports = 587
tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {key}
host_lookup =
rfc1413_query_timeout = 0s
queue_only
acl_smtp_rcpt = all
begin acl
all:
  accept
"""
UNBOUND: Final = """\
server:
  directory: "{folder}"
  chroot: ""
  username: ""
  pidfile: ""
  do-daemonize: no
  use-syslog: no
  interface: {address}@853
  interface: {address}@443
  tls-port: 853
  https-port: 443
  tls-service-pem: "{chain}"
  tls-service-key: "{key}"
  access-control: 0.0.0.0/0 allow
  local-zone: "lab." redirect
  local-data: "lab. A 192.0.2.1"
  num-threads: 1
remote-control:
  control-enable: no
"""


def _config(scene: Scene, template: str, folder: Path, name: str) -> Path:
    pki = scene.authority
    text = template.format(
        folder=folder, address=scene.address, chain=pki.chain, certificate=pki.certificate, key=pki.key, secret=SECRET
    )
    return scene.file(scene.server, name, text)


def _as(user: str, *argv: str | Path) -> list[str | Path]:
    who = pwd.getpwnam(user)
    return ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups", *argv]


def imap_idle(scene: Scene) -> None:
    """Dovecot; a client that waits with IDLE while mail arrives."""
    folder = scene.folder(scene.server, "dovecot")
    shutil.chown(folder, "mail", "mail")
    scene.serve(["dovecot", "-F", "-c", _config(scene, DOVECOT, folder, "dovecot.conf")], 993)
    scene.python(scene.client, "imap_client", scene.authority.root, scene.address, USER, SECRET)


def mqtt(scene: Scene) -> None:
    """Mosquitto; a listener and a speaker with a keep-alive of 5 s."""
    config = _config(scene, MOSQUITTO, scene.server.folder, "mosquitto.conf")
    scene.serve(["mosquitto", "-c", config], 8883)
    words: list[str | Path] = ["-h", scene.address, "-p", "8883", "--cafile", scene.authority.root, "-k", "5"]
    scene.client.spawn(["mosquitto_sub", *words, "-t", "lab/#"], log="subscriber")
    numbers = 'while :; do head -c $((RANDOM % 300 + 8)) /dev/zero | tr "\\0" x; echo; sleep $((RANDOM % 9 + 1)); done'
    argv = ["bash", "-c", f'{numbers} | exec mosquitto_pub "$@"', "bash", *words, "-t", "lab/it", "-l"]
    scene.client.spawn(argv, log="publisher")


def postgres(scene: Scene) -> None:
    """PostgreSQL; psql with questions at random."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    folder = scene.folder(scene.server, "postgres", mode=0o700)
    shutil.chown(folder, "postgres", "postgres")
    run([str(word) for word in _as("postgres", programs / "initdb", "--no-sync", "-A", "trust", "-D", folder)])
    with (folder / "pg_hba.conf").open("a") as rules:
        rules.write("hostssl all all 0.0.0.0/0 trust\n")
    key = folder / "key.pem"
    shutil.copy(scene.authority.key, key)
    shutil.chown(key, "postgres", "postgres")
    key.chmod(0o600)
    settings = (
        f"listen_addresses={scene.address}", "unix_socket_directories=", "ssl=on", "fsync=off",
        f"ssl_cert_file={scene.authority.certificate}", f"ssl_key_file={key}",
    )  # fmt: skip
    options = [word for setting in settings for word in ("-c", setting)]
    scene.serve(_as("postgres", programs / "postgres", "-D", folder, *options), 5432, log="postgres")
    questions = """
        while :; do
            echo "select repeat('x', $((RANDOM % 1500))), '$(head -c $((RANDOM % 400)) /dev/zero | tr '\\0' y)';"
            sleep $((RANDOM % 8 + 1))
        done | exec psql -q -o /dev/null "$1"
    """
    target = f"host={scene.address} user=postgres sslmode=verify-ca sslrootcert={scene.authority.root}"
    scene.client.spawn(["bash", "-c", questions, "bash", target], log="psql")


def redis(scene: Scene) -> None:
    """Redis; a ping each 5 s."""
    pki = scene.authority
    scene.serve(
        [
            "redis-server", "--port", "0", "--tls-port", "6380", "--tls-cert-file", pki.certificate, "--tls-key-file",
            pki.key, "--tls-ca-cert-file", pki.root, "--tls-auth-clients", "no", "--bind", scene.address, "--save", "",
            "--dir", scene.server.folder, "--protected-mode", "no",
        ],
        6380,
    )  # fmt: skip
    where: list[str | Path] = ["-h", scene.address, "-p", "6380", "--tls", "--cacert", pki.root]
    scene.client.spawn(["redis-cli", *where, "-r", "-1", "-i", "5", "ping"])


def _chat(scene: Scene, kind: str, port: int) -> None:
    for name in (USER, "hana"):
        scene.python(scene.client, "chat_client", kind, scene.authority.root, scene.address, port, name, SECRET)


def irc(scene: Scene) -> None:
    """ngIRCd; two people in a channel."""
    scene.serve(["ngircd", "-n", "-f", _config(scene, NGIRCD, scene.server.folder, "ngircd.conf")], 6697)
    _chat(scene, "irc", 6697)


def xmpp(scene: Scene) -> None:
    """Prosody; two people who write to each other."""
    folder = scene.folder(scene.server, "prosody")
    accounts = folder / "data" / "lab" / "accounts"
    accounts.mkdir(parents=True)
    for name in (USER, "hana"):
        (accounts / f"{name}.dat").write_text(f'return {{ ["password"] = "{SECRET}"; }};\n')
    scene.serve(["prosody", "-F", "--config", _config(scene, PROSODY, folder, "prosody.cfg.lua")], 5223)
    _chat(scene, "xmpp", 5223)


def _directory(scene: Scene, urls: str, port: int) -> None:
    folder = scene.folder(scene.server, "slapd")
    config = _config(scene, SLAPD, folder, "slapd.conf")
    people = "".join(
        f"dn: cn=p{n},dc=lab\nobjectClass: person\ncn: p{n}\nsn: {'x' * (n % 40 + 1)}\n\n" for n in range(200)
    )
    top = "dn: dc=lab\nobjectClass: dcObject\nobjectClass: organization\ndc: lab\no: lab\n\n"
    run(["slapadd", "-q", "-f", str(config)], stdin=top + people)
    scene.serve(["slapd", "-d", "0", "-h", urls, "-f", config], port)


def ldaps(scene: Scene) -> None:
    """OpenLDAP; searches, a connection each."""
    _directory(scene, f"ldaps://{scene.address}:636", 636)
    search = 'LDAPTLS_CACERT="$1" ldapsearch -LLL -x -H "ldaps://$2" -b dc=lab "(cn=p$((n % 90))*)" >/dev/null'
    scene.shell(scene.client, f"n=$((n + 1)); {search}; sleep 2", scene.authority.root, scene.address)


def ldap_starttls(scene: Scene) -> None:
    """OpenLDAP; a replica's connection that stays, and changes that come over it."""
    _directory(scene, f"ldap://{scene.address}:389", 389)
    follow = 'LDAPTLS_CACERT="$1" ldapsearch -ZZ -x -H "ldap://$2" -b dc=lab -E "!sync=rp" >/dev/null; sleep 1'
    scene.shell(scene.client, follow, scene.authority.root, scene.address)
    change = """
        n=$((n + 1)); printf 'dn: cn=p%d,dc=lab\\nchangetype: modify\\nreplace: sn\\nsn: %0*d\\n' \
            $((n % 200)) $((n * 37 % 300 + 1)) 7 |
            ldapmodify -x -H "ldap://$1" -D cn=admin,dc=lab -w "$2" >/dev/null; sleep $((n % 7 + 1))
    """
    scene.shell(scene.server, change, scene.address, SECRET)


def submission(scene: Scene) -> None:
    """Exim; mail submitted with STARTTLS."""
    folder = scene.folder(scene.server, "exim", mode=0o777)
    config = _config(scene, EXIM, folder, "exim.conf")
    scene.serve(["exim4", "-bdf", "-C", config], 587)
    scene.python(scene.client, "mail_client", scene.authority.root, scene.address, 587)


def _unbound(scene: Scene, port: int) -> None:
    folder = scene.folder(scene.server, "unbound")
    scene.serve(["unbound", "-d", "-c", _config(scene, UNBOUND, folder, "unbound.conf")], port)


def dns_tls(scene: Scene) -> None:
    """Unbound; questions over one TLS connection."""
    _unbound(scene, 853)
    scene.python(scene.client, "dns_client", scene.authority.root, scene.address)


def dns_https(scene: Scene) -> None:
    """Unbound; questions over HTTP/2."""
    _unbound(scene, 443)
    names = " ".join(f"n{n}.lab" for n in range(4))
    ask = f'kdig "@$2" +https +tls-ca="$1" +tls-hostname="$2" +keepopen {names} >/dev/null; sleep 3'
    scene.shell(scene.client, ask, scene.authority.root, scene.address)


def media_relay(scene: Scene) -> None:
    """coturn; packets like a conversation's through TURN over TLS, two connections."""
    pki = scene.authority
    server: list[str | Path] = [
        "turnserver", "-n", "--no-auth", "--no-cli", "--no-udp", "--no-dtls", "--listening-ip", scene.address,
        "--relay-ip", scene.address, "--tls-listening-port", "5349", "--cert", pki.certificate, "--pkey", pki.key,
        "--allow-loopback-peers", "--log-file", "stdout", "--pidfile", scene.server.folder / "turn.pid",
        "--userdb", scene.server.folder / "turn.db", "--realm", "lab",
    ]  # fmt: skip
    scene.serve(server, 5349)
    talk = 'turnutils_uclient -t -S -y -c -n 4000 -z 20 -l 170 -p 5349 "$1" >/dev/null 2>&1; sleep 1'
    scene.shell(scene.client, talk, scene.address)


def screen(scene: Scene) -> None:
    """A clock on a remote screen: TigerVNC inside TLS."""
    pki = scene.authority
    own = "mount -t tmpfs own /tmp; mkdir -m 1777 /tmp/.X11-unix"  # two machines have two such folders
    clock = "(sleep 1; while :; do DISPLAY=:1 xclock -update 1 -geometry 600x400; sleep 1; done)"
    server = f'{own}; {clock} & exec Xtigervnc :1 -geometry 640x480 -interface "$1" -rfbport 5901 "$2" "$3" "$4"'
    options = ["-SecurityTypes=X509None", f"-X509Cert={pki.certificate}", f"-X509Key={pki.key}"]
    scene.serve(["sh", "-c", server, "sh", scene.address, *options], 5901, log="vnc")
    view = 'sleep 1; while :; do DISPLAY=:2 HOME=/tmp xtigervncviewer -X509CA "$1" "$2::5901"; sleep 1; done'
    viewer = f"{own}; ({view}) & exec Xtigervnc :2 -SecurityTypes None -geometry 800x600 -rfbport 5902"
    scene.client.spawn(["sh", "-c", viewer, "sh", pki.root, scene.address], log="viewer")
