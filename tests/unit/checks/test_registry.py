"""One way to run and to print all rules: codes, acknowledgements, what is grouped and what is refused."""

import json
from pathlib import Path

import pytest

from components.checks import registry
from components.checks.finding import Finding
from components.checks.registry import Refused, every_area, judge, lines, read_site, refuse
from components.errors import UserError
from tests.conftest import change, settings

CODES = Path(__file__).parent / "codes.txt"
RULES = [rule for area in every_area() for rule in area.rules]


def test_codes_are_unique_and_stable():
    """Sites acknowledge codes and alerts name them: a renamed code is a decision, made by editing the list."""
    codes = [rule.code for rule in RULES]
    assert len(set(codes)) == len(codes)
    assert sorted(codes) == CODES.read_text("utf-8").split()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_rule_says_what_it_means(rule):
    assert rule.meaning.endswith(".")


def test_production_shows_what_its_owner_has_to_decide_and_nothing_else(site, monkeypatch):
    monkeypatch.delenv("CLOUDFLARE_API_TOKEN", raising=False)
    shown = [finding.code for finding in judge(site("prod")) if not finding.acknowledged]
    assert shown == [
        "mail.image-not-pinned",
        "mail.shadowed-by-catch-all",
        "jobs.image-not-pinned",
        "jobs.image-not-pinned",
        "jobs.image-not-pinned",
        "jobs.image-not-pinned",
        "webmail.image-not-pinned",
        "zone.nearly-full",
        "hosts.partial-internal-view",
        "spf.softfail",
        "snapshot.unknown-names",
        "cluster.no-uid",
        "live.not-asked",
    ]


def test_a_finding_names_setting_remedy_source_and_code():
    finding = Finding("warning", "a.b", "mail.srs", "is off", "set it", "RFC 1")
    assert str(finding) == "mail.srs: is off; set it (RFC 1) [a.b]"
    assert str(Finding("note", "a.b", "", "holds")) == "holds [a.b]"


def test_many_warnings_of_a_kind_are_one_line_and_errors_are_not():
    def said(level):
        return [line for _, line in lines(Finding(level, "a.b", f"domains.d{n}", "is odd") for n in range(100))]

    assert said("warning") == ["domains.d0: is odd [a.b] (also domains.d1, domains.d2, domains.d3, domains.d4, domains.d5, and 94 more)"]
    assert len(said("error")) == 100
    assert len(list(lines(Finding("warning", "a.b", f"domains.d{n}", "is odd") for n in range(2)))) == 2


def test_what_is_acknowledged_is_shown_in_one_line_with_its_reasons(site):
    reasons = {"mail.no-relay": "port 25 is open", "bans.none": "later"}
    said = [line for _, line in lines(judge(site("dev", {"acknowledged": reasons})))]
    assert [line for line in said if "mail.no-relay" in line or "bans.none" in line] == [
        "acknowledged: mail.no-relay (port 25 is open); bans.none (later)"
    ]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("mail.nothing", "acknowledged.unknown-code"),
        ("mail.forwards-without-srs", "acknowledged.not-found"),
        ("spf.softfail", "acknowledged.not-found"),
        ("mail.memory-limit", "acknowledged.error"),
    ],
)
def test_an_acknowledgement_of_nothing_is_a_warning(site, code, said):
    findings = judge(site("dev", {"acknowledged": {code: "because"}}))
    assert [(finding.level, finding.code) for finding in findings if finding.setting == f"acknowledged.{code}"] == [("warning", said)]


def test_an_error_stays_one_whatever_is_acknowledged():
    base = change(settings("prod"), "acknowledged/mail.memory-limit", "because")
    change(base, "mail/resources", {"memory_limit": "256Mi"})
    with pytest.raises(Refused, match=r"\[mail.memory-limit\]"):
        read_site(json.dumps(base))


def test_production_admits_the_pod_network_only_with_consent():
    base = settings("prod")
    read_site(json.dumps(base))
    del base["acknowledged"]["cluster.pod-network-admitted"]
    with pytest.raises(Refused, match=r"cluster.nodes: no tunnel_address .* \[cluster.pod-network-admitted\]$"):
        read_site(json.dumps(base))


def test_a_reason_is_not_empty():
    with pytest.raises(Refused) as refused:
        read_site(json.dumps(change(settings("dev"), "acknowledged", {"mail.no-relay": ""})))
    assert [(finding.code, finding.setting) for finding in refused.value.findings] == [("settings.invalid", "acknowledged.mail.no-relay")]


def test_each_kind_of_wrong_value_has_its_code():
    base = change(settings("dev"), "mial", {})
    change(base, "tls/secret", ...)
    change(base, "mail/relay", {"host": "x"})
    with pytest.raises(Refused) as refused:
        read_site(json.dumps(base))
    assert {(finding.code, finding.setting) for finding in refused.value.findings} == {
        ("settings.unknown", "mial"),
        ("settings.missing", "tls.secret"),
        ("settings.invalid", "mail.relay.host"),
    }


def test_warnings_do_not_refuse():
    refuse([Finding("warning", "a.b", "c", "d"), Finding("note", "a.b", "c", "d"), Finding("error", "a.b", "c", "d", acknowledged="e")])
    with pytest.raises(Refused):
        refuse([Finding("error", "a.b", "c", "d")])


def test_a_snapshot_that_cannot_be_read_is_refused_in_one_line(site, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "SNAPSHOT", tmp_path / "dns.json")
    registry.SNAPSHOT.write_text("<<<<<<< HEAD")
    with pytest.raises(UserError, match=r"/dns\.json: is not a valid snapshot; .*make dns-snapshot`$"):
        judge(site("prod"))
