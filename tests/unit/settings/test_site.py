"""What a stack may say, and the one message that everything else gets."""

import json

import pytest

from components.checks.registry import read_site
from components.errors import UserError
from tests.conftest import change, settings

WRONG = {
    "unknown key at the top": ({"mial": {}}, "mial: unknown setting"),
    "unknown key deep down": ({"mail/relay/hots": "x"}, "mail.relay.hots: unknown setting"),
    "unknown key in a list": ({"mail/trusted_relays/0/adress": "x"}, "mail.trusted_relays.0.adress: unknown setting"),
    "text for a number": ({"mail/relay/port": "587"}, "mail.relay.port: write a whole number, without quotes (got '587')"),
    "number for text": (
        {"tls/secret": 5},
        "tls.secret: write text; in quotes where it looks like a number or a date (got 5)",
    ),
    "missing key": ({"edge": ...}, "edge: is required"),
    "invalid domain": ({"mail/relay/host": "smtp_relay.brevo.com"}, "write a full domain name in lower case"),
    "domain with a trailing dot": ({"mail/relay/host": "smtp.brevo.com."}, "without a trailing dot"),
    "domain that is not ASCII": ({"mail/relay/host": "пример.com"}, "punycode"),
    "address that does not parse": (
        {"edge/address": "10.0.20.999"},
        "edge.address: write an IP address (got '10.0.20.999')",
    ),
    "network that does not parse": ({"cluster/pod_networks": ["10.10.0.0/33"]}, "cluster.pod_networks.0:"),
    "network with host bits": ({"cluster/pod_networks": ["10.10.0.1/16"]}, "cluster.pod_networks.0:"),
    "image without a tag": ({"mail/image": "docker.io/mailserver/docker-mailserver"}, "write registry/repository:tag"),
    "duplicate NodePort": (
        {"cluster/node_ports": {"imaps": {"proxy": 30125, "health": 30148}}},
        "cluster.node_ports.imaps.proxy: 30125 is taken by node_ports.smtp.proxy",
    ),
    "NodePort out of range": (
        {"cluster/node_ports": {"smtp": {"proxy": 2525, "health": 30145}}},
        "2525 is outside node_port_range 30000-32767",
    ),
    "PROXY listener without a health port": (
        {"cluster/node_ports": {"smtp": {"proxy": 31025}}},
        "cluster.node_ports.smtp.health: is required",
    ),
    "two destinations": ({"cluster/render_to": "x"}, "cluster.context: set either it or render_to"),
    "mailbox in capitals": ({"mail/mailboxes/Me@viktorbarzin.me": {}}, "lower case"),
    "schedule that is none": ({"jobs/probe/schedule": "*/20 * *"}, "jobs.probe.schedule: write five cron fields"),
    "schedule that never comes": ({"jobs/backup/schedule": "0 0 31 2 *"}, "jobs.backup.schedule: write five cron fields"),
    "time zone that is none": ({"jobs/time_zone": "Sofia"}, "jobs.time_zone: write an IANA time zone"),
    "probe without a mailbox": ({"jobs/probe/mailbox": ...}, "jobs.probe.mailbox: is required"),
    "misspelt setting": (
        {"cluster/nodes/k8s-node1/tunel_address": "10.10.0.1"},
        "tunel_address: unknown setting; did you mean tunnel_address?",
    ),
    "text for a list": ({"mail/aliases/x@viktorbarzin.me": "me"}, "x@viktorbarzin.me: write a list, such as [one, two] (got 'me')"),
    "network with bits behind its prefix": ({"cluster/pod_networks": ["10.10.0.1/16"]}, "pod_networks.0: write a network such as"),
    "mailbox that is no address": ({"mail/mailboxes/alice.example": {}}, "mail.mailboxes.alice.example: write an address"),
    "neither cluster nor folder": ({"cluster/context": ...}, "cluster.context: set either it or render_to"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_gets_one_line_that_names_its_setting(case):
    changes, expected = WRONG[case]
    base = settings("prod")
    for path, value in changes.items():
        change(base, path, value)
    with pytest.raises(UserError) as refused:
        read_site(json.dumps(base))
    lines = str(refused.value).splitlines()
    assert any(expected in line for line in lines), lines
    assert all(line.endswith("]") for line in lines)


def test_all_mistakes_are_told_at_once():
    base = settings("prod")
    change(base, "mail/relay/port", "x")
    change(base, "tls/secret", ...)
    with pytest.raises(UserError) as refused:
        read_site(json.dumps(base))
    assert len(str(refused.value).splitlines()) == 2


def test_a_certificate_covers_one_label_of_a_wildcard(site):
    tls = site("prod", {"tls/names": ["*.viktorbarzin.me"]}).tls
    assert tls.covers("mail.viktorbarzin.me")
    assert not tls.covers("a.mail.viktorbarzin.me")
    assert not tls.covers("viktorbarzin.me")


def test_node_ports_of_a_site_replace_those_of_the_table(site):
    smtp, imaps = (site("prod", {"cluster/node_ports": {"smtp": {"proxy": 31025, "health": 31145}}}).listeners[i] for i in (0, 3))
    assert (smtp.node_port, smtp.health_node_port, smtp.proxy_port) == (31025, 31145, 2525)
    assert imaps.node_port == 30128
