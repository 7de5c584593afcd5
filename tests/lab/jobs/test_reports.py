"""The reader of reports, with the real parsedmarc, Dovecot and name server: what counts, where it is filed, what breaks it."""

import gzip
import io
import json
import re
import time
import zipfile
from email.message import EmailMessage, MIMEPart

import pytest

from tests.lab.jobs.test_retention import subjects
from tests.tools.test_doctor_dns import serving
from tools.lab.servers import NAME, PASSWORD, dovecot

BOX = "reports@example.org"
JOB = "mail-reports"
SOA = "$TTL 60\n@ IN SOA ns hostmaster 1 60 60 60 60\n@ IN NS ns\nns IN A 192.0.2.53\n"
ZONES = {
    "example.org": SOA + '@ IN TXT "v=spf1 a:mx.relay.example include:spf.relay.example -all"\n',
    "relay.example": SOA + 'spf IN TXT "v=spf1 ip4:192.0.2.0/24" " include:spf.relay.example ~all"\nmx IN A 198.51.100.9\n',
}
# Of the relay, of a host that forwards, of a forger: their owners by parsedmarc's own table of networks.
RELAY, GOOGLE, ORACLE = "192.0.2.7", "209.85.220.41", "92.5.132.215"


def record(address: str, count: int, dkim: str = "pass", spf: str = "fail", disposition: str = "none", domain: str = "example.org") -> str:
    return (
        f"<record><row><source_ip>{address}</source_ip><count>{count}</count><policy_evaluated><disposition>{disposition}</disposition>"
        f"<dkim>{dkim}</dkim><spf>{spf}</spf></policy_evaluated></row><identifiers><header_from>{domain}</header_from></identifiers>"
        f"<auth_results><dkim><domain>{domain}</domain><selector>mail</selector><result>{dkim}</result></dkim>"
        f"<spf><domain>bounce.relay.example</domain><result>pass</result></spf></auth_results></record>"
    )


def aggregate(*records: str, reporter: str = "google.com", number: object = 1, domain: str = "example.org", new: bool = False) -> bytes:
    """As RFC 7489 or (`new`) RFC 9990 has it."""
    opening = '<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">' if new else "<feedback>"
    about = "<generator>Reporter 2.1</generator>" if new else ""
    policy = "<np>reject</np><testing>n</testing><discovery_method>treewalk</discovery_method>" if new else "<pct>100</pct>"
    end = int(time.time()) // 86400 * 86400
    return (
        f'<?xml version="1.0" encoding="UTF-8" ?>\n{opening}<version>1.0</version><report_metadata><org_name>{reporter}</org_name>'
        f"<email>noreply@{reporter}</email>{about}<report_id>{number}</report_id><date_range><begin>{end - 86400}</begin>"
        f"<end>{end - 1}</end></date_range></report_metadata><policy_published><domain>{domain}</domain><adkim>r</adkim><aspf>r</aspf>"
        f"<p>quarantine</p><sp>quarantine</sp>{policy}</policy_published>{''.join(records)}</feedback>\n"
    ).encode()


def tls(*policies: dict, reporter: str = "Google Inc.", number: object = 1) -> bytes:
    days = {"start-datetime": "2026-11-21T00:00:00Z", "end-datetime": "2026-11-21T23:59:59Z"}
    return json.dumps(
        {"organization-name": reporter, "date-range": days, "contact-info": "x@y", "report-id": str(number), "policies": list(policies)}
    ).encode()


def sts(good: int, bad: int, *failures: tuple[str, int], kind: str = "sts") -> dict:
    details = [{"result-type": name, "failed-session-count": count, "receiving-mx-hostname": NAME} for name, count in failures]
    return {
        "policy": {"policy-type": kind, "policy-domain": "example.org", "policy-string": ["version: STSv1"]},
        "summary": {"total-successful-session-count": good, "total-failure-session-count": bad},
        "failure-details": details,
    }


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("report.xml", content)
    return buffer.getvalue()


def mail(subject: str, content: bytes | None, kind: str = "application/gzip", *, alone: bool = False) -> bytes:
    """A report attached to a letter, or (`alone`) as the whole body, as some reporters send it."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "noreply-dmarc@reporter.example", BOX, subject
    message["Date"] = "Sat, 21 Nov 2026 09:00:00 +0000"
    main, _, sub = kind.partition("/")
    if content is not None and alone:
        message.set_content(content, maintype=main, subtype=sub)
    else:
        message.set_content("This is a report.\n")
    if content is not None and not alone:
        message.add_attachment(content, maintype=main, subtype=sub, filename="reporter.example!example.org!1!2.xml.gz")
    return message.as_bytes()


def failure(subject: str) -> bytes:
    """RFC 6591, with headers only."""
    message, text, feedback, sample = EmailMessage(), MIMEPart(), MIMEPart(), MIMEPart()
    message["From"], message["To"], message["Subject"] = "ruf@reporter.example", BOX, subject
    message["Date"], message["Content-Type"] = "Sat, 21 Nov 2026 09:00:00 +0000", 'multipart/report; report-type="feedback-report"'
    text.set_content("A message failed.\n")
    feedback["Content-Type"] = "message/feedback-report"
    feedback.set_payload(
        "Feedback-Type: auth-failure\nUser-Agent: X/1\nVersion: 1\nOriginal-Mail-From: a@b.example\n"
        "Arrival-Date: Sat, 21 Nov 2026 08:59:00 +0000\n"
        f"Source-IP: {ORACLE}\nReported-Domain: example.org\nAuth-Failure: dmarc\nIdentity-Alignment: none\n"
    )
    sample["Content-Type"] = "text/rfc822-headers"
    sample.set_payload("From: boss@example.org\nTo: someone@reporter.example\nSubject: invoice\nDate: Sat, 21 Nov 2026 08:59:00 +0000\n")
    for part in (text, feedback, sample):
        message.attach(part)
    return message.as_bytes()


@pytest.fixture
def imap(tmp_path, authority):
    with dovecot(tmp_path / "dovecot", authority.issue(NAME), [BOX]) as running:
        yield running


@pytest.fixture
def read(tmp_path, job, imap, gateway):
    (tmp_path / "names").mkdir()
    with serving(tmp_path / "names", ZONES) as port:

        def run(*arguments, password=PASSWORD, resolver=port):
            place = ("--job", JOB, "--name", NAME, "--address", "127.0.0.1", "--port", imap.port, "--mailbox", BOX)
            ours = ("--domain", "example.org", "--own", "203.0.113.25", "--days", 7, "--tls-days", 2)
            where = ("--resolver", f"127.0.0.1:{resolver}", "--timeout", 5, "--pushgateway", gateway.url)
            done = job("reports.py", *place, *ours, *where, *arguments, environment={"REPORTS_PASSWORD": password})
            assert "Traceback" not in done.stderr, done.stderr
            assert PASSWORD not in done.stdout + done.stderr
            return done

        yield run


def filed(imap, folder: str) -> set[str]:
    place = imap.maildir(BOX) / (f".{folder}" if folder else "")
    found = [path.read_text("utf-8", "replace") for part in ("cur", "new") for path in (place / part).glob("*")]
    return {match[1] for text in found if (match := re.search(r"^Subject: (.*)$", text, re.MULTILINE))}


def test_each_reporters_format_is_read_counted_and_filed(imap, gateway, read):
    by_spf = record("198.51.100.9", 3, "fail", "pass", "pass")
    ours, forwarded, forged = record(RELAY, 100), record(GOOGLE, 7), record(ORACLE, 40, "fail", "fail", "reject")
    letters = {
        "zip": mail("zip", zipped(aggregate(ours, forged, number="zip")), "application/zip"),
        "gzip": mail("gzip", gzip.compress(aggregate(forwarded, number="gzip"))),
        "plain xml": mail("plain xml", aggregate(record("203.0.113.25", 5, "pass", "pass"), number="xml"), "text/xml"),
        "new schema": mail("new schema", gzip.compress(aggregate(by_spf, number="new", new=True))),
        "no letter around it": mail("no letter around it", zipped(aggregate(ours, number="alone")), "application/zip", alone=True),
        "octet-stream": mail("octet-stream", gzip.compress(aggregate(ours, number="octets")), "application/octet-stream"),
        "failure": failure("failure"),
        "tls gzip": mail("tls gzip", gzip.compress(tls(sts(90, 3, ("sts-webpki-invalid", 2)))), "application/tlsrpt+gzip"),
        "tls json": mail("tls json", tls(sts(10, 0, kind="no-policy-found"), reporter="Microsoft"), "application/tlsrpt+json"),
    }
    for text in letters.values():
        imap.deliver(BOX, text, flags=None)
    imap.deliver(BOX, mail("twice", gzip.compress(aggregate(forwarded, number="gzip"))))
    imap.deliver(BOX, mail("in junk", gzip.compress(aggregate(ours, number="junk"))), folder="Junk", flags="")
    imap.deliver(BOX, mail("junk", None), folder="Junk", flags="")
    done = read()
    assert done.returncode == 0, done.stdout + done.stderr

    assert filed(imap, "Reports") == {*letters, "twice", "in junk"}
    assert (filed(imap, ""), filed(imap, "Junk"), filed(imap, "Reports-unreadable")) == (set(), {"junk"}, set())

    def messages(source, known, aligned, disposition="none"):
        labels = {"domain": "example.org", "source": source, "known": known, "aligned": aligned, "disposition": disposition}
        return gateway.value(JOB, "dmarc_messages", **labels)

    assert messages("unknown", "true", "dkim") == 400, "three reports and one from Junk: the relay's network is in the SPF record"
    assert messages("unknown", "true", "dkim and spf") == 5, "our own address"
    assert messages("unknown", "true", "spf", "pass") == 3, "a host of the SPF record"
    assert messages("google.com", "false", "dkim") == 7, "counted once, though reported twice"
    assert messages("oracle.com", "false", "none", "reject") == 40
    assert gateway.value(JOB, "dmarc_failure_reports", domain="example.org", reason="dmarc") == 1

    def sessions(policy, result):
        return gateway.value(JOB, "tls_report_sessions", domain="example.org", policy=policy, result=result)

    assert sessions("sts", "success") == 90
    assert (sessions("sts", "sts-webpki-invalid"), sessions("sts", "other")) == (2, 1), "a failure that is counted and not explained"
    assert sessions("no-policy-found", "success") == 10

    before = gateway.groups[JOB]["dmarc_messages"]
    again = read("--known", "google.com")
    assert again.returncode == 0
    assert messages("google.com", "true", "dkim") == 7
    assert sum(gateway.groups[JOB]["dmarc_messages"].values()) == sum(before.values()), "what is filed counts until it is old"


def test_what_is_old_no_longer_counts_and_stays(imap, gateway, read):
    imap.deliver(BOX, mail("old", gzip.compress(aggregate(record(RELAY, 9)))), age=9 * 86400)
    imap.deliver(BOX, mail("old tls", tls(sts(1, 1, ("certificate-expired", 1))), "application/tlsrpt+json"), age=4 * 86400)
    assert read().returncode == 0
    assert filed(imap, "Reports") == {"old", "old tls"}
    assert not {"dmarc_messages", "tls_report_sessions"} & gateway.groups[JOB].keys()


def entities() -> bytes:
    nested = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    return aggregate().replace(b"<feedback>", f'<!DOCTYPE feedback [<!ENTITY a0 "ha">{nested}]><feedback>&a11;'.encode())


HOSTILE = {
    "nothing in it": mail("nothing in it", None),
    "half a gzip": mail("half a gzip", gzip.compress(aggregate(record(RELAY, 1)))[:-20]),
    "no address": mail("no address", gzip.compress(aggregate(record("not an address", 1)))),
    "no counts": mail("no counts", gzip.compress(aggregate(record(RELAY, 1).replace("<count>1</count>", "")))),
    "of another domain": mail("of another domain", gzip.compress(aggregate(record(RELAY, 1), domain="example.net"))),
    "of a domain that ends like ours": mail(
        "of a domain that ends like ours", gzip.compress(aggregate(record(RELAY, 1), domain="notexample.org"))
    ),
    "gzip bomb": mail("gzip bomb", gzip.compress(b"<feedback>" + bytes(300 * 2**20))),
    "zip bomb": mail("zip bomb", zipped(b"<feedback>" + bytes(300 * 2**20)), "application/zip"),
    "entities": mail("entities", gzip.compress(entities())),
    "deep": mail("deep", gzip.compress(b"<feedback>" * 700_000)),
    "wide": mail("wide", gzip.compress(aggregate("<a/>" * 1_900_000))),
    "too large": mail("too large", bytes(11 * 2**20), "application/octet-stream"),
    "tls that is not": mail("tls that is not", b'{"policies": [[[', "application/tlsrpt+json"),
    "tls of numbers": mail("tls of numbers", b'{"organization-name": 1, "policies": 7}', "application/tlsrpt+json"),
}


def test_nothing_that_is_sent_ends_the_reader_and_the_good_report_behind_it_counts(imap, gateway, read):
    for number, text in enumerate(HOSTILE.values()):
        imap.deliver(BOX, text, age=1000 - number)
    imap.deliver(BOX, mail("good", gzip.compress(aggregate(record(RELAY, 2)))))
    done = read()
    assert done.returncode == 0, done.stdout + done.stderr
    assert filed(imap, "Reports-unreadable") == HOSTILE.keys()
    assert filed(imap, "Reports") == {"good"}
    assert gateway.value(JOB, "mail_reports", kind="unreadable") == len(HOSTILE)
    assert sum(gateway.groups[JOB]["dmarc_messages"].values()) == 2


def test_no_word_of_a_reporter_becomes_a_label_but_owners_of_networks_and_few_of_these(imap, gateway, read):
    words = record(RELAY, 1, disposition="a&quot;} 1 evil{x=&quot;y").replace("<header_from>example.org", "<header_from>x")
    many = [record(f"{first}.1.1.1", 1, "fail", "fail") for first in range(1, 224) if first not in {10, 127}]
    imap.deliver(BOX, mail("words", gzip.compress(aggregate(words, record(GOOGLE, 1), *many))))
    bad = tls(sts(1, 2, ("my-own-word", 1), ("certificate-expired", 1), kind="sts"))
    imap.deliver(BOX, mail("own words", bad, "application/tlsrpt+json"))
    assert read().returncode == 0
    samples = [dict(labels) for labels in gateway.groups[JOB]["dmarc_messages"]]
    assert {sample["disposition"] for sample in samples} == {"none", "other"}
    sources = {sample["source"] for sample in samples}
    assert len(sources) <= 41 and "other" in sources and "google.com" in sources, "one that passes is kept before forty that do not"
    results = {dict(labels)["result"] for labels in gateway.groups[JOB]["tls_report_sessions"]}
    assert results == {"success", "certificate-expired", "other"}


def test_a_refused_password_and_a_silent_dns_are_told_and_touch_nothing(imap, gateway, read):
    imap.deliver(BOX, mail("waits", gzip.compress(aggregate(record(RELAY, 2)))))
    done = read(password="wrong")
    assert (done.returncode, gateway.value(JOB, "mail_reports_success")) == (1, 0)
    assert "the server refused its password" in done.stderr
    assert read(password="").stderr.splitlines()[0] == f"{BOX}: REPORTS_PASSWORD is not set or empty"
    silent = read(resolver=1)
    assert (silent.returncode, "the DNS does not answer for example.org TXT" in silent.stderr) == (1, True)
    assert subjects(imap, BOX) == {"waits"} and filed(imap, "") == {"waits"}
    assert read().returncode == 0
    assert gateway.value(JOB, "mail_reports_success") == 1
