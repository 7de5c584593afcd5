"""CrowdSec's values: which files and labels, and who is never banned."""

import fnmatch
import re
from ipaddress import ip_address, ip_network

import yaml

from components.monitoring.crowdsec import chart_values
from components.settings.crowdsec import Crowdsec

PARSERS = {"s00-raw": "00-mailserver.yaml", "s02-enrich": "00-mailserver-allow.yaml"}


def source(site, **settings):
    return chart_values(site, Crowdsec(**settings))["agent"]["additionalAcquisition"][0]


def allowed(site, *networks):
    text = chart_values(site, Crowdsec(allow=networks))["config"]["parsers"]["s02-enrich"]["00-mailserver-allow.yaml"]
    return [ip_network(cidr) for cidr in yaml.safe_load(text)["whitelist"]["cidr"]]


def test_the_log_of_the_mail_servers_container_is_read_and_no_other(site, recording):
    (pattern,) = source(site())["filenames"]
    digits = "0123456789abcdef" * 4
    (deployment,) = (
        thing for thing in recording("prod").kubernetes() if (thing["kind"], thing["metadata"]["name"]) == ("Deployment", "mailserver")
    )
    names = [container["name"] for container in deployment["spec"]["template"]["spec"]["containers"]]
    read = [
        name for name in names if fnmatch.fnmatch(f"/var/log/containers/mailserver-5d9c7b-x2x7k_mailserver_{name}-{digits}.log", pattern)
    ]
    assert read == ["docker-mailserver"]
    for other in (
        "mailserver-backup-29001-abcde_mailserver_backup",
        "roundcubemail-1-abcde_mailserver_roundcubemail",
        "mail-1_other_docker-mailserver",
    ):
        assert not fnmatch.fnmatch(f"/var/log/containers/{other}-{digits}.log", pattern)


def test_loki_is_asked_by_the_labels_that_the_pod_has(site, recording):
    query = source(site(), loki="http://loki.monitoring:3100")["query"]
    asked = dict(re.findall(r'(\w+)="([^"]*)"', query))
    (deployment,) = (
        thing for thing in recording("prod").kubernetes() if (thing["kind"], thing["metadata"]["name"]) == ("Deployment", "mailserver")
    )
    pod = deployment["spec"]["template"]
    assert asked.pop("namespace") == deployment["metadata"]["namespace"]
    assert asked.pop("container") in {container["name"] for container in pod["spec"]["containers"]}
    assert asked.items() <= pod["metadata"]["labels"].items()


def test_what_is_read_is_what_the_parser_asks_for(site):
    values = chart_values(site(), Crowdsec())
    label = source(site())["labels"]["type"]
    for stage, name in PARSERS.items():
        assert f"'{label}'" in yaml.safe_load(values["config"]["parsers"][stage][name])["filter"]


def test_own_networks_are_never_banned(site):
    prod = site("prod", {"mail/trusted_relays": [{"name": "mx2", "addresses": ["203.0.113.10"]}]})
    networks = allowed(prod, ip_network("192.0.2.0/24"))
    own = ("176.12.22.76", "2001:470:6e:43d::2", "10.0.20.1", "10.0.20.101", "10.10.3.4", "203.0.113.10", "192.0.2.7")
    assert [address for address in own if not any(ip_address(address) in network for network in networks)] == []
    assert not any(ip_address(other) in network for other in ("203.0.113.11", "2001:db8::1") for network in networks)
    assert len(set(networks)) == len(networks)
