"""Writes the generated parts of the documentation."""

import json
import re
from pathlib import Path

import click

from components.listeners import LISTENERS, MANAGESIEVE_PORT
from components.monitoring.rules import PAGE
from components.settings.schema import stack_schema
from tools.offline import alerts_page, checks_page, doctor_page, settings_page
from tools.offline.stackfile import ROOT

README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
SETTINGS = ROOT / "docs" / "settings.md"
CHECKS = ROOT / "docs" / "checks.md"
DOCTOR = ROOT / "docs" / "doctor.md"
ALERTS = ROOT / PAGE
SCHEMA = ROOT / "schemas" / "site.schema.json"


def picture() -> str:
    """A Mermaid flowchart of the two paths into the pod."""
    external = "<br/>".join(f"{s.name} :{s.port}" for s in LISTENERS)
    node_ports = "<br/>".join(f"{s.node_port} · check {s.health_node_port}" for s in LISTENERS)
    twins = "<br/>".join(f":{s.proxy_port} {s.name}" for s in LISTENERS)
    stock = "<br/>".join(f":{s.port} {s.name}" for s in LISTENERS)
    return f"""\
```mermaid
flowchart LR
    internet([Internet]) --> haproxy["pfSense HAProxy<br/>{external}"]
    haproxy -- "PROXY v2: the client's address" --> nodes["NodePorts of mailserver-proxy<br/>{node_ports}"]
    browser([browser]) --> ingress["Ingress, login"] --> webmail[Roundcube]
    webmail -- "and filters :{MANAGESIEVE_PORT}" --> service
    pods([pods: probe, apps]) --> service["Service mailserver<br/>{stock}"]
    subgraph pod [mail server pod]
        twins["PROXY listeners<br/>{twins}"]
        stocks["stock listeners<br/>{stock}"]
        filter[Postfix, Rspamd, Dovecot]
        twins --> filter
        stocks --> filter
    end
    nodes --> twins
    nodes -. "health checks" .-> stocks
    service --> stocks
    filter --> volume[(encrypted volume)]
    filter -- "authentication, verified TLS" --> relay([relay])
```
"""


def ports() -> str:
    """The table of mail services as Markdown."""
    rows = "".join(f"| {s.name} | {s.port} | `{s.frontend}` | {s.node_port} | {s.proxy_port} | {s.health_node_port} |\n" for s in LISTENERS)
    return f"| service | stock port | HAProxy frontend | NodePort | PROXY listener | health NodePort |\n|---|---|---|---|---|---|\n{rows}"


PLACES = {README: ("picture", picture), ARCHITECTURE: ("ports", ports)}


def with_generated_part(page: Path) -> str:
    """A page with its generated part as it is now. Raises ValueError when its markers are gone."""
    name, part = PLACES[page]
    text, found = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda match: match[1] + part() + match[2], page.read_text("utf-8"), flags=re.DOTALL
    )
    if not found:
        raise ValueError(f"{page.name} has no place for the {name}")
    return text


def schema() -> str:
    """The JSON Schema of a stack file, as it is committed."""
    return json.dumps(stack_schema(), indent=2, ensure_ascii=False) + "\n"


@click.command()
def docs_command() -> None:
    """Writes the generated parts of the documentation: settings, findings, alerts, the doctor's checks, JSON Schema, picture, ports."""
    SETTINGS.write_text(settings_page.page(), encoding="utf-8")
    CHECKS.write_text(checks_page.page(), encoding="utf-8")
    ALERTS.write_text(alerts_page.page(), encoding="utf-8")
    DOCTOR.write_text(doctor_page.page(), encoding="utf-8")
    SCHEMA.write_text(schema(), encoding="utf-8")
    for page in PLACES:
        page.write_text(with_generated_part(page), encoding="utf-8")
