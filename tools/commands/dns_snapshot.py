"""Looks up the DNS records of others once, so that every preview can verify ours without a network."""

from collections.abc import Iterable
from datetime import date
from pathlib import Path

import click
import dns.exception
import dns.resolver

from components.checks.dns.resolver import Snapshot, write_snapshot
from components.checks.dns.verify import judge
from components.checks.dns.view import View
from components.checks.registry import SNAPSHOT
from components.dns.records import records
from components.errors import UserError
from components.settings.site import Site
from tools.offline.stackfile import ROOT, load_stack, site_of

MAX_ROUNDS = 12  # each include may name further ones, and SPF allows ten lookups


def look(sites: Iterable[Site], resolver: dns.resolver.Resolver, today: date) -> tuple[Snapshot, list[str]]:
    """A fresh snapshot of every name that the verification asks for, and one sentence for each failed lookup.

    Answers may name further hosts, so the verification runs again until it asks for nothing unknown.
    """
    names: dict[str, dict[str, tuple[str, ...]]] = {}
    failed: dict[tuple[str, str], str] = {}
    for site in sites:
        for _round in range(MAX_ROUNDS):
            view = View(site, records(site), Snapshot(taken=today, names=names), today)
            judge(view)  # for what the rules ask, not for what they say
            wanted = [asked for asked in view.resolver.unknown if asked not in failed]
            if not wanted:
                break
            for name, kind in wanted:
                try:
                    names.setdefault(name, {})[kind] = _ask(resolver, name, kind)
                except dns.exception.DNSException as problem:
                    failed[name, kind] = f"{name} {kind}: {problem}"
    return Snapshot(taken=today, names={name: kinds for name, kinds in names.items() if kinds}), list(failed.values())


def _ask(resolver: dns.resolver.Resolver, name: str, kind: str) -> tuple[str, ...]:
    """The records' data, sorted; empty when DNS says that they do not exist. Raises DNSException when there is no answer."""
    try:
        return tuple(sorted(data.to_text() for data in resolver.resolve(name, kind)))
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return ()


@click.command()
@click.option("--server", help="address of the DNS server to ask, for where the system's has a split horizon  [default: the system's]")
@click.option("--out", type=click.Path(path_type=Path), default=SNAPSHOT)
def dns_snapshot_command(server: str | None, out: Path) -> None:
    """Looks up the DNS records of others that the offline verification needs, for all stacks."""
    stacks = sorted(path.name.split(".")[1] for path in ROOT.glob("Pulumi.*.yaml"))
    sites = [site_of(load_stack(ROOT, stack)) for stack in stacks]
    try:
        resolver = dns.resolver.Resolver(configure=server is None)
        if server:
            resolver.nameservers = [server]
        snapshot, failed = look(sites, resolver, date.today())
    except (dns.exception.DNSException, ValueError) as error:
        raise UserError(str(error)) from None
    if failed:
        raise UserError("\n".join([*failed, f"{out} is left as it was"]))
    write_snapshot(snapshot, out)
    print(f"{out}: {len(snapshot.names)} names as of {snapshot.taken}")
