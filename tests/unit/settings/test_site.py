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
        "cluster.node_ports.imaps.proxy: 30125 is already used by node_ports.smtp.proxy",
    ),
    "NodePort out of range": (
        {"cluster/node_ports": {"smtp": {"proxy": 2525, "health": 30145}}},
        "2525 is outside node_port_range 30000-32767",
    ),
    "PROXY listener without a health port": (
        {"cluster/node_ports": {"smtp": {"proxy": 31025}}},
        "cluster.node_ports.smtp.health: is required",
    ),
    "two destinations": ({"cluster/render_to": "x"}, "cluster.context: set exactly one of context and render_to"),
    "mailbox in capitals": ({"mail/mailboxes/Me@viktorbarzin.me": {}}, "lower case"),
    "invalid schedule": ({"jobs/probe/schedule": "*/20 * *"}, "jobs.probe.schedule: write five cron fields"),
    "schedule that never comes": ({"jobs/backup/schedule": "0 0 31 2 *"}, "jobs.backup.schedule: write five cron fields"),
    "invalid time zone": ({"jobs/time_zone": "Sofia"}, "jobs.time_zone: write an IANA time zone"),
    "probe without a mailbox": ({"jobs/probe/mailbox": ...}, "jobs.probe.mailbox: is required"),
    "misspelt setting": (
        {"cluster/nodes/k8s-node1/tunel_address": "10.10.0.1"},
        "tunel_address: unknown setting; did you mean tunnel_address?",
    ),
    "text for a list": ({"mail/aliases/x@viktorbarzin.me": "me"}, "x@viktorbarzin.me: write a list, such as [one, two] (got 'me')"),
    "network with bits behind its prefix": ({"cluster/pod_networks": ["10.10.0.1/16"]}, "pod_networks.0: write a network such as"),
    "mailbox without an address": ({"mail/mailboxes/alice.example": {}}, "mail.mailboxes.alice.example: write an address"),
    "neither cluster nor folder": ({"cluster/context": ...}, "cluster.context: set exactly one of context and render_to"),
    "CPU time for a size": (
        {"mail/resources/memory_limit": "1000m"},
        "mail.resources.memory_limit: write a size such as 512Mi, 1.5Gi or 2G",
    ),
    "a size of half a byte": ({"mail/storage/size": "500m"}, "mail.storage.size: write a size such as"),
    "a quota of a thousandth": (
        {"mail/mailboxes/me@viktorbarzin.me/quota": "1m"},
        "quota: write a size such as 512Mi, 1.5Gi or 2G (got '1m')",
    ),
    "a size for CPU time": ({"mail/resources/cpu_request": "1Gi"}, "mail.resources.cpu_request: write CPU time such as 250m"),
    "a message limit that takes no message": (
        {"mail/message_size_limit": "10k"},
        "mail.message_size_limit: write at least 1Mi (got '10k')",
    ),
    "a catch-all as other programs write it": (
        {"mail/aliases/*@viktorbarzin.me": ["me@viktorbarzin.me"]},
        "mail.aliases.*@viktorbarzin.me: write @viktorbarzin.me for a catch-all",
    ),
    "a kind of store that does not exist": ({"secret_store/kind": "Banana"}, "secret_store.kind: Input should be 'ClusterSecretStore' or"),
    "an interval without a unit": (
        {"secret_store/refresh_interval": "15"},
        "refresh_interval: write a Go duration such as 15m, 1h or 1h30m",
    ),
    "an interval in days": ({"secret_store/refresh_interval": "1d"}, "secret_store.refresh_interval: write a Go duration"),
    "one key of a Secret for two values": (
        {"jobs/probe/credentials/password": "BREVO_API_KEY"},
        "jobs.probe.credentials.password: must be another key than api_key",
    ),
    "a list left empty": ({"mail/aliases/x@viktorbarzin.me": None}, "mail.aliases.x@viktorbarzin.me: write a list"),
    "a block left empty that needs settings": ({"edge": None}, "edge.address: is required"),
    "a service that does not exist": (
        {"cluster/node_ports/pop3": {"proxy": 31125, "health": 31145}},
        "node_ports.pop3: write one of smtp,",
    ),
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


def test_a_block_or_map_left_empty_has_its_defaults(site):
    empty = {
        "mail/mailboxes/new@viktorbarzin.me": None,
        "mail/rspamd": None,
        "cluster/node_ports": None,
        "domains/viktorbarzin.me/dns/srv": [],
    }
    assert site("prod", empty).mail.mailboxes["new@viktorbarzin.me"].send_as == ()
    assert site("prod", empty).mail.rspamd.redis


@pytest.mark.parametrize("text", ["null", "hello", '"text"', "[]", "{"])
def test_settings_that_are_not_a_map_are_refused_in_one_line(text):
    with pytest.raises(UserError) as refused:
        read_site(text)
    assert str(refused.value).startswith("mailserver:site: ")


@pytest.mark.parametrize(
    ("area", "name"),
    [
        ("mail/accounts", "mailserver-accounts"),
        ("mail/relay/credentials", "mailserver-relay"),
        ("jobs/backup/key", "mailserver-backup-key"),
    ],
)
def test_the_name_of_a_secret_has_a_default_where_only_its_source_is_set(site, area, name):
    secret = site("prod", {area: {"source": {"key": "a", "property": "b"}}})
    for part in area.split("/"):
        secret = getattr(secret, part)
    assert (secret.name, secret.source.key) == (name, "a")


def test_a_site_that_adds_to_its_spf_record_still_names_its_own_hosts(site):
    assert site("prod", {"domains/viktorbarzin.me/dns/spf": {"includes": ["spf.example.net"]}}).domains["viktorbarzin.me"].dns.spf.mx


def test_a_certificate_covers_one_label_of_a_wildcard(site):
    tls = site("prod", {"tls/names": ["*.viktorbarzin.me"]}).tls
    assert tls.covers("mail.viktorbarzin.me")
    assert not tls.covers("a.mail.viktorbarzin.me")
    assert not tls.covers("viktorbarzin.me")


def test_node_ports_of_a_site_replace_those_of_the_table(site):
    smtp, imaps = (site("prod", {"cluster/node_ports": {"smtp": {"proxy": 31025, "health": 31145}}}).listeners[i] for i in (0, 3))
    assert (smtp.node_port, smtp.health_node_port, smtp.proxy_port) == (31025, 31145, 2525)
    assert imaps.node_port == 30128
