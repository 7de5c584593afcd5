"""Alerts about bans at the firewall: a list that is refused, and one that the firewall does not fetch."""

from components.bans.pod import NAME
from components.edge.bans import MINUTES
from components.monitoring.alert import Alert, series
from components.settings.site import Site

LATE = 3 * MINUTES * 60  # seconds; two missed turns of the firewall's cron, and a look at the list


def _reported(site: Site, query: str) -> str | None:
    return query if site.edge.bans and site.edge.access and site.jobs.pushgateway else None


ALERTS = (
    Alert(
        "BanListRefused",
        lambda site: _reported(site, f"{series('mail_bans_refused', job=NAME)} == 1"),
        "15m",
        "warning",
        "The list of banned addresses cannot be fetched, or holds what must never be banned. The firewall keeps the last good one: new "
        "attackers are not refused, and bans that have ended go on.",
        f"`kubectl -n <namespace> logs deploy/{NAME} -c bans` names the line or the reason. One of our own addresses: `cscli decisions "
        "delete --ip …`, then find out what it did. docs/runbooks/bans.md has each case.",
    ),
    Alert(
        "BanListNotLoaded",
        lambda site: _reported(site, f"time() - {series('mail_bans_taken_timestamp_seconds', job=NAME)} > {LATE}"),
        "10m",
        "warning",
        "The firewall does not fetch the list of banned addresses any more: attackers of today are not refused.",
        "Does the node that the firewall asks still run (`kubectl get nodes`)? Set its `state` to `out`, and the next `up` names another. "
        "On the firewall, `/etc/rc.update_urltables now forceupdate mailserver_banned` says why in the system log (docs/runbooks/bans.md).",
    ),
)
