"""The doctor's job inside, with the command line that is rendered for its pod, run by another pod beside the lab's mail server."""

import json
from collections.abc import Callable, Iterator

import pytest

from components.jobs.inside import INSIDE
from components.jobs.job import SCRIPTS_DIR
from components.settings.site import Site
from tests.lab.support import Log, certify, image, lab_site
from tools.lab.edge import Lab
from tools.lab.hosts import Host
from tools.lab.paths import NAMESERVER, POD
from tools.lab.pod import objects
from tools.offline.stackfile import ROOT

pytestmark = pytest.mark.once("a client of its own asks, by what every mail server speaks")
ADDRESS = "10.244.2.9"
VOLUME = "/volumes/mail-backup"
SMTP = {"smtp", "submissions", "submission"}
Told = dict[tuple[str, str], set[str]]
Ask = Callable[[], Told]


@pytest.fixture(autouse=True)
def provoked(log: Log) -> None:
    """A session that ends at its certificate, and one that Postfix answers without Dovecot."""
    log.expect(
        "SSL_accept", "TLS library problem", "lost connection", r"dovecot: imap-login", "SASL: Connect to", "smtpd pid .* exit status 1"
    )
    log.expect("no SASL authentication mechanisms", "bad command startup", "dovecot: master: Warning", "does not resolve to address")


@pytest.fixture(scope="module")
def site(lab: Lab) -> Site:
    backup = {"target": {"claim": "mail-backup"}, "drill": None}
    return lab_site(image(lab.site.mail.image_major) | {"doctor": {"inside": True}, "jobs/backup": backup})


@pytest.fixture(scope="module")
def neighbour(lab: Lab, site: Site) -> Iterator[Host]:
    """The job's pod: the script, the authority that it trusts, the cluster's DNS and the volume of the backup."""
    host = Host("inside", lab.folder / "inside")
    try:
        host.link(lab.world, "inside", ADDRESS)
        host.write("/etc/resolv.conf", f"nameserver {NAMESERVER}\n")
        host.write(f"{SCRIPTS_DIR}/inside.py", (ROOT / "scripts/pod/inside.py").read_text("utf-8"))
        host.write("/trusted.pem", lab.authority.certificate)
        lab.names.put(site.in_cluster_host, "A", POD)
        lab.names.host("inside.pods.example", ADDRESS)  # without a name it is refused for that (mail.require_reverse_name)
        yield host
    finally:
        lab.names.put(site.in_cluster_host, "A")
        host.close()


@pytest.fixture
def ask(neighbour: Host, site: Site) -> Ask:
    """What one run tells: by check and verdict, the services or volumes that it names."""
    job = objects(site.model_dump_json())["CronJob", INSIDE]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    command = job["containers"][0]["command"]

    def run() -> Told:
        found: Told = {}
        for line in neighbour.run(*command, env={"SSL_CERT_FILE": "/trusted.pem"}, seconds=120).stdout.splitlines():
            check, verdict, about, _ = json.loads(line)
            found.setdefault((check, verdict), set()).add(about.partition(" ")[0])
        return found

    return run


@pytest.fixture
def volume(neighbour: Host) -> Iterator[str]:
    neighbour.run("mkdir", "-p", VOLUME)
    neighbour.run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", VOLUME)
    yield VOLUME
    neighbour.run("umount", VOLUME)


def test_a_sound_mail_server_and_a_volume_are_well(ask: Ask, volume: str):
    assert ask() == {("services", "ok"): SMTP | {"imaps"}, ("open-relay", "ok"): SMTP, ("export", "ok"): {volume}}


@pytest.fixture
def postfix(lab: Lab) -> Iterator[Callable[..., None]]:
    """Changes main.cf (`-e`) or master.cf (`-P`) of the running server."""
    host = lab.pod.host
    before = {path: host.path(path).read_text() for path in ("/etc/postfix/main.cf", "/etc/postfix/master.cf")}

    def reload() -> None:
        host.settle_postfix()
        host.run("postfix", "reload")

    def change(*words: str) -> None:
        host.run("postconf", *words)
        reload()

    yield change
    for path, text in before.items():
        host.path(path).write_text(text)
    reload()


ALL = "check_client_access static:OK, reject"
RELAYS = {
    "its neighbours are trusted": ("-e", "mynetworks=10.244.0.0/16"),
    # Postfix's smtpd ends where neither has a `reject` that it can reach.
    "only senders are looked at": ("-e", *(f"smtpd_{name}_restrictions={ALL}" for name in ("client", "relay", "recipient"))),
}


@pytest.mark.parametrize("case", RELAYS)
def test_an_open_relay(ask: Ask, postfix: Callable[..., None], case: str):
    postfix(*RELAYS[case])
    told = ask()
    assert told["open-relay", "broken"] == {"smtp"}
    assert told["open-relay", "ok"] == SMTP - {"smtp"}


def test_a_refusal_for_another_reason_says_nothing_about_relaying(ask: Ask, postfix: Callable[..., None]):
    restrictions = {"client": "permit", "relay": ALL, "recipient": "reject_unknown_recipient_domain, permit"}
    postfix("-e", *(f"smtpd_{name}_restrictions={value}" for name, value in restrictions.items()))
    assert ask()["open-relay", "could not check"] == {"smtp"}


def test_a_log_in_before_tls(ask: Ask, postfix: Callable[..., None]):
    postfix("-P", "submission/inet/smtpd_tls_auth_only=no", "submission/inet/smtpd_tls_security_level=may")
    told = ask()
    assert told.pop(("log-in-without-tls", "broken")) == {"submission"}
    assert told["services", "ok"] == SMTP | {"imaps"}


def test_a_certificate_that_has_ended(lab: Lab, ask: Ask):
    try:
        certify(lab, -1)
        told = ask()
    finally:
        certify(lab, 2)
    assert told["services", "broken"] == SMTP | {"imaps"}
    assert ("services", "ok") not in told


def test_imap_that_has_ended(lab: Lab, ask: Ask):
    lab.pod.stop("dovecot")
    try:
        told = ask()
    finally:
        lab.pod.start("dovecot")
        lab.pod.wait_until_ready()
    assert "imaps" in told["services", "broken"]
    assert "smtp" in told["services", "ok"]


def test_a_volume_that_is_not_mounted_and_one_that_takes_no_file(neighbour: Host, ask: Ask, request: pytest.FixtureRequest):
    assert ask()["export", "broken"] == {VOLUME}, "a folder of the container's own would be lost with it"
    neighbour.run("mount", "-o", "remount,ro", request.getfixturevalue("volume"))
    assert ask()["export", "broken"] == {VOLUME}


def test_a_volume_that_is_nearly_full(neighbour: Host, ask: Ask, volume: str):
    neighbour.run("dd", "if=/dev/zero", f"of={volume}/repository", "bs=1k", "count=7900")
    assert ask()["export", "degraded"] == {VOLUME}
