"""The doctor on the lab: all is well; then one thing is broken at a time, and nothing else is called broken."""

import errno
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from components.checks.registry import read_site
from components.errors import UserError
from components.settings.edge import Legacy
from tests.lab.support import Log, certify
from tools.commands.doctor import check_after_flip
from tools.doctor import delivery, edge, mail, results
from tools.doctor.areas import AREAS
from tools.doctor.examine import examine
from tools.doctor.patient import Patient, UnreachedError, from_here
from tools.lab import haproxy
from tools.lab.client import Client
from tools.lab.edge import Lab
from tools.lab.hosts import wait_for
from tools.lab.paths import SENDER, SENDER_DOMAIN
from tools.lab.patient import patient_of_lab
from tools.new_site import dkim_key

pytestmark = pytest.mark.once("it asks the same programs of both, and those of the newest are the strictest")
# What needs a cluster, and the image's supervisor; recorded answers take their place in tests/tools/test_doctor.py.
# The log holds what other tests provoked.
ELSEWHERE = {"mail.programs", "mail.log", "mail.reverse-names", "edge.drift", "edge.servers"}
LEGACY = {"address": "10.0.20.210"}
UNREFLECTED = "203.0.113.99"
SERVICES = {"smtp", "submissions", "submission", "imaps"}


@pytest.fixture(autouse=True)
def provoked(log: Log) -> None:
    """What the doctor does on purpose, and what is broken for it, ends in the log."""
    log.expect(r"warning: haproxy (read|v[12])", "proxy protocol", "lost connection", "SSL_accept", "TLS library problem")
    log.expect(
        "SASL: Connect to",
        "no SASL authentication mechanisms",
        "smtpd pid .* exit status 1",
        "bad command startup",
        "dovecot: master: Error: Error reading configuration",
        "10001|10002|canonical|queue file write error",
    )
    log.expect("connect to Milter service", "milter", r"dovecot: (imap|pop3)?-?login", "dovecot: master: Warning", "doveadm", "auth")


@pytest.fixture(autouse=True)
def renewed(lab: Lab) -> Iterator[None]:
    """Certificates of the lab end in two days, which the doctor tells."""
    certify(lab, 60)
    yield
    certify(lab, 2)


@pytest.fixture
def patient(lab: Lab) -> Patient:
    return patient_of_lab(lab)


def look(lab: Lab, patient: Patient) -> dict[str, set[str]]:
    """What is not well: the things that each check names, by verdict and check."""
    checks = [check for area in AREAS if area in (mail.AREA, edge.AREA) for check in area.checks if check.id not in ELSEWHERE]
    with lab.outside():
        seen = examine(patient, checks, lambda check: None)
    assert {result.check.id for result in seen} == {check.id for check in checks}
    found: dict[str, set[str]] = {}
    for result in seen:
        if result.seen.verdict != "ok":
            found.setdefault(f"{result.seen.verdict} {result.check.id}", set()).add(result.seen.about)
    # The lab's client is where HAProxy is, so the PROXY ports must believe it; from elsewhere a network policy refuses.
    assert found.pop("broken edge.forged-client") == {f"{name} 30125" for name in lab.site.cluster.nodes}
    return found


def everywhere(lab: Lab, *services: str) -> set[str]:
    hosts = {lab.site.host(domain) for domain in lab.site.domains}
    return {f"{service} {host} {family}" for service in services for host in hosts for family in ("IPv4", "IPv6")}


def broken_ones(found: dict[str, set[str]]) -> list[str]:
    return [name.removeprefix("broken ") for name in found if name.startswith("broken ")]


def only_log_ins_fail(lab: Lab, found: dict[str, set[str]]) -> None:
    """Postfix asks Dovecot for every log-in, and its submission services end now and then without it; port 25 goes on."""
    assert found["broken edge.services"] >= everywhere(lab, "imaps")
    assert not found["broken edge.services"] & everywhere(lab, "smtp")


def test_a_sound_system_is_well(lab: Lab, patient: Patient):
    assert look(lab, patient) == {}


def test_dovecot_that_has_ended(lab: Lab, patient: Patient):
    lab.pod.stop("dovecot")
    try:
        found = look(lab, patient)
    finally:
        lab.pod.start("dovecot")
        lab.pod.wait_until_ready()
    assert broken_ones(found) == ["mail.sockets", "edge.services"], "the cause comes first"
    assert found["broken mail.sockets"] == {"imaps"}
    only_log_ins_fail(lab, found)
    assert found["could not check mail.accounts"] == {""}, "the accounts are Dovecot's to list"


def test_dovecot_that_hangs(lab: Lab, patient: Patient):
    hung = "dovecot|imap-login"  # a login process goes on without its master
    lab.pod.host.run("pkill", "-STOP", "-x", hung)
    try:
        found = look(lab, patient)
    finally:
        lab.pod.host.run("pkill", "-CONT", "-x", hung)
        lab.pod.daemons["dovecot"].process.send_signal(signal.SIGCONT)  # nsenter stops with its child, and does not go on with it
    assert broken_ones(found) == ["edge.services"]
    only_log_ins_fail(lab, found)


def test_a_filter_that_does_not_answer(lab: Lab, patient: Patient):
    lab.pod.stop("rspamd")
    try:
        found = look(lab, patient)
    finally:
        lab.pod.start("rspamd")
        lab.pod.wait_until_ready()
    # Postfix defers at its first question to the filter, so its services show it too; IMAP does not.
    assert broken_ones(found)[0] == "mail.filter", "the cause comes first"
    assert set(broken_ones(found)) <= {"mail.filter", "edge.services"}
    assert not found.get("broken edge.services", set()) & everywhere(lab, "imaps")


def test_a_certificate_that_has_ended(lab: Lab, patient: Patient):
    certify(lab, -1)
    try:
        found = look(lab, patient)
    finally:
        certify(lab, 60)
    assert found.pop("broken edge.services") == everywhere(lab, *SERVICES)


def test_a_message_that_waits_is_told_with_its_reason(lab: Lab, patient: Patient):
    now = int(time.time())
    waiting = {"queue_name": "deferred", "arrival_time": now - 7200, "recipients": [{"address": "a@b.example", "delay_reason": "quota"}]}
    found = {
        seen.verdict: seen.text
        for seen in mail.queue.look(replace(patient, inside=lambda *_: lab.pod.host.run("printf", "%s", json.dumps(waiting))))
    }
    assert found == {"degraded": "1 messages, the oldest for 120 min; quota"}
    assert [seen.text for seen in mail.queue.look(patient)] == ["empty"], "and the real command is understood"


def test_a_disk_without_free_space_for_the_largest_message(lab: Lab, patient: Patient):
    pod = lab.pod.host
    pod.run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/var/mail-state")
    try:
        found = look(lab, patient)
    finally:
        pod.run("umount", "/var/mail-state")
    assert found["broken mail.disk"] == {"/var/mail-state"}
    assert broken_ones(found)[0] == "mail.disk", "the cause comes first"


def test_after_new_redirects_a_sound_system_passes(lab: Lab, patient: Patient, capsys):
    with lab.outside():
        check_after_flip(patient, "lab", seconds=0)
    assert capsys.readouterr().out.startswith("lab: ")


def test_after_new_redirects_a_service_that_a_client_finds_broken_fails(lab: Lab, patient: Patient):
    certify(lab, -1)
    rolled = lab.site.model_copy(update={"edge": lab.site.edge.model_copy(update={"legacy": Legacy.model_validate(LEGACY, strict=False)})})
    try:
        with lab.outside():
            with pytest.raises(UserError, match="make edge-health STACK=lab"):
                check_after_flip(patient, "lab", seconds=0)
            with pytest.raises(UserError, match="make edge-flip-back STACK=lab"):
                check_after_flip(replace(patient, site=rolled), "lab", seconds=0)
    finally:
        certify(lab, 60)


def unreachable(address: str, port: int, seconds: float) -> socket.socket:
    """As from inside, behind a firewall without NAT reflection: of the edge's addresses only the inner one answers."""
    if address == UNREFLECTED:
        raise UnreachedError(errno.ETIMEDOUT, "timed out")
    return from_here(address, port, seconds)


def test_a_public_address_out_of_reach_from_inside_is_not_called_broken(lab: Lab, patient: Patient, capsys, log: Log):
    log.expect("does not resolve to address")  # whose name has another address for a moment
    before = {host: lab.names.lookup(host, "A") for host in {lab.site.host(domain) for domain in lab.site.domains}}
    try:
        for host in before:
            lab.names.put(host, "A", UNREFLECTED)
        with lab.outside():
            check_after_flip(replace(patient, connect=unreachable), "lab", seconds=0)
        assert f"{UNREFLECTED} is out of reach from inside" in " ".join(capsys.readouterr().out.split())
        # From outside, nothing excuses it.
        with lab.outside(), pytest.raises(UserError, match="finds mail broken"):
            check_after_flip(replace(patient, connect=unreachable, outside=True), "lab", seconds=0)
    finally:
        for host, texts in before.items():
            lab.names.put(host, "A", *texts)


def test_a_published_key_that_is_not_the_signing_one(lab: Lab, patient: Patient):
    name = next(iter(lab.dkim))
    domain, selector = name.rsplit(".", 1)
    owner = f"{selector}._domainkey.{domain}"
    (published,) = lab.names.lookup(owner, "TXT")
    try:
        lab.names.text(owner, f"v=DKIM1; k=rsa; p={dkim_key()[1]}")
        found = look(lab, patient)
    finally:
        lab.names.put(owner, "TXT", published)
    assert found == {"broken mail.dkim": {owner}}


def test_postsrsd_that_has_ended(lab: Lab, patient: Patient):
    lab.pod.stop("postsrsd")
    wait_for("no postsrsd", lambda: not lab.pod.listening(10001))
    try:
        found = look(lab, patient)
    finally:
        lab.pod.start("postsrsd")
        wait_for("postsrsd", lambda: lab.pod.listening(10001))
    assert broken_ones(found) == ["mail.srs"]


def test_a_relay_that_refuses_the_log_in(lab: Lab, patient: Patient):
    passwords = lab.pod.host.path("/etc/postfix/sasl_passwd")
    right = passwords.read_text()
    try:
        passwords.write_text(right.strip() + "-of-last-year\n")
        found = look(lab, patient)
    finally:
        passwords.write_text(right)
    assert found == {"broken mail.relay": {lab.site.mail.relay.next_hop if lab.site.mail.relay else None}}


def test_accounts_one_listed_twice_and_one_without_its_app_password(lab: Lab, patient: Patient, log: Log, monkeypatch: pytest.MonkeyPatch):
    log.expect("exists more than once")
    monkeypatch.setattr(lab.pod, "said", "assemble: app_passwords: the password of bob@example.org for phone is empty\n")
    users = lab.pod.host.path("/etc/dovecot/userdb")
    before = users.read_text()
    try:
        users.write_text(before + next(line for line in before.splitlines(keepends=True) if line.startswith("alice@example.org:")))
        found = look(lab, patient)
    finally:
        users.write_text(before)
    assert found == {"broken mail.accounts": {"alice@example.org"}, "degraded mail.accounts": {"accounts"}}


def test_a_host_of_ones_own_whose_address_has_no_name_that_points_back(lab: Lab, patient: Patient):
    address, name = "192.168.1.127", "hypervisor.lan.example"
    lab.world.run("ip", "address", "replace", address, "dev", "lo")

    def seen() -> dict[str, tuple[str, str]]:
        return {seen.about: (seen.verdict, seen.text) for seen in delivery.reverse_names.look(patient)}

    def sends() -> int:
        with Client(lab, address).smtp() as smtp:
            smtp.mail(f"root@{SENDER_DOMAIN}")
            return smtp.rcpt("alice@example.org")[0]

    assert address not in seen()
    assert sends() == 450
    verdict, text = seen()[address]
    assert verdict == "degraded"
    assert text.startswith("has no name: ")
    lab.names.host(name, address)
    assert seen()[address] == ("ok", name)
    assert sends() == 250
    lab.names.put(name, "A", "192.168.1.128")
    assert seen()[address] == ("degraded", f"is called {name}, which is the name of 192.168.1.128; its mail is refused")


def test_haproxy_without_the_header(lab: Lab, patient: Patient):
    lab.haproxy.write(haproxy.configuration(lab.site).replace("send-proxy-v2", ""))
    lab.haproxy.restart()
    try:
        found = look(lab, patient)
    finally:
        lab.haproxy.write(haproxy.configuration(lab.site))
        lab.haproxy.restart()
        lab.wait_until_served()
    assert broken_ones(found) == ["edge.services"]
    assert found["broken edge.services"] == everywhere(lab, *SERVICES)


@pytest.fixture
def backed(lab: Lab, patient: Patient) -> Iterator[tuple[Patient, Callable[..., None]]]:
    """A site whose other MX is the lab's Postfix on the Internet, and a change of that one's main.cf."""
    other = lab.sender.host
    main_cf = other.path("/etc/postfix/main.cf").read_text()
    settings = json.loads(lab.site.model_dump_json())
    settings["domains"][lab.site.primary]["dns"]["mx"] = {lab.site.hostname: 10, f"mx.{SENDER_DOMAIN}": 20}

    def change(*words: str) -> None:
        other.run("postconf", "-e", *words)
        other.settle_postfix()
        other.run("postfix", "reload")

    yield replace(patient, site=read_site(json.dumps(settings))), change
    other.write("/etc/postfix/main.cf", main_cf)
    other.settle_postfix()
    other.run("postfix", "reload")


def second_mx(lab: Lab, patient: Patient) -> tuple[str, str]:
    with lab.outside():
        (result,) = examine(patient, [results.second_mx], lambda check: None)
    assert result.seen.about == f"mx.{SENDER_DOMAIN} {SENDER}"
    return result.seen.verdict, result.seen.text


def test_a_second_mx(lab: Lab, backed: tuple[Patient, Callable[..., None]]):
    patient, change = backed
    ours = lab.site.primary
    verdict, text = second_mx(lab, patient)
    assert verdict == "broken"
    assert text.startswith(f"refuses mail for {ours}: 554 5.7.1"), "it does not know the domain"
    change(f"relay_domains={ours}")
    assert second_mx(lab, patient) == ("ok", f"takes {ours}, refuses others")
    anyone = "check_client_access static:OK, reject"  # with a plain `permit` and no `reject` Postfix does not run
    change(f"smtpd_relay_restrictions={anyone}", f"smtpd_recipient_restrictions={anyone}")
    assert second_mx(lab, patient) == ("broken", "takes mail for any domain: an open relay")
    lab.sender.stop()
    try:
        assert second_mx(lab, patient)[0] == "could not check", "many networks let nothing out to port 25"
        assert second_mx(lab, replace(patient, outside=True))[0] == "broken"
    finally:
        lab.sender.start()
