"""Whatever a live zone holds, the verification answers with findings and never with a traceback."""

import json
from datetime import date

from hypothesis import given, settings
from hypothesis import strategies as st

from components.checks.dns.resolver import Snapshot
from components.checks.dns.verify import verify
from components.checks.registry import read_site
from components.dns.content import txt
from components.dns.records import Record, records
from components.settings.site import Site
from tests.conftest import settings as stack_settings

ZONE = "viktorbarzin.me"
SITE: Site = read_site(json.dumps(stack_settings("prod")))
PLACES = st.sampled_from(
    [ZONE, *(f"{label}.{ZONE}" for label in ("_dmarc", "_mta-sts", "_smtp._tls", "mail._domainkey", "mail", "*", "www"))]
)
BEGINNINGS = st.sampled_from(
    ["", "v=spf1 ", "v=DMARC1; ", "v=STSv1; id=", "v=TLSRPTv1; rua=", "v=DKIM1; k=rsa; p=", "v=DKIM1; k=ed25519; p="]
)
WORDS = st.sampled_from(
    [
        *(
            "p=none",
            "p=x;",
            "sp=",
            "rua=mailto:",
            "mailto:a@b.example,",
            "include:",
            "include:spf.brevo.com",
            "redirect=a.b",
            "mx",
            "a:%{i}",
        ),
        *("ip4:1.2.3.4/99", "-all", "?all", "exp=", "fo=1:0;", "pct=1", "AAAA==", "=;=;", "~", "\\", '"', "h=sha1;"),
    ]
)
VALUES = st.builds(lambda start, words: start + " ".join(words), BEGINNINGS, st.lists(WORDS | st.text(max_size=6), max_size=5))
TEXTS = VALUES.map(lambda value: txt("".join(c for c in value if c.isascii() and c.isprintable()))) | VALUES
ROWS = st.tuples(PLACES, st.just("TXT"), TEXTS) | st.tuples(
    PLACES, st.sampled_from(["MX", "CNAME", "SRV"]), st.sampled_from([".", "a.b.", f"mail.{ZONE}"])
)


@settings(deadline=None, max_examples=200)
@given(st.lists(ROWS, min_size=1, max_size=6))
def test_any_zone_gets_a_verdict(rows: list[tuple[str, str, str]]):
    replaced = {(name, kind) for name, kind, _ in rows}
    found = [record for record in records(SITE) if (record.name, record.type) not in replaced]
    found += [Record(ZONE, f"live-{number}", name, kind, content, priority=1) for number, (name, kind, content) in enumerate(rows)]
    for finding in verify(SITE, Snapshot(), date(2026, 11, 21), found=found):
        assert "\n" not in str(finding)
