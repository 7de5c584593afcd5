"""The backups' jobs: a restic repository for each kind of source, on the node that holds the source."""

from collections.abc import Iterator
from datetime import timedelta

from components.jobs.job import Claim, Container, Job, Mount, Root, Scratch, SecretFiles, Volume, option, python
from components.names import MAIL_SERVER
from components.settings.jobs import Backup, BackupTarget, WebmailBackup
from components.settings.site import Site
from components.settings.types import Image

MAIL = "mailserver-backup"
WEBMAIL = "roundcube-backup"
MAILDIRS = "mail"  # the archive's name for the source that holds Maildirs
MAIL_FOLDERS = {MAILDIRS: "data", "state": "state"}  # name in the archive to the volume's folder; logs are not saved

SOURCE_DIR = "/source"
MANIFEST = "manifest"  # the one folder beside the sources, so no source can have its name
REPOSITORY_DIR = "/backup/restic"  # beside the yearly-weekly folders of an older backup, which stay as they are
KEY_FILE = "/key/password"
TOOLS_DIR = "/tools"
SCRATCH_DIR = "/scratch"

READER = Root("mail and state belong to many users; nothing but reading is granted", ("DAC_READ_SEARCH",))

# A night's difference takes minutes. It must be over long before anybody needs the volume on another node.
DEADLINE = timedelta(hours=1)


def backup_jobs(site: Site) -> Iterator[Job]:
    backup, webmail = site.jobs.backup, site.jobs.webmail_backup
    if backup:
        mounts = [Mount("data", f"{SOURCE_DIR}/{name}", folder=folder) for name, folder in MAIL_FOLDERS.items()]
        claims: dict[str, Volume] = {"data": Claim(site.mail.storage.claim, read_only=True)}
        yield _job(site, MAIL, backup, beside=MAIL_SERVER, mounts=mounts, claims=claims, maildirs=MAILDIRS)
    if webmail:
        mounts, claims = webmail_sources(webmail, read_only=True)
        yield _job(site, WEBMAIL, webmail, beside=webmail.app, mounts=mounts, claims=claims)


def webmail_sources(webmail: WebmailBackup, *, read_only: bool) -> tuple[list[Mount], dict[str, Volume]]:
    """By names that none of a job's own volumes has, whatever the settings call a claim."""
    mounts = [Mount(f"source-{name}", f"{SOURCE_DIR}/{name}", read_only=read_only) for name in webmail.claims]
    return mounts, {f"source-{name}": Claim(claim, read_only) for name, claim in webmail.claims.items()}


def restic_binary(image: Image) -> Container:
    """Takes the static restic binary out of its own image, for a container whose image has Python."""
    return Container(
        "restic", image, ("cp", "/usr/bin/restic", f"{TOOLS_DIR}/restic"), mounts=(Mount("tools", TOOLS_DIR, read_only=False),)
    )


def repository_mounts(*, read_only: bool) -> tuple[Mount, ...]:
    return (
        Mount("repository", "/backup", read_only=read_only),
        Mount("key", "/key"),
        Mount("tools", TOOLS_DIR),
        Mount("scratch", SCRATCH_DIR, read_only=False),
    )


def repository_volumes(site: Site, target: BackupTarget, *, read_only: bool) -> dict[str, Volume]:
    assert site.jobs.backup is not None  # noqa: S101 - checks.py
    return {"repository": Claim(target.claim, read_only), "key": SecretFiles(site.jobs.backup.key.name), "tools": Scratch("64Mi")}


def repository_options() -> tuple[str, ...]:
    return ("--repository", REPOSITORY_DIR, "--key-file", KEY_FILE, "--restic", f"{TOOLS_DIR}/restic")


def _job(
    site: Site,
    name: str,
    backup: Backup | WebmailBackup,
    *,
    beside: str,
    mounts: list[Mount],
    claims: dict[str, Volume],
    maildirs: str | None = None,
) -> Job:
    jobs, shared = site.jobs, site.jobs.backup
    assert shared is not None  # noqa: S101 - checks.py
    sources = [mount.path.removeprefix(f"{SOURCE_DIR}/") for mount in mounts]
    return Job(
        name=name,
        schedule=backup.schedule,
        deadline=DEADLINE,
        retries=1,
        beside=beside,
        containers=(
            restic_binary(jobs.restic_image),
            Container(
                name="backup",
                image=jobs.python_image,
                command=python(
                    "backup.py",
                    *("--job", name, "--root", SOURCE_DIR),
                    *(argument for source in sources for argument in ("--source", source)),
                    *option("maildirs", maildirs),
                    *repository_options(),
                    *("--scratch", SCRATCH_DIR),
                    *("--max-fall", str(backup.max_loss_percent), "--verify-parts", str(shared.verify_parts)),
                    *("--keep-daily", str(shared.keep_daily), "--keep-weekly", str(shared.keep_weekly)),
                    *option("pushgateway", jobs.pushgateway),
                ),
                memory="512Mi",
                root=READER,
                mounts=(*mounts, Mount(MANIFEST, f"{SOURCE_DIR}/{MANIFEST}", read_only=False), *repository_mounts(read_only=False)),
            ),
        ),
        volumes=claims | repository_volumes(site, backup.target, read_only=False) | {MANIFEST: Scratch("16Mi"), "scratch": Scratch("2Gi")},
    )
