"""The program's result without engine, cluster, credentials or network: a summary on screen, and every artefact as a file."""

import dataclasses
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString, SingleQuotedScalarString

from components.checks.finding import Finding
from components.checks.registry import Refused, judge, refuse
from components.errors import UserError
from components.monitoring.texts import artefacts as monitoring_artefacts
from components.names import MAIL_SERVER
from tools.commands.shared import CONSOLE, stack_option
from tools.offline.dns_view import dns_table, zone_files
from tools.offline.edge_view import edge_artefacts, edge_summary
from tools.offline.program import Recording, run
from tools.offline.stackfile import ROOT, Stack, load_stack, site_of

BOOLEAN_OF_YAML_1_1 = re.compile("y|yes|n|no|on|off", re.IGNORECASE)  # kubectl still reads these words so
INDEX = "resources.json"  # its presence marks a folder that an earlier render made and this one may replace


def artefacts(recording: Recording) -> Iterator[tuple[str, str]]:
    """Path and text of every file that a render writes."""
    for thing in recording.kubernetes():
        yield f"kubernetes/{thing['kind'].lower()}-{thing['metadata']['name']}.yaml", yaml_text(thing)
    yield from _mail_files(recording.kubernetes())
    yield INDEX, json.dumps([dataclasses.asdict(resource) for resource in recording.resources], indent=2) + "\n"


def _mail_files(objects: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """What the mail pod's config volumes hold, by the path that the pod sees: read back from the objects that will hold it."""
    maps = {thing["metadata"]["name"]: thing["data"] for thing in objects if thing["kind"] == "ConfigMap"}
    for deployment in (thing for thing in objects if (thing["kind"], thing["metadata"]["name"]) == ("Deployment", MAIL_SERVER)):
        for volume in deployment["spec"]["template"]["spec"]["volumes"]:
            source = volume.get("configMap")
            if source and "items" in source:
                yield from ((f"mail/{item['path']}", maps[source["name"]][item["key"]]) for item in source["items"])
            elif source:
                yield from ((f"mail/scripts/{name}", text) for name, text in maps[source["name"]].items())


def yaml_text(thing: dict[str, Any]) -> str:
    def readable(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: readable(part) for key, part in value.items()}
        if isinstance(value, list):
            return [readable(part) for part in value]
        if isinstance(value, str) and "\n" in value and "\r" not in value:  # a block would lose a CR
            return LiteralScalarString(value)
        if isinstance(value, str) and BOOLEAN_OF_YAML_1_1.fullmatch(value):
            return SingleQuotedScalarString(value)
        return value

    yaml = YAML()
    yaml.width = 1_000_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    with tempfile.SpooledTemporaryFile(mode="w+", max_size=1 << 20, encoding="utf-8") as buffer:
        yaml.dump(readable(thing), buffer)
        buffer.seek(0)
        return buffer.read()


def write(files: list[tuple[str, str]], out: Path) -> None:
    """Replace the folder `out` as a whole, so that it never holds half a render or a leftover of an earlier one."""
    if out.exists() and any(out.iterdir()) and not (out / INDEX).exists():
        raise UserError(f"{out}: is not empty and no earlier render made it; name another folder with OUT=…")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".render-") as scratch:
        fresh = Path(scratch) / "fresh"
        for path, text in files:
            target = fresh / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise UserError(f"{path}: two artefacts have this name")
            target.write_text(text, encoding="utf-8")
        if out.exists():
            out.rename(Path(scratch) / "old")
        fresh.rename(out)


def summary(recording: Recording, stack: Stack, console: Console) -> None:
    """The resource tree, exports, notes and warnings."""
    root = Tree(f"stack {stack.name}")
    nodes: dict[str | None, Tree] = {None: root}
    waiting = sorted(recording.resources, key=lambda resource: (resource.urn.count("$"), resource.urn))
    for resource in waiting:
        shown = resource.inputs.get("metadata", {}).get("name") if resource.custom else None
        kind = resource.inputs.get("kind") or resource.type
        marks = [mark for mark, key in (("protected", "protect"), ("adopted", "importId")) if resource.options.get(key)]
        label = " ".join([kind, shown or resource.name, *(f"({mark})" for mark in marks)])
        nodes[resource.urn] = nodes[resource.parent].add(escape(label))
    console.print(root)
    for name, value in recording.exports.items():
        console.print(f"{name}: {json.dumps(value)}", markup=False)
    for level, message in recording.messages:
        console.print(f"{'note' if level == 'info' else level}: {message}", markup=False, soft_wrap=True)


def _now() -> datetime:
    """The time that zone serials are made of; SOURCE_DATE_EPOCH fixes it (https://reproducible-builds.org/specs/source-date-epoch/)."""
    return datetime.fromtimestamp(float(os.environ.get("SOURCE_DATE_EPOCH") or time.time()), UTC)


def render(root: Path, stack_name: str, out: Path, console: Console) -> None:
    stack = load_stack(root, stack_name)
    recording = run(stack)
    site = site_of(stack)
    write([*artefacts(recording), *zone_files(site, _now()), *edge_artefacts(site), *monitoring_artefacts(site)], out)
    summary(recording, stack, console)
    if site.dns:
        console.print(dns_table(site))
    edge_summary(site, console)
    console.print(f"written to {out}", markup=False)


def findings(stack: Stack) -> list[Finding]:
    """All that is said of a stack, errors first; after an error, rules that expect a stack without it are not run."""
    try:
        found = judge(site_of(stack))
        refuse(found)
        run(stack)
    except Refused as refused:
        return refused.findings
    return found


@click.command()
@stack_option
@click.option("--out", type=click.Path(path_type=Path), help="folder for the artefacts  [default: build/<stack>]")
@click.option("--root", type=click.Path(path_type=Path), default=ROOT, help="folder with Pulumi.yaml and the stack files")
@click.option("--json", "as_json", is_flag=True, help="print all findings as JSON and write nothing; exit code 1: errors")
def render_command(stack: str, out: Path | None, root: Path, as_json: bool) -> None:
    """The program's result without engine, cluster, credentials or network: a summary, and every artefact as a file."""
    if as_json:
        found = findings(load_stack(root, stack))
        print(json.dumps([dataclasses.asdict(finding) for finding in found], indent=2))
        sys.exit(any(finding.level == "error" and not finding.acknowledged for finding in found))
    render(root, stack, out or Path("build") / stack, CONSOLE)
