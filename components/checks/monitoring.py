"""Rules for monitoring: what has to be there for an alert to reach a person."""

from components.checks.finding import Area, Found
from components.settings.site import Site

AREA = Area[Site]("monitoring", "alerts, dashboard, reports of others")


@AREA.note("off", remedy="set monitoring.prometheus if there is one")
def off(site: Site) -> Found:
    """Without alerts a failure is found by users."""
    if site.monitoring is None or (site.monitoring.prometheus is None and site.monitoring.loki is None):
        yield "monitoring", "no alerts are set up, so nothing tells you when mail breaks"


@AREA.warning("no-pushgateway", remedy="set jobs.pushgateway")
def no_pushgateway(site: Site) -> Found:
    """Probe, backups, restore drill and the mail server report to a Pushgateway; most alerts need what they report."""
    if site.monitoring and site.monitoring.prometheus and site.jobs.pushgateway is None:
        yield "monitoring.prometheus", "without a Pushgateway Prometheus knows nothing of probe, backups, queue and listeners"


@AREA.warning("by-mail-alone", remedy="give Alertmanager another receiver too, and name it in monitoring.channels")
def by_mail_alone(site: Site) -> Found:
    """An alert about mail must not depend on the mail server that it is about."""
    monitoring = site.monitoring
    if monitoring and (monitoring.prometheus or monitoring.loki) and not set(monitoring.channels) - {"mail", "email"}:
        yield "monitoring.channels", "names nothing but mail, and alerts by mail stop when the mail server does"


@AREA.warning("second-mx-not-watched", remedy="let Prometheus probe it and set monitoring.second_mx")
def second_mx_not_watched(site: Site) -> Found:
    """A second MX that is down is noticed only when the first one is down too."""
    others = {host for domain in site.domains.values() for host in domain.dns.mx} - {site.host(name) for name in site.domains}
    if others and site.monitoring and site.monitoring.prometheus and site.monitoring.second_mx is None:
        yield "monitoring.second_mx", f"{', '.join(sorted(others))} also receives mail, and nothing watches it"
