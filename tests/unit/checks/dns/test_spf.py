"""Rules for SPF."""

from collections.abc import Callable

import pytest

from components.checks.dns.verify import verify
from components.dns.content import txt
from components.settings.site import Site
from tests.conftest import Settings
from tests.unit.checks.dns.support import DEV, OTHERS, PROD, TODAY, Case, D, doubted, held, published, refused, said

CASES: dict[str, Case] = {
    "eleven lookups": refused("11/10 maximum DNS lookups", {f"{D}/spf": {"includes": [f"i{n}.example.net" for n in range(11)]}}),
    "softfail": doubted("~all does not reject forgeries", {}),
    "relay that SPF does not name": doubted(
        "leaves through smtp-relay.brevo.com, which the record does not name", {f"{D}/spf": {"mx": True}}
    ),
    "two SPF records": published("2 records begin with v=spf1", (PROD, "TXT", '"v=spf1 -all"')),
    "no SPF record": published("0 records begin with v=spf1", without="spf"),
    "the whole world": published("+all lets anyone on the Internet send", (PROD, "TXT", '"v=spf1 +all"'), without="spf"),
    "the whole world, unsaid": published("+all lets anyone on the Internet send", (PROD, "TXT", '"v=spf1 all"'), without="spf"),
    "ptr": published("ptr is slow and unreliable", (PROD, "TXT", '"v=spf1 ptr -all"'), without="spf"),
    "invalid SPF": published("999.1.1.1 is not a valid", (PROD, "TXT", '"v=spf1 ip4:999.1.1.1 -all"'), without="spf"),
}


@pytest.mark.parametrize("what", CASES)
def test_a_rule_finds_it(what: str, site: Callable[..., Site]):
    CASES[what].check(site)


def test_ten_lookups_pass(site: Callable[..., Site]):
    ten = {f"i{n}.example.net": {"TXT": ['"v=spf1 ip4:192.0.2.1 -all"']} for n in range(10)}
    findings = verify(site("prod", {f"{D}/spf": {"mx": False, "includes": list(ten)}}), held(ten), TODAY)
    assert not any("SPF" in text for text in said(findings, error=True))


def test_lookups_of_an_include_count(site: Callable[..., Site]):
    nested = {f"i{n}.example.net": {"TXT": ['"v=spf1 ip4:192.0.2.1 -all"']} for n in range(10)}
    nested["all.example.net"] = {"TXT": [txt(f"v=spf1 {' '.join(f'include:{name}' for name in nested)} -all")]}
    findings = verify(site("prod", {f"{D}/spf": {"mx": False, "includes": ["all.example.net"]}}), held(nested), TODAY)
    assert any("11/10 maximum DNS lookups" in text for text in said(findings, error=True))


def test_three_void_lookups_are_refused_and_two_are_not(site: Callable[..., Site]):
    def errors(count: int) -> list[str]:
        hosts = [f"gone{n}.example.net" for n in range(count)]
        nothing = held({host: {"A": [], "AAAA": []} for host in hosts})
        findings = verify(site("prod", {f"{D}/spf": {"mx": False, "hosts": hosts, "addresses": ["192.0.2.1"]}}), nothing, TODAY)
        return [text for text in said(findings, error=True) if "SPF" in text]

    assert errors(2) == []
    assert any("3/2 maximum void DNS lookups" in text for text in errors(3))


def test_an_include_that_does_not_exist_is_refused(site: Callable[..., Site]):
    findings = verify(site("prod"), held({"spf.brevo.com": {"TXT": []}}), TODAY)
    assert any("spf.brevo.com has no SPF record" in text for text in said(findings, error=True))


@pytest.mark.parametrize(
    ("spf", "code"),
    [
        ({"mx": True}, None),
        ({"addresses": ["192.0.2.0/24", "2001:db8::/32"]}, None),
        ({"mx": False, "hosts": ["mail.example.org"]}, None),
        ({"mx": False, "includes": ["covers.example.net"]}, None),
        ({"mx": False, "includes": ["spf.brevo.com"]}, "spf.rejects-own-mail"),
        ({"mx": False}, "spf.rejects-own-mail"),
        ({"mx": False, "addresses": ["192.0.2.25"]}, "spf.rejects-own-mail"),  # and IPv6?
        ({"mx": False, "includes": ["spf.brevo.com"], "all": "softfail"}, "spf.own-mail-doubtful"),
        ({"mx": False, "includes": ["spf.example.edu"]}, "spf.own-mail-doubtful"),
    ],
)
def test_spf_passes_the_address_that_mail_leaves_from(site: Callable[..., Site], spf: Settings, code: str | None):
    """Without a relay that is the mail host's own; the example's has 192.0.2.25 and 2001:db8::25."""
    known = {
        "spf.brevo.com": {"TXT": ['"v=spf1 ip4:198.51.100.0/24 ~all"']},
        "covers.example.net": {"TXT": ['"v=spf1 ip4:192.0.2.0/25 ip6:2001:db8::/64 ~all"']},
    }
    findings = verify(site("dev", {f"domains/{DEV}/dns/spf": spf}), held(known), TODAY)
    own = {finding.code for finding in findings if DEV in finding.setting and "own-mail" in finding.code}
    assert own == ({code} if code else set())


def test_spf_of_a_site_with_a_relay_is_not_held_against_its_own_address(site: Callable[..., Site]):
    relayed = {"mail/relay": {"host": "smtp.example.com"}, f"domains/{DEV}/dns/spf": {"mx": False, "includes": ["spf.brevo.com"]}}
    assert not any("own-mail" in finding.code for finding in verify(site("dev", relayed), OTHERS, TODAY))
