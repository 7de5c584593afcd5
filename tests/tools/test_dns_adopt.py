"""Adoption of live records: ids by key, what would change, what is wrong."""

from collections.abc import Callable

import pytest

from components.dns.records import records
from components.settings.site import Site
from tools.commands.dns_adopt import live_records, matches, report

ZONE = "viktorbarzin.me"


def answer(site: Site) -> dict:
    """Cloudflare's API with our records in it, some of them as the owner's zone had them, and strangers beside them."""
    rows = []
    for number, record in enumerate(records(site)):
        content = record.content if record.type != "SRV" else record.content.replace(" ", "\t")
        rows.append({"id": f"{number:032x}", "name": record.name, "type": record.type, "content": content, "priority": record.priority})
    by_key = {record.key: row for record, row in zip(records(site), rows, strict=True)}
    by_key["dmarc"]["content"] = '"v=DMARC1; p=quarantine; pct=100; ri=3600; rua=mailto:dmarc@viktorbarzin.me"'
    by_key["mta-sts"]["content"] = '"v=STSv1; id=20260412"'
    by_key["spf"]["content"] = "v=spf1 include:spf.brevo.com ~all"
    rows.remove(by_key["tlsrpt"])
    rows += [
        {"id": "f" * 32, "name": "www.viktorbarzin.me", "type": "A", "content": "192.0.2.1", "proxied": True},
        {"id": "e" * 32, "name": "viktorbarzin.me", "type": "NS", "content": "ns1.example.net"},
        {"id": "d" * 32, "name": "s1._domainkey.viktorbarzin.me", "type": "CNAME", "content": "old.example.net."},
    ]
    return {"success": True, "result": rows}


def test_each_record_finds_its_live_counterpart(site: Callable[..., Site]):
    prod = site("prod")
    ours = list(records(prod))
    found = matches(ours, live_records(ZONE, answer(prod)))
    expected = {record.key: f"{number:032x}" for number, record in enumerate(ours) if record.key != "tlsrpt"}
    assert {key: pair[0] for key, pair in found.items()} == expected


def test_two_records_of_a_name_are_not_confused(site: Callable[..., Site]):
    prod = site("prod")
    ours = list(records(prod))
    backwards = live_records(ZONE, answer(prod)["result"][::-1])
    assert matches(ours, backwards)["mx-mx2.viktorbarzin.me"][1].content == "mx2.viktorbarzin.me"


def test_the_report_says_what_an_adopting_up_would_do(site: Callable[..., Site]):
    prod = site("prod")
    lines = list(report(prod, ZONE, live_records(ZONE, answer(prod))))
    assert '  "dmarc": ' + next(f"{n:032x}" for n, record in enumerate(records(prod)) if record.key == "dmarc") in lines
    assert any(line.startswith("new: _smtp._tls.viktorbarzin.me TXT") for line in lines)
    changed = [line.split()[1] for line in lines if line.startswith("changes: ")]
    assert sorted(changed) == ["_dmarc.viktorbarzin.me", "_mta-sts.viktorbarzin.me"], "an unquoted text is the same text"
    assert any(line.startswith("wrong today: ") and "id=20260412" in line for line in lines)
    assert any(line.startswith("doubtful today: ") and "pct" in line for line in lines)
    assert any("s1._domainkey" in line for line in lines), "a selector that nobody declared"
    assert not any("www." in line for line in lines)


@pytest.mark.parametrize("row", [{"id": "1", "type": "A"}, "text"])
def test_a_record_with_parts_missing_is_refused(row: object):
    with pytest.raises(ValueError, match="record 1 has not all of id, name, type and content"):
        live_records(ZONE, [row])


@pytest.mark.parametrize("broken", [{"errors": []}, "text", None])
def test_what_is_no_list_of_records_is_refused(broken: object):
    with pytest.raises(ValueError, match="no list of DNS records"):
        live_records(ZONE, broken)
