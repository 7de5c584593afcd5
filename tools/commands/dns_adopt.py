"""Compares the live records of a Cloudflare zone with ours: which to adopt, which are wrong, which are missing."""

import json
import os
from collections.abc import Iterator, Sequence
from datetime import date
from typing import TextIO

import click

from components.checks.dns import live as rules
from components.checks.dns.resolver import read_snapshot
from components.checks.dns.verify import verify
from components.checks.registry import SNAPSHOT
from components.dns.live import COMMENT, RIGHTS, SHOWN, TOKEN, Live, RefusedError, SilentError, parse, read_zone
from components.dns.match import matches, stored
from components.dns.records import Record, records, ttl_of, zones
from components.errors import UserError
from components.settings.site import Site
from components.settings.types import Fqdn
from tools.commands.shared import stack_option
from tools.offline.stackfile import ROOT, load_stack, site_of


def adopting(site: Site, zone: Fqdn, found: dict[str, Live]) -> Site:
    """The site with these records in the zone's `adopt`."""
    if site.dns is None:
        return site
    settings = zones(site)[zone].model_copy(update={"adopt": {key: row.id for key, row in found.items()}})
    return site.model_copy(update={"dns": site.dns.model_copy(update={"zones": site.dns.zones | {zone: settings}})})


def report(site: Site, zone: Fqdn, live: Sequence[Live]) -> Iterator[str]:
    """Lines for a reader: the settings, what an adopting up would change, and what is wrong with the live mail records."""
    ours = [record for record in records(site) if record.zone == zone]
    found = matches(ours, live)
    yield "adopt:"
    for record in ours:
        yield f"  {json.dumps(record.key)}: {found[record.key].id if record.key in found else 'null # not live'}"
    taken = {row.id for row in found.values()}
    yield f"other_records: {sum(row.id not in taken for row in live)}"

    comments = 0
    for record in ours:
        if record.key not in found:
            yield f"new: {record.name} {record.type} {record.content}"
            continue
        changes = list(_changes(site, record, found[record.key]))
        if changes:
            yield f"changes: {record.name} {record.type} {', '.join(changes)}"
        comments += not changes and not found[record.key].ours
    if comments:
        yield f"changes: {comments} more records get the comment {COMMENT!r}, and nothing else"

    selectors = {record.name for record in ours}
    for row in live:
        if "._domainkey." in row.name and row.name not in selectors:
            yield f"undeclared: {row.name} {row.type} {row.content[:SHOWN]} is a selector of others; it stays as it is"
    after = adopting(site, zone, found)
    subject = rules.LiveZone(after, zone, live)
    for rule in (rules.unadopted, rules.over_limit):
        yield from (f"in the way: {found.text}; {found.remedy}" for found in rule(subject))

    names = {record.name for record in ours}
    concerned = [row for row in live if row.name in names or "._domainkey." in row.name]
    today = [Record(zone, row.id, row.name, row.type, row.content, row.priority, proxied=row.proxied) for row in concerned]
    others = [record for record in records(site) if record.zone != zone]
    for finding in verify(site, read_snapshot(SNAPSHOT), date.today(), found=[*today, *others]):
        yield f"{'wrong' if finding.level == 'error' else 'doubtful'} today: {finding}"


def _changes(site: Site, ours: Record, live: Live) -> Iterator[str]:
    if stored(live).split() != ours.content.split():
        yield f"{live.content} -> {ours.content}"
    for what, before, after in (
        ("priority", live.priority, ours.priority),
        ("ttl", live.ttl, ttl_of(site, ours)),
        ("proxied", live.proxied, ours.proxied),
    ):
        if before != after and after is not None:
            yield f"{what} {before} -> {after}"


@click.command()
@click.argument("zone")
@click.argument("file", type=click.File(encoding="utf-8"), required=False)
@stack_option
def dns_adopt_command(zone: str, file: TextIO | None, stack: str) -> None:
    """Compares the live records of the Cloudflare zone ZONE with ours: which to adopt, which are wrong, which are missing.

    Asks Cloudflare with the token in CLOUDFLARE_API_TOKEN. Without one, FILE is the API's answer to
    `GET /zones/<zone id>/dns_records?per_page=5000`.
    """
    site = site_of(load_stack(ROOT, stack))
    known = zones(site)
    if zone not in known:
        raise UserError(f"{zone}: stack {stack} has no such zone; it has {', '.join(known) or 'none'}")
    live = _from_file(file) if file else _from_cloudflare(zone, known[zone].cloudflare)
    for found in rules.wrong_zone(rules.LiveZone(site, zone, live)):
        raise UserError(str(found))
    for line in report(site, zone, live):
        print(line)


def _from_file(file: TextIO) -> list[Live]:
    try:
        live, total = parse(json.load(file))
    except ValueError as error:
        raise UserError(f"{file.name}: {error}") from None
    if total > len(live):
        raise UserError(f"{file.name}: holds {len(live)} of {total} records; ask again with per_page=5000")
    return live


def _from_cloudflare(zone: Fqdn, zone_id: str | None) -> list[Live]:
    token = os.environ.get(TOKEN)
    if not token or not zone_id:
        missing = f"set {TOKEN} (it needs {RIGHTS})" if zone_id else f"set dns.zones.{zone}.cloudflare"
        raise UserError(f"{zone}: {missing}, or name a file with the API's answer")
    try:
        return read_zone(zone, zone_id, token)
    except RefusedError as error:
        raise UserError(str(error)) from None
    except SilentError as error:
        raise UserError(f"{zone}: Cloudflare cannot be asked now: {error}") from None
