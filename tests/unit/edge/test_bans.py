"""Bans as the firewall should hold them: who is never banned, where the list is fetched, which rules ask it."""

from ipaddress import ip_address, ip_network

import pytest

from components.edge.desired import rule_set

LIST = {"url": "https://lists.example.org/banned.txt"}


def rules(site, **bans):
    return rule_set(site("prod", {"edge/bans": LIST | bans, "mail/trusted_relays": [{"name": "mx2", "addresses": ["203.0.113.10"]}]}))


@pytest.mark.parametrize(
    "own",
    ["10.0.20.101", "10.10.3.4", "10.0.20.1", "176.12.22.76", "2001:470:6e:43d::2", "203.0.113.10", "192.168.1.1", "192.0.2.7", "fe80::1"],
)
def test_own_addresses_are_in_the_list_that_comes_first(site, own):
    never = rules(site, allow=["192.0.2.0/24"])["aliases"]["mailserver_never_banned"]["address"].split(" ")
    assert any(ip_address(own) in ip_network(network) for network in never)
    assert not any(ip_address(other) in ip_network(network) for other in ("198.51.100.7", "2001:db9::7") for network in never)


def test_what_crowdsec_is_told_to_allow_is_not_banned_either(site):
    wanted = rule_set(site("prod", {"edge/bans": LIST, "monitoring/crowdsec": {"allow": ["198.51.100.0/24"]}}))
    assert "198.51.100.0/24" in wanted["aliases"]["mailserver_never_banned"]["address"].split(" ")


def test_each_family_is_asked_where_its_mail_arrives(site):
    bans = rules(site)["bans"]
    assert {(ban["interface"], ban["ipprotocol"], ban["destination"], ban["type"]) for ban in bans.values()} == {
        (interface, family, destination, kind)
        for interface, family, destination in (("wan", "inet", "10.0.20.1"), ("opt2", "inet6", "2001:470:6e:43d::2"))
        for kind in ("pass", "block")
    }


def test_bans_hold_on_the_way_back_to_the_legacy_address(site):
    wanted = rule_set(site("prod", {"edge/bans": LIST, "edge/legacy": {"address": "10.0.20.210"}, "edge/target": "legacy"}))
    assert {ban["destination"] for ban in wanted["bans"].values() if ban["ipprotocol"] == "inet"} == {"mailserver"}


def test_the_list_is_fetched_from_a_node_that_is_in_use(site):
    wanted = rule_set(site("prod", {"edge/bans": LIST, "cluster/nodes/k8s-node1/state": "out"}))
    assert wanted["aliases"]["mailserver_banned"]["url"].startswith("http://10.0.20.102:30150/")


def test_nothing_of_bans_is_wanted_without_the_setting(site):
    wanted = rule_set(site("prod"))
    assert (wanted["bans"], wanted["cron"]) == ({}, {})
    assert set(rules(site)["aliases"]) <= set(wanted["absent_aliases"])
