"""Hostile DNS settings: each is refused in one line that names the setting, by the settings or by a rule."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from components.checks.dns.resolver import Snapshot
from components.checks.dns.verify import verify
from components.errors import UserError
from components.settings.site import Site

TODAY = date(2026, 11, 21)
DOMAIN = "example.org"
D = f"domains/{DOMAIN}/dns"
HOST = "dns/hosts/mail.example.org/addresses"
FOREIGN = Snapshot.model_validate(
    {
        "taken": TODAY,
        "names": {
            "alias.foreign.example": {"CNAME": ("real.foreign.example.",), "A": ("192.0.2.1",), "AAAA": ()},
            "mx.foreign.example": {"CNAME": (), "A": ("192.0.2.1",), "AAAA": ()},
        },
    }
)

# What is wrong, the settings, the code of the rule (None: the settings refuse it), and what the line must begin with or say.
HOSTILE: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "an MX that is an IPv4 address": (
        {f"{D}/mx": {"192.0.2.1": 10, "mail.example.org": 1}},
        "hosts.mx-is-address",
        f"domains.{DOMAIN}.dns.mx: 192.0.2.1 is an address",
    ),
    "an MX that is an IPv6 address": ({f"{D}/mx": {"2001:db8::1": 10}}, None, "dns.mx"),
    "an MX that is a foreign CNAME": (
        {f"{D}/mx": {"alias.foreign.example": 10, "mail.example.org": 1}},
        "hosts.mx-is-foreign-cname",
        "alias.foreign.example is a CNAME of real.foreign.example",
    ),
    "an MX list without the own host": (
        {f"{D}/mx": {"mx.foreign.example": 10}},
        "hosts.mx-without-own-host",
        f"domains.{DOMAIN}.dns.mx: does not list mail.example.org",
    ),
    "a wildcard host": ({"dns/hosts/*.example.org": {"addresses": ["192.0.2.1"]}}, None, "dns.hosts"),
    "an underscore": ({f"{D}/mx": {"a_b.example.org": 1}}, None, "dns.mx"),
    "an empty label": ({f"{D}/mx": {"mail..example.org": 1}}, None, "dns.mx"),
    "a label of 64": ({f"{D}/mx": {f"{'a' * 64}.example.org": 1}}, None, "dns.mx"),
    "a preference below 0": ({f"{D}/mx": {"mail.example.org": -1}}, None, "dns.mx"),
    "a preference above 65535": ({f"{D}/mx": {"mail.example.org": 65536}}, None, "dns.mx"),
    "loopback": ({HOST: ["127.0.0.1"]}, "hosts.unreachable-address", "dns.hosts.mail.example.org.addresses: 127.0.0.1"),
    "IPv6 loopback": ({HOST: ["::1"]}, "hosts.unreachable-address", "::1"),
    "link-local": ({HOST: ["fe80::1"]}, "hosts.unreachable-address", "fe80::1"),
    "IPv4 link-local": ({HOST: ["169.254.1.1"]}, "hosts.unreachable-address", "169.254.1.1"),
    "multicast": ({HOST: ["224.0.0.1"]}, "hosts.unreachable-address", "224.0.0.1"),
    "no address": ({HOST: ["0.0.0.0"]}, "hosts.unreachable-address", "0.0.0.0"),
    "private": ({HOST: ["10.0.20.1"]}, "hosts.private-address", "dns.hosts.mail.example.org.addresses: 10.0.20.1 is private"),
    "carrier-grade NAT": ({HOST: ["100.64.0.1"]}, "hosts.private-address", "100.64.0.1"),
    "unique local": ({HOST: ["fd00::1"]}, "hosts.private-address", "fd00::1"),
    "a private web host": ({"dns/web": {"addresses": ["192.168.1.1"]}}, "hosts.private-address", "dns.web.addresses: 192.168.1.1"),
    "an address with a prefix": ({HOST: ["192.0.2.1/24"]}, None, "addresses"),
    "an address with leading zeros": ({HOST: ["192.0.02.1"]}, None, "addresses"),
    "an address twice, spelt otherwise": ({HOST: ["2001:db8::1", "2001:0db8::1"]}, None, "addresses"),
    "everybody in SPF": (
        {f"{D}/spf": {"addresses": ["0.0.0.0/0"]}},
        "hosts.spf-too-wide",
        f"domains.{DOMAIN}.dns.spf.addresses: 0.0.0.0/0",
    ),
    "half of everybody": ({f"{D}/spf": {"addresses": ["0.0.0.0/1", "128.0.0.0/1"]}}, "hosts.spf-too-wide", "128.0.0.0/1"),
    "everybody over IPv6": ({f"{D}/spf": {"addresses": ["::/0"]}}, "hosts.spf-too-wide", "::/0"),
    "a network with host bits": ({f"{D}/spf": {"addresses": ["192.0.2.1/24"]}}, None, "dns.spf.addresses"),
    "an include that is an address": ({f"{D}/spf": {"includes": ["192.0.2.1/32"]}}, None, "dns.spf.includes"),
    "a URL as authority": (
        {f"{D}/caa": [{"tag": "issue", "value": "https://letsencrypt.org"}]},
        "caa.not-an-authority",
        f"domains.{DOMAIN}.dns.caa: issue",
    ),
    "a word as authority": ({f"{D}/caa": [{"tag": "issue", "value": "letsencrypt"}]}, "caa.not-an-authority", "'letsencrypt'"),
    "an invalid contact": ({f"{D}/caa": [{"tag": "iodef", "value": "nonsense"}]}, "caa.not-a-contact", "iodef 'nonsense'"),
    "no authority may issue": ({f"{D}/caa": [{"tag": "issue", "value": ";"}]}, "caa.forbids-certificate", "mta-sts.example.org"),
    "another authority than the issuer's": (
        {f"{D}/caa": [{"tag": "issue", "value": "ca.example"}]},
        "caa.forbids-certificate",
        "by letsencrypt.org again",
    ),
    "no wildcards, and one in use": (
        {f"{D}/caa": [{"tag": "issue", "value": "letsencrypt.org"}, {"tag": "issuewild", "value": ";"}], "tls/names": ["*.example.org"]},
        "caa.forbids-certificate",
        "*.example.org",
    ),
    "an account for reports": (
        {f"{D}/caa": [{"tag": "iodef", "value": "mailto:a@b.example", "account": "https://a.example/1"}]},
        "caa.account-of-none",
        "iodef has an account",
    ),
    "an account with a blank": ({f"{D}/caa": [{"tag": "issue", "value": "letsencrypt.org", "account": "https://a b"}]}, None, "caa"),
    "a tag of one's own": ({f"{D}/caa": [{"tag": "issuer", "value": "letsencrypt.org"}]}, None, "caa"),
    "a CNAME to itself": ({"dns/web": {"name": "mta-sts.example.org"}}, "hosts.cname-to-itself", "dns.web"),
    "broken punycode": ({"dns/parked/xn--zz--zz.de": {}}, "hosts.broken-punycode", "dns.parked.xn--zz--zz.de: xn--zz--zz"),
    "raw international name": ({"dns/parked/bücher.example": {}}, None, "dns.parked"),
    "an SPF as proof": (
        {f"{D}/verification": ["v=spf1 -all"]},
        "hosts.proof-is-record",
        f"domains.{DOMAIN}.dns.verification: 'v=spf1 -all'",
    ),
    "an MTA-STS as proof": ({f"{D}/verification": ["v=STSv1; id=1"]}, "hosts.proof-is-record", "mta_sts"),
    "a DMARC as proof": ({f"{D}/verification": ["V=DMARC1;p=none"]}, "hosts.proof-is-record", "dmarc"),
    "a trailing blank": ({f"{D}/verification": ["code=1 "]}, "hosts.proof-with-blanks", "'code=1 '"),
    "a page without an address": ({"dns/web": None, f"{D}/mta_sts": None}, "hosts.unreachable-page", "dns.web: is not set, so auto"),
    "one id for two zones": (
        {"dns/zones": {"example.org": {"cloudflare": "a" * 32}, "example.net": {"cloudflare": "a" * 32}}},
        None,
        "dns.zones.example.net.cloudflare: is the id of example.org too",
    ),
    "a tab": ({f"{D}/verification": ["code=\t1"]}, None, "verification"),
    "a very long proof": ({f"{D}/verification": ["x" * 3000]}, "zone.too-large", "3012 octets"),
    "TLSA without DNSSEC": (
        {"dns/hosts/mail.example.org/tlsa": ["ab" * 32]},
        "hosts.tlsa-without-dnssec",
        "dns.hosts.mail.example.org.tlsa",
    ),
    "a TLSA without a digest": ({"dns/hosts/mail.example.org/tlsa": ["AB" * 32]}, None, "tlsa"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_is_refused_in_a_line_that_names_the_setting(what: str, site: Callable[..., Site]):
    changes, code, expected = HOSTILE[what]
    try:
        hostile = site("dev", changes)
    except UserError as refusal:
        assert code is None and expected in str(refusal), refusal
        return
    errors = [finding for finding in verify(hostile, FOREIGN, TODAY) if finding.level == "error"]
    found = [str(error) for error in errors if error.code == code]
    assert any(expected in text for text in found), [str(error) for error in errors]
    for text in found:
        assert "\n" not in text
        assert text.startswith(("domains.", "dns.")), text


def test_names_and_addresses_that_are_meant_pass(site: Callable[..., Site]):
    fine = {
        f"{D}/mx": {"mail.example.org": 1, "mx.foreign.example": 10},
        "dns/hosts/mx.foreign.example": {"addresses": ["192.0.2.9"]},
        f"{D}/caa": [{"tag": "issue", "value": "letsencrypt.org; validationmethods=dns-01"}, {"tag": "issuewild", "value": ";"}],
        f"{D}/verification": ["v=verify; x"],
        "dns/parked/xn--bcher-kva.example": {},
        f"{D}/spf": {"mx": True, "addresses": ["192.0.2.0/24"]},
    }
    codes = [f.code for f in verify(site("dev", fine), FOREIGN, TODAY) if f.level == "error"]
    assert codes == []
