"""The policy server's rendered configuration in a real nginx, behind TLS, asked by a client that knows nothing of this project."""

import hashlib
import json
import os
import plistlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from checkdmarc.mta_sts import mx_in_mta_sts_patterns, parse_mta_sts_policy

from components.dns.web_pages import HEALTH_PATH, PORT
from components.dns.web_server import NAME
from components.settings.site import Site
from tools.lab.certificates import Authority
from tools.lab.hosts import slowness, wait_for
from tools.offline.program import Recording

NOBODY = 65534
POLICY_HOST, CONFIG_HOST, OUTLOOK_HOST = "mta-sts.example.org", "autoconfig.example.org", "autodiscover.example.org"
POLICY_PATH = "/.well-known/mta-sts.txt"  # RFC 8461 section 3.3

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root"),
    pytest.mark.skipif(not (shutil.which("nginx") and shutil.which("nsenter")), reason="nginx is not installed"),
]

# What an Ingress does, and nothing else.
INGRESS = """\
daemon off; pid {folder}/ingress.pid; error_log {folder}/ingress.log; worker_processes 1;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:443 ssl;
    ssl_certificate {folder}/leaf.pem; ssl_certificate_key {folder}/leaf.key;
    location / {{ proxy_pass http://127.0.0.1:{port}; proxy_set_header Host $host; }}
  }}
}}
"""

# Python's own HTTPS client: verifies the chain and the name, follows no redirect.
CLIENT = """\
import http.client, json, socket, ssl, sys
ca, server, host, method, path, body = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
class Connection(http.client.HTTPSConnection):
    def connect(self):
        self.sock = context.wrap_socket(socket.create_connection(("127.0.0.1", 443), 5), server_hostname=server)
connection = Connection(server)
connection.request(method, path, body.encode() or None, {"Host": host, "Content-Type": "text/xml"})
answer = connection.getresponse()
print(json.dumps({"status": answer.status, "headers": {k.lower(): v for k, v in answer.getheaders()}, "body": answer.read().decode()}))
"""


# A network of its own, and the pod's view of files: the ConfigMap as a mount, /tmp in memory, everything else read-only.
POD = """\
ip link set lo up
mount -t tmpfs tmpfs /mnt
mkdir /mnt/site /mnt/ingress
mount --bind "$0" /mnt/site
mount -o remount,bind,ro /mnt/site
mount --bind "$1" /mnt/ingress
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -o remount,bind,ro /
exec sleep 300
"""


@dataclass
class Server:
    """A running policy server with its Ingress, in namespaces of their own."""

    folder: Path
    namespace: int

    def enter(self, *command: str) -> list[str]:
        return ["nsenter", "--net", "--mount", "--target", str(self.namespace), *command]

    def ask(self, host: str, path: str, *, method: str = "GET", body: str = "", name: str | None = None, ca: str = "ca.pem") -> dict:
        command = self.enter("/usr/bin/python3", "-c", CLIENT, f"/mnt/ingress/{ca}", name or host, host, method, path, body)
        result = subprocess.run(command, capture_output=True, text=True, timeout=20 * slowness(), check=False)
        if result.returncode != 0:
            raise ConnectionError(result.stderr.strip().splitlines()[-1])
        return json.loads(result.stdout)


def _certificates(folder: Path) -> None:
    """An authority, another one that signed nothing, and a certificate for the hosts."""
    authority, other = Authority(), Authority()
    certificate, key = authority.issue(POLICY_HOST, CONFIG_HOST, OUTLOOK_HOST)
    for name, text in (("ca.pem", authority.certificate), ("other.pem", other.certificate), ("leaf.pem", certificate), ("leaf.key", key)):
        (folder / name).write_text(text)


def _settle(pod: subprocess.Popen) -> None:
    """Until the namespaces are ready, which is when the shell has become the sleeper."""
    wait_for("namespaces", lambda: pod.poll() is not None or Path(f"/proc/{pod.pid}/comm").read_text().strip() == "sleep")
    if pod.poll() is not None:
        pytest.skip("this machine allows no namespaces")


def _wait(server: Server, port: int, process: subprocess.Popen) -> None:
    def listening() -> bool:
        return f":{port} " in subprocess.run(server.enter("ss", "-Hltn"), capture_output=True, text=True, check=True).stdout

    wait_for(f"a listener on {port}", lambda: process.poll() is not None or listening())
    assert process.poll() is None, (server.folder / "log").read_text()


@pytest.fixture(scope="module")
def objects() -> dict[str, dict]:
    """The policy server's objects of the dev stack, by kind, as they would reach the API server."""
    from tests.conftest import recording_of, settings

    run: Recording = recording_of(json.dumps(settings("dev")), "dev")
    return {thing["kind"]: thing for thing in run.kubernetes() if thing["metadata"].get("labels", {}).get("app") == NAME}


@pytest.fixture(scope="module")
def server(objects: dict[str, dict], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("ingress")
    mounted = tmp_path_factory.mktemp("site")
    for name, text in objects["ConfigMap"]["data"].items():
        (mounted / name).write_bytes(text.encode())
    mounted.chmod(0o755)
    _certificates(folder)
    (folder / "ingress.conf").write_text(INGRESS.format(folder="/mnt/ingress", port=PORT))
    (folder / "log").touch()
    os.chown(folder / "log", NOBODY, NOBODY)
    folder.chmod(0o755)

    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    (mount,) = (mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "site")
    command = [part.replace(mount, "/mnt/site") for part in container["command"]]
    running: list[subprocess.Popen] = []
    try:
        running.append(subprocess.Popen(["unshare", "--net", "--mount", "sh", "-euc", POD, str(mounted), str(folder)]))
        server = Server(folder, running[0].pid)
        _settle(running[0])
        with (folder / "log").open("a") as log:
            # As in the pod: not root, and nothing but /tmp to write to.
            drop = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs"]
            running.append(subprocess.Popen(server.enter(*drop, *command), stdout=log, stderr=log))
        _wait(server, PORT, running[-1])
        running.append(subprocess.Popen(server.enter("nginx", "-c", "/mnt/ingress/ingress.conf", "-e", "/mnt/ingress/ingress.log")))
        _wait(server, 443, running[-1])
        yield server
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(10 * slowness())


def test_the_policy_is_fetched_as_a_sending_server_fetches_it(server: Server, site: Callable[..., Site]):
    answer = server.ask(POLICY_HOST, POLICY_PATH)
    assert answer["status"] == 200
    assert answer["headers"]["content-type"].partition(";")[0] == "text/plain"
    assert "location" not in answer["headers"]
    policy = parse_mta_sts_policy(answer["body"])
    assert policy["warnings"] == []
    assert policy["policy"] == {"version": "STSv1", "mode": "testing", "max_age": 604_800, "mx": ["mail.example.org"]}
    assert mx_in_mta_sts_patterns("mail.example.org", policy["policy"]["mx"])
    assert answer["body"].count("\r\n") == len(answer["body"].splitlines()) == 4


def test_the_record_announces_this_very_policy(server: Server):
    body = server.ask(POLICY_HOST, POLICY_PATH)["body"]
    zone = (Path(__file__).parents[1] / "unit" / "dns" / "zones" / "dev" / "example.org.zone").read_text("utf-8")
    assert f"id={hashlib.sha256(body.encode()).hexdigest()[:20]}" in zone


def test_the_client_does_verify(server: Server):
    with pytest.raises(ConnectionError, match="certificate verify failed"):
        server.ask(POLICY_HOST, POLICY_PATH, ca="other.pem")
    with pytest.raises(ConnectionError, match="Hostname mismatch"):
        server.ask(POLICY_HOST, POLICY_PATH, name="mta-sts.example.net")


@pytest.mark.parametrize(
    ("host", "path"),
    [
        (POLICY_HOST, "/"),
        (POLICY_HOST, "/.well-known/"),
        (POLICY_HOST, "/.well-known/mta-sts.txt/"),
        (POLICY_HOST, "/.well-known/../nginx.conf"),
        (POLICY_HOST, "/..%2fnginx.conf"),
        (POLICY_HOST, "/nginx.conf"),
        (POLICY_HOST, f"/{POLICY_HOST}"),
        (CONFIG_HOST, POLICY_PATH),
        (OUTLOOK_HOST, "/"),
        (OUTLOOK_HOST, "/autodiscover/"),
        (OUTLOOK_HOST, "/autodiscover/autodiscover.xml.bak"),
        (OUTLOOK_HOST, f"/{OUTLOOK_HOST}"),
        ("mta-sts.example.net", POLICY_PATH),
        ("127.0.0.1", POLICY_PATH),
    ],
)
def test_everything_else_is_not_found(host: str, path: str, server: Server):
    answer = server.ask(host, path, name=POLICY_HOST)
    assert answer["status"] in {400, 404}
    assert "location" not in answer["headers"]


def test_the_probe_of_the_pod_is_answered(server: Server, objects: dict[str, dict]):
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": HEALTH_PATH, "port": PORT}
    assert server.ask("10.0.0.1", HEALTH_PATH, name=POLICY_HOST)["status"] == 204


def test_thunderbird_finds_the_services(server: Server):
    answer = server.ask(CONFIG_HOST, "/mail/config-v1.1.xml?emailaddress=alice%40example.org")
    assert (answer["status"], answer["headers"]["content-type"].partition(";")[0]) == (200, "text/xml")
    provider = Xml.fromstring(answer["body"]).find("emailProvider")
    assert provider is not None
    found = {
        (server.get("type"), *(server.findtext(tag) for tag in ("hostname", "port", "socketType", "username")))
        for server in [*provider.findall("incomingServer"), *provider.findall("outgoingServer")]
    }
    assert found == {
        ("imap", "mail.example.org", "993", "SSL", "%EMAILADDRESS%"),
        ("smtp", "mail.example.org", "465", "SSL", "%EMAILADDRESS%"),
        ("smtp", "mail.example.org", "587", "STARTTLS", "%EMAILADDRESS%"),
    }


REQUEST = """\
<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006">
  <Request>
    <EMailAddress>%s</EMailAddress>
    <AcceptableResponseSchema>http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a</AcceptableResponseSchema>
  </Request>
</Autodiscover>"""
ENVELOPE = "{http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006}"
ANSWER = "{http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a}"
OUTLOOK_PATH = "/autodiscover/autodiscover.xml"

# The children of Protocol that Microsoft documents for IMAP and SMTP, in the order of its page.
PROTOCOL = ["Type", "Server", "Port", "LoginName", "DomainRequired", "SPA", "SSL", "AuthRequired", "UsePOPAuth"]


def outlook(server: Server, address: str, path: str = OUTLOOK_PATH) -> list[dict[str, str | None]]:
    """What an Outlook that asks about the address is told, one protocol after the other."""
    answer = server.ask(OUTLOOK_HOST, path, method="POST", body=REQUEST % address)
    assert (answer["status"], answer["headers"]["content-type"].partition(";")[0]) == (200, "text/xml")
    root = Xml.fromstring(answer["body"])
    assert root.tag == f"{ENVELOPE}Autodiscover"
    (response,) = root
    assert [child.tag for child in response] == [f"{ANSWER}User", f"{ANSWER}Account"]
    account = response[1]
    assert (account.findtext(f"{ANSWER}AccountType"), account.findtext(f"{ANSWER}Action")) == ("email", "settings")
    return [{child.tag.removeprefix(ANSWER): child.text for child in protocol} for protocol in account.iter(f"{ANSWER}Protocol")]


@pytest.mark.parametrize("path", [OUTLOOK_PATH, "/Autodiscover/Autodiscover.xml"])
def test_outlook_finds_the_services_and_the_whole_address_as_login_name(path: str, server: Server):
    found = outlook(server, "alice@example.org", path)
    for protocol in found:
        assert list(protocol) == [name for name in PROTOCOL if name in protocol]
        assert (protocol["LoginName"], protocol["DomainRequired"], protocol["SPA"]) == ("alice@example.org", "off", "off")
        assert (protocol["SSL"], protocol["AuthRequired"]) == ("on", "on")
    assert [(protocol["Type"], protocol["Server"], protocol["Port"], protocol.get("UsePOPAuth")) for protocol in found] == [
        ("IMAP", "mail.example.org", "993", None),
        ("SMTP", "mail.example.org", "465", "on"),
    ]


@pytest.mark.parametrize(
    ("address", "login"),
    [
        ("o'neil+x@example.org", "o'neil+x@example.org"),
        (" alice@example.org\n", "alice@example.org"),
        ("a&lt;b@example.org", None),
        ("a@b</EMailAddress><x>@y</x><EMailAddress>", "a@b"),
        ("alice", None),
        ("", None),
    ],
)
def test_nothing_that_could_be_markup_is_repeated(address: str, login: str | None, server: Server):
    assert {protocol.get("LoginName") for protocol in outlook(server, address)} == {login}


def test_a_request_without_an_address_gets_the_services_without_a_login_name(server: Server):
    answer = server.ask(OUTLOOK_HOST, OUTLOOK_PATH)
    assert answer["status"] == 200 and "LoginName" not in answer["body"]


def test_apples_devices_get_a_profile_with_every_key_that_apple_requires(server: Server):
    """The keys, their types and values are those of Apple's device management reference (Mail, Common Payload Keys)."""
    answer = server.ask(CONFIG_HOST, "/mobileconfig")
    assert (answer["status"], answer["headers"]["content-type"]) == (200, "application/x-apple-aspen-config")
    profile = plistlib.loads(answer["body"].encode())
    (account,) = profile["PayloadContent"]
    for payload in (profile, account):
        assert payload["PayloadVersion"] == 1
        assert all(isinstance(payload[key], str) and payload[key] for key in ("PayloadIdentifier", "PayloadUUID", "PayloadType"))
    assert profile["PayloadIdentifier"] != account["PayloadIdentifier"] and profile["PayloadUUID"] != account["PayloadUUID"]
    assert (profile["PayloadType"], account["PayloadType"]) == ("Configuration", "com.apple.mail.managed")
    assert account["EmailAccountType"] == "EmailTypeIMAP"
    for side, port in (("Incoming", 993), ("Outgoing", 465)):
        found = {key.removeprefix(f"{side}MailServer"): value for key, value in account.items() if key.startswith(f"{side}MailServer")}
        assert found == {"Authentication": "EmailAuthPassword", "HostName": "mail.example.org", "PortNumber": port, "UseSSL": True}
    assert account["OutgoingPasswordSameAsIncomingPassword"] is True
    # What it leaves out, the device asks its user for.
    assert not {"EmailAddress", "IncomingMailServerUsername", "OutgoingMailServerUsername", "IncomingPassword"} & account.keys()


def test_the_server_logged_no_error(server: Server):
    """What the server said about all the requests above."""
    log = (server.folder / "log").read_text()
    for level in ("warn", "error", "crit", "alert", "emerg"):
        assert f"[{level}]" not in log, log


def test_a_request_that_is_too_large_is_refused(server: Server):
    """Last, because the server complains of it."""
    assert server.ask(OUTLOOK_HOST, OUTLOOK_PATH, method="POST", body="x" * 9000)["status"] == 413
