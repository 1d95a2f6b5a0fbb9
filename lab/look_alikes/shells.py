"""OpenSSH in its uses: a terminal, files, forwarded ports, a proxy, a tunnel."""

from pathlib import Path
from typing import Final

from lab.look_alikes import web
from lab.look_alikes.scene import Scene
from lab.sshd import Sshd, on_host

VIA: Final = 8443  # the client's own port of a forwarding
SOCKS: Final = 1080


def _server(scene: Scene, *options: str) -> Sshd:
    return on_host(scene.server, password="s3cret", options=("Subsystem=sftp internal-sftp", *options))


def words(server: Sshd) -> list[str | Path]:
    """What `ssh` and its relatives must be told."""
    return ["-F", server.client_config, "-o", "User=root", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]


def _stay(scene: Scene, server: Sshd, *options: str) -> None:
    scene.client.spawn(["ssh", "-N", *words(server), *options, scene.address], log="ssh")


def terminal(scene: Scene) -> None:
    """A person types commands and reads."""
    scene.python(scene.client, "typist", "ssh", "-tt", *words(_server(scene)), scene.address, "sh")


def alive(scene: Scene) -> None:
    """Nothing but ServerAliveInterval 5."""
    _stay(scene, _server(scene), "-o", "ServerAliveInterval=5")


def both_alive(scene: Scene) -> None:
    """Both ends ask each 5 s of silence."""
    _stay(scene, _server(scene, "ClientAliveInterval=5"), "-o", "ServerAliveInterval=5")


def _files(scene: Scene) -> Path:
    folder = scene.folder(scene.server, "files")
    for size in (4_000, 60_000, 900_000):
        (folder / str(size)).write_bytes(bytes(range(256)) * (size // 256))
    return folder


def copy(scene: Scene) -> None:
    """Files by scp, a connection each."""
    server, folder = _server(scene), _files(scene)
    told = " ".join(map(str, words(server)))
    script = 'n=$((n + 1)); scp -q {0} "$1:$2/60000" "$3"; scp -q {0} "$1:$2/900000" "$3"; sleep $((n % 5))'
    scene.shell(scene.client, script.format(told), scene.address, folder, scene.folder(scene.client, "copy"))


def transfer(scene: Scene) -> None:
    """Files by sftp over one connection."""
    server, folder, here = _server(scene), _files(scene), scene.folder(scene.client, "copy")
    script = f"""
        while :; do for size in 4000 60000 900000; do echo "get {folder}/$size {here}/$size"; echo "ls -l {folder}"
            sleep $((RANDOM % 6 + 1)); done; done | exec sftp -q -b - "$@"
    """
    scene.client.spawn(["bash", "-c", script, "bash", *words(server), scene.address], log="sftp")


def mirror(scene: Scene) -> None:
    """A folder by rsync over ssh, again and again."""
    server, folder = _server(scene), _files(scene)
    told = " ".join(map(str, words(server)))
    script = f'rsync -a --delete --ignore-times -e "ssh {told}" "$1:$2/" "$3/"; sleep 3'
    scene.shell(scene.client, script, scene.address, folder, scene.folder(scene.client, "copy"))


def forwarded(scene: Scene, does: str) -> None:
    """HTTPS through a forwarded port."""
    web.application(scene)
    _stay(scene, _server(scene), "-L", f"{VIA}:{scene.address}:{web.WEB}")
    scene.reaches(VIA)
    web.client(scene, does, via=VIA)


def forwarded_poll(scene: Scene) -> None:
    """A long poll through a forwarded port."""
    forwarded(scene, "poll")


def forwarded_api(scene: Scene) -> None:
    """Three connections with tokens in each request through a forwarded port."""
    forwarded(scene, "api")


def forwarded_crowd(scene: Scene) -> None:
    """A connection a second through a forwarded port."""
    forwarded(scene, "crowd")


def forwarded_imitation(scene: Scene) -> None:
    """The imitation of `web` through a forwarded port."""
    forwarded(scene, "imitate")


def forwarded_browse(scene: Scene) -> None:
    """Pages of many connections through a forwarded port."""
    forwarded(scene, "browse")


def proxied(scene: Scene) -> None:
    """Pages through `ssh -D`."""
    web.nginx(scene)
    _stay(scene, _server(scene), "-D", str(SOCKS))
    scene.reaches(SOCKS)
    fetch = f'curl -s --socks5-hostname 127.0.0.1:{SOCKS} --cacert "$1" -o /dev/null'
    pages = f'{fetch} "https://$2/3000" & {fetch} "https://$2/20000" & {fetch} "https://$2/90000" & wait'
    scene.shell(scene.client, f"n=$((n + 1)); {pages}; sleep $((n % 6))", scene.authority.root, scene.address)


def tunnel(scene: Scene) -> None:
    """Ethernet by OpenSSH's own means (`ssh -w`), with pings in it."""
    server = _server(scene, "PermitTunnel=yes")
    end = "ip addr add 10.99.0.{0}/24 dev tap7; ip link set tap7 up"
    layer = ["-o", "Tunnel=ethernet", "-w", "7:7"]
    scene.client.spawn(["ssh", *words(server), *layer, scene.address, end.format(1) + "; sleep 100000"], log="ssh")
    ping = "n=$((n + 1)); ping -q -c 2 -s $((n * 131 % 1200)) 10.99.0.1 >/dev/null; sleep $((n % 7))"
    scene.shell(scene.client, f"{end.format(2)}; {ping}")
