"""The files of the configuration folder. What they do is proven on real daemons in tests/lab; here is what they say."""

import itertools
import re
from ipaddress import ip_network

import pytest

from components.mail import dovecot, postfix, rspamd
from components.mail.accounts import quotas, sieve_scripts, virtual
from components.mail.files import config_files, config_map_key
from components.mail.image import environment
from components.mail.secrets import mounted_secrets, secret_plans
from components.mail.trust import edge_networks
from components.settings.mail import TESTED_IMAGE_MAJORS
from tests.conftest import OAUTH


def parameter(text: str, name: str) -> str:
    """The value of a main.cf parameter; fails when it is not set exactly once."""
    (value,) = re.findall(rf"^{name} = (.*)$", text, re.MULTILINE)
    return value


def networks(site) -> list[str]:
    return [str(network) for network in edge_networks(site)]


def test_a_node_with_a_tunnel_address_is_admitted_by_both_of_its_addresses(site):
    dev = site("dev")
    assert networks(dev) == ["192.0.2.1/32", "192.0.2.11/32", "192.0.2.12/32", "10.244.1.0/32", "10.244.2.0/32"]


def test_one_unknown_tunnel_address_admits_the_pod_network_rather_than_losing_that_nodes_mail(site):
    dev = site("dev", {"cluster/nodes/worker1": {"address": "192.0.2.11"}})
    assert networks(dev) == ["192.0.2.1/32", "192.0.2.11/32", "192.0.2.12/32", "10.244.0.0/16"]


def test_without_encapsulation_no_address_of_the_pod_network_is_admitted(site):
    assert networks(site("prod", {"cluster/overlay_network": False})) == [f"10.0.20.{last}/32" for last in (1, 101, 102, 103, 104)]


def test_with_local_traffic_policy_the_firewall_is_the_only_source(site):
    assert networks(site("prod", {"cluster/traffic_policy": "Local"})) == ["10.0.20.1/32"]


def test_main_cf_leaves_mynetworks_to_the_image_which_empties_it(site):
    prod = site("prod")
    assert "mynetworks" not in [line.split(" =")[0] for line in postfix.main_cf(prod).splitlines()]
    assert environment(prod)["PERMIT_DOCKER"] == "none"


def test_trusted_relays_pass_before_the_check_of_the_reverse_name(site):
    checks = parameter(postfix.main_cf(site("prod")), "dms_smtpd_sender_restrictions")
    assert checks.index("10.3.2.10/32 OK") < checks.index("reject_unknown_client_hostname")
    assert "92.5.132.215/32 OK" in checks


def test_without_trusted_relays_nothing_mentions_one(site):
    alone = site("prod", {"mail/trusted_relays": []})
    assert "cidr:" not in postfix.main_cf(alone)
    assert not {"external_relay.conf", "force_actions.conf"} & rspamd.overrides(alone).keys()


def test_rate_limits_spare_the_edge_and_the_relays_only(site):
    prod = site("prod", {"cluster/nodes/k8s-node1/address": "2001:db8::11"})
    spared = parameter(postfix.main_cf(prod), "smtpd_client_event_limit_exceptions").split()
    assert "[2001:db8::11]/128" in spared
    bare = {ip_network(pattern.replace("[", "").replace("]", "")) for pattern in spared}
    assert bare == {*edge_networks(prod), ip_network("10.3.2.10"), ip_network("92.5.132.215")}


def test_the_relays_certificate_is_checked_for_its_name(site):
    prod = site("prod")
    assert "secure match=smtp-relay.brevo.com" in parameter(postfix.main_cf(prod), "smtp_tls_policy_maps")
    assert environment(prod)["DEFAULT_RELAY_HOST"] == "[smtp-relay.brevo.com]:587"


def test_without_app_passwords_there_is_the_image_s_list_of_passwords_alone(site):
    prod = site("prod")
    assert "app-passwords.cf" not in config_files(prod)
    assert "app-passwords" not in mounted_secrets(prod)


def test_app_passwords_come_from_their_secret_which_restarts_the_pod(site):
    source = {"key": "mail", "property": "app_passwords"}
    prod = site("prod", {"mail/app_passwords": {"source": source}})
    assert mounted_secrets(prod)["app-passwords"] == "mailserver-app-passwords"
    (plan,) = (plan for plan in secret_plans(prod) if plan.name == "mailserver-app-passwords")
    assert {key: source.model_dump() for key, source in plan.keys.items()} == {"app_passwords": source}


@pytest.mark.parametrize("major", TESTED_IMAGE_MAJORS)
def test_only_where_app_passwords_are_required_outside_the_pod_networks_matter(site, major):
    for required in (False, True):
        image = f"docker.io/mailserver/docker-mailserver:{major}.0.0"
        prod = site("prod", {"mail/image": image, "mail/app_passwords": {"required_outside": required}})
        assert ("10.10.0.0/16" in config_files(prod)["app-passwords.cf"]) == required


def test_the_client_secret_comes_from_its_secret_which_restarts_the_pod(site):
    source = {"key": "mail", "property": "client_secret"}
    prod = site("prod", {"mail/oauth": OAUTH | {"client_secret": {"source": source}}})
    assert mounted_secrets(prod)["oauth"] == "mailserver-oauth"
    (plan,) = (plan for plan in secret_plans(prod) if plan.name == "mailserver-oauth")
    assert {key: source.model_dump() for key, source in plan.keys.items()} == {"client_secret": source}


def test_a_client_s_name_is_quoted_in_the_url_of_dovecot_2_4(site):
    newer = site("prod", {"mail/oauth": OAUTH, "mail/image": "docker.io/mailserver/docker-mailserver:16.0.1"})
    (line,) = (line for line in config_files(newer)["oauth.cf"].splitlines() if "introspection_url" in line)
    assert line.split()[-1] == "https://mail%40lan:@id.example.org/introspect"


def test_without_an_issuer_dovecot_offers_passwords_alone(site):
    files = config_files(site("prod"))
    assert "oauth.cf" not in files
    assert "oauthbearer" not in files["dovecot.cf"]


def test_without_a_relay_mail_goes_straight_out(site):
    direct = site("prod", {"mail/relay": None})
    assert "smtp_tls_policy_maps" not in postfix.main_cf(direct)
    assert "DEFAULT_RELAY_HOST" not in environment(direct)
    assert "relay" not in mounted_secrets(direct)


def test_every_postfix_listener_gets_a_twin_with_the_name_that_log_parsers_know():
    assert postfix.proxy_listeners().splitlines() == [
        "smtp 2525 postfix/smtpd-proxy25",
        "submissions 4465 postfix/smtpd-proxy465",
        "submission 5587 postfix/smtpd-proxy587",
    ]


def test_dovecot_believes_exactly_those_whom_the_network_policy_admits(site):
    for case in ({}, {"cluster/traffic_policy": "Local"}):
        prod = site("prod", case)
        (trusted,) = re.findall(r"^haproxy_trusted_networks = (.*)$", dovecot.dovecot_cf(prod), re.MULTILINE)
        assert trusted.split() == networks(prod)


def test_an_address_granted_to_two_mailboxes_names_both(site):
    dev = site("dev", {"mail/mailboxes/bob@example.org/send_as": ["sales@example.net"]})
    assert postfix.send_as(dev) == "sales@example.net alice@example.org, bob@example.org\n"


def test_an_alias_keeps_all_its_targets(site):
    assert "team@example.net alice@example.org,bob@example.org" in virtual(site("dev")).splitlines()


def test_quotas_are_off_until_a_mailbox_has_one(site):
    assert environment(site("dev"))["ENABLE_QUOTAS"] == "0"
    limited = site("dev", {"mail/mailboxes/slim.jim@example.org": {}, "mail/mailboxes/jim@example.org": {"quota": "2Gi"}})
    assert environment(limited)["ENABLE_QUOTAS"] == "1"
    lines = quotas(limited).splitlines()
    assert "slim.jim@example.org:0" in lines, "without a line of its own it gets Jim's"
    assert next(line for line in lines if "jim@example.org:" in line) == "jim@example.org:2147483648B"
    assert "dovecot-quotas.cf" in config_files(limited)


def test_learning_needs_redis(site):
    assert environment(site("prod"))["RSPAMD_LEARN"] == "1"
    without = environment(site("prod", {"mail/rspamd": {"redis": False}, "mail/sending_limit": None}))
    assert (without["ENABLE_RSPAMD_REDIS"], without["RSPAMD_LEARN"]) == ("0", "0")


def test_srs_leaves_our_own_domains_alone(site):
    assert environment(site("dev", {"mail/srs": True}))["SRS_EXCLUDE_DOMAINS"] == "example.net,example.org"
    assert "SRS_EXCLUDE_DOMAINS" not in environment(site("dev", {"mail/srs": False}))


def test_srs_is_on_only_where_an_alias_forwards_outside_unless_the_settings_say_otherwise(site):
    forward = {"mail/aliases/forward@example.org": ["friend@sender.example"]}
    seen = [
        environment(site("dev", changes))["ENABLE_SRS"] for changes in ({}, forward, {**forward, "mail/srs": False}, {"mail/srs": True})
    ]
    assert seen == ["0", "1", "0", "1"]


def test_every_signing_key_of_every_domain_is_in_rspamds_file_and_in_the_list_of_the_init_container(site):
    keys = {"domains/example.net": {"host": "mail.example.org", "dkim": [{"selector": "a"}, {"selector": "b"}]}}
    dev = site("dev", keys)
    files = config_files(dev)
    assert sorted(files["dkim-keys.txt"].split()) == ["example.net.a", "example.net.b", "example.org.mail"]
    paths = re.findall(r'path = "/tmp/docker-mailserver/rspamd/dkim/([^"]+)"', files["rspamd/override.d/dkim_signing.conf"])
    assert paths == files["dkim-keys.txt"].split()


def test_a_sieve_script_goes_to_its_mailbox_only(site):
    assert list(sieve_scripts(site("dev"))) == ["sieve/bob@example.org.sieve"]


def test_the_probe_secret_has_exactly_two_keys(site):
    (probe,) = [plan for plan in secret_plans(site("prod")) if plan.name == "mailserver-probe-secrets"]
    assert probe.template.keys() == {"BREVO_API_KEY", "EMAIL_MONITOR_IMAP_PASSWORD"}
    assert '"spam@viktorbarzin.me"' in probe.template["EMAIL_MONITOR_IMAP_PASSWORD"]


def test_one_secret_holds_all_dkim_keys(site):
    (dkim,) = [plan for plan in secret_plans(site("prod")) if plan.name == "mailserver-dkim"]
    assert {key: (place.key, place.property) for key, place in dkim.keys.items()} == {
        "viktorbarzin.me.mail": ("platform", "mailserver_opendkim_key")
    }


def test_no_two_paths_share_a_config_map_key():
    paths = ["".join(letters) for size in range(1, 5) for letters in itertools.product("_./-@5!", repeat=size)]
    keys = {config_map_key(path) for path in paths}
    assert len(keys) == len(paths)
    assert all(re.fullmatch(r"[-._a-zA-Z0-9]+", key) for key in keys)
