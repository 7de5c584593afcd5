"""The edge stays up: health checks, dying nodes, reloads, postscreen, restarts, renewals."""

import re
import ssl
import threading
import time
from collections.abc import Callable

import pytest

from components.edge.haproxy_cfg import backend_name
from components.listeners import IMAPS, LISTENERS, SMTP, SUBMISSION, SUBMISSIONS
from tests.lab.support import Known, Log
from tools.lab import haproxy
from tools.lab.client import Client, message
from tools.lab.edge import Lab
from tools.lab.failover import during
from tools.lab.hosts import slowness, wait_for

ONCE = pytest.mark.once("nodes and HAProxy decide it")
TEN_TIMES = ("inter 2000", "inter 200")


@pytest.fixture
def edge(lab: Lab):
    """Put another configuration into HAProxy for one test."""

    def use(text: str) -> None:
        lab.haproxy.write(text)
        lab.haproxy.restart()

    yield use
    lab.nodes.heal()
    use(haproxy.configuration(lab.site))
    lab.wait_until_served()


def test_health_checks_kill_nothing_even_at_ten_times_their_rate(lab: Lab, log: Log, edge) -> None:
    edge(haproxy.configuration(lab.site).replace(*TEN_TIMES))
    time.sleep(20)
    log.settle()
    assert log.lines("fatal|throttling") == []
    assert set(lab.haproxy.states().values()) == {"UP"}
    assert Client(lab).smtp(SUBMISSION.port).quit()[0] == 221


@ONCE
def test_the_predecessors_checks_on_the_proxy_listeners_killed_submission(lab: Lab, log: Log, edge) -> None:
    """A canary: it shows that the test above would see the fault."""
    log.expect(r"fatal|throttling|warning|reset by peer")
    edge(re.sub(r" port \d+", "", haproxy.configuration(lab.site).replace(*TEN_TIMES)))
    log.line("smtpd.*fatal: .*")
    edge(haproxy.configuration(lab.site))
    # Postfix's master keeps a service that dies at once shut for a while; a new pod would be quicker than waiting.
    lab.pod.stop("postfix")
    lab.pod.start("postfix")
    lab.pod.wait_until_ready()


@ONCE
@pytest.mark.parametrize("fault", ["refuse", "black_hole"])
def test_a_dead_node_fails_no_connection(lab: Lab, log: Log, edge, fault: str) -> None:
    """The measured table's best row: no connection fails, and none takes longer than the second that a connection may take."""
    log.expect(r"haproxy read: EOF")
    node = lab.nodes.names[1]
    seen = during(lab, lambda: getattr(lab.nodes, fault)(node), seconds=12)
    assert seen.failed == 0
    assert seen.slowest <= 1.5 * slowness()
    assert lab.haproxy.states()[f"{backend_name(SUBMISSION.pool)}/{node}"].startswith("DOWN")


@ONCE
def test_a_node_that_hangs_costs_no_more_than_its_own_share(lab: Lab, log: Log, edge) -> None:
    """It takes connections and says nothing, which no check on a port can see: the round-trip probe has to."""
    log.expect(r"haproxy read: EOF")
    seen = during(lab, lambda: lab.nodes.hang(lab.nodes.names[1]), seconds=4)
    assert 0 < seen.failed <= len(seen.times) / 2


@ONCE
def test_without_redispatch_a_dead_node_fails_many(lab: Lab, log: Log, edge) -> None:
    """A canary for the test above."""
    log.expect(r"haproxy read: EOF")
    edge(haproxy.configuration(lab.site).replace("\toption redispatch 1\n", "").replace("inter 2000", "inter 60000"))
    assert during(lab, lambda: lab.nodes.refuse(lab.nodes.names[1]), seconds=4).failed > 0


@ONCE
def test_a_reload_of_haproxy_drops_no_connection(lab: Lab) -> None:
    session = Client(lab).imap("alice@example.org")

    def reload_often() -> None:
        for _ in range(5):
            lab.haproxy.reload()
            time.sleep(0.5)

    assert during(lab, reload_often, seconds=4).failed == 0
    assert session.noop()[0] == "OK"
    session.logout()


def test_both_postscreens_serve_at_once_and_remember_their_clients(lab: Lab, log: Log) -> None:
    """25 for neighbours and 2525 for the edge, each with a cache of its own."""
    source = lab.client()
    pair = [Client(lab, source), Client(lab, source, inside=True)]
    threads = [threading.Thread(target=lambda client=client: client.smtp().quit()) for client in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.line(rf"PASS NEW \[{source}\]", 2)
    for client in pair:
        client.smtp().quit()
    log.line(rf"PASS OLD \[{source}\]", 2)
    assert len(log.lines(rf"smtpd-proxy25/postscreen.*PASS OLD \[{source}\]")) == 1


def _serial(client: Client, port: int) -> str:
    """The number of the certificate that a client sees."""
    if port == IMAPS.port:
        connection = client.imap()
    else:
        connection = client.smtp(port)
        if port == SMTP.port:
            connection.starttls(context=client.context())
    assert isinstance(connection.sock, ssl.SSLSocket)
    certificate = connection.sock.getpeercert()
    connection.close() if port != IMAPS.port else connection.logout()
    assert certificate
    return str(certificate["serialNumber"])


def test_a_renewed_certificate_is_served_everywhere_without_a_restart(lab: Lab, known: Known, log: Log) -> None:
    """TLS 1.1 stays refused after it, for the image edits the settings once more then."""
    log.expect(r"SSL_accept error", r"unsupported protocol", r"TLS library problem", r"SSL_accept\(\)")
    client = known()
    before = {_serial(client, listener.port) for listener in LISTENERS}
    assert len(before) == 1
    assert lab.pod.detect_changes() == []
    lab.pod.mount_certificate(*lab.authority.issue(*lab.site.tls.names))
    assert set(lab.pod.detect_changes()) == {"/tmp/ssl/tls.crt", "/tmp/ssl/tls.key"}
    client = known()
    for listener in LISTENERS:
        wait_for(f"the new certificate on {listener.port}", lambda port=listener.port: _serial(client, port) not in before)
    context = client.context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    for listener in (SUBMISSIONS, IMAPS):
        with client.raw(listener.port) as connection, pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(connection, server_hostname=lab.site.hostname)


PROBES = {"startupProbe", "readinessProbe", "livenessProbe"}


def _failing(lab: Lab) -> set[str]:
    """The kubelet's probes that fail now."""
    commands = {name: probe["exec"]["command"] for name, probe in lab.pod.rendered.probes.items()}
    return {name for name, command in commands.items() if lab.pod.host.run(*command, check=False).returncode}


def test_the_kubelets_probes_leave_no_log_line_and_meet_no_limit_of_clients(lab: Lab, log: Log) -> None:
    own = r"127\.0\.0\.1|postfix/alive|doveadm|dovecot: auth"
    for _ in range(6):  # a client may connect ten times a minute
        assert _failing(lab) == set()
    log.settle()
    assert log.lines(own) == []


def test_a_daemon_that_hangs_is_named_and_the_pod_is_restarted(lab: Lab, log: Log) -> None:
    """Each still listens: the kernel takes connections for it."""
    log.expect(r"Timeout|timeout|timed out|warning|Warning")
    host, liveness = lab.pod.host, lab.pod.rendered.probes["livenessProbe"]["exec"]["command"]
    host.run(*liveness)  # now both postscreens and Dovecot's auth run
    pids = host.run("pgrep", "-x", "master|postscreen|dovecot|auth").stdout.split()
    host.run("kill", "-STOP", *pids)
    try:
        answer = host.run(*liveness, check=False)
    finally:
        host.run("kill", "-CONT", *pids)
    assert answer.returncode == 1
    assert {line.partition(":")[0] for line in answer.stderr.splitlines()} == {
        "postfix",
        "postscreen",
        "postscreen-proxy",
        "dovecot",
        "dovecot-auth",
    }
    wait_for("the daemons", lambda: _failing(lab) == set())


@pytest.mark.parametrize("daemon", ["rspamd", "postsrsd"])
def test_a_pod_whose_mail_is_all_deferred_is_not_ready_and_is_not_restarted(lab: Lab, log: Log, daemon: str) -> None:
    log.expect(r"Connection refused", r"warning")
    lab.pod.stop(daemon)
    try:
        wait_for("the probes to see it", lambda: _failing(lab) == PROBES - {"livenessProbe"})  # the machine may be slower than their bounds
    finally:
        lab.pod.start(daemon)
        wait_for(daemon, lambda: _failing(lab) == set(), 60)


def _foreign_key(lab: Lab) -> tuple[str, str]:
    names = lab.site.tls.names
    return lab.authority.issue(*names)[0], lab.authority.issue(*names)[1]


@pytest.mark.parametrize("pair", [lambda lab: ("", ""), _foreign_key], ids=["empty", "key of another certificate"])
def test_a_certificate_that_no_listener_can_use_is_seen_but_restarts_nothing(
    lab: Lab, log: Log, pair: Callable[[Lab], tuple[str, str]]
) -> None:
    log.expect(r"TLS|tls|SSL|ssl|certificate|key|fatal|error|warning|Fatal|Error")
    lab.pod.mount_certificate(*pair(lab))
    lab.pod.detect_changes()
    try:
        wait_for("Postfix to see it", lambda: _failing(lab) == PROBES - {"livenessProbe"})
    finally:
        lab.pod.mount_certificate(*lab.authority.issue(*lab.site.tls.names))
        lab.pod.detect_changes()
        wait_for("the certificate", lambda: _failing(lab) == set())


def test_every_probe_fails_without_dovecot(lab: Lab, log: Log) -> None:
    log.expect(r"Killed|terminat|Terminat|Warning|warning")
    lab.pod.host.run("doveadm", "stop")
    try:
        wait_for("Dovecot to stop", lambda: _failing(lab) == PROBES)
    finally:
        lab.pod.restart()
        lab.wait_until_served()


def test_a_restart_in_the_middle_of_the_queue_loses_nothing(lab: Lab, log: Log) -> None:
    log.expect(r"Killed|terminat|Terminat|connect to .*(refused|No such file)|milter|Connection refused|unexpected|Internal error|auth")
    mails = [message("alice@example.org", "friend@sender.example") for _ in range(8)]
    lab.relay.stop()
    try:
        client = Client(lab)
        with client.smtp(SUBMISSION.port, "alice@example.org") as smtp:
            for mail in mails:
                smtp.send_message(mail, "alice@example.org", ["friend@sender.example"])
        lab.pod.restart()
    finally:
        lab.relay.start()
        lab.wait_until_served()
    lab.pod.host.run("postqueue", "-f")
    wanted = {mail["Subject"] for mail in mails}
    wait_for("all of them", lambda: wanted <= {kept["Subject"] for kept in lab.relay.kept()}, 60)
    assert sorted(kept["Subject"] for kept in lab.relay.kept() if kept["Subject"] in wanted) == sorted(wanted)
