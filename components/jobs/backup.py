"""The backups' jobs: a restic repository for each kind of source, on the node that holds the source."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

from components.jobs.job import SCRIPTS_DIR, Claim, Container, Job, Mount, Root, Scratch, SecretFiles, Volume, option, python
from components.names import MAIL_SERVER, WEBMAIL
from components.settings.jobs import Backup, BackupTarget, WebmailBackup
from components.settings.site import Site
from components.settings.types import Image
from components.settings.webmail import Webmail
from components.webmail.config import DATABASE_FILE
from components.webmail.image import FOLDERS

MAIL = "mailserver-backup"
WEBMAIL_JOB = "roundcube-backup"
DATABASE = "database"  # of the webmail's volumes, the one with the SQLite file; also the source that holds a dump
DUMP = "dump.sh"
MAILDIRS = "mail"  # the archive's name for the source that holds Maildirs
MAIL_FOLDERS = {MAILDIRS: "data", "state": "state"}  # name in the archive to the volume's folder; logs are not saved

SOURCE_DIR = "/source"
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
        assert site.webmail is not None  # noqa: S101 - checks.py
        used = site.webmail.claims
        claims = {use: Claim(claim, read_only=True) for use, claim in used.items()}
        mounts = [Mount(use, f"{SOURCE_DIR}/{use}", folder=FOLDERS.get(use)) for use in used if use != DATABASE]
        # A database that is being written is not a backup: the job saves a copy.
        mounts.append(Mount("copy", f"{SOURCE_DIR}/{DATABASE}", folder=DATABASE))
        if DATABASE in used:
            copier, claims["copy"] = _database_copy(site), Scratch(site.webmail.storage.size)
        else:
            copier = dump(site, webmail, "save", "copy")
            claims |= dump_volumes(site.webmail) | {"copy": Scratch("4Gi")}
        yield _job(site, WEBMAIL_JOB, webmail, beside=WEBMAIL, mounts=mounts, claims=claims, before=(copier,), prepared="copy")


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


def dump(site: Site, backup: WebmailBackup, verb: Literal["save", "load"], volume: str) -> Container:
    """The program that dumps the webmail's database to a volume, or loads the dump that is there."""
    assert site.webmail is not None  # noqa: S101 - checks.py
    assert backup.database_image is not None  # noqa: S101 - checks.py
    database = site.webmail.database
    return Container(
        name="database",
        image=backup.database_image,
        command=(
            *("sh", f"{SCRIPTS_DIR}/{DUMP}", verb),
            *(database.type, str(database.host), str(database.server_port), database.user, database.name),
        ),
        memory="1Gi",  # a small server of its own, which the dump is tried on
        mounts=(Mount(volume, "/copy", read_only=False), Mount("trial", SCRATCH_DIR, read_only=False), Mount("password", "/password")),
    )


def dump_volumes(webmail: Webmail) -> dict[str, Volume]:
    return {"trial": Scratch("8Gi"), "password": SecretFiles(webmail.database.password.name)}


def _database_copy(site: Site) -> Container:
    live, copy = f"/live/{DATABASE_FILE}", f"/copy/{DATABASE}/{DATABASE_FILE}"
    return Container(
        name="database",
        image=site.jobs.python_image,
        command=python("database.py", live, copy, "/copy/outcome"),
        root=Root("the copy keeps its owner, for whom it is restored", ("CHOWN", "DAC_READ_SEARCH", "FOWNER")),
        mounts=(Mount(DATABASE, "/live"), Mount("copy", "/copy", read_only=False)),
    )


def _job(
    site: Site,
    name: str,
    backup: Backup | WebmailBackup,
    *,
    beside: str,
    mounts: list[Mount],
    claims: dict[str, Volume],
    before: tuple[Container, ...] = (),
    maildirs: str | None = None,
    prepared: str | None = None,
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
            *before,
            Container(
                name="backup",
                image=jobs.python_image,
                command=python(
                    "backup.py",
                    *("--job", name, "--root", SOURCE_DIR),
                    *(argument for source in sources for argument in ("--source", source)),
                    *option("maildirs", maildirs),
                    *(("--prepared", f"/{prepared}/outcome") if prepared else ()),
                    *repository_options(),
                    *("--scratch", SCRATCH_DIR),
                    *("--max-fall", str(backup.max_loss_percent), "--verify-parts", str(shared.verify_parts)),
                    *("--keep-daily", str(shared.keep_daily), "--keep-weekly", str(shared.keep_weekly)),
                    *option("pushgateway", jobs.pushgateway),
                ),
                memory="512Mi",
                root=READER,
                mounts=(
                    *mounts,
                    *((Mount(prepared, f"/{prepared}"),) if prepared else ()),
                    Mount("manifest", f"{SOURCE_DIR}/manifest", read_only=False),
                    *repository_mounts(read_only=False),
                ),
            ),
        ),
        volumes=claims
        | repository_volumes(site, backup.target, read_only=False)
        | {"manifest": Scratch("16Mi"), "scratch": Scratch("2Gi")},
    )
