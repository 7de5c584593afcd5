"""Values of CrowdSec's chart: which lines are the mail server's, what they mean to the hub's parsers, and who is never banned."""

from pathlib import Path
from typing import Any

from components.mail.trust import own_networks
from components.names import CONTAINER, SELECTOR
from components.settings.crowdsec import Crowdsec
from components.settings.site import Site

LABEL = "mailserver"  # the type of our lines, which the parser asks for
CONTAINER_LOG = Path(__file__).parents[2] / "scripts" / "crowdsec" / "container-log.yaml"


def chart_values(site: Site, settings: Crowdsec) -> dict[str, Any]:
    """For the chart `crowdsec`. Helm replaces a list as a whole, so the acquisition is added to those that an owner has."""
    parsers = {
        # Before the hub's own files: the first parser that accepts a line ends the stage.
        "s00-raw": {"00-mailserver.yaml": CONTAINER_LOG.read_text("utf-8")},
        "s02-enrich": {"00-mailserver-allow.yaml": allow_list(site, settings)},
    }
    return {"agent": {"additionalAcquisition": [acquisition(site, settings)]}, "config": {"parsers": parsers}}


def acquisition(site: Site, settings: Crowdsec) -> dict[str, Any]:
    """By the container's name, which a node's log files have in theirs, or by Loki's labels; backup pods share the pod's name."""
    if settings.loki:
        labels = {"namespace": site.namespace, **SELECTOR, "container": CONTAINER}
        query = ", ".join(f'{name}="{value}"' for name, value in labels.items())
        return {"source": "loki", "url": settings.loki, "query": f"{{{query}}}", "labels": {"type": LABEL}}
    files = f"/var/log/containers/*_{site.namespace}_{CONTAINER}-*.log"
    return {"source": "file", "filenames": [files], "force_inotify": True, "labels": {"type": LABEL}}


def allow_list(site: Site, settings: Crowdsec) -> str:
    """A parser that drops lines about our own networks before a scenario counts them."""
    cidrs = own_networks(site, *settings.allow)
    return "".join(
        (
            "name: mailserver/own-networks\n",
            "description: Clients that are never banned\n",
            f"filter: evt.Line.Labels.type == '{LABEL}'\n",
            "whitelist:\n  reason: one of our own networks\n  cidr:\n",
            *(f"    - {cidr}\n" for cidr in cidrs),
        )
    )
