"""Whole zones as text, and what independent readers make of them."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import dns.zone
import pytest

from components.dns.records import Record, internal_records, records, zone_of, zones
from components.dns.zonefile import rdata, zone_text
from components.settings.site import Site
from tests.conftest import Settings
from tools.offline.dns_view import zone_files

ZONES = Path(__file__).parent / "zones"

# Everything that neither stack has: a mail domain inside another's zone, a tunnel, CAA, a code that has to be escaped, a rotation.
FULL: Settings = {
    "domains/mail.example.org": {"host": "mail.example.org", "dns": {"srv": None, "spf": {"includes": ["spf.example.net"]}, "dmarc": None}},
    "domains/example.org/dns/caa": [
        {"tag": "issue", "value": "ca.example"},
        {"tag": "iodef", "value": "mailto:a@example.org", "critical": True},
    ],
    "domains/example.org/dns/verification": ['odd="\\"quoted\\""', "odd=second", "other:1"],
    "domains/example.org/dns/dkim_cnames": {"relay1": "key.relay.example"},
    "domains/example.org/dns/srv": {"submission": True},
    "domains/example.org/dns/mx": {"mx2.example.org": 20, "mail.example.org": 5},
    "dns/hosts/mx2.example.org": {"addresses": ["192.0.2.26", "192.0.2.27"]},
    "dns/web": {"name": "1234.tunnel.example", "proxied": True, "internal": ["198.51.100.80"]},
    "dns/ttl": 3600,
}
SITES = {"prod": ("prod", {}), "dev": ("dev", {}), "full": ("dev", FULL)}


@pytest.fixture(params=SITES)
def case(request: pytest.FixtureRequest, site: Callable[..., Site]) -> tuple[str, Site]:
    stack, changes = SITES[request.param]
    return request.param, site(stack, changes)


def test_the_zones_are_those_on_file(case: tuple[str, Site]):
    name, site = case
    folder = ZONES / name
    written = {Path(path).name: text for path, text in zone_files(site)}
    assert written == {path.name: path.read_text("utf-8") for path in folder.iterdir()}


def test_named_checkzone_takes_every_zone(case: tuple[str, Site], tmp_path: Path):
    if shutil.which("named-checkzone") is None:
        pytest.skip("named-checkzone (bind9-utils) is not installed")
    for path, text in zone_files(case[1]):
        file = tmp_path / "zone"
        file.write_text(text, "utf-8")
        origin = Path(path).name.removesuffix(".zone").removesuffix(".internal")
        # Local checks only: the rest would ask DNS for other people's names.
        check = subprocess.run(
            ["named-checkzone", "-i", "local", "-k", "fail", origin, str(file)], capture_output=True, text=True, check=False
        )
        assert check.returncode == 0, check.stdout
        # Beside ours; the apex has no address of its own, and needs none.
        assert "warning" not in check.stdout, check.stdout


def _read_back(zone: str, text: str) -> set[tuple[str, str, str]]:
    parsed = dns.zone.from_text(text, origin=zone, relativize=False)
    found = set()
    for name, _, data in parsed.iterate_rdatas():
        kind = dns.rdatatype.to_text(data.rdtype)
        if kind not in {"SOA", "NS"}:
            found.add((name.to_text(omit_final_dot=True), kind, data.to_text()))
    return found


def test_a_parser_reads_back_every_record_and_no_other(case: tuple[str, Site]):
    _, site = case
    for found in (records(site), internal_records(site)):
        for zone in zones(site):
            expected = {(record.name, record.type, rdata(record)) for record in found if record.zone == zone}
            if found:
                assert _read_back(zone, zone_text(zone, found, None)) == expected


def test_an_internal_view_is_complete_and_differs_in_addresses_only(site: Callable[..., Site]):
    prod = site("prod")

    def rest(found: tuple[Record, ...]) -> list[Record]:
        return [record for record in found if record.type not in {"A", "AAAA"}]

    public, internal = records(prod), internal_records(prod)
    assert rest(public) == rest(internal)
    assert {record.name for record in public} == {record.name for record in internal}
    inside = {record.name: record.content for record in internal if record.type == "A"}
    assert inside == {"mail.viktorbarzin.me": "10.0.20.1", "mx2.viktorbarzin.me": "92.5.132.215", "mta-sts.viktorbarzin.me": "10.0.20.203"}


def test_without_internal_addresses_there_is_no_internal_view(site: Callable[..., Site]):
    assert internal_records(site("dev", {"dns/hosts/mail.example.org/internal": []})) == ()


def test_without_dns_there_are_no_records(site: Callable[..., Site]):
    without = site("dev", {"dns": None})
    assert (records(without), zones(without), list(zone_files(without))) == ((), {}, [])


def test_a_name_belongs_to_the_closest_zone(site: Callable[..., Site]):
    known = zones(site("dev"))
    assert zone_of("a.b.example.org", known) == "example.org"
    assert zone_of("example.organic", known) is None
    nested = zones(site("dev", {"dns/zones": {"mail.example.org": {}}}))
    assert zone_of("mail.example.org", nested) == "mail.example.org"
    assert zone_of("_tcp.mail.example.org", nested) == "mail.example.org"


def test_keys_stay_when_contents_and_order_change(site: Callable[..., Site]):
    before = [record.key for record in records(site("prod"))]
    changes = {
        "domains/viktorbarzin.me/dns/mx": {"mx2.viktorbarzin.me": 5, "mail.viktorbarzin.me": 10},
        "domains/viktorbarzin.me/dns/spf": {"mx": True},
        "domains/viktorbarzin.me/dns/mta_sts/max_age": 1_209_600,
        "dns/hosts/mail.viktorbarzin.me/addresses": ["192.0.2.1", "2001:db8::1"],
    }
    assert sorted(record.key for record in records(site("prod", changes))) == sorted(before)


def test_another_key_under_an_old_selector_is_another_record(site: Callable[..., Site]):
    def keys(public_key: str) -> set[str]:
        changed = site("prod", {"domains/viktorbarzin.me/dkim/0/public_key": public_key})
        return {record.key for record in records(changed) if record.name.startswith("mail._domainkey")}

    whole = records(site("prod"))
    value = next(record for record in whole if record.name.startswith("mail._domainkey"))
    short = "".join(value.content.split('"')).partition("p=")[2].replace(" ", "")
    assert keys(short) == {value.key}, "the same key, written as p= alone"
    assert keys("A" * 44).isdisjoint({value.key})
