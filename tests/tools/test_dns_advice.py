"""What the engine's messages about DNS records become."""

from tools.dns_advice import dns_advice
from tools.plan import Plan, errors

URN = "urn:pulumi:prod::mailserver::mailserver:dns:Dns$cloudflare:index/dnsRecord:DnsRecord::example.org/mx-mail.example.org"
IDENTICAL = 'POST "https://api.example/zones/0/dns_records": 400 Bad Request {"errors":[{"code":81058,"message":"An identical record"}]}'


def test_a_refusal_of_the_api_becomes_one_line_with_what_to_do():
    (line,) = errors(Plan((), ((URN, IDENTICAL), (URN, IDENTICAL))), {})
    assert line == (
        "dns.zones.example.org.adopt: the same record is in the zone already; take it over by its id (docs/dns.md), or delete it "
        "[example.org/mx-mail.example.org]"
    )


def test_protection_points_to_the_setting_that_releases():
    text = f'resource "{URN}" cannot be deleted\nbecause it is protected. To unprotect the resource, …'
    (line,) = errors(Plan((), (("", text),)), {})
    assert line.startswith("dns.zones.example.org.release: 'mx-mail.example.org' is protected")


def test_a_refusal_of_our_own_comes_without_the_engines_words():
    (line,) = errors(Plan((), ((URN, 'Preview failed: before hook "dns-created-once" failed: dns.zones.example.org.adopt: 81058\n'),)), {})
    assert line == "dns.zones.example.org.adopt: 81058"


def test_everything_else_is_left_to_the_engine():
    assert dns_advice("urn:pulumi:prod::mailserver::kubernetes:core/v1:Service::mail", "81058") is None
    assert dns_advice(URN, "code 810581") is None
