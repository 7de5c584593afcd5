"""What others have changed since the last `up`, asked of cluster, DNS and firewall; for a person, and for a CI that asks nightly."""

import sys
from pathlib import Path

import click

from components.errors import UserError
from tools.cluster import check_cluster
from tools.commands.edge import firewall_of, plan
from tools.commands.engine import explained, run_engine
from tools.commands.shared import CONSOLE, stack_option
from tools.offline.stackfile import ROOT, load_stack, site_of
from tools.plan import drift
from tools.pulumi_cli import find_engine, select_stack


@click.command()
@stack_option
@click.option("--key", type=click.Path(path_type=Path), help="file of the private SSH key of the firewall")
def drift_command(stack: str, key: Path | None) -> None:
    """Names each field that is no longer as the last `up` left it, and changes nothing. Exit code 1: there are some; 2: could not look."""
    loaded = load_stack(ROOT, stack)
    site = site_of(loaded)
    engine = find_engine()
    select_stack(engine, stack)
    check_cluster(site)
    edge = False
    if site.edge.access:
        print("on the firewall, where + and ~ are what an `up` would write:")
        edge = plan(site, firewall_of(site, loaded, key), CONSOLE)
    code, _, done = run_engine(engine, stack, "refresh", "--preview-only", "--expect-no-changes", keep=True)
    found = list(drift(done))
    if code and not found:
        raise UserError("\n".join(explained(engine, stack, done)) or f"pulumi refresh ended with {code}")
    for line in found:
        print(line)
    if not found and not edge:
        print("no drift")
        return
    print(f"`make up STACK={stack} REFRESH=1` puts back what the settings say; to keep a change, write it into the settings")
    sys.exit(1)
