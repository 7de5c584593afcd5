"""Rules for any record."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from components.checks.dns.verify import verify
from components.dns.content import txt
from components.dns.records import records
from components.settings.site import Site
from tests.unit.checks.dns.support import (
    OTHERS,
    PROD,
    TODAY,
    Case,
    D,
    doubted,
    live,
    published,
    refused,
    said,
)

CASES: dict[str, Case] = {
    "MX without address": refused("mx3.example.net has no address", {f"{D}/mx": {"mx3.example.net": 10}}),
    "own and relay's key under one selector": refused(
        "a CNAME must be alone at its name", {f"{D}/dkim_cnames": {"mail": "b1.example.net"}}
    ),
    "too many records": refused("are more than the 200 that the plan allows", {f"dns/zones/{PROD}/other_records": 184}),
    "adoption of nothing": refused("there is no record 'nothing'", {f"dns/zones/{PROD}/adopt": {"nothing": "0" * 32}}),
    "no protection": doubted("'*' takes the protection off 10 records; remove it after the `up`", {f"dns/zones/{PROD}/release": ["*"]}),
    "a release of nothing": doubted("'nothing' is not the key of a protected record", {f"dns/zones/{PROD}/release": ["nothing"]}),
    "nearly full zone": doubted("199 of 200 records are used", {f"dns/zones/{PROD}/other_records": 178}),
    "many proofs": doubted("keep it below 512; drop proofs", {f"{D}/verification": [f"proof-{n}={'x' * 60}" for n in range(8)]}),
    "far too many proofs": doubted("needs TCP", {f"{D}/verification": [f"proof-{n}={'x' * 60}" for n in range(18)]}),
    "mail host elsewhere": doubted(
        "mx.example.net is outside our zones", {f"{D}/mx": {"mx.example.net": 10}, "dns/hosts/mx.example.net": {"addresses": ["192.0.2.1"]}}
    ),
    "no MX": published("is missing; mail would go to the name's own address", without="MX"),
    "MX to a CNAME": published(
        "is a CNAME, which an MX or SRV must not point to",
        (f"mail.{PROD}", "CNAME", "elsewhere.example.net"),
        without="mail:a-176.12.22.76",
    ),
    "two CNAMEs": published("points to several names", (f"brevo1._domainkey.{PROD}", "CNAME", "b9.example.net")),
    "CNAME at the apex": published("the zone's own name has SOA and NS", (PROD, "CNAME", "www.example.net")),
    "the same record twice": published("is listed 2 times", (PROD, "TXT", '"v=spf1 include:spf.brevo.com ~all"')),
    "upper case": published("the name is stored as www.viktorbarzin.me", (f"Www.{PROD}", "A", "192.0.2.1")),
    "trailing dot": published("the content is stored as b1.example.net;", (f"s._domainkey.{PROD}", "CNAME", "b1.example.net.")),
    "an invalid address": published("cannot be stored", (f"x.{PROD}", "A", "999.1.1.1")),
    "unquoted text": published('the content is stored as "proof=1"', (PROD, "TXT", "proof=1")),
    "null MX beside another": published("a null MX must be the only MX", (PROD, "MX", ".")),
    "a record that Cloudflare refuses": published("Cloudflare accepts 2048 and 8192", (f"big.{PROD}", "TXT", txt("x" * 2100))),
}


@pytest.mark.parametrize("what", CASES)
def test_a_rule_finds_it(what: str, site: Callable[..., Site]):
    CASES[what].check(site)


def test_two_records_with_one_key_are_refused(site: Callable[..., Site]):
    prod = site("prod")
    found = live(prod)
    found[0] = replace(found[0], key="spf")
    assert any("two records have the key 'spf'" in text for text in said(verify(prod, OTHERS, TODAY, found=found), error=True))


def test_a_proxied_mail_host_is_refused(site: Callable[..., Site]):
    prod = site("prod")
    found = [replace(record, proxied=True) if record.key.startswith("mail:a-") else record for record in records(prod)]
    assert any("the proxy does not speak SMTP" in text for text in said(verify(prod, OTHERS, TODAY, found=found), error=True))
