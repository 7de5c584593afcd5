"""The doctor's look at DNS, with a real name server (BIND) that serves the rendered zones, sound and with one fault at a time."""

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import pytest

from components.dns.records import records, zones
from components.dns.zonefile import zone_text
from components.settings.site import Site
from tests.doctor import not_well
from tools.doctor import dns as checks
from tools.doctor.check import Check
from tools.doctor.examine import examine
from tools.doctor.patient import Patient, from_here
from tools.lab.certificates import Authority
from tools.lab.servers import free_port, tls_greeter

needs_bind = pytest.mark.skipif(shutil.which("named", path="/usr/sbin:/usr/bin:/bin") is None, reason="needs Debian's bind9")
pytestmark = needs_bind

CONFIGURATION = """
options {{
  directory "{folder}"; pid-file none; session-keyfile "{folder}/session.key";
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  recursion no; allow-query {{ any; }}; dnssec-validation no; minimal-responses yes;
}};
controls {{ }};
"""


@contextlib.contextmanager
def serving(folder: Path, texts: dict[str, str]) -> Iterator[int]:
    """The port of a server that holds these zones."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lines = CONFIGURATION.format(folder=folder, port=port)
    for zone, text in texts.items():
        (folder / zone).write_text(text)
        lines += f'zone "{zone}" {{ type primary; file "{folder}/{zone}"; check-names ignore; check-mx ignore; check-integrity no; }};\n'
    (folder / "named.conf").write_text(lines)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(["/usr/sbin/named", "-g", "-4", "-n1", "-c", str(folder / "named.conf")], stderr=log)
    try:
        for _ in range(600):
            assert server.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(dns.exception.Timeout, OSError):
                dns.query.udp(dns.message.make_query(next(iter(texts)), "SOA"), "127.0.0.1", timeout=0.2, port=port)
                break
        yield port
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def answered(site, tmp_path: Path) -> Callable[..., dict[str, list[str]]]:
    """What is not well, by verdict and check, once `edit` has changed the text of the primary zone; `ways` are the patient's."""

    def look(edit: Callable[[str], str] = str, check: Check = checks.public, **ways: Any) -> dict[str, list[str]]:
        prod: Site = site("prod")
        texts = {}
        for zone in zones(prod):
            wanted = [record for record in records(prod) if record.zone == zone and not record.proxied]
            texts[zone] = zone_text(zone, wanted, 300, datetime(2026, 1, 1, tzinfo=UTC), [])
        texts[prod.primary] = edit(texts[prod.primary])
        with serving(tmp_path, texts) as port:
            patient = Patient(prod, _none, _none, None, ("127.0.0.1",), dns_port=port, **ways)
            return not_well(examine(patient, [check], lambda check: None))

    return look


def _none(*_: str) -> subprocess.CompletedProcess[str]:
    raise AssertionError("DNS is asked of no cluster")


def without(pattern: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        changed = re.sub(rf"^{pattern}.*\n", "", text, flags=re.MULTILINE)
        assert changed != text
        return changed

    return edit


def test_a_zone_as_rendered_is_well(answered):
    assert answered() == {}


FAULTS = {
    "a record that is gone": (without(r"_dmarc +IN TXT"), "_dmarc.viktorbarzin.me TXT: 127.0.0.1: missing v=DMARC1"),
    "another address": (
        lambda text: re.sub(r"^(mail +IN A +)\S+", r"\g<1>192.0.2.77", text, flags=re.MULTILINE),
        "mail.viktorbarzin.me A: 127.0.0.1: missing 176.12.22.76; answered 192.0.2.77",
    ),
    "a second SPF record": (lambda text: text + '@ IN TXT "v=spf1 -all"\n', "viktorbarzin.me TXT: 127.0.0.1: also answers v=spf1 -all"),
    "a mail host that is not declared": (
        lambda text: text + "@ IN MX 5 mx.evil.example.\n",
        "viktorbarzin.me MX: 127.0.0.1: also answers 5 mx.evil",
    ),
    "a key with one letter changed": (
        lambda text: re.sub(r"^(mail\._domainkey.*?p=.{20}).", r"\1_", text, count=1, flags=re.MULTILINE),
        "mail._domainkey.viktorbarzin.me TXT: 127.0.0.1: missing v=DKIM1",
    ),
    "a policy id that stayed": (
        lambda text: re.sub(r"id=[0-9a-f]+", "id=20200101", text),
        "_mta-sts.viktorbarzin.me TXT: 127.0.0.1: missing v=STSv1",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_one_fault_is_named_and_nothing_else(answered, case):
    edit, expected = FAULTS[case]
    found = answered(edit)
    assert found.keys() == {"broken dns.records"}
    (line,) = found["broken dns.records"]
    assert line.startswith(expected)


def test_texts_of_others_are_left_alone(answered):
    assert answered(lambda text: text + '@ IN TXT "google-site-verification=abc"\n') == {}


def test_a_silent_server_could_not_be_checked(site):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        patient = Patient(site("prod"), _none, _none, None, ("127.0.0.1",), dns_port=deaf.getsockname()[1])
        (seen,) = checks.public.look(patient)
    assert (seen.verdict, seen.about) == ("could not check", "127.0.0.1")


def test_a_server_that_lost_the_zone_is_one_line(site, tmp_path):
    with serving(tmp_path, {"other.example": zone_text("other.example", [], 300, datetime(2026, 1, 1, tzinfo=UTC), [])}) as port:
        patient = Patient(site("prod"), _none, _none, None, ("127.0.0.1",), dns_port=port)
        seen = list(checks.public.look(patient))
    assert len(seen) == 1
    assert seen[0].verdict != "ok"


NOT_RENEWED = "mail.viktorbarzin.me: was issued by Let's Encrypt, and CAA records admit only {}: it will not be renewed"
LETS_ENCRYPT, OTHER = 'CAA 0 issue "letsencrypt.org; validationmethods=dns-01"', 'CAA 0 issue "pki.goog"'
CAA = {
    "it is admitted": ("Let's Encrypt", f"@ IN {LETS_ENCRYPT}\n@ IN {OTHER}\n", {}),
    "another one is": (
        "Let's Encrypt",
        f"@ IN {OTHER}\n",
        {"broken dns.caa": [NOT_RENEWED.format("pki.goog")]},
    ),
    "the host's own records come first": ("Google Trust Services", f"@ IN {LETS_ENCRYPT}\nmail IN {OTHER}\n", {}),
    "none is": (
        "Let's Encrypt",
        '@ IN CAA 0 issue ";"\n',
        {"broken dns.caa": [NOT_RENEWED.format("(none)")]},
    ),
    "only wildcards are restricted": ("Lab", '@ IN CAA 0 issuewild "pki.goog"\n', {}),
    "it is not known by name": (
        "Lab",
        f"@ IN {LETS_ENCRYPT}\n",
        {
            "could not check dns.caa": [
                "mail.viktorbarzin.me: was issued by Lab, whose name in CAA records is not known here; they admit letsencrypt.org"
            ]
        },
    ),
}


@pytest.mark.parametrize("case", CAA)
def test_the_authority_of_the_certificate_that_is_shown_against_caa(answered, case):
    organisation, lines, expected = CAA[case]
    authority, port = Authority(organisation), free_port()
    with tls_greeter(authority.issue("mail.viktorbarzin.me"), port, starttls=False):
        found = answered(
            lambda text: text + lines,
            checks.caa,
            connect=lambda _address, _port, seconds: from_here("127.0.0.1", port, seconds),
            tls=lambda: ssl.create_default_context(cadata=authority.certificate),
        )
    assert found == expected
