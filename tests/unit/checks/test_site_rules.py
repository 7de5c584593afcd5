"""Each rule over settings fires where it should, and only there."""

import json

import pytest

from components.checks.finding import run
from components.checks.registry import SITE_AREAS
from components.settings.parse import parse_site
from tests.conftest import OAUTH, Settings, change, settings

ME = "me@viktorbarzin.me"
PINNED = "@sha256:" + "0" * 64
FORWARD = {"mail/aliases/x@viktorbarzin.me": ["x@example.com"]}
BANS = {"url": "https://lists.example.org/banned.txt", "allow": ["192.0.2.0/24"]}
LEGACY = {"edge/legacy": {"address": "10.0.20.202"}, "edge/target": "legacy"}
TUNNELS = {f"cluster/nodes/k8s-node{n}/tunnel_address": f"10.10.{n}.0" for n in range(1, 5)}
SECOND = {"domains/example.org": {"host": "mail.viktorbarzin.me"}}

# Code: where it fires (stack and changes), the setting that it names, and where it does not, if that is not the stack as it is.
CASES: dict[str, tuple[str, Settings, str] | tuple[str, Settings, str, Settings]] = {
    "monitoring.off": ("dev", {}, "monitoring", {"monitoring": {"loki": {}}}),
    "monitoring.no-pushgateway": ("prod", {"jobs/pushgateway": None}, "monitoring.prometheus"),
    "monitoring.by-mail-alone": ("prod", {"monitoring/channels": ["mail"]}, "monitoring.channels"),
    "monitoring.second-mx-not-watched": ("prod", {"monitoring/second_mx": None}, "monitoring.second_mx"),
    "cluster.address-used-twice": ("prod", {"cluster/nodes/k8s-node2/address": "10.0.20.101"}, "cluster.nodes.k8s-node2.address"),
    "cluster.tunnel-outside-pod-networks": (
        "prod",
        {"cluster/nodes/k8s-node1/tunnel_address": "10.99.0.1"},
        "cluster.nodes.k8s-node1.tunnel_address",
    ),
    "cluster.pod-network-admitted": ("prod", {}, "cluster.nodes", TUNNELS),
    "cluster.no-tunnel-addresses": ("dev", {"cluster/nodes/worker1": {"address": "192.0.2.11"}}, "cluster.nodes"),
    "cluster.any-node": ("prod", {}, "cluster.traffic_policy", {"cluster/traffic_policy": "Local"}),
    "cluster.one-node": ("prod", {"cluster/traffic_policy": "Local"}, "cluster.traffic_policy"),
    "cluster.not-adoptable": ("prod", {"adopt": ["Secret/mailserver-accounts"]}, "adopt", {"adopt": ["Namespace/mailserver"]}),
    "cluster.unprotected": ("prod", {"unprotected": ["Namespace/mailserver"]}, "unprotected"),
    "cluster.no-uid": ("prod", {"cluster/uid": None}, "cluster.uid", {"cluster/uid": "0c4f3a76-9a57-4b53-a7a6-d1d0b4d3a001"}),
    "domains.primary-missing": ("prod", SECOND, "primary_domain"),
    "domains.primary-unknown": ("prod", {"primary_domain": "example.org"}, "primary_domain"),
    "domains.certificate": ("prod", {"domains/example.org": {}, "primary_domain": "viktorbarzin.me"}, "tls.names"),
    "domains.selector-used-twice": ("prod", {"domains/viktorbarzin.me/dkim": [{"selector": "mail"}] * 2}, "domains.viktorbarzin.me.dkim"),
    "domains.unsigned": ("prod", {"domains/viktorbarzin.me/dkim": []}, "domains.viktorbarzin.me"),
    "domains.parked-mail-host": ("prod", {"dns/parked": {"mail.viktorbarzin.me": {}}}, "dns.parked.mail.viktorbarzin.me"),
    "domains.parked-with-mail": ("prod", {"dns/parked": {"viktorbarzin.me": {}}}, "dns.parked.viktorbarzin.me"),
    "domains.empty-zone": ("prod", {"dns/zones/viktorbarzin.em": {}}, "dns.zones.viktorbarzin.em"),
    "domains.records-unused": ("prod", {"dns": None}, "domains.viktorbarzin.me.dns"),
    "mail.image-untested": ("prod", {"mail/image": "docker.io/mailserver/docker-mailserver:17.0.0"}, "mail.image"),
    "mail.dovecot-syntax": (
        "prod",
        {"mail/extra": {"dovecot": "plugin {\n}"}, "mail/image": "docker.io/mailserver/docker-mailserver:16.0.1"},
        "mail.extra.dovecot",
    ),
    "mail.image-not-pinned": ("prod", {}, "mail.image", {"mail/image": f"docker.io/mailserver/docker-mailserver:15.1.0{PINNED}"}),
    "mail.oauth-scope": ("prod", {"mail/oauth": OAUTH | {"scope": "openid"}}, "mail.oauth.scope", {"mail/oauth": OAUTH}),
    "mail.mailbox-outside": ("prod", {"mail/mailboxes/me@example.org": {}}, "mail.mailboxes.me@example.org"),
    "mail.mailbox-with-detail": ("prod", {"mail/mailboxes/me+x@viktorbarzin.me": {}}, "mail.mailboxes.me+x@viktorbarzin.me"),
    "mail.alias-outside": ("prod", {"mail/aliases/me@example.org": [ME]}, "mail.aliases.me@example.org"),
    "mail.alias-without-target": ("prod", {"mail/aliases/info@viktorbarzin.me": []}, "mail.aliases.info@viktorbarzin.me"),
    "mail.alias-target-twice": ("prod", {f"mail/aliases/{ME}": [ME] * 2}, f"mail.aliases.{ME}"),
    "mail.alias-target-unknown": (
        "prod",
        {"mail/aliases/info@viktorbarzin.me": ["nobody@viktorbarzin.me"]},
        "mail.aliases.info@viktorbarzin.me",
    ),
    "mail.alias-with-quotas": ("prod", {f"mail/mailboxes/{ME}": {"quota": "1Gi"}}, "mail.aliases.vaultwarden@viktorbarzin.me"),
    "mail.sender-outside": ("prod", {f"mail/mailboxes/{ME}": {"send_as": ["ceo@example.org"]}}, f"mail.mailboxes.{ME}.send_as"),
    "mail.sender-itself": ("prod", {f"mail/mailboxes/{ME}": {"send_as": [ME]}}, f"mail.mailboxes.{ME}.send_as"),
    "mail.sender-twice": (
        "dev",
        {"mail/mailboxes/bob@example.org/send_as": ["a@example.org"] * 2},
        "mail.mailboxes.bob@example.org.send_as",
    ),
    "mail.sender-without-replies": (
        "dev",
        {"mail/mailboxes/bob@example.org/send_as": ["news@example.net"]},
        "mail.mailboxes.bob@example.org.send_as",
        {"mail/mailboxes/bob@example.org/send_as": ["news@example.org"]},  # its catch-all takes them
    ),
    "mail.shadowed-by-catch-all": (
        "prod",
        {},
        "mail.mailboxes.truenas@viktorbarzin.me",
        {"mail/aliases/truenas@viktorbarzin.me": ["truenas@viktorbarzin.me"]},
    ),
    "mail.forwards-through-relay": ("prod", FORWARD, "mail.aliases.x@viktorbarzin.me"),
    "mail.forwards-without-srs": ("prod", {**FORWARD, "mail/srs": False}, "mail.aliases.x@viktorbarzin.me", {**FORWARD, "mail/srs": True}),
    "mail.sieve-tests-envelope": (
        "prod",
        {"mail/srs": True, f"mail/mailboxes/{ME}": {"sieve": 'if envelope :is "from" "a@example.org" { discard; }'}},
        f"mail.mailboxes.{ME}.sieve",
        {"mail/srs": False, f"mail/mailboxes/{ME}": {"sieve": 'if envelope :is "from" "a@example.org" { discard; }'}},
    ),
    "mail.storage-fills": ("prod", {"mail/storage/size": "2Gi"}, "mail.storage"),
    "mail.growth-limit": ("prod", {"mail/storage/growth_limit": "4Gi"}, "mail.storage.growth_limit"),
    "mail.memory-for-messages": (
        "prod",
        {"mail/resources": {"memory_limit": "1Gi"}},
        "mail.resources.memory_limit",
        {"mail/resources": {"memory_limit": "1Gi"}, "mail/message_size_limit": "40Mi"},
    ),
    "mail.srs-undecided": ("prod", {"mail/srs": None}, "mail.srs", {"mail/srs": None, "mail/stored_aliases": None}),
    "mail.memory-limit": ("prod", {"mail/resources": {"memory_limit": "256Mi"}}, "mail.resources.memory_limit"),
    "mail.sending-limit-without-redis": ("prod", {"mail/rspamd": {"redis": False}}, "mail.sending_limit"),
    "mail.sending-limit-above-quota": ("prod", {"mail/relay/daily_quota": 281}, "mail.sending_limit.per_day"),
    "mail.no-relay": ("prod", {"mail/relay": None}, "mail.relay"),
    "mail.own-line-replaced": (
        "prod",
        {"mail/extra": {"postfix": {"smtpd_tls_auth_only": "no"}}},
        "mail.extra.postfix.smtpd_tls_auth_only",
    ),
    "edge.address-family": ("prod", {"edge/ipv6_address": "192.0.2.1"}, "edge.ipv6_address"),
    "edge.no-active-node": ("prod", {f"cluster/nodes/k8s-node{n}/state": "drain" for n in range(1, 5)}, "cluster.nodes"),
    "edge.node-not-active": ("prod", {"cluster/nodes/k8s-node2/state": "drain"}, "cluster.nodes.k8s-node2.state"),
    "edge.legacy-without-address": ("prod", {"edge/target": "legacy"}, "edge.target", LEGACY),
    "edge.alias-in-use": (
        "prod",
        {**LEGACY, "edge/remove_legacy_alias": True},
        "edge.remove_legacy_alias",
        {"edge/remove_legacy_alias": True},
    ),
    "edge.interface-without-address": ("prod", {"edge/ipv6_address": None}, "edge.ipv6_interface"),
    "edge.target-legacy": ("prod", LEGACY, "edge.target"),
    "bans.none": ("prod", {}, "edge.bans", {"edge/bans": BANS}),
    "bans.plain-http": ("prod", {"edge/bans": {"url": "http://lists.example.org/banned.txt"}}, "edge.bans.url", {"edge/bans": BANS}),
    "bans.allows-all": ("prod", {"edge/bans": BANS | {"allow": ["::/0"]}}, "edge.bans.allow", {"edge/bans": BANS}),
    "bans.node-port": ("prod", {"edge/bans": BANS | {"node_port": 30145}}, "edge.bans.node_port", {"edge/bans": BANS}),
    "bans.probe-may-be-banned": ("prod", {"edge/bans": {"url": BANS["url"]}}, "edge.bans.allow", {"edge/bans": BANS}),
    "bans.not-watched": ("prod", {"edge/bans": BANS, "jobs/pushgateway": None}, "edge.bans", {"edge/bans": BANS}),
    "edge.not-managed": ("dev", {}, "edge.ssh", {"edge/ssh": {"host_key": settings("prod")["edge"]["ssh"]["host_key"]}}),
    "jobs.webmail-database-image": ("prod", {"jobs/webmail_backup/database_image": None}, "jobs.webmail_backup.database_image"),
    "jobs.webmail-backup-alone": ("prod", {"jobs/backup": None}, "jobs.webmail_backup"),
    "jobs.shared-repository": (
        "prod",
        {"jobs/webmail_backup/target/claim": "mailserver-backup-host"},
        "jobs.webmail_backup.target.claim",
    ),
    "jobs.no-backup": ("prod", {"jobs/backup": None}, "jobs.backup"),
    "jobs.no-drill": ("prod", {"jobs/backup/drill": None}, "jobs.backup.drill"),
    "jobs.image-not-pinned": (
        "prod",
        {},
        "jobs.restic_image",
        {f"jobs/{name}_image": f"docker.io/library/{name}:1{PINNED}" for name in ("python", "restic", "parsedmarc")}
        | {"jobs/webmail_backup/database_image": f"docker.io/library/mysql:8.4.6{PINNED}"},
    ),
    "jobs.probe-mailbox": ("prod", {"jobs/probe/mailbox": "smoke@viktorbarzin.me"}, "jobs.probe.mailbox"),
    "jobs.probe-recipient": ("prod", {"jobs/probe/recipient": "x@example.com"}, "jobs.probe.recipient"),
    "jobs.probe-sender": ("prod", {"jobs/probe/sender": "x@example.com"}, "jobs.probe.sender"),
    "jobs.probe-too-often": (
        "prod",
        {"jobs/probe/schedule": "*/5 * * * *"},
        "jobs.probe.schedule",
        {"jobs/probe/schedule": "*/15 * * * *"},
    ),
    "jobs.outbound-to-ourselves": ("prod", {"jobs/probe/outbound": {"recipient": ME}}, "jobs.probe.outbound.recipient"),
    "jobs.outbound-without-relay": (
        "prod",
        {"jobs/probe/outbound": {"recipient": "loop@example.com"}, "mail/relay": None},
        "jobs.probe.outbound",
    ),
    "jobs.probe-takes-quota": ("prod", {"mail/relay/daily_quota": 72}, "mail.relay.daily_quota", {"mail/relay/daily_quota": 73}),
    "jobs.outbound-over-limit": (
        "prod",
        {"jobs/probe/outbound": {"recipient": "loop@example.com", "schedule": "0,30 * * * *"}},
        "jobs.probe.outbound.schedule",
        {"jobs/probe/outbound": {"recipient": "loop@example.com"}},
    ),
    "jobs.retention-mailbox": ("prod", {"jobs/retention/rules/0/mailbox": "no@viktorbarzin.me"}, "jobs.retention.rules.0.mailbox"),
    "jobs.retention-secret-key": ("prod", {"jobs/retention/rules/0/mailbox": "a=b@viktorbarzin.me"}, "jobs.retention.rules.0.mailbox"),
    "jobs.retention-folder": ("prod", {"jobs/retention/rules/0/folder": "Gelöscht"}, "jobs.retention.rules.0.folder"),
    "webmail.image-untested": ("prod", {"webmail/image": "docker.io/roundcube/roundcubemail:1.7.3-apache"}, "webmail.image"),
    "webmail.image-not-pinned": (
        "prod",
        {},
        "webmail.image",
        {"webmail/image": f"docker.io/roundcube/roundcubemail:1.6.18-apache{PINNED}"},
    ),
    "webmail.certificate": ("dev", {"webmail/host": "post.example.org"}, "webmail.host"),
    "webmail.issuer-without-secret": ("dev", {"webmail/ingress": {"cluster_issuer": "letsencrypt"}}, "webmail.ingress.cluster_issuer"),
    "webmail.no-login": (
        "dev",
        {"webmail/auth": "required"},
        "webmail.auth",
        {"webmail/auth": "required", "webmail/ingress": {"annotations": {"nginx.ingress.kubernetes.io/auth-url": "https://login"}}},
    ),
    "webmail.login-unused": ("prod", {"webmail/auth": "app"}, "webmail.ingress.auth_middleware"),
    "webmail.no-groups": ("prod", {"webmail/ingress/annotations": {}}, "webmail.ingress.annotations"),
    "webmail.protected-by": ("prod", {}, "webmail.auth", {"webmail": None, "jobs/webmail_backup": None}),
    "webmail.plugin-twice": (
        "dev",
        {"webmail/composer_plugins": {"a/x-y": "1.0", "b/x_y": "2.0"}},
        "webmail.composer_plugins",
        {"webmail/composer_plugins": {"a/x-y": "1.0", "b/x_z": "2.0"}},
    ),
    "webmail.database-host": ("prod", {"webmail/database/host": None}, "webmail.database.host"),
    "webmail.database-unused": ("prod", {"webmail/database/type": "sqlite"}, "webmail.database.host"),
    "webmail.any-pod": ("prod", {"webmail/ingress/controller_namespace": None}, "webmail.ingress.controller_namespace"),
    "webmail.no-backup": ("prod", {"jobs/webmail_backup": None}, "jobs.webmail_backup"),
    "webmail.no-address": ("dev", {"webmail/host": "post.example.biz"}, "webmail.host"),
    "credentials.store-without-external-secrets": ("prod", {"cluster/external_secrets": None}, "secret_store"),
    "credentials.source-without-store": ("prod", {"secret_store": ...}, "mail.accounts"),
    "credentials.probe-without-accounts": ("prod", {"mail/accounts/source": None}, "jobs.probe.credentials"),
    "jobs.reports-mailbox": ("prod", {"jobs/reports/mailbox": "nobody@viktorbarzin.me"}, "jobs.reports.mailbox"),
    "jobs.reports-shared": ("prod", {"jobs/reports/mailbox": "spam@viktorbarzin.me"}, "jobs.retention.rules.0.mailbox"),
    "placeholders.address": ("dev", {"production": True}, "edge.address"),
    "placeholders.domain": ("dev", {"production": True}, "domains.example.net"),
    "placeholders.host-key": ("prod", {"edge/ssh/host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43}, "edge.ssh.host_key"),
    "placeholders.zone-id": ("prod", {"dns/zones/viktorbarzin.me/cloudflare": "0" * 32}, "dns.zones.viktorbarzin.me.cloudflare"),
}
ALWAYS = {"credentials.made-by-hand"}


def found(stack: str, changes: Settings) -> set[tuple[str, str]]:
    base = settings(stack)
    for path, value in changes.items():
        change(base, path, value)
    return {(finding.code, finding.setting) for finding in run(SITE_AREAS, parse_site(json.dumps(base)))}


@pytest.mark.parametrize("code", CASES)
def test_a_rule_fires_where_it_should_and_only_there(code):
    stack, changes, setting, *quiet = CASES[code]
    assert (code, setting) in found(stack, changes)
    assert code not in {fired for fired, _ in found(stack, quiet[0] if quiet else {})}


def test_reports_are_kept_from_whatever_else_works_on_a_mailbox():
    shared = {"jobs/reports/mailbox": "spam@viktorbarzin.me"}
    assert ("jobs.reports-shared", "jobs.probe.mailbox") in found("prod", shared)
    assert ("jobs.reports-shared", "jobs.reports.mailbox") in found("prod", {**shared, "jobs/retention": None, "jobs/probe": None})


def test_every_rule_has_a_case():
    assert {rule.code for area in SITE_AREAS for rule in area.rules} == CASES.keys() | ALWAYS


def test_what_always_holds_is_said():
    assert {code for code, _ in found("prod", {})} >= ALWAYS


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        ("edge.wan_address", {"edge/wan_address": "203.0.113.9"}),
        ("edge.ipv6_address", {"edge/ipv6_address": "2001:db8::9"}),
        ("edge.legacy.address", {"edge/legacy": {"address": "203.0.113.9"}}),
        ("dns.web.addresses", {"dns/web/addresses": ["203.0.113.9"]}),
        ("dns.hosts.mail.viktorbarzin.me", {"dns/hosts/mail.viktorbarzin.me/addresses": ["203.0.113.9"]}),
    ],
)
def test_an_example_is_seen_wherever_an_address_is_set(setting, changes):
    assert ("placeholders.address", setting) in found("prod", changes)


def test_bans_do_not_count_where_no_one_puts_them_on_the_firewall():
    assert ("bans.none", "edge.ssh") in found("prod", {"edge/bans": BANS, "edge/ssh": ...})


def test_a_domain_that_only_ends_like_an_example_is_accepted():
    own = {"domains/myexample.org": {}, "primary_domain": "viktorbarzin.me", "tls/names": ["*.viktorbarzin.me", "mail.myexample.org"]}
    assert not any(code.startswith("placeholders.") for code, _ in found("prod", own))


def test_both_directions_of_the_probe_count_against_the_quota():
    both = {"jobs/probe/outbound": {"recipient": "loop@example.com"}, "mail/relay/daily_quota": 96}
    assert ("jobs.probe-takes-quota", "mail.relay.daily_quota") in found("prod", both)
    assert ("jobs.probe-takes-quota", "mail.relay.daily_quota") not in found("prod", {**both, "mail/relay/daily_quota": 97})


def test_the_space_that_postfix_needs_is_told_in_numbers():
    base = change(settings("prod"), "mail/storage/size", "2Gi")
    (finding,) = (finding for finding in run(SITE_AREAS, parse_site(json.dumps(base))) if finding.code == "mail.storage-fills")
    assert finding.text.startswith("10 % of 2Gi is 204 MiB, but Postfix refuses all mail below 300 MiB free")


@pytest.mark.parametrize("setting", ["edge/address", "edge/wan_address", "edge/legacy"])
def test_the_redirects_are_ipv4(setting):
    value = {"address": "2001:db8::1"} if setting == "edge/legacy" else "2001:db8::1"
    assert "edge.address-family" in {code for code, _ in found("prod", {setting: value})}


def test_images_are_judged_in_production_only():
    assert not any(code.endswith("image-not-pinned") for code, _ in found("prod", {"production": False}))


def test_secrets_that_nothing_creates_are_named_with_their_keys():
    def by_hand(stack: str, changes: Settings) -> str:
        base = settings(stack)
        for path, value in changes.items():
            change(base, path, value)
        findings = run(SITE_AREAS, parse_site(json.dumps(base)))
        return next(finding.text for finding in findings if finding.code == "credentials.made-by-hand")

    assert by_hand("dev", {}).endswith(
        "mailserver-accounts (accounts), roundcubemail-session (des_key), mailserver-dkim (example.org.mail), mail-tls (tls.crt, tls.key)"
    )
    assert "mailserver-accounts" not in by_hand("prod", {})
    named = ("mail/accounts", "mail/relay/credentials", "jobs/probe/credentials")
    alone = by_hand("prod", {f"{name}/source": None for name in named})
    for expected in (
        "mailserver-relay (sasl_passwd)",
        "mailserver-probe-secrets (BREVO_API_KEY, EMAIL_MONITOR_IMAP_PASSWORD)",
        "mailserver-retention (spam_at_viktorbarzin.me)",
    ):
        assert expected in alone
