"""Hostile DNS settings: each is refused in one line that names the setting, by the settings or by a rule."""

import base64
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from components.checks.dns.resolver import Snapshot
from components.checks.dns.verify import verify
from components.errors import UserError
from components.settings.site import Site
from tests.unit.checks.dns.support import public_key

TODAY = date(2026, 11, 21)
DOMAIN = "example.org"
D, K, Z = f"domains/{DOMAIN}/dns", f"domains/{DOMAIN}/dkim", f"dns/zones/{DOMAIN}"
HOST = "dns/hosts/mail.example.org/addresses"
# No library makes one as short any more; a public key is two numbers.
KEY_512 = base64.b64encode(
    rsa.RSAPublicNumbers(65537, 2**511 + 1).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
).decode()
FOREIGN = Snapshot.model_validate(
    {
        "taken": TODAY,
        "names": {
            **{f"nest{n}.foreign.example": {"TXT": (f'"v=spf1 include:nest{n + 1}.foreign.example -all"',)} for n in range(11)},
            "alias.foreign.example": {"CNAME": ("real.foreign.example.",), "A": ("192.0.2.1",), "AAAA": ()},
            "mx.foreign.example": {"CNAME": (), "A": ("192.0.2.1",), "AAAA": ()},
        },
    }
)

# What is wrong, the settings, the code of the rule (None: the settings refuse it), and what the line must begin with or say.
HOSTILE: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "an MX that is an IPv4 address": (
        {f"{D}/mx": {"192.0.2.1": 10, "mail.example.org": 1}},
        None,
        f"domains.{DOMAIN}.dns.mx.192.0.2.1: write a full domain name",
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
    "broken punycode in an include": ({f"{D}/spf/includes": ["spf.xn--zz--zz.de"]}, "hosts.broken-punycode", "dns.spf: xn--zz--zz"),
    "broken punycode in a target": ({f"{D}/dkim_cnames": {"s1": "xn--zz--zz.de"}}, "hosts.broken-punycode", "dns.dkim_cnames: xn--zz--zz"),
    "a broken web host": ({"dns/web": {"name": "xn--zz--zz.de"}}, "hosts.broken-punycode", "dns.web.name: xn--zz--zz"),
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
    "an MX without an address": (
        {f"{D}/mx": {"mail.example.org": 1, "mx9.example.org": 2}},
        "zone.target-without-address",
        f"domains.{DOMAIN}.dns.mx: example.org MX: mx9.example.org has no address",
    ),
    "an MX that is a CNAME of ours": (
        {f"{D}/mx": {"autoconfig.example.org": 5, "mail.example.org": 1}, "dns/web": {"name": "ingress.example.net"}},
        "zone.target-is-cname",
        "autoconfig.example.org is a CNAME",
    ),
    "an MX that is the domain": (
        {f"{D}/mx": {"example.org": 1, "mail.example.org": 1}},
        "zone.target-without-address",
        "example.org has no",
    ),
    "an MX without a name": ({f"{D}/mx": {"": 1}}, None, "dns.mx"),
    "a null MX by hand": ({f"{D}/mx": {".": 0}}, None, "dns.mx"),
    "an MX of one label": ({f"{D}/mx": {"localhost": 1}}, None, "dns.mx.localhost"),
    "an MX with a trailing dot": ({f"{D}/mx": {"mail.example.org.": 1}}, None, "without a trailing dot"),
    "an MX in capitals": ({f"{D}/mx": {"Mail.example.org": 1}}, None, "in lower case"),
    "a preference in words": ({f"{D}/mx": {"mail.example.org": "ten"}}, None, "write a whole number"),
    "broadcast": ({HOST: ["255.255.255.255"]}, "hosts.unreachable-address", "255.255.255.255"),
    "reserved": ({HOST: ["240.0.0.1"]}, "hosts.unreachable-address", "240.0.0.1"),
    "this network": ({HOST: ["0.1.2.3"]}, "hosts.unreachable-address", "0.1.2.3"),
    "benchmarking": ({HOST: ["198.18.0.1"]}, "hosts.unreachable-address", "198.18.0.1"),
    "an IPv4 address as IPv6": ({HOST: ["::ffff:192.0.2.1"]}, "hosts.unreachable-address", "::ffff:"),
    "a private IPv4 address as IPv6": ({HOST: ["::ffff:10.0.0.1"]}, "hosts.unreachable-address", "::ffff:"),
    "a translated address": ({HOST: ["64:ff9b::1"]}, "hosts.unreachable-address", "64:ff9b::1"),
    "site-local": ({HOST: ["fec0::1"]}, "hosts.unreachable-address", "fec0::1"),
    "an address with a scope": ({HOST: ["fe80::1%eth0"]}, "hosts.unreachable-address", "fe80::1"),
    "loopback inside": ({"dns/hosts/mail.example.org/internal": ["127.0.0.1"]}, "hosts.unreachable-address", "internal: 127.0.0.1"),
    "a name as address": ({HOST: ["mail.example.net"]}, None, "write an IP address"),
    "no addresses": ({HOST: []}, None, "dns.hosts.mail.example.org.addresses: must not be empty"),
    "no mail hosts": ({"dns/hosts": {}}, None, "dns.hosts: must not be empty"),
    "a wildcard as reverse name": ({"dns/hosts/mail.example.org/reverse_name": "*.example.net"}, None, "reverse_name"),
    "a domain that is an address": ({"domains/192.0.2.1": {"host": "mail.example.org"}}, None, "domains.192.0.2.1"),
    "a domain with an underscore": ({"domains/a_b.example": {"host": "mail.example.org"}}, None, "domains.a_b.example"),
    "a top-level domain": ({"domains/example": {"host": "mail.example.org"}}, None, "domains.example"),
    "a parked domain with mail": ({"dns/parked/example.org": {}}, None, "dns.parked.example.org: is in domains too"),
    "a parked mail host": ({"dns/parked/mail.example.org": {}}, None, "dns.parked.mail.example.org: is a mail host too"),
    "a parked wildcard": ({"dns/parked/*.example": {}}, None, "dns.parked.*.example"),
    "eleven hosts in SPF": (
        {f"{D}/spf": {"hosts": [f"h{number}.foreign.example" for number in range(11)]}},
        "spf.too-many-lookups",
        f"domains.{DOMAIN}.dns.spf: example.org TXT (SPF)",
    ),
    "eleven includes": (
        {f"{D}/spf": {"includes": [f"h{number}.foreign.example" for number in range(11)]}},
        "spf.too-many-lookups",
        "11/10 maximum DNS lookups",
    ),
    "includes in includes": ({f"{D}/spf": {"includes": ["nest0.foreign.example"]}}, "spf.too-many-lookups", "maximum DNS lookups"),
    "an SPF that includes itself": ({f"{D}/spf": {"includes": ["example.org"]}}, "spf.invalid", f"domains.{DOMAIN}.dns.spf"),
    "an SPF that is too long": (
        {f"{D}/spf": {"addresses": [f"{net}.{number}.0/24" for net in ("192.0", "198.51") for number in range(60)]}},
        "zone.too-large",
        f"domains.{DOMAIN}.dns.spf",
    ),
    "+all": ({f"{D}/spf/all": "pass"}, None, "dns.spf.all"),
    "a host twice in SPF": ({f"{D}/spf": {"hosts": ["a.example", "a.example"]}}, None, "dns.spf.hosts: lists an entry twice"),
    "a redirect": ({f"{D}/spf/redirect": "a.example"}, None, "dns.spf.redirect: unknown setting"),
    "a key of 512 bits": ({f"{K}/0/public_key": KEY_512}, "dkim.weak-key", f"domains.{DOMAIN}.dkim: mail._domainkey.example.org"),
    "a key of 1024 bits": ({f"{K}/0/public_key": public_key(1024)}, "dkim.weak-key", "1024 bits"),
    "a key of rubbish": ({f"{K}/0/public_key": "AAAA" * 80}, "dkim.not-a-key", "p= is not a public key"),
    "a key in armour": ({f"{K}/0/public_key": "-----BEGIN PUBLIC KEY-----"}, None, "dkim.0.public_key"),
    "a selector in capitals": ({f"{K}/0/selector": "Mail"}, None, "dkim.0.selector"),
    "a selector with an underscore": ({f"{K}/0/selector": "a_b"}, None, "dkim.0.selector"),
    "a selector of ours and of the relay": (
        {f"{D}/dkim_cnames": {"mail": "x.example.net"}},
        "zone.beside-cname",
        f"domains.{DOMAIN}.dns.dkim_cnames: mail._domainkey.example.org",
    ),
    "a selector that points to itself": ({f"{D}/dkim_cnames": {"a": "a._domainkey.example.org"}}, None, "dns.dkim_cnames.a"),
    "every selector": ({f"{D}/dkim_cnames": {"*": "a.example.net"}}, None, "dns.dkim_cnames.*"),
    "a percentage": ({f"{D}/dmarc/pct": 50}, None, "dns.dmarc.pct: unknown setting"),
    "an unknown policy": ({f"{D}/dmarc/policy": "block"}, None, "dns.dmarc.policy"),
    "unknown failure options": ({f"{D}/dmarc/failure_options": "x"}, None, "dns.dmarc.failure_options"),
    "reports by HTTP": ({f"{D}/dmarc/aggregate_reports": ["http://a.example"]}, None, "aggregate_reports.0: write mailto:"),
    "reports without a scheme": ({f"{D}/tls_reports": ["a@example.org"]}, None, "tls_reports.0: write mailto:"),
    "another tag behind an address": ({f"{D}/dmarc/aggregate_reports": ["mailto:a@example.org;p=none"]}, None, "aggregate_reports.0"),
    "reports to an unknown address": (
        {f"{D}/dmarc/aggregate_reports": ["mailto:unknown@example.org"], "mail/aliases/@example.org": ...},
        "reports.no-mailbox",
        f"domains.{DOMAIN}.dns.dmarc: unknown@example.org: is asked to take reports",
    ),
    "a policy with hosts of its own": ({f"{D}/mta_sts/mx": ["a.example"]}, None, "dns.mta_sts.mx: unknown setting"),
    "enforced without a test": ({f"{D}/mta_sts/mode": "enforce"}, "mta-sts.untested", f"domains.{DOMAIN}.dns.mta_sts: enforce was never"),
    "enforced after ten days": (
        {f"{D}/mta_sts/mode": "enforce", f"{D}/mta_sts/testing_since": "2026-11-11"},
        "mta-sts.untested",
        "watched for 10 days only",
    ),
    "tested in the future": (
        {f"{D}/mta_sts/mode": "enforce", f"{D}/mta_sts/testing_since": "2027-01-01"},
        "mta-sts.untested",
        f"domains.{DOMAIN}.dns.mta_sts",
    ),
    "a policy of a minute": ({f"{D}/mta_sts/max_age": 60}, "mta-sts.short-lived", "max_age of 60 s"),
    "a policy of a negative time": ({f"{D}/mta_sts/max_age": -1}, None, "mta_sts.max_age"),
    "another host's certificate": (
        {f"{D}/autoconfig": {"secret": "a", "names": ["www.example.org"]}},
        "mta-sts.certificate",
        f"domains.{DOMAIN}.dns.autoconfig.names: no name in the certificate of Secret a covers autoconfig.example.org",
    ),
    "a CNAME beside an MX": (
        {"domains/autoconfig.example.org": {"host": "mail.example.org"}, "dns/web": {"name": "ingress.example.net"}},
        "zone.beside-cname",
        "dns.web: autoconfig.example.org CNAME: is beside MX",
    ),
    "a web host by name and address": ({"dns/web": {"name": "a.example", "addresses": ["192.0.2.1"]}}, None, "dns.web.addresses"),
    "a web host without either": ({"dns/web": {}}, None, "dns.web.addresses: set exactly one"),
    "a tunnel past the proxy": ({"dns/web": {"name": "x.cfargotunnel.com"}}, None, "dns.web.proxied"),
    "an address as name": ({"dns/web": {"name": "192.0.2.1"}}, None, "dns.web.name"),
    "a login in front of the policy": ({"dns/policy_server/middlewares": ["auth-login@kubernetescrd"]}, None, "middlewares.0: 'auth'"),
    "no pods": ({"dns/policy_server/replicas": 0}, None, "dns.policy_server.replicas"),
    "no authority's name": ({f"{D}/caa": [{"tag": "issue", "value": ""}]}, None, "dns.caa.0.value"),
    "an authority twice": ({f"{D}/caa": [{"tag": "issue", "value": "letsencrypt.org"}] * 2}, "zone.duplicate", f"domains.{DOMAIN}.dns.caa"),
    "a quote in an authority": ({f"{D}/caa": [{"tag": "issue", "value": 'a.example" x'}]}, "caa.not-an-authority", "dns.caa"),
    "a DKIM key as proof": ({f"{D}/verification": ["v=DKIM1; p=abc"]}, "hosts.proof-is-record", "dkim"),
    "a TLSRPT as proof": ({f"{D}/verification": ["v=TLSRPTv1; rua=mailto:a@b.example"]}, "hosts.proof-is-record", "tls_reports"),
    "an empty proof": ({f"{D}/verification": [""]}, None, "dns.verification.0"),
    "a proof of two lines": ({f"{D}/verification": ["a\nb"]}, None, "dns.verification.0"),
    "a proof twice": ({f"{D}/verification": ["a=1", "a=1"]}, None, "dns.verification: lists an entry twice"),
    "fifty long proofs": ({f"{D}/verification": [f"{n}-{'x' * 200}" for n in range(50)]}, "zone.too-large", f"domains.{DOMAIN}.dns.verif"),
    "an unknown service": ({f"{D}/srv": ["pop3s"]}, None, "dns.srv.0: write one of"),
    "a service twice": ({f"{D}/srv": ["imaps", "imaps"]}, None, "dns.srv: lists an entry twice"),
    "a TTL of a second": ({"dns/ttl": 1}, None, "dns.ttl"),
    "a TTL of two days": ({"dns/ttl": 172_800}, None, "dns.ttl"),
    "a word as zone id": ({f"{Z}/cloudflare": "example"}, None, f"dns.zones.{DOMAIN}.cloudflare: write an id as Cloudflare shows it"),
    "a zone id in capitals": ({f"{Z}/cloudflare": "A" * 32}, None, f"dns.zones.{DOMAIN}.cloudflare"),
    "a zone id of zeros": ({f"{Z}/cloudflare": "0" * 32}, None, f"dns.zones.{DOMAIN}.cloudflare: is a placeholder"),
    "a top-level zone": ({"dns/zones/org": {}}, None, "dns.zones.org"),
    "a zone without a domain": ({"dns/zones/example.edu": {}}, None, "dns.zones.example.edu: no domain and no mail host"),
    "a key that no record has": ({f"{Z}/adopt": {"nokey": "a" * 32}}, "zone.adopts-nothing", f"dns.zones.{DOMAIN}.adopt"),
    "one id for two keys": ({f"{Z}/adopt": {"spf": "a" * 32, "dmarc": "a" * 32}}, None, f"dns.zones.{DOMAIN}.adopt.dmarc"),
    "an id cut short": ({f"{Z}/adopt": {"spf": "a" * 31}}, None, f"dns.zones.{DOMAIN}.adopt.spf"),
    "a plan without records": ({f"{Z}/record_limit": 0}, None, f"dns.zones.{DOMAIN}.record_limit"),
    "a plan that is too small": ({Z: {"cloudflare": "a" * 32, "record_limit": 5}}, "zone.full", f"dns.zones.{DOMAIN}"),
    "fewer than no other records": ({f"{Z}/other_records": -1}, None, f"dns.zones.{DOMAIN}.other_records"),
    "a TLSA without a digest": ({"dns/hosts/mail.example.org/tlsa": ["AB" * 32]}, None, "tlsa"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_is_refused_in_a_line_that_names_the_setting(what: str, site: Callable[..., Site]):
    changes, code, expected = HOSTILE[what]
    try:
        hostile = site("dev", changes)
    except UserError as refusal:
        (line,) = [line for line in str(refusal).splitlines() if expected in line]
        assert code is None and line.startswith(("domains.", "dns.")), refusal
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
