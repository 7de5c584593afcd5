"""The doctor's job: what only a pod can see. It is suspended; `make doctor INSIDE=1` starts it and deletes its run."""

from collections.abc import Iterator
from datetime import timedelta

from components.jobs.job import Claim, Container, Job, Mount, Root, python
from components.jobs.restore import BY_HAND
from components.listeners import LISTENERS
from components.settings.site import Site

INSIDE = "mail-doctor"


def inside_jobs(site: Site) -> Iterator[Job]:
    if not site.doctor.inside:
        return
    targets = [backup.target for backup in (site.jobs.backup, site.jobs.webmail_backup) if backup]
    paths = {target.claim: f"/volumes/{target.claim}" for target in targets}
    yield Job(
        name=INSIDE,
        schedule=BY_HAND,
        suspended=True,
        deadline=timedelta(minutes=4),
        containers=(
            Container(
                name="inside",
                image=site.jobs.python_image,
                command=python(
                    "inside.py",
                    *("--address", site.in_cluster_host, "--name", site.hostname),
                    *(argument for s in LISTENERS for argument in ("--service", f"{s.name}:{s.port}:{s.tls}")),
                    *(argument for path in paths.values() for argument in ("--volume", path)),
                ),
                root=Root("writes to the repository's volume as the backup does", ()) if paths else None,
                mounts=tuple(Mount(claim, path, read_only=False) for claim, path in paths.items()),
            ),
        ),
        volumes={claim: Claim(claim, read_only=False) for claim in paths},
    )
