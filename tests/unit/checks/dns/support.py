"""Settings and records that a rule finds something in, and what other people's DNS holds for them."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from components.checks.dns.resolver import Snapshot
from components.checks.dns.verify import verify
from components.checks.finding import Finding
from components.dns.records import Record, records
from components.settings.site import Site
from tests.conftest import Settings

TODAY = date(2026, 11, 21)
PROD, DEV = "viktorbarzin.me", "example.org"
D = f"domains/{PROD}/dns"
K = f"domains/{PROD}/dkim"


def ago(days: int) -> str:
    return (TODAY - timedelta(days=days)).isoformat()


def public_key(bits: int) -> str:
    return encoded(rsa.generate_private_key(65537, bits))


def encoded(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def held(names: dict[str, dict[str, list[str]]], taken: date = TODAY) -> Snapshot:
    return Snapshot.model_validate(
        {"taken": taken, "names": {name: {k: tuple(v) for k, v in kinds.items()} for name, kinds in names.items()}}
    )


def said(findings: list[Finding], *, error: bool) -> list[str]:
    return [str(finding) for finding in findings if (finding.level == "error") is error]


KEY = {"selector": "mail", "public_key": public_key(2048)}

OTHERS = held(
    {
        "spf.brevo.com": {"TXT": ['"v=spf1 ip4:192.0.2.0/24 ~all"']},
        "viktorbarzin.me._report._dmarc.inbox.ondmarc.com": {"TXT": ['"v=DMARC1"']},
        "*._report._dmarc.inbox.ondmarc.com": {"TXT": []},
        "inbox.ondmarc.com": {"MX": ["10 mx.example.net."]},
    }
)
INCLUDES = {f"i{n}.example.net": {"TXT": ['"v=spf1 ip4:192.0.2.1 -all"']} for n in range(11)}
ELSEWHERE = held(INCLUDES | {"mx3.example.net": {"A": [], "AAAA": []}})


@dataclass(frozen=True)
class Case:
    """Production with other settings, or with other records than its settings make, and what a finding about it says."""

    says: str
    settings: Settings = field(default_factory=dict)
    error: bool = True
    snapshot: Snapshot = OTHERS
    more: tuple[tuple[str, str, str], ...] = ()  # name, type and content of records that no setting makes
    without: str = ""  # key or type of the records that are missing

    def findings(self, site: Callable[..., Site]) -> list[Finding]:
        judged = site("prod", self.settings)
        found = live(judged, *self.more, without=self.without) if self.more or self.without else records(judged)
        return verify(judged, self.snapshot, TODAY, found=found)

    def check(self, site: Callable[..., Site]) -> None:
        texts = said(self.findings(site), error=self.error)
        assert any(self.says in text for text in texts), texts


def refused(says: str, settings: Settings) -> Case:
    return Case(says, settings, snapshot=ELSEWHERE)


def doubted(says: str, settings: Settings) -> Case:
    return Case(says, settings, error=False)


def published(says: str, *more: tuple[str, str, str], without: str = "") -> Case:
    return Case(says, more=more, without=without)


def live(site: Site, *more: tuple[str, str, str], without: str = "") -> list[Record]:
    """The site's records with some that no setting makes, and without those of a key or type."""
    kept = [record for record in records(site) if without not in {record.key, record.type}]
    return kept + [Record(PROD, f"live-{n}", name, kind, content) for n, (name, kind, content) in enumerate(more)]
