"""Rules for MTA-STS."""

from collections.abc import Callable

import pytest

from components.checks.dns.verify import verify
from components.settings.site import Site
from tests.unit.checks.dns.support import (
    OTHERS,
    PROD,
    TODAY,
    Case,
    D,
    ago,
    doubted,
    live,
    published,
    refused,
    said,
)

CASES: dict[str, Case] = {
    "policy that lives too short": refused("max_age of 600 s protects no one", {f"{D}/mta_sts/max_age": 600}),
    "enforce at once": refused("enforce was never tested", {f"{D}/mta_sts/mode": "enforce"}),
    "enforce after a week": refused(
        "testing was watched for 7 days only", {f"{D}/mta_sts/mode": "enforce", f"{D}/mta_sts/testing_since": ago(7)}
    ),
    "enforce without reports": refused(
        "enforce without TLS reports", {f"{D}/mta_sts/mode": "enforce", f"{D}/mta_sts/testing_since": ago(90), f"{D}/tls_reports": []}
    ),
    "policy host without address": refused("dns.web: gives mta-sts.viktorbarzin.me no address", {"dns/web": None}),
    "policy host without certificate": refused("no name in the certificate of Secret tls", {f"{D}/mta_sts/certificate": {"secret": "tls"}}),
    "certificate for one label less": refused(
        "no name in the certificate of Secret tls", {f"{D}/mta_sts/certificate": {"secret": "tls", "names": ["*.me", "viktorbarzin.me"]}}
    ),
    "short enforcement": doubted(
        "max_age of 7 days is short for enforce", {f"{D}/mta_sts/mode": "enforce", f"{D}/mta_sts/testing_since": ago(28)}
    ),
    "enforcement with a foreign MX": doubted(
        "mx2.viktorbarzin.me is run elsewhere; make sure", {f"{D}/mta_sts/mode": "enforce", f"{D}/mta_sts/testing_since": ago(28)}
    ),
    "two MTA-STS records": published("senders then act as if there were none", (f"_mta-sts.{PROD}", "TXT", '"v=STSv1; id=1"')),
    "no MTA-STS record": published("no sender asks for the policy", without="mta-sts"),
    "MTA-STS id of another policy": published(
        "id=20260412 is not that of the policy", (f"_mta-sts.{PROD}", "TXT", '"v=STSv1; id=20260412"'), without="mta-sts"
    ),
    "invalid MTA-STS id": published(
        "_mta-sts.viktorbarzin.me", (f"_mta-sts.{PROD}", "TXT", '"v=STSv1; id=not-allowed"'), without="mta-sts"
    ),
    "MX that the policy does not name": published("does not name mail.example.net", (PROD, "MX", "mail.example.net")),
}


@pytest.mark.parametrize("what", CASES)
def test_a_rule_finds_it(what: str, site: Callable[..., Site]):
    CASES[what].check(site)


def test_a_record_for_a_policy_that_is_not_served_is_refused(site: Callable[..., Site]):
    bare = site("prod", {f"{D}/mta_sts": None})
    found = live(bare, (f"_mta-sts.{PROD}", "TXT", '"v=STSv1; id=20260412"'))
    assert any("announces a policy that nothing serves" in text for text in said(verify(bare, OTHERS, TODAY, found=found), error=True))
