"""Rules for reports: TLSRPT, and who gets them."""

from collections.abc import Callable

import pytest

from components.checks.dns.verify import verify
from components.settings.site import Site
from tests.conftest import Settings
from tests.unit.checks.dns.support import OTHERS, PROD, TODAY, Case, D, doubted, live, published, refused, said

CASES: dict[str, Case] = {
    "reports to an address that takes no mail": refused(
        ": nobody@viktorbarzin.me: is asked to take reports, but is neither a mailbox nor an alias",
        {f"{D}/tls_reports": ["mailto:nobody@viktorbarzin.me"], "mail/aliases": {}},
    ),
    "no TLS reports": doubted("_smtp._tls.viktorbarzin.me TXT (TLSRPT): is missing", {f"{D}/tls_reports": []}),
    "two TLSRPT records": published("reporters then send nothing", (f"_smtp._tls.{PROD}", "TXT", '"v=TLSRPTv1; rua=mailto:a@b.example"')),
    "TLSRPT without address": published("_smtp._tls.viktorbarzin.me", (f"_smtp._tls.{PROD}", "TXT", '"v=TLSRPTv1;"'), without="tlsrpt"),
}


@pytest.mark.parametrize("what", CASES)
def test_a_rule_finds_it(what: str, site: Callable[..., Site]):
    CASES[what].check(site)


def test_reports_that_retention_deletes_are_doubtful(site: Callable[..., Site]):
    def doubts(changes: Settings) -> list[str]:
        return [f.setting for f in verify(site("prod", changes), OTHERS, TODAY) if f.code == "reports.deleted-by-retention"]

    assert doubts({}) == ["domains.viktorbarzin.me.dns.dmarc: dmarc@viktorbarzin.me"], "and postmaster@ is an alias to another mailbox"
    assert doubts({"jobs/retention": None}) == []
    elsewhere = [{"mailbox": "docs@viktorbarzin.me", "kind": "automated", "days": 14}]
    assert doubts({"jobs/retention/rules": elsewhere}) == []


def test_reports_may_go_to_an_alias_of_the_secret_store(site: Callable[..., Site]):
    changes = {"mail/aliases": {}, "dns/external_report_addresses": ["dmarc@viktorbarzin.me", "postmaster@viktorbarzin.me"]}
    assert said(verify(site("prod", changes), OTHERS, TODAY), error=True) == []


def test_a_tls_report_record_with_an_unknown_tag_is_doubtful(site: Callable[..., Site]):
    prod = site("prod")
    found = live(prod, (f"_smtp._tls.{PROD}", "TXT", '"v=TLSRPTv1; rua=mailto:postmaster@viktorbarzin.me; x=1"'), without="tlsrpt")
    assert "reports.dubious-tls-record" in {finding.code for finding in verify(prod, OTHERS, TODAY, found=found)}
