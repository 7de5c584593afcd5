"""The reader of other servers' reports: over IMAP, with the password of the reports' mailbox and no other."""

from collections.abc import Iterator
from datetime import timedelta

from components.jobs.job import Container, Job, option, python
from components.listeners import IMAPS
from components.settings.site import Site

NAME = "mail-reports"
DAYS, TLS_DAYS = 7, 2  # what the metrics sum up; a fault of TLS that is mended must not be told for a week
PASSWORD_VARIABLE = "REPORTS_PASSWORD"  # noqa: S105 - a name


def report_jobs(site: Site) -> Iterator[Job]:
    reports = site.jobs.reports
    if reports is None:
        return
    own = [*site.public_addresses]
    own += [address for relay in site.mail.trusted_relays for address in relay.addresses]
    yield Job(
        name=NAME,
        schedule=reports.schedule,
        deadline=timedelta(minutes=30),
        containers=(
            Container(
                name="reports",
                image=site.jobs.parsedmarc_image,
                command=python(
                    "reports.py",
                    *("--job", NAME, "--name", site.hostname, "--address", site.in_cluster_host, "--port", str(IMAPS.port)),
                    *("--mailbox", reports.mailbox, "--days", str(DAYS), "--tls-days", str(TLS_DAYS)),
                    *(argument for domain in site.domains for argument in ("--domain", domain)),
                    *(argument for address in dict.fromkeys(own) for argument in ("--own", str(address))),
                    *(argument for source in reports.known_sources for argument in ("--known", source)),
                    *option("pushgateway", site.jobs.pushgateway),
                ),
                memory="768Mi",
                credentials={PASSWORD_VARIABLE: (reports.password.name, "password")},
            ),
        ),
    )
