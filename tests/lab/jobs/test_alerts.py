"""What the jobs really push, in a real Pushgateway, before a real Prometheus and Alertmanager: the right alert, and what it silences."""

import shutil
import socket
from contextlib import ExitStack

import pytest

from components.monitoring.dashboard import rows
from tests.lab.jobs.world import ALICE, SPAM, World, fill
from tests.lab.watch import Watch, needs_prometheus
from tests.unit.monitoring import metrics
from tools.lab.servers import NAME, PASSWORD, Brevo, http_server

pytestmark = needs_prometheus
LISTENERS = ("smtp", "smtp-proxy", "imaps", "imaps-proxy", "rspamd", "postsrsd")


@pytest.fixture
def watch(tmp_path, site):
    with ExitStack() as stack:
        small = {"mail/message_size_limit": "1Mi", "monitoring/second_mx": {"probe_job": "backup-mx-smtp"}}
        yield Watch(stack, tmp_path / "watch", site("prod", small))


@pytest.fixture
def jobs(tmp_path, watch, job, imap):
    """Every job as its pod calls it, with the real Pushgateway; returns the backup's world and the others to run again."""
    made = World(tmp_path, watch, job)
    fill(made.root / "mail", ALICE, 30)
    fill(made.root / "mail", SPAM, 30)
    passwords = tmp_path / "passwords"
    passwords.mkdir()
    (passwords / "spam_at_example.org").write_text(PASSWORD, encoding="utf-8")
    with ExitStack() as stack:
        sockets = {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in LISTENERS}

        def pulse():
            listeners = [f"--listener={name}:{port}" for name, port in ports.items()]
            return job(
                "pulse.py",
                "--job=mailserver",
                *listeners,
                "--volume",
                tmp_path,
                "--interval",
                0,
                "--pushgateway",
                watch.url,
                "--said",
                tmp_path / "none",
                "--controller",
                1,
                "--postqueue",
                queue,
            )

        def retention():
            place = ("--job", "spam-retention", "--name", NAME, "--address", "127.0.0.1", "--port", imap.port, "--passwords", passwords)
            return job(
                "retention.py",
                *place,
                "--rule",
                f"{SPAM}|INBOX|automated|14",
                "--max-messages",
                5,
                "--max-share",
                50,
                "--pushgateway",
                watch.url,
            )

        def deliver(sender, recipient, subject):
            text = (
                f"Received: from relay.example (relay.example [77.32.148.25]) by {NAME} (Postfix); Sat, 21 Nov 2026 09:00:00 +0000\n"
                f"Authentication-Results: {NAME}; dkim=pass; dmarc=pass; spf=pass\n"
                f"From: <{sender}>\nTo: {recipient}\nSubject: {subject}\n\nprobe\n"
            )
            imap.deliver(SPAM, text.encode(), folder="", flags=None, age=0)

        api = Brevo("key", deliver)
        url = stack.enter_context(http_server(api.answer))

        def probe():
            place = (
                "--job",
                "email-roundtrip-monitor",
                "--name",
                NAME,
                "--address",
                "127.0.0.1",
                "--imap-port",
                imap.port,
                "--mailbox",
                SPAM,
            )
            who = ("--sender", "monitoring@example.org", "--recipient", "smoke-test@example.org", "--api", f"{url}/v3")
            pace = ("--polls", 3, "--interval", 0.2, "--timeout", 5, "--pushgateway", watch.url)
            return job(
                "probe.py", "inbound", *place, *who, *pace, environment={"BREVO_API_KEY": "key", "EMAIL_MONITOR_IMAP_PASSWORD": PASSWORD}
            )

        ports = {name: held.getsockname()[1] for name, held in sockets.items()}
        queue = tmp_path / "postqueue"
        queue.write_text('#!/bin/sh\necho \'{"queue_name": "deferred", "queue_id": "A", "arrival_time": \'$(($(date +%s) - 60))\'}\'\n')
        queue.chmod(0o755)
        for run in (made.backup, made.drill, retention, probe, pulse):
            done = run()
            assert done.returncode == 0, done.stdout + done.stderr
        yield made, sockets, {"probe": probe, "pulse": pulse}
    shutil.rmtree(made.scratch)


def test_nothing_fires_on_what_healthy_jobs_push_and_each_fault_reaches_a_person_once(watch, jobs):
    world, sockets, run = jobs
    assert watch.firing() == set()

    sockets["imaps-proxy"].close()
    assert run["pulse"]().returncode == 0
    assert watch.firing() == {"MailListenerMissing"}
    sockets["imaps-proxy"] = None

    pack = max((world.repository / "data").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    sound = pack.read_bytes()
    pack.chmod(0o600)
    pack.write_bytes(sound[:100] + bytes([sound[100] ^ 1]) + sound[101:])
    assert world.backup().returncode == 1
    assert watch.firing() == {"MailListenerMissing", "BackupRepositoryDamaged", "BackupFailed"}
    watch.told({"MailListenerMissing", "BackupRepositoryDamaged"})


# Read, and not pushed here: the outbound probe and the edge have no other side in this test, reports and block lists tests of their own.
ELSEWHERE = ("email_outbound_", "email_edge_", "backup_rows", "rspamd_", "kubelet_", "kube_")
ELSEWHERE += ("dmarc_", "tls_report_", "mail_reports", "mail_blocklist_", "mail_reputation_")


def test_every_panel_reads_what_jobs_push_and_all_they_push_is_read(watch, jobs, site):
    watch.settled()
    del jobs
    pushed = {name for name in watch.names() if name.startswith(("email_", "backup_", "mail_", "spam_"))}
    panels = [panel for row in rows(site("prod")).values() for panel in row if panel.kind != "logs"]
    for query in (query for panel in panels for query in panel.queries):
        assert watch.query(query) or any(part in query for part in ELSEWHERE), query
    assert pushed <= metrics.pushed()
    assert pushed - metrics.read(site("prod")) <= metrics.UNREAD.keys()


def test_a_mailbox_that_refuses_the_probe_is_named(watch, jobs, imap):
    _, _, run = jobs
    assert watch.firing() == set()
    imap.process.terminate()
    imap.process.wait()
    assert run["probe"]().returncode == 1
    assert watch.firing() == {"EmailProbeMailboxUnreachable", "EmailRoundtripFailing"}
