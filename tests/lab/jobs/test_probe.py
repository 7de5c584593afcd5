"""The probe against a real Dovecot and a stand-in for Brevo: every verdict, its metrics, and what its exit code says."""

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack

import pytest

from tests.lab.jobs.world import SCRIPTS
from tools.lab.servers import NAME, PASSWORD, Brevo, dovecot, free_port, http_server, silent_server, tls_greeter

BOX = "spam@example.org"
SENDER, RECIPIENT = "monitoring@example.org", "smoke-test@example.org"
KEY = "key'with\"quotes and spaces"
JOB = "email-roundtrip-monitor"
PUBLIC = "77.32.148.25"

MESSAGE = """\
Return-Path: <bounces@brevo.example>
Received: from {host} by {host} with LMTP id abc for <{box}>; Sat, 21 Nov 2026 09:00:00 +0000
Received: from {helo} (relay.brevo.example [{client}])
\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))
\tby {host} (Postfix) with ESMTPS id 123
\tfor <{recipient}>; Sat, 21 Nov 2026 09:00:00 +0000 (UTC)
Received: from forged.example (forged.example [8.8.8.8]) by elsewhere.example; Sat, 21 Nov 2026 08:59:00 +0000
Authentication-Results: {host};
\tdkim=pass header.d=example.org header.s=mail header.b=x;
\tdmarc=pass (policy=quarantine) header.from=example.org;
\tspf=softfail (no) smtp.mailfrom=bounces@brevo.example
From: Monitoring <{sender}>
To: {recipient}
Subject: {subject}
Message-ID: <{subject}@brevo.example>

A message of the round-trip probe.
"""


class Setting:
    """What surrounds one probe: what Brevo does with the message, and where the probe looks."""

    def __init__(self, server, gateway, job, api):
        self.server, self.gateway, self.job, self.api = server, gateway, job, api
        self.folder, self.client, self.helo = "", PUBLIC, "relay.brevo.example"
        self.held: list[Callable[[], None]] | None = None  # arrivals that wait until the test lets them happen
        self.environment = {"BREVO_API_KEY": KEY, "EMAIL_MONITOR_IMAP_PASSWORD": PASSWORD}
        self.port = server.port
        self.after_looks = self.looks_before_arrival = self.age = 0
        self.instead: bytes | None = None  # arrives in place of the message, with MARKER and SENDER filled in

    def looks(self):
        return self.server.log().count("Login: user=")

    def deliver(self, sender, recipient, subject):
        names = {"host": NAME, "box": BOX, "client": self.client, "helo": self.helo}
        text = MESSAGE.format(recipient=recipient, sender=sender, subject=subject, **names)
        if self.instead:
            text = self.instead.decode().replace("SUBJECT", subject).replace("SENDER", sender)

        def arrive():
            while self.looks() < self.after_looks:
                time.sleep(0.02)
            self.server.deliver(BOX, text.encode(), folder=self.folder, flags=None, age=self.age)
            self.looks_before_arrival = self.looks()

        if self.after_looks:
            threading.Thread(target=arrive, daemon=True).start()
        elif self.held is not None:
            self.held.append(arrive)
        else:
            arrive()

    def probe(self, *arguments, gateway=None, polls=100, interval=0.2, timeout=30):
        place = ("--job", JOB, "--name", NAME, "--address", "127.0.0.1", "--imap-port", self.port, "--mailbox", BOX)
        who = ("--sender", SENDER, "--recipient", RECIPIENT, "--api", f"{self.api.url}/v3")
        pace = ("--polls", polls, "--interval", interval, "--timeout", timeout)
        push = ("--pushgateway", gateway or self.gateway.url)
        done = self.job("probe.py", "inbound", *place, *who, *pace, *push, *arguments, environment=self.environment)
        assert KEY not in done.stdout + done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def value(self, metric, **labels):
        return self.gateway.value(JOB, metric, **labels)

    @property
    def verdict(self):
        return self.gateway.verdict(JOB, "email_roundtrip_verdict")


@pytest.fixture
def world(imap, gateway, job):
    setting = Setting(imap, gateway, job, Brevo(KEY, lambda *message: setting.deliver(*message)))  # noqa: PLW0108 - it is replaced by tests
    with http_server(setting.api.answer) as url:
        setting.api.url = url
        yield setting


def test_a_message_in_the_inbox_is_ok_and_deleted(world):
    began = time.time()
    done = world.probe()
    assert (done.returncode, world.verdict) == (0, "ok"), done.stdout
    assert world.value("email_roundtrip_success") == 1
    assert world.value("email_roundtrip_inbox") == 1
    assert world.value("email_roundtrip_client_public") == 1
    assert began <= world.value("email_roundtrip_last_success_timestamp") <= time.time()
    passed = {method: world.value("email_roundtrip_authenticated", method=method) for method in ("spf", "dkim", "dmarc")}
    assert passed == {"spf": 0, "dkim": 1, "dmarc": 1}
    assert world.server.messages(BOX) == []
    (sent,) = world.api.sent
    assert sent["to"] == [{"email": RECIPIENT}]
    assert sent["sender"]["email"] == SENDER
    assert sent["subject"].startswith("[E2E Monitor] e2e-probe-")


def test_the_verdict_comes_within_one_look_of_the_arrival(world):
    """Counted in logins: the look under way when the message arrives may miss it, the next one may not."""
    world.after_looks = 2
    done = world.probe(polls=200, interval=0.5)
    assert world.verdict == "ok", done.stdout
    assert world.looks_before_arrival >= 2
    assert world.looks() - world.looks_before_arrival <= 1


def test_mail_of_others_and_of_a_probe_under_way_stays(world):
    world.server.deliver(BOX, b"From: a@b.example\nSubject: about e2e-probe-results\n\nkeep\n", age=86400)
    world.server.deliver(BOX, f"From: {SENDER}\nSubject: [E2E Monitor] e2e-probe-other\n\nyoung\n".encode())
    assert world.probe().returncode == 0
    assert len(world.server.messages(BOX)) == 2


def test_leftovers_of_earlier_probes_go_wherever_they_are(world):
    for folder in ("", "Junk"):
        world.server.deliver(BOX, f"From: {SENDER}\nSubject: [E2E Monitor] e2e-probe-old\n\nx\n".encode(), folder=folder, age=3600)
    assert world.probe().returncode == 0
    assert world.server.messages(BOX) == []
    assert world.value("email_roundtrip_leftovers_deleted") == 2


def test_a_message_in_junk_arrived_but_is_not_ok(world):
    world.folder = "Junk"
    done = world.probe()
    assert (done.returncode, world.verdict) == (0, "junk"), done.stdout
    assert world.value("email_roundtrip_success") == 1
    assert world.value("email_roundtrip_inbox") == 0
    assert world.server.messages(BOX) == []


@pytest.mark.parametrize("client", ["10.10.3.7", "192.168.1.1", "IPv6:fd00::7"])
def test_a_private_client_address_shows_that_proxy_is_lost(world, client):
    world.client = client
    world.probe()
    assert world.verdict == "private_client"
    assert world.value("email_roundtrip_success") == 1
    assert world.value("email_roundtrip_client_public") == 0


def test_what_the_client_calls_itself_is_not_its_address(world):
    world.client, world.helo = "10.10.3.7", "[8.8.8.8]"
    world.probe()
    assert world.verdict == "private_client"


def test_a_public_ipv6_client_is_ok(world):
    world.client = "IPv6:2a00:1450:4864:20::1"
    assert (world.probe().returncode, world.verdict) == (0, "ok")


def test_a_message_that_never_comes_is_a_failure_and_keeps_the_last_success(world):
    assert world.probe().returncode == 0
    before = world.value("email_roundtrip_last_success_timestamp")
    world.deliver = lambda *_: None
    done = world.probe(polls=2)
    assert (done.returncode, world.verdict) == (1, "not_delivered"), done.stdout
    assert world.value("email_roundtrip_success") == 0
    assert world.value("email_roundtrip_last_success_timestamp") == before


def test_a_message_after_the_last_look_is_not_delivered_and_cleaned_up_later(world):
    world.held = []
    assert (world.probe(polls=2, interval=0.2).returncode, world.verdict) == (1, "not_delivered")
    (late,), world.held = world.held, None
    world.age = 3600  # until no probe could still be looking for it
    late()
    world.age = 0
    assert world.probe().returncode == 0
    assert world.value("email_roundtrip_leftovers_deleted") == 1


@pytest.mark.parametrize(
    "instead",
    [
        b"Return-Path: <>\nFrom: postmaster@remote.example\nSubject: Undeliverable: SUBJECT\n\n550 rejected as spam\n",
        b"From: SENDER\nSubject: Re: SUBJECT\nAuto-Submitted: auto-replied\n\nI am on holiday.\n",
        b"From: SENDER\nSubject: SUBJECT\nContent-Type: multipart/report; boundary=b\n\n--b--\n",
        b"Return-Path: <>\nFrom: MAILER-DAEMON@remote.example\nSubject: Undelivered Mail Returned to Sender\n\n550\n\nSubject: SUBJECT\n",
    ],
    ids=["Exchange", "vacation", "report", "Postfix"],
)
def test_an_answer_to_the_message_is_not_its_arrival(world, instead):
    world.instead = instead
    done = world.probe(polls=2)
    assert (done.returncode, world.verdict) == (1, "bounced"), done.stdout
    assert world.value("email_roundtrip_success") == 0
    assert len(world.server.messages(BOX)) == 1  # for a person to read


def test_mail_that_came_by_a_trusted_relay_names_it(world):
    world.client = "10.3.2.10"
    done = world.probe("--relay", "mx2=10.3.2.10", "--relay", "mx2=92.5.132.215")
    assert (done.returncode, world.verdict) == (0, "via_relay"), done.stdout
    assert "by mx2" in done.stdout
    assert "email_roundtrip_client_public" not in world.gateway.groups[JOB]


def test_a_probe_that_is_ended_from_outside_says_so(world):
    world.deliver = lambda *_: None
    command = [sys.executable, "-B", str(SCRIPTS / "probe.py"), "inbound", "--job", JOB, "--name", NAME, "--address", "127.0.0.1"]
    command += ["--imap-port", str(world.port), "--mailbox", BOX, "--sender", SENDER, "--recipient", RECIPIENT]
    command += ["--api", f"{world.api.url}/v3", "--pushgateway", world.gateway.url, "--interval", "600"]
    process = subprocess.Popen(command, env={"PATH": os.environ["PATH"], **world.environment}, stdout=subprocess.PIPE, text=True)
    while not world.api.sent:
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    said, _ = process.communicate()
    assert (process.returncode, world.verdict) == (1, "stopped"), said
    assert world.value("email_roundtrip_success") == 0


def test_a_slow_server_does_not_delay_the_verdict_forever(world):
    world.deliver = lambda *_: None
    assert (world.probe("--deadline", 0, polls=10_000).returncode, world.verdict) == (1, "not_delivered")


def test_a_password_beyond_ascii_logs_in(world):
    (world.server.folder / "users").write_text(f"{BOX}:pä ß ñ\n", encoding="utf-8")
    world.environment["EMAIL_MONITOR_IMAP_PASSWORD"] = "pä ß ñ\n"
    assert (world.probe(polls=20).returncode, world.verdict) == (0, "ok")


def test_the_relays_key_may_end_with_a_line_break(world):
    world.environment["BREVO_API_KEY"] += "\n"
    assert (world.probe().returncode, world.verdict) == (0, "ok")


def test_a_blocked_recipient_is_unblocked_first(world):
    world.api.blocked.add(RECIPIENT)
    done = world.probe()
    assert (done.returncode, world.verdict) == (0, "ok")
    assert "had blocked the recipient" in done.stdout


@pytest.mark.parametrize("status", [401, 402, 429, 500])
def test_an_api_that_refuses_is_a_verdict(world, status):
    world.api.failing = status
    done = world.probe()
    assert (done.returncode, world.verdict) == (1, "send_failed")
    assert f"answers {status}" in done.stdout


def test_an_api_that_is_not_there_is_a_verdict(world):
    world.api.url = f"http://127.0.0.1:{free_port()}"
    assert (world.probe().returncode, world.verdict) == (1, "send_failed")


@pytest.mark.parametrize("missing", ["BREVO_API_KEY", "EMAIL_MONITOR_IMAP_PASSWORD"])
@pytest.mark.parametrize("value", [None, "", "\n"])
def test_a_missing_variable_is_named_before_anything_is_sent(world, missing, value):
    world.environment.pop(missing)
    if value is not None:
        world.environment[missing] = value
    done = world.probe()
    assert (done.returncode, world.verdict) == (1, "misconfigured")
    assert missing in done.stdout
    assert world.api.sent == []


def test_a_wrong_password_is_a_verdict(world):
    world.environment["EMAIL_MONITOR_IMAP_PASSWORD"] = "it's wrong"
    done = world.probe(polls=1)
    assert (done.returncode, world.verdict) == (1, "login_failed")
    assert "it's wrong" not in done.stdout + done.stderr


def test_a_hanging_imap_server_is_given_up(world):
    with silent_server() as port:  # for good: without a time-out of its own the probe would never come to a verdict
        world.port = port
        assert (world.probe(polls=2, interval=0.1, timeout=0.5).returncode, world.verdict) == (1, "imap_failed")


@pytest.mark.parametrize("fault", ["expired", "another name", "unknown authority"])
def test_a_certificate_that_is_not_valid_for_the_public_name_gets_no_password(world, tmp_path, authority, fault):
    name, days = {"expired": (NAME, -1), "another name": ("other.example.org", 30), "unknown authority": (NAME, 30)}[fault]
    with dovecot(tmp_path / "bad", authority.issue(name, days=days), [BOX]) as server:
        world.port = server.port
        if fault == "unknown authority":
            world.environment["SSL_CERT_FILE"] = "/dev/null"
        done = world.probe()
        assert (done.returncode, world.verdict) == (1, "certificate"), done.stdout
        assert world.value("email_roundtrip_success") == 0
        assert "Login" not in server.log()


# --- who is told --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def kuma(tmp_path):
    """A heartbeat Secret with an Uptime Kuma push URL and a second service; and what they were told."""
    told, folder = [], tmp_path / "heartbeats"
    folder.mkdir()

    def answer(method, path, *_):
        told.append(path)
        return 200, b""

    with http_server(answer) as url:
        (folder / "uptime_kuma").write_text(f"{url}/api/push/tokenInThePath?status=up&msg=OK&ping=\n", encoding="utf-8")
        (folder / "urls").write_text(f"{url}/ping/one\n{url}/ping/two\n", encoding="utf-8")
        yield folder, told


@pytest.fixture
def closed_port():
    return f"http://127.0.0.1:{free_port()}"


def test_every_heartbeat_hears_of_an_arrival_and_none_shows_its_token(world, kuma):
    folder, told = kuma
    done = world.probe("--heartbeats", folder)
    assert done.returncode == 0
    assert sorted(path.partition("?")[0] for path in told) == ["/api/push/tokenInThePath", "/ping/one", "/ping/two"]
    assert any("status=up&msg=ok&ping=" in path for path in told)
    assert "tokenInThePath" not in done.stdout + done.stderr


def test_no_heartbeat_hears_of_a_failure(world, kuma):
    folder, told = kuma
    world.api.failing = 500
    assert world.probe("--heartbeats", folder).returncode == 1
    assert told == []


def test_a_gateway_that_recovers_gets_the_metrics_after_all(world):
    world.gateway.broken = 2
    assert world.probe().returncode == 0
    assert [method for method, _ in world.gateway.requests] == ["POST"] * 3
    assert world.verdict == "ok"


def test_an_arrival_that_only_a_heartbeat_hears_of_is_a_success(world, kuma, closed_port):
    folder, told = kuma
    done = world.probe("--heartbeats", folder, gateway=closed_port)
    assert done.returncode == 0
    assert told
    assert "Pushgateway: failed 4 times" in done.stderr


def test_an_arrival_that_could_not_be_reported_is_a_failure(world, tmp_path, closed_port):
    folder = tmp_path / "heartbeats"
    folder.mkdir()
    (folder / "uptime_kuma").write_text(f"{closed_port}/api/push/tokenInThePath\n", encoding="utf-8")
    (folder / "urls").write_text("not-a-url\n", encoding="utf-8")
    done = world.probe("--heartbeats", folder, gateway=closed_port)
    assert done.returncode == 1
    assert "tokenInThePath" not in done.stdout + done.stderr


# --- the edge -----------------------------------------------------------------------------------------------------------------

# The public name has to resolve, so the look runs with a hosts file of its own, in a mount namespace.


def edge(trusted, tmp_path, port, mode, *namespace):
    """Look at one service by both families, as the probe's threads do."""
    code = (
        "import json, socket, sys; sys.path.insert(0, 'scripts/pod'); import sight\n"
        f"for family in (socket.AF_INET, socket.AF_INET6): print(json.dumps(vars(sight.look_at_edge({NAME!r}, {port}, {mode}, family, 3))))"
    )
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 {NAME}\n::1 {NAME}\n", encoding="utf-8")
    mounted = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", *namespace, "sh", "-c", mounted, "sh", sys.executable, "-B", "-c", code],
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "SSL_CERT_FILE": str(trusted)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("starttls", [True, False])
def test_the_edge_is_seen_by_family_with_the_days_its_certificate_has_left(authority, trusted, tmp_path, starttls):
    port = free_port()
    with ExitStack() as stack:
        for address in ("127.0.0.1", "::1"):
            stack.enter_context(tls_greeter(authority.issue(NAME, days=30), port, starttls=starttls, address=address))
        for seen in edge(trusted, tmp_path, port, starttls):
            assert seen["up"] and seen["secure"], seen
            assert 29 < seen["days_left"] < 31


def test_a_family_that_is_down_does_not_hide_behind_the_other(authority, trusted, tmp_path):
    port = free_port()
    with tls_greeter(authority.issue(NAME), port, starttls=True):
        by_ipv4, by_ipv6 = edge(trusted, tmp_path, port, True)
    assert (by_ipv4["secure"], by_ipv6["up"], by_ipv6["secure"]) == (True, False, False)


@pytest.mark.parametrize("starttls", [True, False])
def test_an_expired_certificate_at_the_edge_has_no_days_left(authority, trusted, tmp_path, starttls):
    port = free_port()
    with tls_greeter(authority.issue(NAME, days=-1), port, starttls=starttls):
        seen = edge(trusted, tmp_path, port, starttls)[0]
    assert (seen["up"], seen["secure"], seen["days_left"]) == (True, False, 0.0)


def test_an_edge_that_is_down_has_metrics_and_does_not_change_the_verdict(world):
    done = world.probe("--edge", f"smtp:{free_port()}:starttls")
    assert (done.returncode, world.verdict) == (0, "ok")
    labels = {"service": "smtp", "host": NAME, "family": "ipv4", "seen_from": "inside"}
    assert world.value("email_edge_up", **labels) == 0
    assert world.value("email_edge_tls", **labels) == 0


def test_a_family_that_the_pod_does_not_have_is_not_reported_as_down(trusted, tmp_path):
    """A network namespace of its own, where nothing is up: connect() says that there is no route, not that nothing answers."""
    by_ipv4, by_ipv6 = edge(trusted, tmp_path, free_port(), True, "-n")
    assert (by_ipv4["blind"], by_ipv6["blind"]) == (True, True)
    assert not by_ipv6["up"]


def test_what_cannot_be_seen_has_no_metric_that_says_down(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    sight, common = importlib.import_module("sight"), importlib.import_module("common")
    futures = {("smtp", "mx2.example.org", "ipv4"): Future(), ("smtp", "mx2.example.org", "ipv6"): Future()}
    futures["smtp", "mx2.example.org", "ipv4"].set_result(sight.Seen(up=True, secure=True, days_left=30))
    futures["smtp", "mx2.example.org", "ipv6"].set_result(sight.Seen(blind=True))
    metrics = common.Metrics()
    sight.edge_metrics(metrics, futures)
    up = [line for line in metrics.text().splitlines() if line.startswith("email_edge_up{")]
    assert up == ['email_edge_up{family="ipv4",host="mx2.example.org",seen_from="inside",service="smtp"} 1']
    assert "cannot be seen from here" in capsys.readouterr().out
