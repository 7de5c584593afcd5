"""Retention's job: over IMAP, so it needs no volume, no role and no place on the mail server's node."""

from collections.abc import Iterator
from datetime import timedelta

from components.jobs.job import Container, Job, Mount, SecretFiles, option, python
from components.listeners import IMAPS
from components.settings.site import Site

NAME = "spam-retention"
PASSWORDS_DIR = "/passwords"


def retention_rules(site: Site) -> list[str]:
    """As the jobs' programs read them: `mailbox|folder|kind|days`."""
    retention = site.jobs.retention
    return [f"{rule.mailbox}|{rule.folder}|{rule.kind}|{rule.days}" for rule in retention.rules] if retention else []


def retention_jobs(site: Site) -> Iterator[Job]:
    retention = site.jobs.retention
    if retention is None:
        return
    yield Job(
        name=NAME,
        schedule=retention.schedule,
        deadline=timedelta(minutes=10),
        retries=1,
        containers=(
            Container(
                name="retention",
                image=site.jobs.python_image,
                command=python(
                    "retention.py",
                    *("--job", NAME, "--name", site.hostname, "--address", site.in_cluster_host, "--port", str(IMAPS.port)),
                    *(argument for rule in retention_rules(site) for argument in ("--rule", rule)),
                    *("--passwords", PASSWORDS_DIR),
                    *("--max-messages", str(retention.max_messages), "--max-share", str(retention.max_share_percent)),
                    *option("pushgateway", site.jobs.pushgateway),
                    *(["--dry-run"] if retention.dry_run else []),
                ),
                mounts=(Mount("passwords", PASSWORDS_DIR),),
            ),
        ),
        volumes={"passwords": SecretFiles(retention.passwords.name)},
    )
