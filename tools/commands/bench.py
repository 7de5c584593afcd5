"""Benchmarks, as ratios within one run: a machine's speed cancels out. Each row says what it compares and the bound it should keep."""

import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click

from components.checks.dns.resolver import Snapshot
from components.checks.dns.verify import verify
from components.checks.registry import read_site
from components.settings.site import KEY
from tools.bench import jobs
from tools.bench import lab as bench_lab
from tools.lab.edge import Lab
from tools.lab.hosts import missing
from tools.offline.dns_view import zone_files
from tools.offline.program import run
from tools.offline.stackfile import ROOT, Stack, load_stack

PAGE = ROOT / "docs" / "bench.md"
ROUNDS = 5  # each figure is the median of so many runs, taken in turns with what it is compared to

_MODULES_OF_A_RENDER = """\
import json, sys
from tools.__main__ import main
main(["render", "--stack", "prod", "--out", sys.argv[1]], standalone_mode=False)
print(json.dumps(sorted(name for name in sys.modules if name.partition(".")[0] != "__main__")))
"""
_IMPORT_ONLY = """\
import importlib, json, sys
for name in json.load(open(sys.argv[1])):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
"""


@dataclass(frozen=True)
class Row:
    what: str
    value: float
    bound: float
    unit: str = "x"

    @property
    def over(self) -> bool:
        return self.value > self.bound

    def columns(self) -> tuple[str, str, str, str]:
        value = f"{self.value:g}" if self.value == int(self.value) else f"{self.value:.2f}"
        return self.what, f"{value}{self.unit}", f"{self.bound:g}{self.unit}", "over" if self.over else ""


def wall_seconds(command: list[str], cwd: Path = ROOT, env: dict[str, str] | None = None) -> float:
    started = time.perf_counter()
    result = subprocess.run(command, cwd=cwd, env=env, check=False, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {result.stdout}{result.stderr}")
    return time.perf_counter() - started


def ratio(measured: Callable[[], float], reference: Callable[[], float]) -> float:
    """Median of `measured` over median of `reference`, taken in turns so that both see the same machine."""
    pairs = [(measured(), reference()) for _ in range(ROUNDS)]
    return statistics.median(one for one, _ in pairs) / statistics.median(other for _, other in pairs)


def render_rows(scratch: Path) -> Iterator[Row]:
    out = str(scratch / "out")
    render = [sys.executable, "-m", "tools", "render", "--stack", "prod", "--out", out]
    listing = subprocess.run([sys.executable, "-c", _MODULES_OF_A_RENDER, out], cwd=ROOT, check=True, capture_output=True, text=True)
    modules = scratch / "modules.json"
    modules.write_text(listing.stdout.splitlines()[-1], encoding="utf-8")
    imports = [sys.executable, "-c", _IMPORT_ONLY, str(modules)]
    yield Row("make render STACK=prod / importing its modules", ratio(lambda: wall_seconds(render), lambda: wall_seconds(imports)), 2)
    yield Row("peak memory of make render STACK=prod", _peak_mib(render), 350, " MiB")


def _peak_mib(command: list[str]) -> float:
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command} failed")
    return usage.ru_maxrss / 1024


def many_domains(count: int) -> str:
    """The settings of dev with `count` more domains, each with a mailbox, a key, and every record."""
    site = json.loads(load_stack(ROOT, "dev").config[KEY])
    template = site["domains"]["example.org"]
    for number in range(count):
        domain = f"d{number}.example"
        site["domains"][domain] = {**template, "host": "mail.example.org"}
        site["mail"]["mailboxes"][f"me@{domain}"] = {}
    return json.dumps(site)


def dns_rows() -> Iterator[Row]:
    """Time to make, write and verify the records of 100 domains over that of 10; linear would be 10."""
    sites = {count: read_site(many_domains(count)) for count in (10, 100)}

    def seconds(count: int) -> float:
        started = time.perf_counter()
        for _path, _text in zone_files(sites[count], datetime.now(UTC)):
            pass
        if any(finding.level == "error" for finding in verify(sites[count], Snapshot(), date.today())):
            raise RuntimeError("the records of the benchmark do not pass")
        return time.perf_counter() - started

    seconds(10)  # the first run pays for what libraries make once
    yield Row("DNS of 100 domains / of 10", ratio(lambda: seconds(100), lambda: seconds(10)), 12)


def domain_rows() -> Iterator[Row]:
    """Time of a run with n domains, each with a mailbox and a key, over that with one; linear would be n."""

    def seconds(count: int) -> float:
        stack = Stack("mailserver", "bench", {KEY: many_domains(count)}, frozenset())
        started = time.perf_counter()
        run(stack)
        return time.perf_counter() - started

    seconds(1)  # the first run pays for the imports
    for count in (10, 100):
        yield Row(f"program with {count} domains / with one", ratio(lambda n=count: seconds(n), lambda: seconds(1)), count)


# Imports what the program has imported when it has run, and nothing else.
_IMPORTS = """\
import importlib, json, pathlib
for name in json.loads(pathlib.Path("modules.json").read_text()):
    importlib.import_module(name)
"""
_ONE_RESOURCE = """\
import pulumi, pulumi_kubernetes as k8s
provider = k8s.Provider("cluster", render_yaml_to_directory="out")
k8s.core.v1.ConfigMap("one", metadata={"name": "one"}, opts=pulumi.ResourceOptions(provider=provider))
"""
_MODULES_OF_A_PROGRAM = """\
import json, sys
from tools.offline.program import run
from tools.offline.stackfile import ROOT, load_stack
run(load_stack(ROOT, "prod"))
names = sorted(name for name in sys.modules if name.startswith(("components", "pulumi", "pydantic", "google.protobuf", "grpc")))
print(json.dumps([name for name in names if not name.startswith("pulumi_cloudflare")]))
"""


def engine_rows(scratch: Path) -> Iterator[Row]:
    """The engine on stack prod, its objects written to a folder by the real Kubernetes provider; where `pulumi` is on PATH.

    Firewall and zone are left out: both need credentials.
    """
    if shutil.which("pulumi") is None:
        return
    environment = {**os.environ, "PULUMI_CONFIG_PASSPHRASE": "", "PULUMI_SKIP_UPDATE_CHECK": "true"}
    environment["PULUMI_BACKEND_URL"] = scratch.as_uri()
    listed = subprocess.run([sys.executable, "-c", _MODULES_OF_A_PROGRAM], cwd=ROOT, check=True, capture_output=True, text=True)
    modules = listed.stdout.splitlines()[-1]

    def pulumi(name: str, *arguments: str) -> float:
        return wall_seconds(["pulumi", "--non-interactive", *arguments, "--stack", "prod"], cwd=scratch / name, env=environment)

    for name, program in (("real", None), ("imports", _IMPORTS), ("one", _IMPORTS + _ONE_RESOURCE)):
        folder = scratch / name
        folder.mkdir()
        for part in ("components", "scripts", "snapshots"):
            shutil.copytree(ROOT / part, folder / part)
        project = (ROOT / "Pulumi.yaml").read_text("utf-8")
        (folder / ".venv").symlink_to(ROOT / ".venv")
        (folder / "modules.json").write_text(modules, encoding="utf-8")
        if program is None:
            shutil.copy(ROOT / "__main__.py", folder)
            (folder / "Pulumi.prod.yaml").write_text(json.dumps({"config": {KEY: _offline()}}), encoding="utf-8")
        else:
            project = project.replace("name: mailserver", f"name: {name}").partition("config:")[0]
            (folder / "__main__.py").write_text(program, encoding="utf-8")
        (folder / "Pulumi.yaml").write_text(project, encoding="utf-8")
        pulumi(name, "stack", "select", "--create")

    def preview(name: str) -> Callable[[], float]:
        return lambda: pulumi(name, "preview")

    yield Row("pulumi preview STACK=prod / importing its modules", ratio(preview("real"), preview("imports")), 1.5)
    yield Row("  of that, one object: the provider's own start", ratio(preview("one"), preview("imports")), 1.5)
    # `make up` stops after a preview without changes; this is the step that would follow. `pulumi up` alone does both.
    update = ("up", "--yes", "--skip-preview")
    pulumi("real", *update)
    unchanged = ratio(lambda: pulumi("real", *update), preview("real"))
    yield Row("pulumi up STACK=prod without changes / its preview", unchanged, 1.5)


def _offline() -> dict[str, Any]:
    """The settings of prod without firewall and zone, and with a folder for a cluster."""
    site = json.loads(load_stack(ROOT, "prod").config[KEY])
    site["edge"].pop("ssh", None)
    for zone in site["dns"]["zones"].values():
        zone.pop("cloudflare", None)
    site["cluster"] |= {"context": None, "render_to": "objects"}
    return site


def lab_rows() -> Iterator[Row]:
    """The mail edge of dev on real daemons, with a mailbox for each client; where the lab can run."""
    if missing() is None:
        site = json.loads(load_stack(ROOT, "dev").config[KEY])
        for number in range(bench_lab.CLIENTS):
            mailbox = f"user{number}@example.org"
            site["mail"]["mailboxes"][mailbox], site["mail"]["aliases"][mailbox] = {}, [mailbox]
        with Lab(read_site(json.dumps(site))) as lab:
            yield from (Row(*measurement) for measurement in bench_lab.measurements(lab))


def job_rows() -> Iterator[Row]:
    """Backup and retention on real programs; where these are there."""
    if jobs.missing() is None:
        yield from (Row(*measurement) for measurement in jobs.measurements())


@click.command()
def bench_command() -> None:
    """Benchmarks as ratios, each with its bound, printed and written to docs/bench.md as they come; exit code 1 when one is exceeded."""
    head, rows = machine(), []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for row in itertools.chain(render_rows(scratch), domain_rows(), dns_rows(), engine_rows(scratch), lab_rows(), job_rows()):
            what, value, bound, over = row.columns()
            click.echo(f"{what}: {value} (bound {bound}) {over}".rstrip())
            rows.append(row)
            PAGE.write_text(page(f"{head}The run was ended before its last row.\n", rows), encoding="utf-8")
    PAGE.write_text(page(head, rows), encoding="utf-8")
    sys.exit(any(row.over for row in rows))


def machine() -> str:
    """What the figures were measured on, and what else it had to do then."""
    cores, (busy, *_) = os.cpu_count() or 1, os.getloadavg()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    others = f"Other work wanted {busy:.1f} cores at the start, so compare ratios, not times.\n" if busy > 1 else ""
    return f"Measured on {date.today()}: {cores} cores, {memory:.0f} GiB, {system}.\n{others}"


def page(head: str, rows: list[Row]) -> str:
    """The table as a page of the documentation."""
    lines = "".join(f"| {' | '.join(row.columns())} |\n" for row in rows)
    return f"""\
# Benchmarks

Written by `make bench`. Tests bound the counts and sizes; times depend on the machine, so they are bounded here only.

{head}
| measurement | value | bound | |
|---|---|---|---|
{lines}"""
