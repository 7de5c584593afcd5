"""Mail over IPv6: it must never take IPv4 mail down with it, and a rule for it must be one that lets mail in."""

import xml.etree.ElementTree as ET

import pytest

from components.edge.desired import haproxy_set, rule_set
from tests.contract.helpers import refused
from tests.contract.standin import wait
from tests.contract.test_rules import passes

pytestmark = pytest.mark.contract

IPV6 = {"edge/ipv6_address": "2001:470:6e:43d::2", "edge/ipv6_interface": "opt2"}


@pytest.fixture
def ipv6_site(edge_site):
    return lambda changes=None: edge_site(IPV6 | (changes or {}))


@pytest.fixture
def both(firewall, ipv6_site):
    """HAProxy serves both families."""
    wanted = haproxy_set(ipv6_site())
    firewall.client().call("apply", "haproxy", wanted)
    return wanted


def test_clients_keep_their_address(firewall, ipv6_site, both):
    firewall.client().call("apply", "rules", rule_set(ipv6_site()))
    assert firewall.banner(25, address=firewall.tunnel).startswith("220 ")
    assert firewall.tunnel in [client for node in firewall.nodes for client in node.clients]
    assert f"{firewall.tunnel} 25" in passes(firewall)
    assert not firewall.client().call("apply", "rules", rule_set(ipv6_site()))["changed"]
    assert not firewall.client().call("apply", "haproxy", both)["changed"]


def test_a_boot_without_the_tunnel_serves_ipv4(firewall, both):
    firewall.address_off("gif0", firewall.tunnel)
    assert firewall.boot() == 0
    assert firewall.banner(25).startswith("220 ")
    firewall.address_on("gif0", firewall.tunnel)
    wait(lambda: firewall.answers(firewall.tunnel, 25))
    assert firewall.banner(25, address=firewall.tunnel).startswith("220 "), "and IPv6 as soon as the tunnel is there"


def test_a_change_while_the_tunnel_is_down_is_applied_with_a_warning(firewall, both, ipv6_site):
    firewall.address_off("gif0", firewall.tunnel)
    changed = haproxy_set(ipv6_site({"edge/test_frontend": True}))
    assert f"{firewall.tunnel} is configured and not up" in firewall.client().call("plan", "haproxy", changed)["warnings"][0]
    assert firewall.client().call("apply", "haproxy", changed)["changed"]
    assert firewall.client().call("read", "haproxy", changed)["problem"] is None, "no apply can mend it"
    assert f"{firewall.tunnel} is configured and not up" in firewall.client().call("health", "haproxy", changed)["warnings"][0]


def test_without_transparent_binds_the_address_has_to_be_there(firewall, ipv6_site):
    plain = haproxy_set(ipv6_site({"edge/ipv6_transparent": False}))
    firewall.client().call("apply", "haproxy", plain)
    assert "transparent" not in (firewall.root / "var/etc/haproxy/haproxy.cfg").read_text()
    firewall.address_off("gif0", firewall.tunnel)
    assert "no interface of this firewall has this address" in refused(firewall, plain, "binds")


def test_a_haproxy_without_transparent_binds_is_reported_before_anything_is_written(firewall, ipv6_site):
    (firewall.root / "usr/local/sbin/haproxy").write_text(
        '#!/bin/sh\nif [ "$1" = -c ] && grep -q transparent "$4"; then\n'
        "  echo \"[ALERT]    (1) : config : 'bind 2001:db8::1:25' unknown keyword 'transparent'\"\n"
        "  echo '[ALERT]    (1) : config : Fatal errors found'\n  exit 1\nfi\n"
        'exec /usr/sbin/haproxy "$@"\n'
    )
    (firewall.root / "usr/local/sbin/haproxy").chmod(0o755)
    assert "set ipv6_transparent: false" in refused(firewall, haproxy_set(ipv6_site()), "test")
    assert firewall.client().call("apply", "haproxy", haproxy_set(ipv6_site({"edge/ipv6_transparent": False})))["changed"]


def test_an_address_that_no_interface_has_is_refused(firewall, ipv6_site):
    wrong = ipv6_site({"edge/ipv6_address": "2001:db8::2"})
    assert "no interface of this firewall has this address" in refused(firewall, haproxy_set(wrong), "binds")
    assert "no interface of this firewall has the address 2001:db8::2" in refused(firewall, rule_set(wrong), "conflict", kind="rules")


def test_an_address_of_another_interface_is_refused_with_its_name(firewall, ipv6_site, both):
    wrong = rule_set(ipv6_site({"edge/ipv6_interface": "opt1"}))
    for verb in ("plan", "apply"):
        assert f"{firewall.tunnel} is the address of opt2, not of opt1" in refused(firewall, wrong, "conflict", verb=verb, kind="rules")


def test_a_virtual_address_belongs_to_its_interface(firewall, ipv6_site):
    virtual = "2001:470:6e:43d::25"
    vip = f"<virtualip><vip><mode>ipalias</mode><interface>opt2</interface><subnet>{virtual}</subnet></vip></virtualip>"
    firewall.edit(lambda root: root.append(ET.fromstring(vip)))
    firewall.address_on("gif0", virtual)
    site = ipv6_site({"edge/ipv6_address": virtual})
    firewall.client().call("apply", "haproxy", haproxy_set(site))
    wait(lambda: firewall.banner(25, address=virtual).startswith("220 "))
    firewall.client().call("apply", "rules", rule_set(site))
    assert f"{virtual} 25" in passes(firewall)


def test_rules_for_ipv6_are_refused_while_the_firewall_blocks_all_of_it(firewall, ipv6_site, both):
    def switch_off(root):
        root.find("system").remove(root.find("system/ipv6allow"))

    firewall.client().call("apply", "rules", rule_set(ipv6_site()))
    firewall.edit(switch_off)
    firewall.boot()
    read = firewall.client().call("read", "rules", rule_set(ipv6_site()))
    assert "the rule `Block all IPv6` blocks it first" in read["problem"]
    assert "Allow IPv6 is off" in refused(firewall, rule_set(ipv6_site()), "conflict", kind="rules")
