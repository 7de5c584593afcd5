"""Whatever else is on the firewall stays, through every operation: random neighbours of ours."""

import copy
import xml.etree.ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.edge.desired import haproxy_set, rule_set

pytestmark = pytest.mark.contract

OURS = ("mailserver", "NAT mailserver")

# The alias's name in a field that holds no references is not one.
texts = st.just("mailserver") | st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1, max_size=12
)
names = st.from_regex(r"[a-z][a-zA-Z0-9_]{1,15}", fullmatch=True).map(lambda name: f"x{name}")
fields = st.dictionaries(
    st.sampled_from(["descr", "forwardfor", "httpclose", "stats_uri", "updated_by", "labels", "zz_new"]), texts, max_size=4
)
frontends = st.lists(st.tuples(names, fields, st.booleans()), max_size=5, unique_by=lambda item: item[0])
pools = st.lists(st.tuples(names, fields), max_size=5, unique_by=lambda item: item[0])
rules = st.lists(st.tuples(names, fields.map(lambda f: {k: v for k, v in f.items() if k != "descr"}), st.integers(1, 24)), max_size=5)


def element(tag: str, values: dict[str, str]) -> ET.Element:
    made = ET.Element(tag)
    for field, text in values.items():
        ET.SubElement(made, field).text = text
    return made


def foreign(root: ET.Element) -> dict[str, list[str]]:
    """Everything that is not ours, in order, as text."""
    root = copy.deepcopy(root)
    root.remove(root.find("revision"))
    for path in ("nat", "filter", "aliases", "installedpackages/haproxy/ha_pools", "installedpackages/haproxy/ha_backends"):
        place = root.find(path)
        for item in list(place):
            if (item.findtext("descr") or "").startswith(OURS) or (item.findtext("name") or "").startswith("mailserver"):
                place.remove(item)
    return [ET.canonicalize(ET.tostring(part), strip_text=True) for part in root]


@pytest.fixture
def firewall(make_firewall):
    """Up to 2.8, a character outside of ASCII in most fields makes the core lose what it wrote (test_faults.py)."""
    return make_firewall(core="master")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(frontends=frontends, pools=pools, rules=rules)
def test_neighbours_survive_every_operation(firewall, edge_site, frontends, pools, rules):
    def neighbours(root):
        haproxy = root.find("installedpackages/haproxy")
        for name, extra, active in frontends:
            port = str(21000 + len(haproxy.find("ha_backends")))
            item = element("item", {"name": name, "status": "active" if active else "disabled", "type": "http", **extra})
            bind = element("item", {"extaddr": "custom", "extaddr_custom": firewall.address, "extaddr_port": port, "_index": ""})
            ET.SubElement(item, "a_extaddr").append(bind)
            haproxy.find("ha_backends").append(item)
        for name, extra in pools:
            haproxy.find("ha_pools").append(element("item", {"name": name, **extra}))
        for name, extra, port in rules:
            item = element(
                "rule", {"interface": "wan", "protocol": "tcp", "target": "192.0.2.7", "local-port": "1", "descr": name, **extra}
            )
            item.append(element("destination", {"network": "wanip", "port": str(port)}))
            root.find("nat").insert(1, item)
            root.find("filter").insert(0, element("rule", {"interface": "lan", "descr": name, **extra}))

    firewall.new_configuration()  # an example that failed must not colour the next
    firewall.edit(neighbours)
    firewall.boot()
    legacy = {"edge/legacy": {"address": "10.0.20.210"}, "edge/target": "legacy", "edge/test_frontend": True}
    client = firewall.client()
    # The first write makes the firewall's own form of the file; from then on not a byte of what is foreign may change.
    client.call("apply", "haproxy", haproxy_set(edge_site(legacy)))
    before = foreign(firewall.config().getroot())
    for kind, make, changes in (
        ("rules", rule_set, legacy),
        ("haproxy", haproxy_set, {}),
        ("rules", rule_set, {}),
        ("rules", rule_set, {"edge/remove_legacy_alias": True}),
    ):
        client.call("apply", kind, make(edge_site(changes)))
        assert foreign(firewall.config().getroot()) == before
    for kind, make in (("rules", rule_set), ("haproxy", haproxy_set)):
        client.call("delete", kind, make(edge_site()))
        assert foreign(firewall.config().getroot()) == before
