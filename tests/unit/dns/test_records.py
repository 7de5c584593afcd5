"""Whole zones as text, and what independent readers make of them."""

import itertools
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dns.zone
import pytest

from components.dns.records import Record, internal_records, records, zone_of, zones
from components.dns.zonefile import rdata, serial, zone_text
from components.settings.site import Site
from tests.conftest import Settings
from tools.offline.dns_view import zone_files

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ZONES = Path(__file__).parent / "zones"

# Everything that neither stack has: a mail domain inside another's zone, a tunnel, CAA, a code that has to be escaped, a rotation.
FULL: Settings = {
    "domains/mail.example.org": {
        "host": "mail.example.org",
        "dns": {"srv": [], "spf": {"mx": False, "includes": ["spf.example.net"]}, "dmarc": None},
    },
    "domains/example.org/dns/caa": [
        {"tag": "issue", "value": "ca.example", "account": "https://acme.ca.example/acct/1"},
        {"tag": "iodef", "value": "mailto:a@example.org", "critical": True},
    ],
    "domains/example.org/dns/verification": ['odd="\\"quoted\\""', "odd=second", "other:1"],
    "domains/example.org/dns/dkim_cnames": {"relay1": "key.relay.example"},
    "domains/example.org/dns/srv": ["submissions", "imaps", "submission"],
    "domains/example.org/dns/mx": {"mx2.example.org": 20, "mail.example.org": 5},
    "dns/hosts/mx2.example.org": {"addresses": ["192.0.2.26", "192.0.2.27"]},
    "dns/web": {"name": "1234.tunnel.example", "proxied": True, "internal": ["198.51.100.80"]},
    "dns/hosts/mail.example.org/tlsa": ["0123456789abcdef" * 4],
    "dns/zones": {"example.org": {"dnssec": True}},
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
    written = {Path(path).name: text for path, text in zone_files(site, NOW)}
    assert written == {path.name: path.read_text("utf-8") for path in folder.iterdir()}


def test_named_checkzone_takes_every_zone(case: tuple[str, Site], tmp_path: Path):
    if shutil.which("named-checkzone") is None:
        pytest.skip("named-checkzone (bind9-utils) is not installed")
    for path, text in zone_files(case[1], NOW):
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
                assert _read_back(zone, zone_text(zone, found, None, NOW, ("a comment",))) == expected


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
    assert (records(without), zones(without), list(zone_files(without, NOW))) == ((), {}, [])


def test_a_name_belongs_to_the_closest_zone(site: Callable[..., Site]):
    known = zones(site("dev"))
    assert zone_of("a.b.example.org", known) == "example.org"
    assert zone_of("example.organic", known) is None
    nested = zones(site("dev", {"dns/zones": {"mail.example.org": {}}}))
    assert zone_of("mail.example.org", nested) == "mail.example.org"
    assert zone_of("_tcp.mail.example.org", nested) == "mail.example.org"


P = "domains/viktorbarzin.me/dns"


def by_key(site: Site) -> dict[str, Record]:
    return {record.key: record for record in records(site)}


def test_a_role_keeps_its_key_whatever_it_says(site: Callable[..., Site]):
    changes = {
        f"{P}/mx": {"mx2.viktorbarzin.me": 5, "mail.viktorbarzin.me": 10},
        f"{P}/spf": {"mx": True},
        f"{P}/mta_sts/max_age": 1_209_600,
    }
    before, after = by_key(site("prod")), by_key(site("prod", changes))
    assert before.keys() == after.keys()
    assert {key for key in before if before[key] != after[key]} == {
        "mx-mail.viktorbarzin.me",
        "mx-mx2.viktorbarzin.me",
        "spf",
        "mail:spf",
        "mta-sts",
    }


MORE: Settings = {
    "dns/hosts/mail.viktorbarzin.me/addresses": ["192.0.2.1", "192.0.2.2", "2001:db8::1"],
    "dns/web/addresses": ["192.0.2.81", "192.0.2.82", "2001:db8::80"],
    f"{P}/verification": ["code=one", "code=two", "other:three"],
    f"{P}/caa": [
        {"tag": "issue", "value": "one.example"},
        {"tag": "issue", "value": "two.example"},
        {"tag": "iodef", "value": "mailto:a@b.example"},
    ],
}
# The setting, and the records that it makes.
LISTS = {"dns/hosts/mail.viktorbarzin.me/addresses": "mail:a", f"{P}/verification": "verification-", f"{P}/caa": "caa-"}


@pytest.mark.parametrize("setting", LISTS)
def test_what_a_record_of_several_says_is_in_its_key(setting: str, site: Callable[..., Site]):
    """An edit of a list then never makes one record say what another still says, which Cloudflare refuses (81058)."""
    start = MORE[setting]
    before = by_key(site("prod", MORE))
    edits = {"first removed": start[1:], "swapped": start[::-1], "a new one in front": [*start[2:], *start[:2]], "two removed": start[:1]}
    for what, value in edits.items():
        after = by_key(site("prod", MORE | {setting: value}))
        assert {key: record.content for key, record in after.items() if key.startswith(LISTS[setting])}.items() <= {
            key: record.content for key, record in before.items()
        }.items(), what
        assert len([key for key in after if key.startswith(LISTS[setting])]) == len(value), what


def test_addresses_in_another_order_are_the_same_records(site: Callable[..., Site]):
    backwards = {setting: value[::-1] for setting, value in MORE.items() if setting.startswith("dns/")}

    def records_of(changes: Settings) -> list[tuple[str, str, str | None]]:
        return [(record.key, record.content, record.unit) for record in records(site("prod", MORE | changes))]

    assert records_of({}) == records_of(backwards)


def test_the_records_of_a_web_host_are_one_unit_of_either_kind(site: Callable[..., Site]):
    def units(changes: Settings) -> dict[str, tuple[str, str | None]]:
        return {key: (record.type, record.unit) for key, record in by_key(site("prod", changes)).items() if record.unit}

    assert units(MORE) == {
        "mta-sts-web": ("A", "mta-sts-web"),
        "mta-sts-a-192.0.2.82": ("A", "mta-sts-web"),
        "mta-sts-aaaa-2001-db8--80": ("AAAA", "mta-sts-web"),
    }
    assert units({"dns/web": {"name": "ingress.example.net"}}) == {"mta-sts-web": ("CNAME", "mta-sts-web")}


def test_what_mail_depends_on_is_marked(site: Callable[..., Site]):
    marked = {key for key, record in by_key(site("prod")).items() if record.carries_mail and not key.startswith("dkim-mail-")}
    assert marked == {
        "mail:a-176.12.22.76",
        "mail:aaaa-2001-470-6e-43d--2",
        "mx2:a-92.5.132.215",
        "mx-mail.viktorbarzin.me",
        "mx-mx2.viktorbarzin.me",
        "spf",
        "dmarc",
        "dkim-brevo1",
        "dkim-brevo2",
    }
    assert not any(record.carries_mail for record in records(site("dev")) if record.name.endswith("example.com"))


def test_keys_of_earlier_versions_are_known(site: Callable[..., Site]):
    """As the first releases wrote them; what is live under these moves and is not made again."""
    found = by_key(site("prod", MORE | {"domains/viktorbarzin.me/dns/verification": ["code=one", "code=two", "other:three"]}))
    assert {record.former: key for key, record in found.items() if record.former} == {
        "mail:a": "mail:a-192.0.2.1",
        "mail:a-2": "mail:a-192.0.2.2",
        "mail:aaaa": "mail:aaaa-2001-db8--1",
        "mx2:a": "mx2:a-92.5.132.215",
        "mta-sts-a": "mta-sts-web",
        "mta-sts-a-2": "mta-sts-a-192.0.2.82",
        "mta-sts-aaaa": "mta-sts-aaaa-2001-db8--80",
        "verification-code": "verification-code-6e8c97c6",
        "verification-code-2": "verification-code-2dd19762",
        "verification-other": "verification-other-f77ee0bd",
        "caa-1": "caa-issue-fa4a8e45",
        "caa-2": "caa-issue-7539f28b",
        "caa-3": "caa-iodef-a64b150e",
    }


def test_another_key_under_an_old_selector_is_another_record(site: Callable[..., Site]):
    def keys(public_key: str) -> set[str]:
        changed = site("prod", {"domains/viktorbarzin.me/dkim/0/public_key": public_key})
        return {record.key for record in records(changed) if record.name.startswith("mail._domainkey")}

    whole = records(site("prod"))
    value = next(record for record in whole if record.name.startswith("mail._domainkey"))
    short = "".join(value.content.split('"')).partition("p=")[2].replace(" ", "")
    assert keys(short) == {value.key}, "the same key, written as p= alone"
    assert keys("A" * 44).isdisjoint({value.key})


def test_a_serial_grows_and_is_newer_than_any_that_a_server_may_have():
    """As servers compare them (RFC 1982 section 3.2): newer by less than half the circle."""

    def newer(one: int, other: int) -> bool:
        return 0 < (one - other) % 2**32 < 2**31

    serials = [serial(NOW + timedelta(minutes=minutes)) for minutes in (0, 1, 60, 60 * 24 * 365 * 50)]
    assert all(newer(later, sooner) for sooner, later in itertools.pairwise(serials))
    assert all(newer(serials[0], before) for before in (1, 2026112199, 2099123199))
