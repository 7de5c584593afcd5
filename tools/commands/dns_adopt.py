"""Compares the live records of a Cloudflare zone with ours: which to adopt, which are wrong, which are missing."""

import json
from collections.abc import Iterator
from datetime import date
from typing import Any, TextIO

import click

from components.checks.dns.resolver import read_snapshot
from components.checks.dns.verify import verify
from components.dns.content import canonical, name
from components.dns.gate import SNAPSHOT
from components.dns.records import Record, records
from components.errors import UserError
from components.settings.site import Site
from components.settings.types import Fqdn
from tools.commands.shared import stack_option
from tools.offline.stackfile import ROOT, load_stack, site_of

MAIL_TYPES = {"A", "AAAA", "CNAME", "MX", "TXT", "SRV", "CAA"}


def live_records(zone: Fqdn, answer: Any) -> list[tuple[str, Record]]:
    """Id and record of each live record of a type that we have too, contents as they stand. Raises ValueError."""
    rows = answer.get("result") if isinstance(answer, dict) else answer
    if not isinstance(rows, list):
        raise ValueError("this is no list of DNS records")  # noqa: TRY004 - of the file, not of the program
    found = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not {"id", "name", "type", "content"} <= row.keys():
            raise ValueError(f"record {number} has not all of id, name, type and content")
        if row["type"] in MAIL_TYPES:
            record = Record(
                zone, row["id"], row["name"], row["type"], row["content"], row.get("priority"), proxied=bool(row.get("proxied"))
            )
            found.append((row["id"], record))
    return found


def matches(ours: list[Record], live: list[tuple[str, Record]]) -> dict[str, tuple[str, Record]]:
    """Key of each of our records with the live one that it should become: the same content first, else the same role at its name."""
    left = list(live)
    found: dict[str, tuple[str, Record]] = {}
    for test in (_same, _same_role):
        for record in ours:
            if record.key in found:
                continue
            hit = next((pair for pair in left if test(record, pair[1])), None)
            if hit:
                found[record.key] = hit
                left.remove(hit)
    return found


def _place(record: Record) -> tuple[str, str]:
    return name(record.name), record.type


def _same(ours: Record, live: Record) -> bool:
    if _place(ours) != _place(live):
        return False
    # SRV and CAA come with tabs or spaces between their parts, whatever was sent.
    return canonical(live.type, live.content).split() == ours.content.split()


def _same_role(ours: Record, live: Record) -> bool:
    """TXT of a kind begin alike (`v=spf1`); of other types there is one at a name that we mean."""
    if _place(ours) != _place(live):
        return False
    if ours.type == "TXT":
        return canonical("TXT", live.content)[:7].lower() == ours.content[:7].lower()
    return ours.type not in {"MX", "CAA"}


def report(site: Site, zone: Fqdn, live: list[tuple[str, Record]]) -> Iterator[str]:
    """Lines for a reader: the `adopt` setting, what an adopting up would change, and what is wrong with the live mail records."""
    ours = [record for record in records(site) if record.zone == zone]
    found = matches(ours, live)
    yield "adopt:"
    yield from (f"  {json.dumps(record.key)}: {found[record.key][0]}" for record in ours if record.key in found)
    for record in ours:
        if record.key not in found:
            yield f"new: {record.name} {record.type} {record.content}"
        elif canonical(record.type, found[record.key][1].content).split() != record.content.split():
            yield f"changes: {record.name} {record.type} {found[record.key][1].content} -> {record.content}"
    places = {_place(record) for record in ours}
    concerned = [record for _, record in live if _place(record) in places or "._domainkey." in record.name]
    others = [record for record in records(site) if record.zone != zone]
    for finding in verify(site, read_snapshot(SNAPSHOT), date.today(), found=[*concerned, *others]):
        yield f"{'wrong' if finding.level == 'error' else 'doubtful'} today: {finding}"


@click.command()
@click.argument("zone")
@click.argument("file", type=click.File(encoding="utf-8"))
@stack_option
def dns_adopt_command(zone: str, file: TextIO, stack: str) -> None:
    """Compares the live records of the Cloudflare zone ZONE with ours: which to adopt, which are wrong, which are missing.

    FILE is the answer of Cloudflare's API to `GET /zones/<zone id>/dns_records?per_page=5000`, or its `result` alone, so that no
    token is needed here.
    """
    site = site_of(load_stack(ROOT, stack))
    try:
        live = live_records(zone, json.load(file))
    except ValueError as error:
        raise UserError(f"{file.name}: {error}") from None
    for line in report(site, zone, live):
        print(line)
