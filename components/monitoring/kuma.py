"""Monitors of Uptime Kuma, in the shape that a script of the cluster's owner takes."""

from typing import Any

from components.listeners import IMAPS, SMTP, SUBMISSION, Listener
from components.settings.site import Site


def monitors(site: Site) -> list[dict[str, Any]]:
    """The public address, HAProxy on the firewall and the Service in the cluster; the two at HAProxy keep their live names."""
    dns = site.dns and site.dns.hosts.get(site.hostname)
    found = [_port(f"Mailserver SMTP (public {address})", str(address), SMTP) for address in (dns.addresses if dns else ())]
    for service, label in ((SMTP, "SMTP"), (IMAPS, "IMAPS")):
        found.append(_port(f"Mailserver HAProxy {label} (pfSense :{service.port})", str(site.edge.address), service))
    for service, label in ((SUBMISSION, "submission"), (IMAPS, "IMAPS")):
        found.append(_port(f"Mailserver {label} (cluster :{service.port})", site.in_cluster_host, service))
    return found


def _port(name: str, host: str, service: Listener) -> dict[str, Any]:
    """A port is all that can be asked: Kuma's own SMTP check logs in nowhere either, and ends in postscreen's noise."""
    return {
        "name": name,
        "type": "port",
        "hostname": host,
        "port": service.port,
        "url": None,
        "accepted_statuscodes": ["200-299"],
        "ignore_tls": False,
        "interval": 60,
        "retry_interval": 60,
        "max_retries": 3,
    }
