"""What a failed engine's messages about DNS records become."""

import json

from tools.commands.advice import advice

URN = "urn:pulumi:prod::mailserver::mailserver:dns:Dns$cloudflare:index/dnsRecord:DnsRecord::example.org/mx-mail.example.org"


def log(*messages: str, severity: str = "error", urn: str = URN) -> list[str]:
    return [json.dumps({"sequence": 1, "diagnosticEvent": {"urn": urn, "message": text, "severity": severity}}) for text in messages]


IDENTICAL = 'POST "https://api.example/zones/0/dns_records": 400 Bad Request {"errors":[{"code":81058,"message":"An identical record"}]}'


def test_a_refusal_of_the_api_becomes_one_line_with_what_to_do():
    (line,) = advice(log(IDENTICAL, IDENTICAL))
    assert line == (
        "dns.zones.example.org.adopt: the same record is in the zone already; take it over by its id (docs/dns.md), or delete it "
        "[example.org/mx-mail.example.org]"
    )


def test_protection_leads_to_the_setting_that_releases():
    text = f'resource "{URN}" cannot be deleted\nbecause it is marked for protection. To unprotect it, use `pulumi state unprotect`'
    (line,) = advice(log(text, urn=""))
    assert line.startswith("dns.zones.example.org.release: 'mx-mail.example.org' is protected")


def test_everything_else_is_left_to_the_engine():
    foreign = "urn:pulumi:prod::mailserver::kubernetes:core/v1:Service::mail"
    assert list(advice([*log("81058", urn=foreign), *log(IDENTICAL, severity="info"), *log("Duplicate 810581"), "{", "[]", "null"])) == []
