"""Benchmark: `pulumi up` of many new DNS records against a bare program that declares the same ones and nothing else.

Per record, so that what each program imports does not count: the seconds that more records take, over those of the bare program.
On the stand-in for Cloudflare, behind the provider's plugin where that is installed and the stand-in for it where not.
"""

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from components.checks.registry import read_site
from components.dns.records import records, ttl_of, zones
from tests.engine.test_dns import PROGRAM, plugin_path
from tests.standins.cloudflare import Cloudflare
from tools.commands.bench import many_domains, wall_seconds
from tools.offline.stackfile import ROOT

FEW, MANY = 4, 24  # domains
ROUNDS = 3
BOUND = 1.25

BARE = """\
import json
from pathlib import Path

import pulumi_cloudflare as cloudflare

for name, arguments in json.loads(Path("records.json").read_text()).items():
    cloudflare.DnsRecord(name, **arguments)
"""


def program(folder: Path, api: Cloudflare, text: str, count: int) -> int:
    """Writes the program to `folder`, with the settings of `count` domains in zones of `api`; the number of records."""
    settings = json.loads(many_domains(count))
    settings["dns"]["zones"] = {zone: {"cloudflare": api.zone(zone)} for zone in zones(read_site(json.dumps(settings)))}
    site = read_site(json.dumps(settings))
    bare = {
        f"{record.zone}/{record.key}": {
            **({"data": dict(record.data)} if record.data else {"content": record.content}),
            **({} if record.priority is None else {"priority": record.priority}),
            **{"zone_id": settings["dns"]["zones"][record.zone]["cloudflare"], "name": record.name, "type": record.type},
            "ttl": ttl_of(site, record),
        }
        for record in records(site)
    }
    folder.mkdir(parents=True)
    (folder / "records.json").write_text(json.dumps(bare))
    (folder / "__main__.py").write_text(text)
    (folder / "Pulumi.bench.yaml").write_text(json.dumps({"config": {"mailserver:site": settings}}))
    project = f"name: mailserver\nruntime: {{name: python, options: {{toolchain: pip, virtualenv: {ROOT}/.venv}}}}\n"
    (folder / "Pulumi.yaml").write_text(project)
    return len(bare)


def up(folder: Path, text: str, count: int) -> tuple[float, int]:
    """Seconds of an `up` of `count` domains in a new stack, and its number of records."""
    api = Cloudflare()
    state = folder / "state"
    try:
        number = program(folder / "program", api, text, count)
        state.mkdir()
        environment = {
            **os.environ,
            "PULUMI_BACKEND_URL": state.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        environment |= {"CLOUDFLARE_BASE_URL": api.url, "CLOUDFLARE_API_TOKEN": api.token, "PATH": plugin_path(folder)}
        pulumi = ["pulumi", "--non-interactive"]
        wall_seconds([*pulumi, "stack", "init", "bench"], folder / "program", environment)
        seconds = wall_seconds([*pulumi, "up", "--yes", "--skip-preview"], folder / "program", environment)
        assert sum(map(len, api.zones.values())) == number
        return seconds, number
    finally:
        api.stop()


def per_record(scratch: Path, text: str) -> float:
    (few, some), (many, more) = (up(scratch / str(count), text, count) for count in (FEW, MANY))
    return (many - few) / (more - some)


def main() -> None:
    times: dict[str, list[float]] = {PROGRAM: [], BARE: []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(ROUNDS):
            for place, (text, seconds) in enumerate(times.items()):
                seconds.append(per_record(Path(folder, f"{turn}-{place}"), text))
    ours, bare = map(statistics.median, times.values())
    print(f"pulumi up per DNS record / the same records in a bare program: {ours / bare:.2f}x, bound {BOUND}x")
    print(f"  milliseconds per record: {ours * 1000:.1f} and {bare * 1000:.1f}")
    sys.exit(ours / bare > BOUND)


if __name__ == "__main__":
    main()
