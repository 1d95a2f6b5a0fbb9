"""HTTP in all its shapes over TLS: nginx, uvicorn, WebSocket, git, gRPC's kind of streams."""

import os
import shutil
from pathlib import Path
from typing import Final

from lab.look_alikes.scene import Scene
from lab.net import run

WEB: Final = 443
NGINX: Final = """\
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    client_max_body_size 100m;
    keepalive_timeout 120;
    server {{
        listen {address}:443 ssl http2;
        ssl_certificate {chain};
        ssl_certificate_key {key};
        root {folder}/pages;
        location ~ ^/git/ {{
            fastcgi_pass unix:{folder}/cgi;
            fastcgi_param SCRIPT_FILENAME /usr/lib/git-core/git-http-backend;
            fastcgi_param GIT_PROJECT_ROOT {folder};
            fastcgi_param GIT_HTTP_EXPORT_ALL 1;
            fastcgi_param REMOTE_USER taro;
            fastcgi_param PATH_INFO $uri;
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param CONTENT_TYPE $content_type;
            fastcgi_param CONTENT_LENGTH $content_length;
            fastcgi_param SERVER_PROTOCOL $server_protocol;
        }}
    }}
}}
"""


def nginx(scene: Scene) -> Path:
    """Files of many sizes behind HTTP/2; gives its folder."""
    folder = scene.folder(scene.server, "nginx", mode=0o777)
    pages = folder / "pages"
    pages.mkdir()
    for size in (900, 3_000, 20_000, 90_000, 400_000, 1_500_000, 30_000_000):
        (pages / str(size)).write_bytes(os.urandom(size))
    pki = scene.authority
    text = NGINX.format(folder=folder, address=scene.address, chain=pki.chain, key=pki.key)
    scene.serve(["nginx", "-p", folder, "-e", "stderr", "-c", scene.file(scene.server, "nginx.conf", text)], WEB)
    return folder


def application(scene: Scene, port: int = WEB) -> None:
    """The application of programs/web_app.py."""
    scene.listening(port, scene.python(scene.server, "web_app", scene.authority.chain, scene.address, port))


def client(scene: Scene, does: str, *, via: int = 0) -> None:
    """Its client."""
    scene.python(scene.client, "web_client", scene.authority.root, scene.address, WEB, does, *([via] if via else []))


def _websocket(scene: Scene, does: str, port: int) -> None:
    pki = scene.authority
    process = scene.python(scene.server, "websocket", "serve", pki.chain, scene.address, port, does)
    scene.listening(port, process)
    scene.python(scene.client, "websocket", "join", pki.root, scene.address, port, does)


def websocket_fixed(scene: Scene) -> None:
    """A ping each 5 s from both ends."""
    _websocket(scene, "fixed", 9443)


def websocket_padded(scene: Scene) -> None:
    """Heart-beats of random period and size from both ends."""
    _websocket(scene, "padded", WEB)


def websocket_chat(scene: Scene) -> None:
    """Short messages from both ends."""
    _websocket(scene, "chat", WEB)


def websocket_login(scene: Scene) -> None:
    """A token and a state, some kilobytes each way, then heart-beats of random period and size."""
    _websocket(scene, "login", 8443)


def download(scene: Scene) -> None:
    """One long download, slowed down."""
    nginx(scene)
    scene.shell(
        scene.client,
        'curl -s --http2 --limit-rate 300k --cacert "$1" -o /dev/null "https://$2/30000000"; sleep 1',
        scene.authority.root, scene.address,
    )  # fmt: skip


def multiplexed(scene: Scene) -> None:
    """Several requests at once over one connection, again and again with pauses."""
    nginx(scene)
    urls = " ".join(f'"https://$1/{size}"' for size in (900, 3_000, 20_000, 90_000, 3_000, 400_000))
    scene.shell(scene.client, f"nghttp -n -m 2 {urls} >/dev/null; sleep 4", scene.address)


def segments(scene: Scene) -> None:
    """A piece of sound and a piece of film every 4 s over two connections that stay."""
    nginx(scene)
    head = 'url = "https://{0}/{1}"\noutput = /dev/null\n'
    for size in (90_000, 1_500_000):
        config = scene.file(scene.client, f"film{size}", "\n".join([head.format(scene.address, size)] * 60))
        scene.shell(
            scene.client, 'curl -s --cacert "$1" --rate 15/m -K "$2"; sleep 1', scene.authority.root, config
        )  # fmt: skip


def git(scene: Scene) -> None:
    """Clone, commit, push and fetch over HTTPS; git http-backend behind nginx."""
    folder = nginx(scene)
    repository = folder / "git" / "it.git"
    run(["git", "init", "-q", "--bare", str(repository)])
    run(["git", "-C", str(repository), "config", "http.receivepack", "true"])
    run(["git", "-C", str(repository), "symbolic-ref", "HEAD", "refs/heads/main"])
    cgi = scene.server.spawn(["fcgiwrap", "-s", f"unix:{folder}/cgi"])
    assert cgi.running
    work = scene.folder(scene.client, "work")
    script = """
        rm -rf "$2/it"; cd "$2" && git clone -q "https://$3/git/it.git" it 2>&1; cd "$2/it" || { sleep 2; continue; }
        git checkout -q -B main
        for n in 1 2 3; do
            head -c 30000 /dev/urandom > "file$n"; git add -A; git commit -qm "step $n"
            git push -q origin main; sleep 3; git fetch -q; sleep 3
        done
    """
    words: list[str | Path] = [
        "sh",
        "-c",
        f"while :; do {script}\ndone",
        "sh",
        scene.authority.root,
        work,
        scene.address,
    ]
    home = {
        "GIT_SSL_CAINFO": str(scene.authority.root), "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": str(work),
        **{f"GIT_{who}_{what}": "taro@lab" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }  # fmt: skip
    scene.client.spawn(words, log="git", env=home)


def long_poll(scene: Scene) -> None:
    """A question that is answered seconds later, then the next."""
    application(scene)
    client(scene, "poll")


def events(scene: Scene) -> None:
    """Server-sent events."""
    application(scene)
    client(scene, "listen")


def rpc(scene: Scene) -> None:
    """A JSON call each 5 s over one connection."""
    application(scene)
    client(scene, "rpc")


def api(scene: Scene) -> None:
    """Three connections with a token in each request, questions and answers of any size."""
    application(scene)
    client(scene, "api")


def api_crowd(scene: Scene) -> None:
    """A connection a second, a few calls each."""
    application(scene)
    client(scene, "crowd")


def imitation(scene: Scene) -> None:
    """Two connections, 1.5 s apart, whose first requests and answers have the sizes of SoftEther's opening."""
    application(scene)
    client(scene, "imitate")


def upload(scene: Scene) -> None:
    """Files that go up with pauses."""
    application(scene)
    client(scene, "upload")


def streams(scene: Scene) -> None:
    """Streams of one HTTP/2 connection with pings of both ends, as gRPC keeps them."""
    pki = scene.authority
    process = scene.python(scene.server, "grpc_like", "serve", pki.chain, scene.address, WEB, system=True)
    scene.listening(WEB, process)
    scene.python(scene.client, "grpc_like", "join", pki.root, scene.address, WEB, system=True)


def has_chromium() -> bool:
    """Is there a browser?"""
    return shutil.which("chromium") is not None


def _browser(scene: Scene, *options: str) -> None:
    application(scene)
    profile = scene.folder(scene.client, "profile", mode=0o700)
    scene.client.spawn(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--ignore-certificate-errors", f"--user-data-dir={profile}", "--remote-debugging-port=0", *options,
            f"https://{scene.address}/",
        ],
        log="chromium", env={"HOME": str(profile)},
    )  # fmt: skip


def browser(scene: Scene) -> None:
    """Chromium on a page that fetches, polls and listens."""
    _browser(scene)


def browser_squid(scene: Scene) -> None:
    """The same through Squid."""
    from lab.squid import PORTS, Squid

    assert scene.proxy is not None
    Squid(scene.proxy).start()
    _browser(scene, f"--proxy-server=http://{scene.proxy.ipv4}:{PORTS['open']}")


def browser_dante(scene: Scene) -> None:
    """The same through Dante."""
    from lab.small_proxies import DANTE_PORT, dante

    assert scene.proxy is not None
    dante(scene.proxy, external=scene.outward)
    _browser(scene, f"--proxy-server=socks5://{scene.proxy.ipv4}:{DANTE_PORT}")
