"""Adoption of live records: ids by key, what would change, what is in the way, what is wrong."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from components.dns.live import Live, parse
from components.dns.match import matches
from components.dns.records import records, zones
from components.settings.site import Site
from tests.standins.cloudflare import Cloudflare
from tools.commands.dns_adopt import dns_adopt_command, report

ZONE = "viktorbarzin.me"
FOREIGN = [
    {"id": "f" * 32, "name": f"www.{ZONE}", "type": "A", "content": "192.0.2.1", "proxied": True},
    {"id": "e" * 32, "name": ZONE, "type": "NS", "content": "ns1.example.net"},
    {"id": "d" * 32, "name": f"s1._domainkey.{ZONE}", "type": "CNAME", "content": "old.example.net."},
]


def answer(site: Site) -> dict[str, dict]:
    """Rows of Cloudflare's API with our records in them, some as the owner's zone had them; by key."""
    rows = {}
    for number, record in enumerate(records(site)):
        content = record.content if record.type != "SRV" else record.content.replace(" ", "\t")
        row = {"id": f"{number:032x}", "name": record.name, "type": record.type, "content": content, "priority": record.priority, "ttl": 1}
        rows[record.key] = row
    rows["dmarc"]["content"] = '"v=DMARC1; p=quarantine; pct=100; ri=3600; rua=mailto:dmarc@viktorbarzin.me"'
    rows["mta-sts"]["content"] = '"v=STSv1; id=20260412"'
    rows["spf"]["content"] = "v=spf1 include:spf.brevo.com ~all"
    del rows["tlsrpt"]
    return rows


def live(rows: dict[str, dict], *more: dict) -> list[Live]:
    return parse([*rows.values(), *FOREIGN, *more])[0]


def lines(site: Site, *more: dict, **changes: dict) -> list[str]:
    rows = answer(site)
    for key, change in changes.items():
        rows[key.replace("__", ":").replace("_", "-")] |= change
    return list(report(site, ZONE, live(rows, *more)))


def test_each_record_finds_its_live_counterpart(site: Callable[..., Site]):
    prod = site("prod")
    rows = answer(prod)
    found = matches(records(prod), live(rows))
    assert {key: row.id for key, row in found.items()} == {key: row["id"] for key, row in rows.items()}
    backwards = matches(records(prod), live(rows)[::-1])
    assert backwards["mx-mx2.viktorbarzin.me"].content == "mx2.viktorbarzin.me"


def test_the_report_has_both_settings_and_what_an_adopting_up_would_change(site: Callable[..., Site]):
    prod = site("prod")
    said = lines(prod)
    assert f'  "dmarc": {answer(prod)["dmarc"]["id"]}' in said
    assert '  "tlsrpt": null # not live' in said
    assert "other_records: 3" in said
    assert any(line.startswith("new: _smtp._tls.viktorbarzin.me TXT") for line in said)
    changed = [line.split()[1] for line in said if line.startswith("changes: ")]
    unchanged = len(answer(prod)) - 2
    assert sorted(changed[:-1]) == ["_dmarc.viktorbarzin.me", "_mta-sts.viktorbarzin.me"], "an unquoted text is the same text"
    assert changed[-1] == str(unchanged), "every record gets our comment, so every record changes"
    assert any(line.startswith("wrong today: ") and "id=20260412" in line for line in said)
    assert any(line.startswith("doubtful today: ") and "pct" in line for line in said)
    assert not any("www." in line for line in said)


def test_an_undeclared_selector_is_named(site: Callable[..., Site]):
    valid = {"id": "c" * 32, "name": f"cf2024-1._domainkey.{ZONE}", "type": "TXT", "content": '"v=DKIM1; k=rsa; p="'}
    undeclared = [line.split()[1] for line in lines(site("prod"), valid) if line.startswith("undeclared: ")]
    assert undeclared == [f"s1._domainkey.{ZONE}", f"cf2024-1._domainkey.{ZONE}"]


IN_THE_WAY = {
    "a second address of the mail host": {"name": f"mail.{ZONE}", "type": "A", "content": "192.0.2.99"},
    "a CNAME at the policy host": {"name": f"mta-sts.{ZONE}", "type": "CNAME", "content": "old.example"},
    "a CNAME at the mail host": {"name": f"mail.{ZONE}", "type": "CNAME", "content": "old.example"},
    "a second SPF": {"name": ZONE, "type": "TXT", "content": '"v=spf1 -all"'},
    "another mail host": {"name": ZONE, "type": "MX", "content": "mx.old.example", "priority": 5},
}


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_a_conflicting_record_is_named(what: str, site: Callable[..., Site]):
    row = {"id": "b" * 32} | IN_THE_WAY[what]
    (found,) = [line for line in lines(site("prod"), row) if line.startswith("in the way: ")]
    assert row["content"].strip('"') in found and row["id"] in found


def test_priority_and_ttl_are_changes_too(site: Callable[..., Site]):
    said = lines(site("prod"), **{"mx_mail.viktorbarzin.me": {"priority": 10, "ttl": 3600}})
    assert f"changes: {ZONE} MX priority 10 -> 1, ttl 3600 -> 1" in said


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloudflare]:
    api = Cloudflare()
    monkeypatch.setenv("CLOUDFLARE_BASE_URL", api.url)
    monkeypatch.delenv("CLOUDFLARE_API_TOKEN", raising=False)
    yield api
    api.stop()


def command(zone: str, *arguments: str) -> Result:
    return CliRunner().invoke(dns_adopt_command, [zone, *arguments, "--stack", "prod"], standalone_mode=False)


def test_a_listing_that_is_cut_off_is_refused(tmp_path: Path, site: Callable[..., Site]):
    file = tmp_path / "records.json"
    file.write_text(json.dumps({"result": list(answer(site("prod")).values()), "result_info": {"total_count": 181}}))
    assert "of 181 records; ask again with per_page=5000" in str(command(ZONE, str(file)).exception)


def test_a_zone_that_the_stack_does_not_have_is_refused(tmp_path: Path):
    (tmp_path / "records.json").write_text("[]")
    assert "example.net: stack prod has no such zone; it has viktorbarzin.me" in str(
        command("example.net", str(tmp_path / "records.json")).exception
    )


def test_a_listing_of_another_zone_is_refused(tmp_path: Path):
    (tmp_path / "records.json").write_text(json.dumps([{"id": "1", "name": "www.example.net", "type": "A", "content": "192.0.2.1"}]))
    assert "is the id of another zone, which holds www.example.net" in str(command(ZONE, str(tmp_path / "records.json")).exception)


def test_without_a_file_cloudflare_is_asked(api: Cloudflare, monkeypatch: pytest.MonkeyPatch, site: Callable[..., Site]):
    assert "set CLOUDFLARE_API_TOKEN (it needs Zone > DNS > Edit), or name a file" in str(command(ZONE).exception)
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", api.token)
    assert "copy the zone id of viktorbarzin.me" in str(command(ZONE).exception)
    zone_id = zones(site("prod"))[ZONE].cloudflare or ""
    api.zones[zone_id], api.names[zone_id] = {}, ZONE
    assert command(ZONE).output.splitlines()[0] == "adopt:"
