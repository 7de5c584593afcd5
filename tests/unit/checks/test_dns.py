"""The verification: each rule refuses or warns of what it is there for, and the sites as they are pass."""

import base64
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from components.checks.dns.resolver import Snapshot
from components.checks.dns.verify import AREAS, verify
from components.checks.finding import Finding
from components.dns.content import txt, txt_value
from components.dns.records import Record, records
from components.settings.site import Site
from tests.conftest import Settings

TODAY = date(2026, 11, 21)
PROD, DEV = "viktorbarzin.me", "example.org"


def ago(days: int) -> str:
    return (TODAY - timedelta(days=days)).isoformat()


def public_key(bits: int) -> str:
    return encoded(rsa.generate_private_key(65537, bits))


def encoded(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch):
    """Opening a socket fails the test."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the verification asked the network")

    for function in ("socket", "create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, function, refuse)


def held(names: dict[str, dict[str, list[str]]], taken: date = TODAY) -> Snapshot:
    return Snapshot.model_validate(
        {"taken": taken, "names": {name: {k: tuple(v) for k, v in kinds.items()} for name, kinds in names.items()}}
    )


OTHERS = held(
    {
        "spf.brevo.com": {"TXT": ['"v=spf1 ip4:192.0.2.0/24 ~all"']},
        "viktorbarzin.me._report._dmarc.inbox.ondmarc.com": {"TXT": ['"v=DMARC1"']},
        "*._report._dmarc.inbox.ondmarc.com": {"TXT": []},
        "inbox.ondmarc.com": {"MX": ["10 mx.example.net."]},
    }
)


def said(findings: list[Finding], *, error: bool) -> list[str]:
    return [str(finding) for finding in findings if (finding.level == "error") is error]


def test_the_site_of_the_owner_passes(site: Callable[..., Site]):
    findings = verify(site("prod"), OTHERS, TODAY)
    assert said(findings, error=True) == []
    assert [finding.code for finding in findings if finding.level != "error"] == [
        "zone.nearly-full",  # 192 of 200
        "hosts.partial-internal-view",
        "spf.softfail",  # until the relay is proven
        "dmarc.dubious",  # more than two addresses for failure reports
        "reports.deleted-by-retention",
        "reports.in-catch-all",
    ]


def test_the_example_passes_without_a_snapshot(site: Callable[..., Site]):
    assert said(verify(site("dev"), Snapshot(), TODAY), error=True) == []


D = f"domains/{PROD}/dns"
K = f"domains/{PROD}/dkim"
KEY = {"selector": "mail", "public_key": public_key(2048)}
OLD = {"selector": "old", "public_key": public_key(2048)}

# Each case: what is wrong, the settings that make it so, and what the refusal must say.
REFUSALS: dict[str, tuple[Settings, str]] = {
    "eleven lookups": ({f"{D}/spf": {"includes": [f"i{n}.example.net" for n in range(11)]}}, "11/10 maximum DNS lookups"),
    "weak RSA key": ({f"{K}/0/public_key": public_key(1024)}, "has 1024 bits; sign with 2048 (RFC 8301"),
    "no key at all in p=": ({f"{K}/0/public_key": "A" * 64}, "p= is not a public key"),
    "not an RSA key": ({f"{K}/0/public_key": encoded(ec.generate_private_key(ec.SECP256R1()))}, "p= is not an RSA key"),
    "policy without any signature": ({f"{K}": [], f"{D}/dkim_cnames": {}}, "nothing signs for viktorbarzin.me"),
    "MX without address": ({f"{D}/mx": {"mx3.example.net": 10}}, "mx3.example.net has no address"),
    "own and relay's key under one selector": ({f"{D}/dkim_cnames": {"mail": "b1.example.net"}}, "a CNAME must be alone at its name"),
    "too many records": ({f"dns/zones/{PROD}/other_records": 184}, "are more than the 200 that the plan allows"),
    "adoption of nothing": ({f"dns/zones/{PROD}/adopt": {"nothing": "0" * 32}}, "there is no record 'nothing'"),
    "policy that lives too short": ({f"{D}/mta_sts/max_age": 600}, "max_age of 600 s protects no one"),
    "enforce at once": ({f"{D}/mta_sts/mode": "enforce"}, "enforce was never tested"),
    "enforce after a week": (
        {f"{D}/mta_sts/mode": "enforce", f"{D}/mta_sts/testing_since": ago(7)},
        "testing was watched for 7 days only",
    ),
    "enforce without reports": (
        {f"{D}/mta_sts/mode": "enforce", f"{D}/mta_sts/testing_since": ago(90), f"{D}/tls_reports": []},
        "enforce without TLS reports",
    ),
    "policy host without address": ({"dns/web": None}, "mta-sts.viktorbarzin.me: has no address"),
    "policy host without certificate": ({f"{D}/mta_sts/certificate": {"secret": "tls"}}, "no name in the certificate of Secret tls"),
    "certificate for one label less": (
        {f"{D}/mta_sts/certificate": {"secret": "tls", "names": ["*.me", "viktorbarzin.me"]}},
        "no name in the certificate of Secret tls",
    ),
    "reports to an address that takes no mail": (
        {f"{D}/tls_reports": ["mailto:nobody@viktorbarzin.me"], "mail/aliases": {}},
        "nobody@viktorbarzin.me: is asked to take reports, but is neither a mailbox nor an alias",
    ),
    "no public key": ({f"{K}/0/public_key": None}, "has no public_key"),
    "no signature": ({f"{K}": [KEY | {"stage": "published"}]}, "no key signs"),
    "signs on the day of its publication": ({f"{K}": [KEY | {"published_on": ago(0)}]}, "signs 0 days after it was published"),
    "published tomorrow": ({f"{K}": [KEY | {"published_on": ago(-1)}]}, "is in the future"),
    "takes over unannounced": ({f"{K}": [KEY, OLD | {"stage": "retiring", "retired_on": ago(1)}]}, "takes over from another key"),
    "retires without a date": (
        {f"{K}": [KEY | {"published_on": ago(9)}, OLD | {"stage": "retiring"}]},
        "no longer signs; write in retired_on",
    ),
    "retires tomorrow": (
        {f"{K}": [KEY | {"published_on": ago(9)}, OLD | {"stage": "retiring", "retired_on": ago(-1)}]},
        "retired_on 2026-11-22 is in the future",
    ),
    "revoked while mail is under way": (
        {f"{K}": [KEY | {"published_on": ago(9)}, OLD | {"stage": "revoked", "retired_on": ago(6)}]},
        "signed until 6 days ago",
    ),
    "signs and has retired": ({f"{K}": [KEY | {"retired_on": ago(1)}]}, "has a retired_on"),
}


INCLUDES = {f"i{n}.example.net": {"TXT": ['"v=spf1 ip4:192.0.2.1 -all"']} for n in range(11)}
ELSEWHERE_IN_DNS = held(INCLUDES | {"mx3.example.net": {"A": [], "AAAA": []}})


@pytest.mark.parametrize("what", REFUSALS)
def test_settings_that_are_refused(what: str, site: Callable[..., Site]):
    changes, expected = REFUSALS[what]
    errors = said(verify(site("prod", changes), ELSEWHERE_IN_DNS, TODAY), error=True)
    assert any(expected in text for text in errors), errors


def test_ten_look_ups_pass(site: Callable[..., Site]):
    ten = {f"i{n}.example.net": {"TXT": ['"v=spf1 ip4:192.0.2.1 -all"']} for n in range(10)}
    findings = verify(site("prod", {f"{D}/spf": {"mx": False, "includes": list(ten)}}), held(ten), TODAY)
    assert not any("SPF" in text for text in said(findings, error=True))


def test_look_ups_of_an_include_count(site: Callable[..., Site]):
    nested = {f"i{n}.example.net": {"TXT": ['"v=spf1 ip4:192.0.2.1 -all"']} for n in range(10)}
    nested["all.example.net"] = {"TXT": [txt(f"v=spf1 {' '.join(f'include:{name}' for name in nested)} -all")]}
    findings = verify(site("prod", {f"{D}/spf": {"mx": False, "includes": ["all.example.net"]}}), held(nested), TODAY)
    assert any("11/10 maximum DNS lookups" in text for text in said(findings, error=True))


def test_three_void_look_ups_are_refused_and_two_are_not(site: Callable[..., Site]):
    def errors(count: int) -> list[str]:
        hosts = [f"gone{n}.example.net" for n in range(count)]
        nothing = held({host: {"A": [], "AAAA": []} for host in hosts})
        findings = verify(site("prod", {f"{D}/spf": {"mx": False, "hosts": hosts, "addresses": ["192.0.2.1"]}}), nothing, TODAY)
        return [text for text in said(findings, error=True) if "SPF" in text]

    assert errors(2) == []
    assert any("3/2 maximum void DNS lookups" in text for text in errors(3))


def test_an_include_that_does_not_exist_is_refused(site: Callable[..., Site]):
    findings = verify(site("prod"), held({"spf.brevo.com": {"TXT": []}}), TODAY)
    assert any("spf.brevo.com has no SPF record" in text for text in said(findings, error=True))


WARNINGS: dict[str, tuple[Settings, str]] = {
    "softfail": ({}, "~all does not reject forgeries"),
    "relay that SPF does not name": (
        {f"{D}/spf": {"mx": True}},
        "leaves through smtp-relay.brevo.com, which the record does not name",
    ),
    "no DMARC": ({f"{D}/dmarc": None}, "_dmarc.viktorbarzin.me TXT (DMARC): is missing"),
    "short enforcement": (
        {f"{D}/mta_sts/mode": "enforce", f"{D}/mta_sts/testing_since": ago(28)},
        "max_age of 7 days is short for enforce",
    ),
    "enforcement with a foreign MX": (
        {f"{D}/mta_sts/mode": "enforce", f"{D}/mta_sts/testing_since": ago(28)},
        "mx2.viktorbarzin.me is run elsewhere; make sure",
    ),
    "no TLS reports": ({f"{D}/tls_reports": []}, "_smtp._tls.viktorbarzin.me TXT (TLSRPT): is missing"),
    "nearly full zone": ({f"dns/zones/{PROD}/other_records": 178}, "199 of 200 records are used"),
    "no signature, delivered directly": (
        {f"{K}": [], f"{D}/dkim_cnames": {}, "mail/relay": None},
        "nothing signs for viktorbarzin.me, so every message that is forwarded fails",
    ),
    "Ed25519 alone": ({f"{K}/0/public_key": base64.b64encode(b"k" * 32).decode(), f"{D}/dkim_cnames": {}}, "Ed25519 is the only key"),
    "many proofs": (
        {f"{D}/verification": [f"proof-{n}={'x' * 60}" for n in range(8)]},
        "keep it below 512; drop proofs",
    ),
    "far too many proofs": ({f"{D}/verification": [f"proof-{n}={'x' * 60}" for n in range(18)]}, "needs TCP"),
    "mail host elsewhere": (
        {f"{D}/mx": {"mx.example.net": 10}, "dns/hosts/mx.example.net": {"addresses": ["192.0.2.1"]}},
        "mx.example.net is outside our zones",
    ),
}


@pytest.mark.parametrize("what", WARNINGS)
def test_settings_that_are_doubtful(what: str, site: Callable[..., Site]):
    changes, expected = WARNINGS[what]
    doubts = said(verify(site("prod", changes), OTHERS, TODAY), error=False)
    assert any(expected in text for text in doubts), doubts


@pytest.mark.parametrize(
    ("spf", "code"),
    [
        ({"mx": True}, None),
        ({"addresses": ["192.0.2.0/24", "2001:db8::/32"]}, None),
        ({"mx": False, "hosts": ["mail.example.org"]}, None),
        ({"mx": False, "includes": ["covers.example.net"]}, None),
        ({"mx": False, "includes": ["spf.brevo.com"]}, "spf.rejects-own-mail"),
        ({"mx": False}, "spf.rejects-own-mail"),
        ({"mx": False, "addresses": ["192.0.2.25"]}, "spf.rejects-own-mail"),  # and IPv6?
        ({"mx": False, "includes": ["spf.brevo.com"], "all": "softfail"}, "spf.own-mail-doubtful"),
        ({"mx": False, "includes": ["spf.example.edu"]}, "spf.own-mail-doubtful"),
    ],
)
def test_spf_passes_the_address_that_mail_leaves_from(site: Callable[..., Site], spf: Settings, code: str | None):
    """Without a relay that is the mail host's own; the example's has 192.0.2.25 and 2001:db8::25."""
    known = {
        "spf.brevo.com": {"TXT": ['"v=spf1 ip4:198.51.100.0/24 ~all"']},
        "covers.example.net": {"TXT": ['"v=spf1 ip4:192.0.2.0/25 ip6:2001:db8::/64 ~all"']},
    }
    findings = verify(site("dev", {f"domains/{DEV}/dns/spf": spf}), held(known), TODAY)
    own = {finding.code for finding in findings if DEV in finding.setting and "own-mail" in finding.code}
    assert own == ({code} if code else set())


def test_spf_of_a_site_with_a_relay_is_not_held_against_its_own_address(site: Callable[..., Site]):
    relayed = {"mail/relay": {"host": "smtp.example.com"}, f"domains/{DEV}/dns/spf": {"mx": False, "includes": ["spf.brevo.com"]}}
    assert not any("own-mail" in finding.code for finding in verify(site("dev", relayed), OTHERS, TODAY))


# Rules that need another stack, another snapshot, or records that no setting makes: each has a test of its own here.
ELSEWHERE = {
    *("spf.rejects-own-mail", "spf.own-mail-doubtful", "dkim.test-mode", "dmarc.public-suffix", "snapshot.unknown-names", "snapshot.stale"),
    *(
        "dkim.unpublished",
        "reports.dubious-tls-record",
        "zone.string-too-long",
        "zone.same-key",
        "zone.proxied-mail-host",
        "mta-sts.not-served",
    ),
}


def test_every_rule_has_a_case(site: Callable[..., Site]):
    tables = ((REFUSALS, ELSEWHERE_IN_DNS), (WARNINGS, OTHERS))
    cases = [(changes, snapshot) for table, snapshot in tables for changes, _ in table.values()]
    found = {finding.code for changes, snapshot in cases for finding in verify(site("prod", changes), snapshot, TODAY)}
    prod = site("prod")
    for without, more, _ in RECORDS.values():
        there = [record for record in live(prod, *more, without=without) if without != "mx" or record.type != "MX"]
        found |= {finding.code for finding in verify(prod, OTHERS, TODAY, found=there)}
    rules = {rule.code for area in AREAS if area.name not in {"hosts", "caa"} for rule in area.rules}  # those have a file of their own
    assert rules - found - ELSEWHERE == set()


def test_reports_that_retention_deletes_are_doubtful(site: Callable[..., Site]):
    def doubts(changes: Settings) -> list[str]:
        return [f.setting for f in verify(site("prod", changes), OTHERS, TODAY) if f.code == "reports.deleted-by-retention"]

    assert doubts({}) == ["dmarc@viktorbarzin.me"], "and postmaster@ is an alias to another mailbox"
    assert doubts({"jobs/retention": None}) == []
    elsewhere = [{"mailbox": "docs@viktorbarzin.me", "kind": "automated", "days": 14}]
    assert doubts({"jobs/retention/rules": elsewhere}) == []


def test_reports_may_go_to_an_alias_of_the_secret_store(site: Callable[..., Site]):
    changes = {"mail/aliases": {}, "dns/external_report_addresses": ["dmarc@viktorbarzin.me", "postmaster@viktorbarzin.me"]}
    assert said(verify(site("prod", changes), OTHERS, TODAY), error=True) == []


def test_an_unknown_include_is_named_and_not_held_against_the_site(site: Callable[..., Site]):
    doubts = said(verify(site("prod"), Snapshot(), TODAY), error=False)
    assert any("no snapshot data for" in text and "spf.brevo.com TXT" in text and "make dns-snapshot" in text for text in doubts)


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


def test_an_old_snapshot_says_its_age(site: Callable[..., Site]):
    old = OTHERS.model_copy(update={"taken": TODAY - timedelta(days=91)})
    assert any("is 91 days old" in text for text in said(verify(site("prod"), old, TODAY), error=False))
    assert not any("days old" in text for text in said(verify(site("prod"), OTHERS, TODAY), error=False))


def test_a_rotation_passes_at_every_step(site: Callable[..., Site]):
    new = {"selector": "new", "public_key": public_key(2048)}
    steps: list[list[Settings]] = [
        [KEY, new | {"stage": "published", "published_on": ago(0)}],
        [KEY | {"stage": "retiring", "retired_on": ago(0)}, new | {"published_on": ago(1)}],
        [KEY | {"stage": "revoked", "retired_on": ago(7)}, new | {"published_on": ago(8)}],
        [new | {"published_on": ago(9)}],
    ]
    for keys in steps:
        assert said(verify(site("prod", {K: keys}), OTHERS, TODAY), error=True) == []


# Records that settings cannot make, or that are live already.


def live(site: Site, *more: tuple[str, str, str], without: str = "") -> list[Record]:
    kept = [record for record in records(site) if not without or record.key != without]
    return kept + [Record(PROD, f"live-{n}", name, kind, content) for n, (name, kind, content) in enumerate(more)]


RECORDS: dict[str, tuple[str, list[tuple[str, str, str]], str]] = {
    "two SPF records": ("", [(PROD, "TXT", '"v=spf1 -all"')], "2 records begin with v=spf1"),
    "no SPF record": ("spf", [], "0 records begin with v=spf1"),
    "the whole world": ("spf", [(PROD, "TXT", '"v=spf1 +all"')], "+all lets anyone on the Internet send"),
    "the whole world, unsaid": ("spf", [(PROD, "TXT", '"v=spf1 all"')], "+all lets anyone on the Internet send"),
    "ptr": ("spf", [(PROD, "TXT", '"v=spf1 ptr -all"')], "ptr is slow and unreliable"),
    "invalid SPF": ("spf", [(PROD, "TXT", '"v=spf1 ip4:999.1.1.1 -all"')], "999.1.1.1 is not a valid"),
    "two keys for a selector": ("", [(f"mail._domainkey.{PROD}", "TXT", '"v=DKIM1; p="')], "2 records for one selector"),
    "sha1": ("", [(f"s._domainkey.{PROD}", "TXT", txt(f"v=DKIM1; h=sha1; p={KEY['public_key']}"))], "h=sha1 allows no hash"),
    "DKIM2": ("", [(f"s._domainkey.{PROD}", "TXT", txt(f"v=DKIM2; p={KEY['public_key']}"))], "unknown DKIM version DKIM2; use v=DKIM1"),
    "short Ed25519": ("", [(f"s._domainkey.{PROD}", "TXT", '"v=DKIM1; k=ed25519; p=AAAA"')], "an Ed25519 key has 32 octets"),
    "two DMARC records": ("", [(f"_dmarc.{PROD}", "TXT", '"v=DMARC1; p=none"')], "2 records; receivers then use none"),
    "DMARC at the wrong name": ("", [(PROD, "TXT", '"v=DMARC1; p=none"')], "where no receiver looks"),
    "invalid DMARC policy": ("dmarc", [(f"_dmarc.{PROD}", "TXT", '"v=DMARC1; p=block"')], "Tag p must have one of"),
    "two MTA-STS records": ("", [(f"_mta-sts.{PROD}", "TXT", '"v=STSv1; id=1"')], "senders then act as if there were none"),
    "no MTA-STS record": ("mta-sts", [], "no sender asks for the policy"),
    "MTA-STS id of another policy": (
        "mta-sts",
        [(f"_mta-sts.{PROD}", "TXT", '"v=STSv1; id=20260412"')],
        "id=20260412 is not that of the policy",
    ),
    "invalid MTA-STS id": ("mta-sts", [(f"_mta-sts.{PROD}", "TXT", '"v=STSv1; id=not-allowed"')], "_mta-sts.viktorbarzin.me"),
    "MX that the policy does not name": ("", [(PROD, "MX", "mail.example.net")], "does not name mail.example.net"),
    "no MX": ("mx", [], "is missing; mail would go to the name's own address"),
    "two TLSRPT records": ("", [(f"_smtp._tls.{PROD}", "TXT", '"v=TLSRPTv1; rua=mailto:a@b.example"')], "reporters then send nothing"),
    "TLSRPT without address": ("tlsrpt", [(f"_smtp._tls.{PROD}", "TXT", '"v=TLSRPTv1;"')], "_smtp._tls.viktorbarzin.me"),
    "MX to a CNAME": (
        "mail:a-176.12.22.76",
        [(f"mail.{PROD}", "CNAME", "elsewhere.example.net")],
        "is a CNAME, which an MX or SRV must not point to",
    ),
    "two CNAMEs": ("", [(f"brevo1._domainkey.{PROD}", "CNAME", "b9.example.net")], "points to several names"),
    "CNAME at the apex": ("", [(PROD, "CNAME", "www.example.net")], "the zone's own name has SOA and NS"),
    "the same record twice": ("", [(PROD, "TXT", '"v=spf1 include:spf.brevo.com ~all"')], "is listed 2 times"),
    "upper case": ("", [(f"Www.{PROD}", "A", "192.0.2.1")], "the name is stored as www.viktorbarzin.me"),
    "trailing dot": ("", [(f"s._domainkey.{PROD}", "CNAME", "b1.example.net.")], "the content is stored as b1.example.net;"),
    "an invalid address": ("", [(f"x.{PROD}", "A", "999.1.1.1")], "cannot be stored"),
    "unquoted text": ("", [(PROD, "TXT", "proof=1")], 'the content is stored as "proof=1"'),
    "null MX beside another": ("", [(PROD, "MX", ".")], "a null MX must be the only MX"),
    "a record that Cloudflare refuses": ("", [(f"big.{PROD}", "TXT", txt("x" * 2100))], "Cloudflare accepts 2048 and 8192"),
}


def test_a_key_that_is_not_published_is_doubtful(site: Callable[..., Site]):
    prod = site("prod")
    found = [record for record in records(prod) if "._domainkey." not in record.name]
    assert "dkim.unpublished" in {finding.code for finding in verify(prod, OTHERS, TODAY, found=found)}


def test_a_tls_report_record_with_an_unknown_tag_is_doubtful(site: Callable[..., Site]):
    prod = site("prod")
    found = live(prod, (f"_smtp._tls.{PROD}", "TXT", '"v=TLSRPTv1; rua=mailto:postmaster@viktorbarzin.me; x=1"'), without="tlsrpt")
    assert "reports.dubious-tls-record" in {finding.code for finding in verify(prod, OTHERS, TODAY, found=found)}


def test_a_key_on_trial_is_doubtful(site: Callable[..., Site]):
    prod = site("prod")
    found = live(prod, (f"s._domainkey.{PROD}", "TXT", txt(f"v=DKIM1; t=y; p={KEY['public_key']}")))
    assert any("t=y marks the key as a test" in text for text in said(verify(prod, OTHERS, TODAY, found=found), error=False))


def test_a_domain_under_which_others_register_is_doubtful(site: Callable[..., Site]):
    prod = site("prod", {"domains/co.uk": {"host": f"mail.{PROD}"}, "primary_domain": PROD})
    assert any("co.uk is a public suffix" in text for text in said(verify(prod, OTHERS, TODAY), error=False))


@pytest.mark.parametrize("what", RECORDS)
def test_records_that_are_refused(what: str, site: Callable[..., Site]):
    without, more, expected = RECORDS[what]
    prod = site("prod")
    found = live(prod, *more, without=without)
    if without == "mx":
        found = [record for record in found if record.type != "MX"]
    errors = said(verify(prod, OTHERS, TODAY, found=found), error=True)
    assert any(expected in text for text in errors), errors


def test_two_records_with_one_key_are_refused(site: Callable[..., Site]):
    prod = site("prod")
    found = live(prod)
    found[0] = replace(found[0], key="spf")
    assert any("two records have the key 'spf'" in text for text in said(verify(prod, OTHERS, TODAY, found=found), error=True))


def test_a_proxied_mail_host_is_refused(site: Callable[..., Site]):
    prod = site("prod")
    found = [replace(record, proxied=True) if record.key.startswith("mail:a-") else record for record in records(prod)]
    assert any("the proxy does not speak SMTP" in text for text in said(verify(prod, OTHERS, TODAY, found=found), error=True))


def test_a_record_for_a_policy_that_is_not_served_is_refused(site: Callable[..., Site]):
    bare = site("prod", {f"{D}/mta_sts": None})
    found = live(bare, (f"_mta-sts.{PROD}", "TXT", '"v=STSv1; id=20260412"'))
    assert any("announces a policy that nothing serves" in text for text in said(verify(bare, OTHERS, TODAY, found=found), error=True))


def test_the_historical_records_of_the_owner_are_named(site: Callable[..., Site]):
    """What was live in August 2026, before this program: each fault of it."""
    prod = site("prod")
    key = next(record for record in records(prod) if record.key.startswith("dkim-mail-"))
    reports = "mailto:dmarc@viktorbarzin.me,mailto:adb84997@inbox.ondmarc.com"
    historical = [
        (
            f"_dmarc.{PROD}",
            "TXT",
            f'"v=DMARC1; p=quarantine; pct=100; fo=1; ri=3600; sp=quarantine; adkim=r; aspf=r; rua={reports}; ruf={reports};"',
        ),
        (f"mail._domainkey.{PROD}", "TXT", f'"{txt_value(key.content)}"'),
        (f"_mta-sts.{PROD}", "TXT", '"v=STSv1; id=20260412"'),
        (f"brevo1._domainkey.{PROD}", "CNAME", "b1.viktorbarzin-me.dkim.brevo.com."),
    ]
    replaced = {name for name, _, _ in historical}
    found = [record for record in records(prod) if record.name not in replaced]
    found += [Record(PROD, f"live-{n}", *row) for n, row in enumerate(historical)]
    findings = verify(prod, OTHERS, TODAY, found=found)
    errors, doubts = said(findings, error=True), said(findings, error=False)
    for expected in (
        "one string of 420 octets, where 255 is the limit",
        "id=20260412 is not that of the policy",
        "the content is stored as b1.viktorbarzin-me.dkim.brevo.com;",
    ):
        assert any(expected in text for text in errors), (expected, errors)
    for expected in ("Support for the pct tag was removed in RFC 9989", "Support for the ri tag was removed in RFC 9989"):
        assert any(expected in text for text in doubts), (expected, doubts)
