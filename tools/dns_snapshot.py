"""Looks at other people's DNS once, so that every preview can judge our records without a network."""

import argparse
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import dns.exception
import dns.resolver

from components.checks.dns.resolver import Snapshot, write_snapshot
from components.checks.dns.verify import judge
from components.checks.dns.view import View
from components.dns.gate import SNAPSHOT
from components.dns.records import records
from components.settings.parse import SettingsError, parse_site
from components.settings.site import KEY, Site
from tools.failure import print_errors
from tools.program import ROOT
from tools.stackfile import StackFileError, load_stack

MAX_ROUNDS = 12  # each include may name further ones, and ten look-ups are all that SPF allows


def look(sites: Iterable[Site], resolver: dns.resolver.Resolver, today: date) -> tuple[Snapshot, list[str]]:
    """A fresh snapshot of every name that the verification asks for, and what could not be asked, one sentence each.

    What is found may lead to further names, so it is verified and asked again until nothing is unknown.
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
    """The records' data, sorted; nothing when DNS says that there is none. Raises DNSException when it says nothing."""
    try:
        return tuple(sorted(data.to_text() for data in resolver.resolve(name, kind)))
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return ()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", help="DNS server to ask (address); without, the system's. A split horizon answers otherwise inside")
    parser.add_argument("--out", type=Path, default=SNAPSHOT)
    options = parser.parse_args()
    try:
        stacks = sorted(path.name.split(".")[1] for path in ROOT.glob("Pulumi.*.yaml"))
        sites = [parse_site(load_stack(ROOT, stack).config[KEY]) for stack in stacks]
        resolver = dns.resolver.Resolver(configure=options.server is None)
        if options.server:
            resolver.nameservers = [options.server]
        snapshot, failed = look(sites, resolver, date.today())
    except (StackFileError, SettingsError, dns.exception.DNSException, ValueError) as error:
        print_errors(error)
        return 1
    for problem in failed:
        print_errors(problem)
    if failed:
        print(f"{options.out} is left as it was", file=sys.stderr)
        return 1
    write_snapshot(snapshot, options.out)
    print(f"{options.out}: {len(snapshot.names)} names as of {snapshot.taken}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
