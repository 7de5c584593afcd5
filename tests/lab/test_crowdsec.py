"""Attacks on the real daemons, their log lines as a node's log file has them, the real CrowdSec with the hub's parsers and scenarios.

Its decisions go on to a firewall that refuses the attackers: the mirror, the program that checks the list, the agent, pf's rules.
"""

import contextlib
import imaplib
import json
import shutil
import smtplib
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from components.bans.pod import KEY_VARIABLE, MIRROR_CONFIG, command, mirror_config
from components.edge.bans import LOAD, PATH
from components.edge.desired import haproxy_set, rule_set
from components.listeners import IMAPS, LISTENERS, SMTP, SUBMISSION, SUBMISSIONS
from components.mail.component import POD_SCRIPTS
from components.monitoring.crowdsec import chart_values
from components.settings.crowdsec import Crowdsec as Settings
from components.settings.site import Site
from tests.contract import pf
from tests.contract.standin import NODES, TUNNEL, StandIn
from tests.contract.standin import missing as firewall_missing
from tests.lab.support import Known
from tools.lab.client import Client
from tools.lab.edge import Lab
from tools.lab.hosts import Daemon, Host, wait_for
from tools.lab.paths import EDGE_IPV6
from tools.offline.stackfile import ROOT

HUB = Path("/var/lib/crowdsec/hub")  # where Debian's package keeps it
FOLDER = "/tmp/crowdsec"
PARSERS = {
    "s00-raw": ("syslog-logs", "cri-logs"),
    "s01-parse": ("postfix-logs", "postscreen-logs", "dovecot-logs"),
    "s02-enrich": ("dateparse-enrich",),
}
SCENARIOS = ("postfix-spam", "dovecot-spam")
CONFIG = {
    "common": {"daemonize": False, "log_media": "stdout", "log_level": "info", "log_dir": FOLDER},
    "config_paths": {
        "config_dir": FOLDER,
        "data_dir": f"{FOLDER}/data",
        "simulation_path": f"{FOLDER}/simulation.yaml",
        "hub_dir": str(HUB),
        "index_path": f"{HUB}/.index.json",
    },
    "crowdsec_service": {"acquisition_path": f"{FOLDER}/acquis.yaml", "parser_routines": 1},
    "db_config": {"type": "sqlite", "db_path": f"{FOLDER}/data/crowdsec.db", "use_wal": False},
    "api": {
        "client": {"credentials_path": f"{FOLDER}/credentials.yaml"},
        "server": {"listen_uri": "127.0.0.1:8080", "profiles_path": f"{FOLDER}/profiles.yaml"},
    },
    "prometheus": {"enabled": False},
}

pytestmark = pytest.mark.skipif(shutil.which("crowdsec") is None or not HUB.is_dir(), reason="needs Debian's package crowdsec")


def at_once(number: int, attempt: Callable[[], None]) -> None:
    """A wrong password costs seconds, and the scenarios count what comes close together."""
    threads = [threading.Thread(target=attempt) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module")
def begun(lab: Lab) -> int:
    """Where the log of the attacks begins: before it may be lines of other tests, with attackers of their own."""
    return len(lab.pod.log())


@pytest.fixture(scope="module")
def attackers(lab: Lab, known: Known, begun: int) -> dict[str, str]:
    """What was done, by whom."""
    by: dict[str, str] = {}
    for listener in (SUBMISSIONS, SUBMISSION):
        client = Client(lab)
        by[f"passwords on {listener.name}"] = client.source

        def guess_smtp(client: Client = client, port: int = listener.port) -> None:
            with contextlib.suppress(smtplib.SMTPException), client.smtp(port) as smtp:
                smtp.login("alice@example.org", "guess")

        at_once(8, guess_smtp)
    client = Client(lab, ipv6=True)
    by["passwords on imaps"] = client.source

    def guess_imap(client: Client = client) -> None:
        imap = client.imap()
        with contextlib.suppress(imaplib.IMAP4.error):
            imap.login("alice@example.org", "guess")
        imap.shutdown()

    at_once(6, guess_imap)
    client = Client(lab)
    by["talks before the greeting"] = client.source
    with client.raw(SMTP.port) as connection:
        connection.recv(200)  # the teaser; the greeting follows six seconds later
        time.sleep(0.2)  # Debian's hub does not read `PREGREET 28 after 0 from`
        connection.sendall(b"EHLO early.clients.example\r\n")
        wait_for("its line", lambda: "PREGREET" in lab.pod.log()[begun:])
    client = known()
    by["asks for a relay"] = client.source
    with client.smtp() as smtp:
        smtp.mail("friend@clients.example")
        for number in range(8):
            smtp.rcpt(f"victim{number}@sender.example")
    client = Client(lab)
    by["speaks HTTP"] = client.source
    with client.raw(SUBMISSION.port) as connection:
        connection.recv(200)
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        connection.recv(200)
    wait_for("the last attack's line", lambda: "non-SMTP command" in lab.pod.log()[begun:])
    return by


@pytest.fixture
def lines(lab: Lab, begun: int, attackers: dict[str, str]) -> list[str]:
    """The container's output as containerd writes it to the node's file; the image shows mail.log there."""
    return [f"{line.split()[0]} stdout F {line}" for line in lab.pod.log()[begun:].splitlines()]


class Crowdsec:
    """The real one with its local API, on a machine of its own without a network."""

    def __init__(self, host: Host, values: dict) -> None:
        self.host = host
        host.run("mkdir", "-p", f"{FOLDER}/data", f"{FOLDER}/scenarios")
        host.run("sh", "-c", f"cp -r /etc/crowdsec/patterns /etc/crowdsec/*.yaml {FOLDER}/; : >{FOLDER}/acquis.yaml")
        host.write(f"{FOLDER}/config.yaml", yaml.safe_dump(CONFIG))
        for stage, names in PARSERS.items():
            host.run("mkdir", "-p", f"{FOLDER}/parsers/{stage}")
            for name in names:
                host.run("ln", "-s", f"{HUB}/parsers/{stage}/crowdsecurity/{name}.yaml", f"{FOLDER}/parsers/{stage}/")
        for name in SCENARIOS:
            host.run("ln", "-s", f"{HUB}/scenarios/crowdsecurity/{name}.yaml", f"{FOLDER}/scenarios/")
        for stage, files in values["config"]["parsers"].items():
            for name, text in files.items():
                host.write(f"{FOLDER}/parsers/{stage}/{name}", text)
        host.write(f"{FOLDER}/credentials.yaml", "")
        host.run("cscli", "-c", f"{FOLDER}/config.yaml", "machines", "add", "lab", "--auto", "--force", "-f", f"{FOLDER}/credentials.yaml")
        host.run("cp", f"{FOLDER}/data/crowdsec.db", f"{FOLDER}/fresh.db")

    def bans(self, lines: list[str], **labels: str) -> set[str]:
        """Addresses that it decides to ban after these lines, read under these labels."""
        self.host.run("cp", f"{FOLDER}/fresh.db", f"{FOLDER}/data/crowdsec.db")
        self.host.write(f"{FOLDER}/lines.log", "\n".join(lines) + "\n")
        extra = [word for name, value in labels.items() if name != "type" for word in ("-label", f"{name}:{value}")]
        self.host.run("crowdsec", "-c", f"{FOLDER}/config.yaml", "-dsn", f"file://{FOLDER}/lines.log", "-type", labels["type"], *extra)
        copy = self.host.folder / "decisions.db"  # SQLite follows no path through /proc
        copy.write_bytes(self.host.path(f"{FOLDER}/data/crowdsec.db").read_bytes())
        with contextlib.closing(sqlite3.connect(copy)) as database:
            return {row[0] for row in database.execute("SELECT value FROM decisions WHERE type = 'ban'")}

    def serve(self) -> str:
        """Its local API from now on, with the decisions of the last lines; the key of a bouncer."""
        self.host.spawn("crowdsec", "crowdsec", "-c", f"{FOLDER}/config.yaml", "-no-cs")
        wait_for("CrowdSec's API", lambda: self.host.run("curl", "-s", "http://127.0.0.1:8080/health", check=False).stdout)
        return self.cscli("bouncers", "add", "mail-firewall", "-o", "raw")

    def cscli(self, *words: str) -> str:
        return self.host.run("cscli", "-c", f"{FOLDER}/config.yaml", *words).stdout.strip()


@pytest.fixture
def crowdsec(lab: Lab, tmp_path: Path) -> Iterator[Callable[[Settings], Crowdsec]]:
    hosts: list[Host] = []

    def make(settings: Settings) -> Crowdsec:
        hosts.append(Host("crowdsec", tmp_path / f"crowdsec{len(hosts)}"))
        return Crowdsec(hosts[-1], chart_values(lab.site, settings))

    yield make
    for host in hosts:
        host.close()


def test_every_attack_ends_in_a_ban_of_the_clients_real_address(crowdsec, attackers, lines):
    expected = dict(attackers)
    if "non-SMTP command" not in (HUB / "parsers/s01-parse/crowdsecurity/postfix-logs.yaml").read_text():
        del expected["speaks HTTP"]  # known to the hub since 2024
    engine = crowdsec(Settings())
    assert engine.bans(lines, type="mailserver") == set(expected.values())
    bare = [line.partition(" stdout F ")[2] for line in lines]
    assert engine.bans(bare, type="mailserver") == set(expected.values()), "as Loki returns them"


def test_an_acquisition_that_names_one_program_for_all_lines_sees_no_attack_on_postfix(crowdsec, attackers, lines):
    """The predecessor's: a program `postfix`, which no parser of the hub asks for, and Dovecot's lines once more."""
    engine = crowdsec(Settings())
    assert engine.bans(lines, type="containerd", program="postfix") == set()
    assert engine.bans(lines, type="containerd", program="dovecot") == {attackers["passwords on imaps"]}


def test_own_networks_are_not_banned(crowdsec, attackers, lines):
    own = Settings(allow=tuple(attackers.values()))
    assert crowdsec(own).bans(lines, type="mailserver") == set()


# Decisions of which none may reach the firewall: everyone, an allowed network, a node, the firewall, pods, a public address.
OWN = {"0.0.0.0/0": "range", "192.0.2.9": "ip", "10.0.20.101": "ip", "10.0.20.1": "ip", "10.10.3.0/24": "range", "2001:470:6e:43d::2": "ip"}
ALL = [listener.port for listener in LISTENERS]
MIRROR = "/usr/local/bin/crowdsec-blocklist-mirror"
SYN = "tcp flags & (syn | ack) == syn"


@pytest.fixture
def banning(edge_site: Callable[..., Site]) -> Site:
    bans = {"crowdsec": {"lapi": "http://127.0.0.1:8080"}, "allow": ["192.0.2.0/24"]}
    ipv6 = {"edge/ipv6_address": TUNNEL, "edge/ipv6_interface": "opt2"}
    return edge_site({"edge/bans": bans, "jobs/pushgateway": None} | ipv6)


def pod(machine: Host, site: Site, key: str) -> Daemon:
    """Both programs of the pod as they are rendered, only more often at work; the one that checks the list."""
    machine.write(f"/config/{MIRROR_CONFIG}", mirror_config(site.edge.bans.crowdsec).replace('"10s"', '"0.2s"'))
    shutil.copy(shutil.which("crowdsec-blocklist-mirror") or ROOT / "tests/standins/blocklist_mirror.py", machine.path(MIRROR))
    machine.path(MIRROR).chmod(0o755)
    machine.spawn("mirror", MIRROR, "-c", f"/config/{MIRROR_CONFIG}", env={KEY_VARIABLE: key})
    for script in ("bans.py", "common.py"):
        machine.write(f"/scripts/{script}", (POD_SCRIPTS / script).read_text())
    return machine.spawn("bans", *command(site, site.edge.bans), "--interval", "0.2", "--port", str(site.edge.bans.node_port))


def listed(site: Site) -> set[str]:
    """What the firewall would be given now."""
    url = f"http://{NODES[0]}:{site.edge.bans.node_port}{PATH}"
    with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(url, timeout=10) as answer:
        return set(answer.read().decode().split())
    return set()


@pytest.fixture
def load(lab: Lab, firewall: StandIn) -> Iterator[Callable[[], None]]:
    """The cron job's turn; from then on the lab's edge lets in what pf does: its rules and tables in the words of nftables."""
    places = {firewall.address: str(lab.site.edge.address), TUNNEL: EDGE_IPV6}

    def turn() -> None:
        assert firewall.shell(LOAD).returncode == 0
        lab.world.run("nft", "-f", "-", stdin="\n".join(("add table inet pf", "delete table inet pf", *lines())))

    def lines() -> Iterable[str]:
        yield "table inet pf { chain input { type filter hook input priority 0; policy accept;"
        for rule in pf.rules(firewall):
            if rule.target in places and rule.sources:
                family = {"inet": "ip", "inet6": "ip6"}[rule.family]
                sources, verdict = ", ".join(map(str, rule.sources)), "accept" if rule.passes else "reject with tcp reset"
                yield f"{family} saddr {{ {sources} }} {family} daddr {places[rule.target]} tcp dport {rule.port} {SYN} {verdict}"
        ports = ", ".join(pf.PORTS)
        yield f"ip daddr {lab.site.edge.address} tcp dport {{ {ports} }} {SYN} reject with tcp reset"  # what no rule passes
        yield f"ip6 daddr {EDGE_IPV6} tcp dport {{ {ports} }} {SYN} reject with tcp reset"
        yield "}\n}"

    yield turn
    lab.world.run("nft", "delete", "table", "inet", "pf", check=False)


def greeted(client: Client) -> list[int]:
    """The ports on which the daemons greet a client; on the others its connection is refused."""
    found = []
    for listener in LISTENERS:
        with contextlib.suppress(ConnectionRefusedError), client.raw(listener.port) as plain:
            tls = listener in (SUBMISSIONS, IMAPS)
            with client.context().wrap_socket(plain, server_hostname=client.site.hostname) if tls else plain as connection:
                assert connection.recv(200).startswith(b"* OK" if listener is IMAPS else b"220")
            found.append(listener.port)
    return found


@pytest.mark.once("CrowdSec's view of each major's lines is another test's")
@pytest.mark.skipif(bool(firewall_missing()), reason=firewall_missing())
def test_an_attacker_is_refused_at_the_edge_until_the_ban_ends(lab, attackers, lines, firewall, banning, load):
    engine = Crowdsec(firewall.machine, chart_values(lab.site, Settings()))
    banned = engine.bans(lines, type="mailserver")
    guard = pod(firewall.machine, banning, engine.serve())
    wait_for("the list", lambda: banned <= listed(banning))
    firewall.client().call("apply", "haproxy", haproxy_set(banning))
    assert firewall.client().call("apply", "rules", rule_set(banning))["warnings"] == []
    load()
    convicts = [Client(lab, attackers[name]) for name in ("passwords on submissions", "passwords on imaps")]
    other = Client(lab)
    assert [greeted(client) for client in (*convicts, other, Client(lab, ipv6=True))] == [[], [], ALL, ALL]

    held = pf.table(firewall, "mailserver_banned")[1:]
    more = {**OWN, other.source: "ip"}
    decisions = [{"duration": "4h", "reason": "test", "scope": scope, "type": "ban", "value": value} for value, scope in more.items()]
    firewall.machine.write(f"{FOLDER}/more.json", json.dumps(decisions))
    engine.cscli("decisions", "import", "-i", f"{FOLDER}/more.json")
    left = set(OWN)
    while left:
        own = wait_for("a refusal", lambda: next((own for own in left if f": {own} is " in guard.output.read_text()), None))
        load()
        assert pf.table(firewall, "mailserver_banned")[1:] == held, own
        engine.cscli("decisions", "delete", f"--{OWN[own]}", own)
        left.remove(own)
    wait_for("a good list", lambda: other.source in listed(banning))
    load()
    assert [greeted(client) for client in (*convicts, other)] == [[]] * 3

    engine.cscli("decisions", "delete", "--all")
    wait_for("the end of the bans", lambda: len(listed(banning)) == 1)
    load()
    assert [greeted(client) for client in (*convicts, other)] == [ALL] * 3
