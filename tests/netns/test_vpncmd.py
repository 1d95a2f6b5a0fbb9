"""Debian's vpncmd administrates our hub from another machine: every command of docs/administration.md.

The commands go in as one script each time; each must answer with the fields named here, or with the error's code.
"""

import hashlib
import http.client
import json
import re
import ssl
import time
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lab import peers
from lab.net import Host, Net
from lab.ukihashi import Hub

pytestmark = [pytest.mark.slow, pytest.mark.peer("vpnclient", "vpncmd")]

PAGE: Final = Path(__file__).parents[2] / "docs/administration.md"
WORKS: Final = "## Commands that work"
REFUSED: Final = "## Commands that are refused"
NOT_SUPPORTED: Final = 33
ANY: Final = "/SRCUSERNAME: /DESTUSERNAME: /SRCMAC: /DESTMAC: /SRCPORT: /TCPSTATE:"  # what a rule does not ask for
MAIL: Final = f"{ANY} /SRCIP:10.0.0.0/8 /DESTIP:0.0.0.0/0 /PROTOCOL:tcp /DESTPORT:25"
NAMES: Final = f"{ANY} /SRCIP:fd00::/8 /DESTIP:::/0 /PROTOCOL:udp /DESTPORT:53"


class Reply(NamedTuple):
    """What one command printed."""

    command: str
    text: str

    @property
    def code(self) -> int:
        """Of the error; 0 = it was done."""
        found = re.search(r"\(Error code: (\d+)\)", self.text)
        return int(found[1]) if found else 0

    @property
    def fields(self) -> dict[str, str]:
        """Lines of two columns."""
        return dict(line.split(",", 1) for line in self.text.splitlines() if "," in line)


class Tool:
    """vpncmd on a host."""

    def __init__(self, host: Host, server: str, password: str, hub: str = "") -> None:
        self.host = host
        self.where = [server, "/SERVER", f"/PASSWORD:{password}", *([f"/HUB:{hub}"] if hub else [])]
        self.commands: set[str] = set()  # that were done

    def say(self, *lines: str) -> list[Reply]:
        """Give commands; one reply each."""
        script = self.host.folder / "commands.txt"
        script.write_text("\n".join(lines) + "\n")
        words = " ".join(f"'{word}'" for word in ["vpncmd", *self.where, f"/IN:{script}", "/CSV"])
        shell = f"cd '{self.host.folder}' && exec {words} < /dev/null"
        out = self.host.ask(["sh", "-c", shell], timeout_s=60).stdout
        parts = re.split(r"^VPN Server(?:/[^>\n]*)?>", out, flags=re.MULTILINE)[1:]
        replies = [Reply(*(part.partition("\n")[::2])) for part in parts if part.strip()]
        assert [reply.command for reply in replies] == list(lines), out
        assert "Command not found" not in out, out
        self.commands |= {reply.command.split()[0] for reply in replies if not reply.code}
        return replies

    def do(self, line: str, *expected: str) -> Reply:
        """One command that is done and prints all of `expected`."""
        (reply,) = self.say(line)
        assert reply.code == 0, reply
        for text in expected:
            assert text in reply.text, (text, reply)
        return reply

    def script(self, *steps: tuple[str, ...]) -> list[Reply]:
        """Commands that are done, each with what it must print."""
        replies = self.say(*(step[0] for step in steps))
        for reply, step in zip(replies, steps, strict=True):
            assert reply.code == 0, reply
            for text in step[1:]:
                assert text in reply.text, (text, reply)
        return replies


class Site(NamedTuple):
    """A hub's machine, another one, and what administrates."""

    hub: Hub
    other: Host
    tool: Tool
    server: str


@pytest.fixture
def site(net: Net) -> Site:
    machine, other = net.lan("hub", "b")
    hub = Hub(machine)
    hub.start()
    server = f"{machine.ipv4}:443"
    password = json.loads(hub.run("hub", "admin", "tools", "--on", "--json"))["password"]
    return Site(hub, other, Tool(other, server, password), server)


def listed(section: str) -> set[str]:
    """The commands of a section of the page: what stands in backticks in the first column."""
    text = PAGE.read_text().partition(section)[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.mark.timeout(300)  # a hundred commands
def test_every_command_of_the_page(site: Site) -> None:
    """All in one test: what one command makes the next ones show."""
    tool = site.tool
    tool.script(
        ("About", "VPN Command Line Management Utility"),
        ("ServerInfoGet", "Product Name,ukihashi hub", "Server Type,Standalone Server", "Operating System,Linux"),
        ("ServerStatusGet", "Number of Virtual Hubs,1", "Number of Users,1", "Server Started at,2"),
        (
            "Caps",
            "Cascade Connection is Supported,Yes",
            "SecureNAT is Supported,No",
            "Maximum Ethernet Packet Size,1600",
        ),
        ("HubList", "LAN,Online,Standalone,1,0,0"),
        ("ListenerList", "TCP 443,Listening"),
        ("ServerCipherGet", "TLS_AES_128_GCM_SHA256"),
        ("ServerCertGet cert.cer",),
        ("KeepGet", "Current Status,Disable"),
        ("KeepDisable",),
        ("SyslogGet", "Disable Syslog Send Function"),
        ("SyslogDisable",),
        ("ClusterSettingGet", "Standalone Server"),
        ("Flush", "Saving completed"),
    )
    told = tool.do("ServerStatusGet").fields["Current Time"].partition(".")[0]
    assert abs(time.mktime(time.strptime(told, "%Y-%m-%d %H:%M:%S")) - time.time()) < 60
    certificate = x509.load_pem_x509_certificate((site.other.folder / "cert.cer").read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert hashlib.sha256(key).hexdigest() == site.hub.rows("hub", "status")[0]["pin"]
    tool.script(
        ("HubCreate TOKYO /PASSWORD:geheim",),
        ("HubList", "TOKYO,Online,Standalone,0,0,0"),
        ("Hub TOKYO", 'The Virtual Hub "TOKYO" has been selected.'),
        ("StatusGet", "Status,Online", "Sessions,0", "Users,0", "SecureNAT,Disabled", "Created at,2"),
        ("Offline",),
        ("StatusGet", "Status,Offline"),
        ("Online",),
        ("SetMaxSession 5",),
        ("SetEnumDeny",),
        ("OptionsGet", "Anonymous User,Deny", "Max Number of Sessions,5", "Status,Online"),
        ("SetEnumAllow",),
        ("SetHubPassword anders",),
        ("LogGet", "Save Security Log,Enable", "Save Packet Log,Disable"),
        ("LogEnable security",),
        ("LogDisable packet",),
        ("RadiusServerGet", "Use RADIUS Server,Disable"),
        ("RadiusServerDelete",),
        ("ExtOptionList", "BroadcastStormDetectionThreshold,32"),
        ("ExtOptionSet BroadcastStormDetectionThreshold /VALUE:64",),
        ("ExtOptionList", "BroadcastStormDetectionThreshold,64"),
        ("AdminOptionList",),
        ("CAList",),
    )
    replies = tool.script(
        ("Hub TOKYO",),
        ("UserCreate taro /GROUP:none /REALNAME:Taro /NOTE:first",),
        ("UserPasswordSet taro /PASSWORD:himitsu",),
        ("UserGet taro", "Full Name,Taro", "Description,first", "Auth Type,Password", "Expiration Date,(None)"),
        ("UserSet taro /GROUP:none /REALNAME:Taro2 /NOTE:second",),
        ("UserList", "taro,Taro2,-,second,Password Authentication,0,(None),No Expiration"),
        ("GroupCreate staff /REALNAME:Staff /NOTE:none",),
        ("GroupSet staff /REALNAME:Everybody /NOTE:none",),
        ("GroupJoin staff /USERNAME:taro",),
        ("GroupList", "staff,Everybody,,1"),
        ("GroupGet staff", "Full Name,Everybody", " taro"),
        ("GroupPolicySet staff /NAME:MaxUpload /VALUE:1000000",),
        ("GroupGet staff", "MaxUpload,Upload Bandwidth,1000000 bps"),
        ("GroupPolicyRemove staff",),
        ("GroupUnjoin taro",),
        ("GroupDelete staff",),
        ("UserPolicySet taro /NAME:MaxDownload /VALUE:2000000",),
        ("UserGet taro", "MaxDownload,Download Bandwidth,2000000 bps"),
        ("UserPolicyRemove taro",),
        ('UserExpiresSet taro /EXPIRES:"2030/01/02 03:04:05"',),
        ("UserGet taro", "Expiration Date,2030-01-02 (Wed) 03:04:05"),
    )
    (row,) = [one for one in site.hub.tell("users", hub="TOKYO") if one["name"] == "taro"]
    meant = time.mktime(time.strptime("2030-01-02 03:04:05", "%Y-%m-%d %H:%M:%S"))  # the machine's own zone
    assert row["expires_at"] == meant
    replies = tool.script(
        ("Hub TOKYO",),
        ("UserExpiresSet taro /EXPIRES:none",),
        ("UserSignedSet taro /CN:taro.example /SERIAL:none",),
        ("UserGet taro", "Signed Certificate Authentication", "taro.example"),
        ("UserCertSet taro /LOADCERT:cert.cer",),
        ("UserGet taro", "Individual Certificate Authentication"),
        ("UserCertGet taro /SAVECERT:again.cer",),
        ("CAAdd cert.cer",),
        ("CAList", "ID,1", "Issued to,CN="),
        ("CAGet 1 /SAVECERT:authority.cer",),
        ("CADelete 1",),
        ("UserAnonymousSet taro",),
        ("UserList", "taro,Taro2,-,second,Anonymous Authentication"),
        ("UserDelete taro",),
        ("UserList",),
    )
    assert "taro" not in replies[-1].text
    shown = {(site.other.folder / name).read_bytes() for name in ("cert.cer", "again.cer", "authority.cer")}
    assert len(shown) == 1
    tool.script(
        ("Hub TOKYO",),
        (f"AccessAdd discard /MEMO:nomail /PRIORITY:10 {MAIL}",),
        (f"AccessAdd6 pass /MEMO:six /PRIORITY:11 {NAMES}",),
        (
            "AccessList",
            '1,Discard,Enable,10,1,"(ipv4) SrcIPv4=10.0.0.0/8, Protocol=TCP, DstPort=25",nomail',
            '2,Pass,Enable,11,2,"(ipv6) SrcIPv6=fd00::/8, Protocol=UDP, DstPort=53",six',
        ),
        ("AccessDisable 1",),
    )
    (rule,) = [row for row in site.hub.tell("access_list", hub="TOKYO") if row["priority"] == 10]
    assert (rule["active"], rule["source"], rule["destination_ports"]) == (False, "10.0.0.0/8", [25, 25])
    (number,) = re.findall(r"^(\d+),Discard,Disable", tool.say("Hub TOKYO", "AccessList")[1].text, re.MULTILINE)
    replies = tool.script(("Hub TOKYO",), (f"AccessEnable {number}",), ("AccessList", ",Discard,Enable,10"))
    (number,) = re.findall(r"^(\d+),Discard,Enable", replies[2].text, re.MULTILINE)
    tool.script(("Hub TOKYO",), (f"AccessDelete {number}",), ("AccessList", ",Pass,Enable,11"))
    tool.script(
        ("Hub TOKYO",),
        ("AcAdd deny /PRIORITY:5 /IP:192.0.2.0/24",),
        ("AcAdd6 allow /PRIORITY:6 /IP:fd00::/8",),
        ("AcList", "1,5,Deny,192.0.2.0/24", "2,6,Pass,fd00::/8"),
        ("AcDel 1",),
        ("AcList", "6,Pass,fd00::/8"),
    )
    tool.script(
        ("Hub TOKYO",),
        ("CascadeCreate branch /SERVER:192.0.2.9:443 /HUB:X /USERNAME:u",),
        ("CascadeList", "branch,Offline (Stopped),(None),192.0.2.9"),
        ("CascadeGet branch", "Virtual Hub Name,X", "Authentication Type,Anonymous", "Encryption by SSL,Enable"),
        ("CascadeSet branch /SERVER:192.0.2.10:444 /HUB:Y",),
        ("CascadeUsernameSet branch /USERNAME:v",),
        ("CascadePasswordSet branch /PASSWORD:x /TYPE:standard",),
        ("CascadeDetailSet branch /MAXTCP:4 /INTERVAL:1 /TTL:0 /HALF:no /NOQOS:yes",),
        ("CascadeCompressEnable branch",),
        (
            "CascadeGet branch",
            "Host Name,192.0.2.10",
            "Port Number,444",
            "Virtual Hub Name,Y",
            "User Name,v",
            "Standard Password Authentication",
            "Use in VPN Communication,4",
            "Data Compression,Enable",
        ),
        ("CascadeCompressDisable branch",),
        ("CascadeEncryptEnable branch",),
        ("CascadeProxyNone branch",),
        ("CascadeServerCertEnable branch",),
        ("CascadeGet branch", "Verify Server Certificate,Enable"),
        ("CascadeServerCertDisable branch",),
        ("CascadePolicySet branch /NAME:MaxUpload /VALUE:1000000",),
        ("CascadeGet branch", "MaxUpload,Upload Bandwidth,1000000 bps"),
        ("CascadeAnonymousSet branch",),
        ("CascadeOnline branch",),
        ("CascadeList", "branch,"),
        ("CascadeStatusGet branch", "Number of Established Sessions,0"),
        ("CascadeOffline branch",),
        ("CascadeList", "branch,Offline (Stopped)"),
        ("CascadeDelete branch",),
    )
    assert site.hub.tell("cascades") == []
    _see_a_session(site)
    replies = tool.script(
        ("LogFileList", "server.log", "hub/TOKYO.log"),
        ("LogFileGet hub/TOKYO.log /SERVER:any /SAVEPATH:got.log",),
        ("HubDelete TOKYO",),
        ("HubList", "LAN,Online"),
    )
    assert "TOKYO" not in replies[-1].text
    log = (site.other.folder / "got.log").read_text()
    assert '"user": "taro"' in log
    assert '"event": "cascade_created"' in log
    tool.do("ServerPasswordSet another-password")
    assert _is_refused(tool)
    again = Tool(site.other, site.server, "another-password")
    again.do("About")
    assert tool.commands == listed(WORKS)
    assert len(tool.commands) >= 40


def _is_refused(tool: Tool) -> bool:
    """Whether the password is said to be wrong. It then asks for another, for ever."""
    words = ["timeout", "5", "vpncmd", *tool.where, "/CMD", "About"]
    out = tool.host.ask(words, stdin="\n\n").stdout
    assert "Copyright" in out, out
    return "Access has been denied." in out and "VPN Server" not in out


def _see_a_session(site: Site) -> None:
    """An official client in hub LAN, as vpncmd shows it, and its end."""
    tool, own = site.tool, site.hub.rows("hub", "list")[0]["host_port_addresses"][0].partition("/")[0]
    tool.script(
        ("Hub LAN",),
        ("UserCreate hanako /GROUP:none /REALNAME:none /NOTE:none",),
        ("UserPasswordSet hanako /PASSWORD:himitsu",),
    )
    client = peers.Client(site.other)
    client.start()
    theirs = ".".join([*own.split(".")[:3], "200"])
    host, _, port = site.server.partition(":")
    client.create_account(
        "v1", server=host, port=int(port), hub="LAN", user="hanako", password="himitsu", cidrs=[f"{theirs}/24"]
    )
    client.connect("v1")
    site.other.pings(own, seconds=30)
    replies = tool.script(
        ("Hub LAN",),
        ("HubList", "LAN,Online,Standalone,2,0,1"),
        ("SessionList", "SID-HANAKO-", ",hanako,"),
        ("ConnectionList", "Management RPC", ",Login"),
        ("MacTable", "SID-HANAKO-"),
        ("IpTable", theirs),
        ("UserGet hanako", "Number of Logins,1"),
    )
    session = replies[2].text.split("SID-HANAKO-")[1].partition(",")[0]
    connection = re.findall(r"^(CID-\d+),.*Management RPC", replies[3].text, re.MULTILINE)[0]
    mac = re.findall(r"^(\d+),SID-HANAKO-", replies[4].text, re.MULTILINE)[0]
    address = re.findall(rf"^(\d+),SID-HANAKO-\d+,{re.escape(theirs)}", replies[5].text, re.MULTILINE)[0]
    replies = tool.script(
        ("Hub LAN",),
        (
            f"SessionGet SID-HANAKO-{session}",
            f"Client IP Address,{site.other.ipv4}",
            "User Name (Authentication),hanako",
            "Client Product Name (Reported),SoftEther VPN Client",
            "Encryption,Enabled",
            "Number of TCP Connections,1",
        ),
        (f"MacDelete {mac}",),
        (f"IpDelete {address}",),
        ("IpTable",),
        ("ConnectionList",),
    )
    assert f"\n{address},SID" not in replies[4].text
    connection = re.findall(r"^(CID-\d+),.*,Login", replies[5].text, re.MULTILINE)[0]
    replies = tool.script(
        ("Hub LAN",),
        (f"ConnectionGet {connection}", f"Connection Name,{connection}", "Connection Type,Login"),
        (f"ConnectionDisconnect {connection}",),
    )
    site.other.pings(own, seconds=30)  # its session lives on
    client.disconnect("v1")
    client.connect("v1")
    (row,) = [row for row in site.hub.sessions() if row["user"] == "hanako" and row["state"] == "online"]
    tool.script(("Hub LAN",), (f"SessionDisconnect {row['session']}",))
    assert row["session"] not in [one["session"] for one in site.hub.sessions()]
    client.stop()


REFUSALS: Final = (
    "BridgeList",
    "BridgeDeviceList",
    "RouterList",
    "ListenerCreate 8888",
    "ListenerDelete 443",
    "ListenerEnable 443",
    "ListenerDisable 443",
    "ServerCipherSet AES128-SHA",
    "ServerCertRegenerate x",
    "ConfigGet",
    "LicenseList",
    "LicenseStatus",
    "IPsecGet",
    "EtherIpClientList",
    "DynamicDnsGetStatus",
    "VpnAzureGetStatus",
    "VpnOverIcmpDnsGet",
    "PortsUDPGet",
    "ProtoOptionsGet OpenVPN",
    "ClusterMemberList",
    "ClusterConnectionStatusGet",
    "ClusterSettingStandalone",
    "KeepEnable",
    "KeepSet /HOST:a.example:80 /PROTOCOL:tcp /INTERVAL:50",
    "SyslogEnable 1 /HOST:a.example:514",
    "SecureNatEnable",
    "SecureNatDisable",
    "SecureNatHostGet",
    "SecureNatStatusGet",
    "NatGet",
    "NatTable",
    "DhcpGet",
    "DhcpTable",
    "CrlList",
    "LogSwitchSet packet /SWITCH:hour",
    "LogPacketSaveType /TYPE:arp /SAVE:full",
    "RadiusServerSet a.example:1812 /SECRET:x /RETRY_INTERVAL:1000",
    "UserNTLMSet guest /ALIAS:x",
    "UserRadiusSet guest /ALIAS:x",
    "CascadeRename branch /NEW:other",
    "CascadeEncryptDisable branch",
    "CascadeProxyHttp branch /SERVER:a.example:8080 /USERNAME: /PASSWORD:",
    "CascadeProxySocks branch /SERVER:a.example:1080 /USERNAME: /PASSWORD:",
)


def test_what_is_not_ours_is_error_33(site: Site) -> None:
    before = site.hub.rows("hub", "status")[0]["listen"]
    prepare = ("Hub LAN", "CascadeCreate branch /SERVER:192.0.2.9:443 /HUB:X /USERNAME:u")
    replies = site.tool.say(*prepare, *REFUSALS)[2:]
    assert [(reply.command, reply.code) for reply in replies] == [(line, NOT_SUPPORTED) for line in REFUSALS]
    assert {line.split()[0] for line in REFUSALS} == listed(REFUSED)
    assert site.hub.rows("hub", "status")[0]["listen"] == before


def test_the_administrator_of_one_hub(site: Site) -> None:
    site.tool.script(
        ("HubCreate TOKYO /PASSWORD:geheim",),
        ("Hub TOKYO",),
        ("UserCreate taro /GROUP:none /REALNAME:none /NOTE:none",),
    )
    tool = Tool(site.other, site.server, "geheim", "TOKYO")
    replies = tool.say(
        "HubList", "StatusGet", "UserList", "Hub LAN", "StatusGet", "HubCreate OSAKA /PASSWORD:x", "ListenerList"
    )
    assert "TOKYO,Online" in replies[0].text
    assert "LAN," not in replies[0].text
    assert "taro" in replies[2].text
    assert [reply.code for reply in replies[3:]] == [52, 0, 52, 52]
    assert _is_refused(Tool(site.other, site.server, "wrong", "TOKYO"))
    assert _is_refused(Tool(site.other, site.server, "geheim", "LAN"))


def test_nobody_is_let_in_before_an_administrator_says_so(net: Net) -> None:
    machine, other = net.lan("hub", "b")
    hub = Hub(machine)
    hub.start()
    for password in ("", "x"):
        assert _is_refused(Tool(other, f"{machine.ipv4}:443", password))
    assert hub.tell("tools") == [{"hub": "", "on": False}, {"hub": "LAN", "on": False}]


def test_json_rpc_over_the_same_port(site: Site) -> None:
    host, _, port = site.server.partition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    password = site.tool.where[2].partition(":")[2]
    own = {"X-VPNADMIN-PASSWORD": password, "Content-Type": "application/json"}
    call = {"jsonrpc": "2.0", "id": "7", "method": "EnumHub", "params": {}}
    with site.other.inside():
        connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=20)
        connection.connect()

    def ask(method: str, target: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    try:
        status, body = ask("POST", "/api/", json.dumps(call).encode(), own)
        assert status == 200
        assert json.loads(body)["result"]["HubList"][0]["HubName_str"] == "LAN"
        status, body = ask("GET", "/api/EnumUser?HubName_str=LAN", b"", own)
        assert json.loads(body)["result"]["UserList"][0]["Name_str"] == "guest"
        status, body = ask("POST", "/api", json.dumps(call | {"method": "Nothing"}).encode(), own)
        assert json.loads(body)["error"]["code"] == NOT_SUPPORTED
        status, body = ask("POST", "/api/", json.dumps(call).encode(), {"X-VPNADMIN-PASSWORD": "wrong"})
        assert (status, b"401" in body) == (401, True)
        assert ask("OPTIONS", "/api/", b"", {"Origin": "https://evil.example"})[0] == 204
        assert ask("POST", "/api/", json.dumps(call).encode(), own | {"Origin": "https://evil.example"})[0] == 403
        assert ask("POST", "/api/", bytes(65_537), own)[0] in {400, 413}
    finally:
        connection.close()
