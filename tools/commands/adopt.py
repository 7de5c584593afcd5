"""Takes a live mail system over: says what becomes of each object, refuses what would lose mail, and writes the `adopt` settings."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from components.checks.dns import live as dns_rules
from components.dns.live import Live, parse
from components.dns.match import matches
from components.dns.records import records, zones
from components.edge.differences import differences
from components.errors import UserError
from components.settings.site import Site
from tools.adoption import table_of
from tools.cluster import check_cluster, keeping, mortal_volumes, removal
from tools.commands.dns_adopt import adopting, report
from tools.commands.edge import firewall_or_reason
from tools.commands.shared import CONSOLE, stack_option
from tools.live_site import LiveSite, load, read, save, stored
from tools.offline.program import run
from tools.offline.stackfile import ROOT, load_stack, site_of, write_settings
from tools.takeover import ANEW, TAKEN, Fate, caught, fates, refusals

path = click.Path(path_type=Path)


@click.command()
@stack_option
@click.option("--from", "source", type=path, help="folder of saved answers; nothing is asked")
@click.option("--save", "target", type=path, help="keep the answers in this folder (addresses are in it, passwords are not), and end")
@click.option("--aliases", type=path, help="the alias lines of the secret store, as a file")
@click.option(
    "--accounts", type=path, help="the accounts of the secret store, as a file: JSON of address to password; only addresses are used"
)
@click.option("--leave", default="", help="what you decide to leave behind, by the names in the refusal, separated by blanks")
@click.option("--key", type=path, help="file of the private SSH key of the firewall")
def adopt_command(stack: str, source: Path | None, target: Path | None, leave: str, key: Path | None, **files: Path | None) -> None:
    """Compares what runs with what the settings make of it, and writes what to take over into the stack file; changes nothing else."""
    loaded = load_stack(ROOT, stack)
    site = site_of(loaded)
    declared = run(loaded).kubernetes()
    if source:
        live = load(source)
    else:
        if site.cluster.context is None:
            raise UserError("cluster.context: is not set, so there is no cluster to ask; FROM=<folder> reads saved answers")
        check_cluster(site)
        live = read(site, declared, firewall_or_reason(site, loaded, key), dict(_zones(site)))
    live = replace(live, **stored(files["aliases"], files["accounts"]))
    if target:
        save(live, target)
        print(f"saved to {target}; `make adopt STACK={stack} FROM={target}` reads it")
        return
    found = fates(live, declared)
    show(site, live, found)
    decided = set(leave.split())
    refused = [refusal for refusal in refusals(site, live, declared) if refusal.name not in decided or not refusal.name]
    rows = {zone: _rows(answer) for zone, answer in live.zones.items()}
    blocked = [str(finding) for zone, answer in rows.items() for finding in in_the_way(site, zone, answer)]
    if refused or blocked:
        lines = ["nothing was written, because taking this over could lose mail or replace what runs:"]
        lines += [f"  {refusal.text}{f' [{refusal.name}]' if refusal.name else ''}" for refusal in refused]
        lines += [f"  {text}" for text in blocked]
        if names := [refusal.name for refusal in refused if refusal.name]:
            lines.append(f"to leave some of it behind on purpose, name it: LEAVE='{' '.join(names)}'")
        raise UserError("\n".join(lines))
    write_settings(ROOT, stack, changes(site, found, rows))
    print(f"Pulumi.{stack}.yaml: `adopt` is written; go on with `make preview STACK={stack}` and docs/runbooks/adopt.md")


def _zones(site: Site) -> Iterator[tuple[str, Any]]:
    """The records of each zone at Cloudflare, in the API's form, where the environment has a token."""
    for zone in dns_rules.look(site):
        if zone.live is None:
            print(f"zone {zone.zone}: not asked: {zone.refusal or zone.silence}")
        else:
            yield zone.zone, [vars(row) for row in zone.live]


def _rows(answer: Any) -> list[Live]:
    return parse(answer)[0]


def in_the_way(site: Site, zone: str, live: list[Live]) -> Iterator[Any]:
    """Findings that forbid to take over a zone, with the records adopted that match."""
    if zone not in zones(site):
        return
    ours = [record for record in records(site) if record.zone == zone]
    subject = dns_rules.LiveZone(adopting(site, zone, matches(ours, live)), zone, live)
    for rule in (dns_rules.wrong_zone, dns_rules.unadopted, dns_rules.over_limit):
        yield from rule(subject)


def changes(site: Site, found: list[Fate], rows: dict[str, list[Live]]) -> dict[str, Any]:
    """The settings to write, by `area/setting`."""
    written: dict[str, Any] = {"adopt": [fate.reference for fate in found if fate.word == TAKEN]}
    for zone, live in rows.items():
        if zone in zones(site):
            matched = matches([record for record in records(site) if record.zone == zone], live)
            taken = {row.id for row in matched.values()}
            written[f"dns/zones/{zone}/adopt"] = {key: row.id for key, row in matched.items() if not row.ours}
            written[f"dns/zones/{zone}/other_records"] = sum(row.id not in taken for row in live)
    return written


def show(site: Site, live: LiveSite, found: list[Fate]) -> None:
    """What becomes of everything, and each field that changes."""
    for word in dict.fromkeys(fate.word for fate in found):
        names = [fate.reference for fate in found if fate.word == word]
        CONSOLE.print(f"{word} ({len(names)}): {', '.join(names)}", soft_wrap=True, markup=False)
    if table := table_of((fate.reference, fate.live, fate.wanted) for fate in found if fate.word == TAKEN):
        CONSOLE.print(table)
    if anew := [fate.reference for fate in found if fate.word == ANEW]:
        print("made anew, because an import would keep what its former owner set; remove first (the Secret of an ExternalSecret stays):")
        print(f"  {removal(site, anew, '--cascade=orphan')}")
    volumes = [thing for thing in live.objects if thing["kind"] == "PersistentVolume"]
    if mortal := mortal_volumes(site, volumes):
        print("these volumes are deleted together with their claims; before anything else:")
        print(f"  {keeping(site, mortal)}")
    for zone, answer in live.zones.items():
        print(f"zone {zone}:")
        for line in report(site, zone, _rows(answer)):
            if line.startswith(("new: ", "changes: ", "wrong today: ", "doubtful today: ", "undeclared: ")):
                print(f"  {line}")
    for kind, answer in live.firewall.items():
        print(f"firewall, {kind}:")
        for line in differences(answer["before"], answer["after"]) or ["nothing to change"]:
            print(f"  {line}")
        for warning in answer["warnings"]:
            print(f"  ! {warning}")
    if through := caught(site, live):
        print(f"accounts without an alias of their own, so that their mail goes to the catch-all: {', '.join(through)}")
    for part, why in live.missing.items():
        print(f"not read: {part}: {why}")
