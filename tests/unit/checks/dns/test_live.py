"""The records against a live zone: what a first `up` would duplicate, what an edit would take away, and whose zone it is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from components.checks.dns import live as rules
from components.dns.live import COMMENT, Live
from components.dns.match import matches
from components.dns.records import records
from components.settings.site import Site
from tests.conftest import Settings

ZONE = "viktorbarzin.me"
Z = f"dns/zones/{ZONE}"
P = f"domains/{ZONE}/dns"


def zone_of(site: Site, comment: str | None = COMMENT) -> dict[str, Live]:
    """Our records as the API lists them, by key."""
    rows = {}
    for number, record in enumerate(r for r in records(site) if r.zone == ZONE):
        content = record.content.replace(" ", "\t") if record.type == "SRV" else record.content
        rows[record.key] = Live(f"{number:032x}", record.name, record.type, content, record.priority, comment=comment)
    return rows


def others(*rows: tuple[str, str, str]) -> Iterator[Live]:
    for number, (name, kind, content) in enumerate(rows):
        yield Live(f"{number + 0xF000:032x}", name, kind, content)


def said(site: Site, live: Sequence[Live] | None) -> dict[str, list[str]]:
    """The code of each rule that finds something, with what it finds."""
    found: dict[str, list[str]] = {}
    for finding in (finding for finding in rules.AREA.run(rules.LiveZone(site, ZONE, live)) if finding.level != "note"):
        found.setdefault(finding.code.removeprefix("live."), []).append(str(finding))
    return found


FOREIGN = [
    (f"www.{ZONE}", "A", "192.0.2.1"),
    (ZONE, "CNAME", "tunnel.example"),
    (ZONE, "TXT", '"proof=1"'),
    (ZONE, "NS", "ns1.example.net"),
]


def test_a_zone_with_our_records_and_those_of_others_is_as_it_should_be(site: Callable[..., Site]):
    prod = site("prod")
    assert said(prod, [*zone_of(prod).values(), *others(*FOREIGN)]) == {}


def test_an_empty_zone_and_a_zone_without_mail_are_as_they_should_be(site: Callable[..., Site]):
    assert said(site("prod"), []) == {}
    assert said(site("prod"), list(others(*FOREIGN))) == {}


def test_a_forgotten_adoption_names_every_record_and_its_id(site: Callable[..., Site]):
    prod = site("prod")
    live = zone_of(prod, comment=None)
    found = said(prod, list(live.values()))
    assert found.keys() == {"unadopted"}
    assert len(found["unadopted"]) == len(live)
    for key, row in live.items():
        assert any(f"take it over with `{key}: {row.id}`" in text for text in found["unadopted"]), key
    adopted = site("prod", {f"{Z}/adopt": {key: row.id for key, row in live.items()}})
    assert said(adopted, list(live.values())) == {}


# A live record of others, and the key of ours that it would be a rival of.
RIVALS = {
    "another SPF": ((ZONE, "TXT", '"v=spf1 include:old.example -all"'), "spf"),
    "an SPF in capitals": ((ZONE, "TXT", "V=SPF1 -all"), "spf"),
    "another DMARC": ((f"_dmarc.{ZONE}", "TXT", '"v=DMARC1; p=none"'), "dmarc"),
    "another MTA-STS": ((f"_mta-sts.{ZONE}", "TXT", '"v=STSv1; id=20260412"'), "mta-sts"),
    "another TLSRPT": ((f"_smtp._tls.{ZONE}", "TXT", '"v=TLSRPTv1; rua=mailto:a@b.example"'), "tlsrpt"),
    "another key": ((f"mail._domainkey.{ZONE}", "TXT", '"k=rsa; p=AAAA"'), "dkim-mail-db2c45a5"),
    "another mail host": ((ZONE, "MX", "mx.old.example"), "mx-mail.viktorbarzin.me"),
    "another address of a mail host": ((f"mail.{ZONE}", "A", "192.0.2.99"), "mail:a-176.12.22.76"),
    "a CNAME at a mail host": ((f"mail.{ZONE}", "CNAME", "old.example"), "mail:a-176.12.22.76"),
    "an address at a relay's selector": ((f"brevo1._domainkey.{ZONE}", "A", "192.0.2.1"), "dkim-brevo1"),
    "another target of a relay's selector": ((f"brevo1._domainkey.{ZONE}", "CNAME", "b9.example"), "dkim-brevo1"),
    "another SRV": ((f"_imaps._tcp.{ZONE}", "SRV", "1\t993\timap.old.example"), "srv-imaps"),
}


@pytest.mark.parametrize("what", RIVALS)
def test_a_rival_is_refused_before_ours_is_there_and_named_afterwards(what: str, site: Callable[..., Site]):
    prod = site("prod")
    row, key = RIVALS[what]
    (rival,) = others(row)
    first = said(prod, [rival])
    assert first.keys() == {"unadopted"}
    assert len(first["unadopted"]) == 1 and rival.id in first["unadopted"][0]
    adopted = said(site("prod", {f"{Z}/adopt": {key: rival.id}}), [rival])
    if rival.type == zone_of(prod)[key].type:
        assert f"take it over with `{key}: {rival.id}`" in first["unadopted"][0] and adopted == {}
    else:
        assert "delete it in the zone" in first["unadopted"][0] and adopted.keys() == {"adopts-another"}
    drifted = said(prod, [*zone_of(prod).values(), rival])
    assert drifted.keys() <= {"duplicated", "unadopted"}
    if "CNAME" not in (rival.type, zone_of(prod)[key].type) or rival.type == zone_of(prod)[key].type:
        assert drifted.keys() == {"duplicated"} and rival.id in drifted["duplicated"][0]


def test_no_record_beside_ours_is_a_rival_without_reason(site: Callable[..., Site]):
    harmless = [
        (ZONE, "TXT", '"v=verify1; x"'),
        (f"_dmarc.{ZONE}", "TXT", '"note"'),
        (ZONE, "CAA", '0 issue "ca.example"'),
        (ZONE, "AAAA", "2001:db8::1"),
    ]
    assert said(site("prod"), list(others(*harmless))) == {}


# A live record of others, and a key under which its id must not be adopted.
ANOTHERS = {
    "a name of others": ((f"www.{ZONE}", "TXT", '"v=spf1 -all"'), "spf"),
    "a proof": ((ZONE, "TXT", '"proof=1"'), "spf"),
    "another policy": ((f"_dmarc.{ZONE}", "TXT", '"v=DMARC1; p=none"'), "spf"),
    "an address for a mail host": ((ZONE, "A", "192.0.2.1"), "mx-mail.viktorbarzin.me"),
}


@pytest.mark.parametrize("what", ANOTHERS)
def test_a_record_that_is_something_else_is_not_overwritten(what: str, site: Callable[..., Site]):
    row, key = ANOTHERS[what]
    (other,) = others(row)
    (refusal,) = said(site("prod", {f"{Z}/adopt": {key: other.id}}), [other])["adopts-another"]
    assert refusal.startswith(f"dns.zones.{ZONE}.adopt.{key}: is the id of {row[0]} {row[1]}")


def test_a_zone_that_does_not_answer_is_refused_until_it_is_acknowledged(site: Callable[..., Site]):
    silent = rules.LiveZone(site("prod"), ZONE, None, silence="HTTP 503")
    (finding,) = rules.AREA.run(silent)
    assert (finding.level, finding.code, finding.consent) == ("error", "live.not-answered", True)
    assert "HTTP 503; try again, or acknowledge it" in str(finding)


def test_an_id_that_no_record_has_is_named(site: Callable[..., Site]):
    changed, code = site("prod", {f"{Z}/adopt": {"spf": "a" * 32, "dmarc": None}}), "[live.unknown-id]"
    assert said(changed, []) == {
        "unknown-id": [f"dns.zones.{ZONE}.adopt.spf: no live record has the id {'a' * 32}; list the zone again, or remove the entry {code}"]
    }


def test_a_zone_id_of_another_zone_is_named(site: Callable[..., Site]):
    rows = list(others(("example.net", "A", "192.0.2.1")))
    found = said(site("prod"), rows)
    assert found.keys() == {"other-zone"}
    assert "dns.zones.viktorbarzin.me.cloudflare: is the id of another zone, which holds example.net" in found["other-zone"][0]


# An edit that takes away what mail depends on, and the key of the record that would go.
REMOVALS = {
    "a mail host": ({f"{P}/mx": {"mail.viktorbarzin.me": 1}}, "mx-mx2.viktorbarzin.me"),
    "another mail host": ({f"{P}/mx": {"mail.viktorbarzin.me": 1, "mx3.viktorbarzin.me": 9}}, "mx-mx2.viktorbarzin.me"),
    "an address": ({"dns/hosts/mail.viktorbarzin.me/addresses": ["2001:470:6e:43d::2"]}, "mail:a-176.12.22.76"),
    "another address": ({"dns/hosts/mail.viktorbarzin.me/addresses": ["192.0.2.1", "2001:470:6e:43d::2"]}, "mail:a-176.12.22.76"),
}


@pytest.mark.parametrize("what", REMOVALS)
def test_what_mail_depends_on_goes_in_two_steps(what: str, site: Callable[..., Site]):
    edit, key = REMOVALS[what]
    live = list(zone_of(site("prod")).values())
    (refusal,) = said(site("prod", edit), live).pop("vanishing")
    assert f"add {key!r} to release" in refusal
    assert "vanishing" not in said(site("prod", edit | {f"{Z}/release": [key]}), live)
    assert "vanishing" in said(site("prod", edit | {"production": False}), live)
    strange = [replace(row, comment=None) if row.id == matches(records(site("prod")), live)[key].id else row for row in live]
    assert "vanishing" not in said(site("prod", edit), strange), "it is not ours"


def test_a_domain_is_not_parked_beside_its_mx(site: Callable[..., Site]):
    rows = [Live("a" * 32, "parked.example", "MX", "mail.parked.example", 10, comment=COMMENT)]
    zones = {"parked.example": {"cloudflare": "a" * 32}}
    parked = site("prod", {"dns/parked": {"parked.example": {}}, "dns/zones": zones})
    (refusal,) = [str(found) for found in rules.vanishing(rules.LiveZone(parked, "parked.example", rows))]
    assert "parked.example MX mail.parked.example is live and not in the settings" in refusal


def test_an_mx_leaves_an_enforced_policy_after_the_zone(site: Callable[..., Site]):
    enforced: Settings = {f"{P}/mta_sts/mode": "enforce", f"{P}/mta_sts/testing_since": "2026-01-01"}
    live = list(zone_of(site("prod")).values())
    fewer = enforced | {f"{P}/mx": {"mail.viktorbarzin.me": 1}, f"{Z}/release": ["*"]}
    (refusal,) = said(site("prod", fewer), live)["mx-left-policy"]
    assert refusal.startswith(f"domains.{ZONE}.dns.mta_sts.previous_mx: mx2.viktorbarzin.me is still an MX")
    assert said(site("prod", fewer | {f"{P}/mta_sts/previous_mx": ["mx2.viktorbarzin.me"]}), live) == {}
    assert said(site("prod", fewer | {f"{P}/mta_sts/mode": "testing"}), live) == {}


def test_the_plan_is_counted_in_the_zone(site: Callable[..., Site]):
    prod = site("prod")
    ours = len(zone_of(prod))
    crowd = list(others(*[(f"h{number}.{ZONE}", "A", "192.0.2.1") for number in range(201 - ours)]))
    assert said(prod, crowd[1:]) == {}
    assert said(prod, crowd).keys() == {"over-limit"}
    assert said(prod, [replace(row, comment=COMMENT) for row in crowd]).keys() == {"over-limit"}, "what another stack has in the zone"


def test_a_zone_that_cannot_be_asked_needs_a_whole_adoption_or_none(site: Callable[..., Site]):
    assert said(site("prod"), None) == {}
    partial = said(site("prod", {f"{Z}/adopt": {"spf": "a" * 32, "mx-mail.viktorbarzin.me": None}}), None)
    assert partial.keys() == {"incomplete-adoption"}
    missing = {"dmarc", "mta-sts", "mx-mx2.viktorbarzin.me"}
    assert len(partial["incomplete-adoption"]) == len(missing)
    assert all(any(f"add {key!r} with its id, or with null" in text for text in partial["incomplete-adoption"]) for key in missing)
    whole = {f"{Z}/adopt": dict.fromkeys(missing | {"mx-mail.viktorbarzin.me"}) | {"spf": "a" * 32}}
    assert said(site("prod", whole), None) == {}
