"""The rehearsed restore, which never touches the mail volume, and the real one, which only a person starts."""

from collections.abc import Iterator
from datetime import timedelta

from components.jobs.backup import (
    DATABASE,
    MAIL,
    MAIL_FOLDERS,
    MAILDIRS,
    SCRATCH_DIR,
    SOURCE_DIR,
    WEBMAIL_JOB,
    dump,
    dump_volumes,
    repository_mounts,
    repository_options,
    repository_volumes,
    restic_binary,
)
from components.jobs.job import RESTORER, Claim, Container, Job, Mount, OwnVolume, Root, Scratch, Volume, option, python
from components.jobs.retention import retention_rules
from components.listeners import IMAPS
from components.mail.image import VMAIL
from components.names import MAIL_SERVER, WEBMAIL
from components.settings.mail import QUEUE_HEADROOM
from components.settings.quantity import in_bytes
from components.settings.schedule import period
from components.settings.site import Site
from components.webmail.image import FOLDERS, service_host

DRILL = "mail-restore-drill"
MAIL_RESTORE = "mail-restore"
WEBMAIL_RESTORE = "webmail-restore"

# restic gives back the times of the sources' common folder too, and fails where it cannot: the image's own is read-only.
ROOT_OF_SOURCES = Scratch("1Mi")

BY_HAND = "0 0 1 * *"  # a suspended CronJob must have a schedule

WRITER = Root("restored files get back their owners, modes and times", ("CHOWN", "DAC_OVERRIDE", "FOWNER"))
REHEARSER = Root(
    "restores files with their owners, then reads them as the mail's own user", ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")
)


def restore_jobs(site: Site) -> Iterator[Job]:
    backup, webmail = site.jobs.backup, site.jobs.webmail_backup
    if backup and backup.drill:
        yield Job(
            name=DRILL,
            schedule=backup.drill.schedule,
            deadline=timedelta(hours=2),
            retries=1,
            containers=(
                restic_binary(site.jobs.restic_image),
                Container(
                    name="drill",
                    image=site.mail.image,  # the very Dovecot that would serve the restored mail
                    command=python(
                        "drill.py",
                        *("--job", DRILL, "--host", MAIL, "--root", SOURCE_DIR, "--maildirs", MAILDIRS, *repository_options()),
                        *("--scratch", SCRATCH_DIR, "--uid", str(VMAIL), "--dovecot", site.mail.dovecot),
                        *("--max-age", str(2 * int(period(backup.schedule).total_seconds()))),
                        *option("pushgateway", site.jobs.pushgateway),
                    ),
                    memory="512Mi",
                    root=REHEARSER,
                    mounts=repository_mounts(read_only=True),
                ),
            ),
            volumes=repository_volumes(site, backup.target, read_only=True) | {"scratch": _scratch(site)},
        )
    if backup:
        data = [Mount("data", f"{SOURCE_DIR}/{name}", read_only=False, folder=folder) for name, folder in MAIL_FOLDERS.items()]
        # Below this much free space Postfix refuses all mail.
        needs = ("--reserve", str(int(QUEUE_HEADROOM * in_bytes(site.mail.message_size_limit))))
        rules = (argument for rule in retention_rules(site) for argument in ("--retention", rule))
        yield Job(
            name=MAIL_RESTORE,
            schedule=BY_HAND,
            suspended=True,
            deadline=timedelta(hours=6),
            beside=MAIL_SERVER,
            only_beside=False,  # for a whole restore the mail server is stopped, and then its node is free as well
            containers=(
                restic_binary(site.jobs.restic_image),
                _restorer(site, MAIL, data, f"{site.in_cluster_host}:{IMAPS.port}", *option("maildirs", MAILDIRS), *needs, *rules),
            ),
            volumes=repository_volumes(site, backup.target, read_only=False)
            | {"data": Claim(site.mail.storage.claim, read_only=False), "sources": ROOT_OF_SOURCES, "scratch": _scratch(site)},
        )
    if webmail:
        assert site.webmail is not None  # noqa: S101 - checks.py
        used = site.webmail.claims
        data = [Mount(use, f"{SOURCE_DIR}/{use}", read_only=False, folder=FOLDERS.get(use)) for use in used]
        after: tuple[Container, ...] = ()
        volumes: dict[str, Volume] = {use: Claim(claim, read_only=False) for use, claim in used.items()}
        if DATABASE not in used:
            # The dump goes to scratch space, and from there into the server.
            data.append(Mount("dump", f"{SOURCE_DIR}/{DATABASE}", read_only=False, folder=DATABASE))
            after = (dump(site, webmail, "load", "dump"),)
            volumes |= dump_volumes(site.webmail) | {"dump": Scratch("4Gi")}
        yield Job(
            name=WEBMAIL_RESTORE,
            schedule=BY_HAND,
            suspended=True,
            deadline=timedelta(hours=6),
            beside=WEBMAIL,
            only_beside=False,
            containers=(restic_binary(site.jobs.restic_image), _restorer(site, WEBMAIL_JOB, data, f"{service_host(site)}:80"), *after),
            volumes=repository_volumes(site, webmail.target, read_only=False)
            | volumes
            | {"sources": ROOT_OF_SOURCES, "scratch": _scratch(site)},
        )


def _restorer(site: Site, host: str, data: list[Mount], running: str, *arguments: str) -> Container:
    sources = [mount.path.removeprefix(f"{SOURCE_DIR}/") for mount in data]
    return Container(
        name=RESTORER,
        image=site.jobs.python_image,
        command=python(
            "restore.py",
            *("--host", host, "--root", SOURCE_DIR, "--running", running, "--scratch", SCRATCH_DIR),
            *(argument for name in sources for argument in ("--source", name)),
            *repository_options(),
            *arguments,
        ),
        memory="1Gi",  # restic needs 2 KB for each file that it restores
        root=WRITER,
        mounts=(Mount("sources", SOURCE_DIR, read_only=False), *data, *repository_mounts(read_only=False)),
    )


def _scratch(site: Site) -> OwnVolume:
    storage, drill = site.mail.storage, site.jobs.backup.drill if site.jobs.backup else None
    return OwnVolume(
        (drill and drill.scratch_size) or storage.growth_limit,
        (drill and drill.scratch_class) or storage.storage_class,
    )
