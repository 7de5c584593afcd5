"""The verification as a whole: the sites as they are pass, and each rule has a case that it finds."""

from collections.abc import Callable

from components.checks.dns.resolver import Snapshot
from components.checks.dns.verify import AREAS, verify
from components.dns.content import txt_value
from components.dns.records import Record, records
from components.settings.site import Site
from tests.unit.checks.dns import test_dkim, test_dmarc, test_mta_sts, test_reports, test_spf, test_zone
from tests.unit.checks.dns.support import (
    OTHERS,
    PROD,
    TODAY,
    said,
)

# Rules that need another stack, another snapshot, or other options of a record: each has a test of its own in its area's file.
OWN_TEST = {
    *("spf.rejects-own-mail", "spf.own-mail-doubtful", "dkim.test-mode", "dmarc.public-suffix", "snapshot.unknown-names", "snapshot.stale"),
    *("dkim.unpublished", "reports.dubious-tls-record", "zone.string-too-long", "zone.same-key", "zone.proxied-mail-host"),
    "mta-sts.not-served",
}
HOSTILE = {"hosts", "caa"}  # areas whose cases are in test_hostile.py


def test_every_rule_has_a_case(site: Callable[..., Site]):
    areas = (test_dkim, test_dmarc, test_mta_sts, test_reports, test_spf, test_zone)
    found = {finding.code for area in areas for case in area.CASES.values() for finding in case.findings(site)}
    rules = {rule.code for area in AREAS if area.name not in HOSTILE for rule in area.rules}
    assert rules - found - OWN_TEST == set()


def test_the_site_of_the_owner_passes(site: Callable[..., Site]):
    findings = verify(site("prod"), OTHERS, TODAY)
    assert said(findings, error=True) == []
    assert [finding.code for finding in findings if finding.level != "error"] == [
        "zone.nearly-full",  # 192 of 200
        "hosts.partial-internal-view",
        "spf.softfail",  # until the relay is proven
        "dmarc.dubious",  # more than two addresses for failure reports
    ]


def test_the_example_passes_without_a_snapshot(site: Callable[..., Site]):
    assert said(verify(site("dev"), Snapshot(), TODAY), error=True) == []


def test_the_historical_records_of_the_owner_are_named(site: Callable[..., Site]):
    """What was live in August 2026, before this program: each fault of it."""
    prod = site("prod")
    key = next(record for record in records(prod) if record.key.startswith("dkim-mail-"))
    reports = "mailto:dmarc@viktorbarzin.me,mailto:adb84997@inbox.ondmarc.com"
    historical = [
        (
            f"_dmarc.{PROD}",
            "TXT",
            f'"v=DMARC1; p=quarantine; pct=100; fo=1; ri=3600; sp=quarantine; adkim=r; aspf=r; rua={reports}; ruf={reports};"',
        ),
        (f"mail._domainkey.{PROD}", "TXT", f'"{txt_value(key.content)}"'),
        (f"_mta-sts.{PROD}", "TXT", '"v=STSv1; id=20260412"'),
        (f"brevo1._domainkey.{PROD}", "CNAME", "b1.viktorbarzin-me.dkim.brevo.com."),
    ]
    replaced = {name for name, _, _ in historical}
    found = [record for record in records(prod) if record.name not in replaced]
    found += [Record(PROD, f"live-{n}", *row) for n, row in enumerate(historical)]
    findings = verify(prod, OTHERS, TODAY, found=found)
    errors, doubts = said(findings, error=True), said(findings, error=False)
    for expected in (
        "one string of 420 octets, where 255 is the limit",
        "id=20260412 is not that of the policy",
        "the content is stored as b1.viktorbarzin-me.dkim.brevo.com;",
    ):
        assert any(expected in text for text in errors), (expected, errors)
    for expected in ("Support for the pct tag was removed in RFC 9989", "Support for the ri tag was removed in RFC 9989"):
        assert any(expected in text for text in doubts), (expected, doubts)
