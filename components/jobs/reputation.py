"""The look at DNS block lists, through the cluster's own resolver: lists refuse public ones."""

from collections.abc import Iterator
from datetime import timedelta

from components.jobs.job import Container, Job, option, python
from components.settings.site import Site

NAME = "mail-reputation"


def reputation_jobs(site: Site) -> Iterator[Job]:
    reputation = site.jobs.reputation
    if reputation is None:
        return
    yield Job(
        name=NAME,
        schedule=reputation.schedule,
        deadline=timedelta(minutes=30),
        containers=(
            Container(
                name="reputation",
                image=site.jobs.parsedmarc_image,
                command=python(
                    "reputation.py",
                    *("--job", NAME),
                    *(argument for address in site.public_addresses for argument in ("--address", str(address))),
                    *(argument for domain in site.domains for argument in ("--domain", domain)),
                    *option("relay", site.mail.relay and site.mail.relay.host),
                    *option("pushgateway", site.jobs.pushgateway),
                ),
            ),
        ),
    )
