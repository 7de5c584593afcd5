"""What a failed engine's messages about DNS records become."""

import json
from pathlib import Path

import pytest

from tools.plan import errors, read_plan

URN = "urn:pulumi:prod::mailserver::mailserver:dns:Dns$cloudflare:index/dnsRecord:DnsRecord::example.org/mx-mail.example.org"
IDENTICAL = 'POST "https://api.example/zones/0/dns_records": 400 Bad Request {"errors":[{"code":81058,"message":"An identical record"}]}'


@pytest.fixture
def told(tmp_path: Path):
    def run(*messages: str, severity: str = "error", urn: str = URN, cut_off: str = "") -> list[str]:
        events = [{"sequence": 1, "diagnosticEvent": {"urn": urn, "message": text, "severity": severity}} for text in messages]
        (tmp_path / "log").write_text("".join(json.dumps(event) + "\n" for event in events) + cut_off)
        return list(errors(read_plan(tmp_path / "log")))

    return run


def test_a_refusal_of_the_api_becomes_one_line_with_what_to_do(told):
    assert told(IDENTICAL, IDENTICAL) == [
        "dns.zones.example.org.adopt: the same record is in the zone already; take it over by its id (docs/dns.md), or delete it "
        "[example.org/mx-mail.example.org]"
    ]


def test_protection_points_to_the_setting_that_releases(told):
    text = f'resource "{URN}" cannot be deleted\nbecause it is marked for protection. To unprotect it, use `pulumi state unprotect`'
    (line,) = told(text, urn="")
    assert line.startswith("dns.zones.example.org.release: 'mx-mail.example.org' is protected")


def test_other_errors_keep_the_engines_words(told):
    foreign = "urn:pulumi:prod::mailserver::kubernetes:core/v1:Service::mail"
    assert told("81058", urn=foreign) == ["Service/mail: 81058"]
    assert told(IDENTICAL, severity="info") == []
    assert told("Duplicate 810581", cut_off='{"diagnosticEvent": {') == ["DnsRecord/example.org/mx-mail.example.org: Duplicate 810581"]
