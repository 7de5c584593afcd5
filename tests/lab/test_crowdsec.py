"""Attacks on the real daemons, their log lines as a node's log file has them, the real CrowdSec with the hub's parsers and scenarios."""

import contextlib
import imaplib
import shutil
import smtplib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from components.listeners import SMTP, SUBMISSION, SUBMISSIONS
from components.monitoring.crowdsec import chart_values
from components.settings.crowdsec import Crowdsec as Settings
from tests.lab.support import Known
from tools.lab.client import Client
from tools.lab.edge import Lab
from tools.lab.hosts import Host, wait_for

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
        host.write(f"{FOLDER}/config.yaml", yaml.safe_dump(CONFIG))
        host.run(
            "sh",
            "-c",
            f"mkdir {FOLDER}/data {FOLDER}/scenarios; cp -r /etc/crowdsec/patterns /etc/crowdsec/*.yaml {FOLDER}/; : >{FOLDER}/acquis.yaml",
        )
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
