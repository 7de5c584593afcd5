"""Rules for DMARC."""

from collections.abc import Callable, Sequence

import pytest

from components.checks.dns.verify import verify
from components.dns.records import Record, records
from components.settings.site import Site
from tests.unit.checks.dns.support import (
    OTHERS,
    PROD,
    TODAY,
    Case,
    D,
    K,
    doubted,
    published,
    refused,
    said,
)

CASES: dict[str, Case] = {
    "policy without any signature": refused("nothing signs for viktorbarzin.me", {f"{K}": [], f"{D}/dkim_cnames": {}}),
    "no DMARC": doubted("_dmarc.viktorbarzin.me TXT (DMARC): is missing", {f"{D}/dmarc": None}),
    "no signature, delivered directly": doubted(
        "nothing signs for viktorbarzin.me, so every message that is forwarded fails",
        {f"{K}": [], f"{D}/dkim_cnames": {}, "mail/relay": None},
    ),
    "two DMARC records": published("2 records; receivers then use none", (f"_dmarc.{PROD}", "TXT", '"v=DMARC1; p=none"')),
    "DMARC at the wrong name": published("where no receiver looks", (PROD, "TXT", '"v=DMARC1; p=none"')),
    "invalid DMARC policy": published("Tag p must have one of", (f"_dmarc.{PROD}", "TXT", '"v=DMARC1; p=block"'), without="dmarc"),
}


@pytest.mark.parametrize("what", CASES)
def test_a_rule_finds_it(what: str, site: Callable[..., Site]):
    CASES[what].check(site)


def test_a_report_address_that_did_not_agree_is_named(site: Callable[..., Site]):
    refused = OTHERS.model_copy(update={"names": OTHERS.names | {"viktorbarzin.me._report._dmarc.inbox.ondmarc.com": {"TXT": ()}}})
    doubts = said(verify(site("prod"), refused, TODAY), error=False)
    assert any("inbox.ondmarc.com does not indicate that it accepts DMARC reports about viktorbarzin.me" in text for text in doubts)


def test_reports_between_our_own_domains_are_agreed_to(site: Callable[..., Site]):
    dev = site("dev")
    ours = [record for record in records(dev) if record.key != "reports-of-example.com"]
    assert len(ours) == len(records(dev)) - 1

    def refused(found: Sequence[Record]) -> bool:
        return any(
            "does not indicate that it accepts DMARC reports about example.com" in f.text for f in verify(dev, OTHERS, TODAY, found=found)
        )

    assert not refused(records(dev))
    assert refused(ours)


def test_a_domain_under_which_others_register_is_doubtful(site: Callable[..., Site]):
    prod = site("prod", {"domains/co.uk": {"host": f"mail.{PROD}"}, "primary_domain": PROD})
    assert any("co.uk is a public suffix" in text for text in said(verify(prod, OTHERS, TODAY), error=False))
