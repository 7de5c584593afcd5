"""What a job is, before it becomes a CronJob: containers in a row, volumes, a schedule and a time by which it must be done."""

from dataclasses import dataclass, field
from datetime import timedelta

from components.settings.quantity import Bytes
from components.settings.schedule import Schedule
from components.settings.types import Image

SCRIPTS_DIR = "/scripts"
RESTORER = "restore"  # container that takes the arguments of a job started by hand, also where another one comes after it


@dataclass(frozen=True)
class Claim:
    """An existing claim."""

    name: str
    read_only: bool


@dataclass(frozen=True)
class SecretFiles:
    """A Secret's keys as files."""

    name: str


@dataclass(frozen=True)
class Scratch:
    """Scratch space on the node, deleted with the pod; more than `size` ends the pod."""

    size: Bytes


@dataclass(frozen=True)
class OwnVolume:
    """A volume made for this pod alone and deleted with it: it cannot fill the node's disk, so no pod is evicted."""

    size: Bytes
    storage_class: str | None


Volume = Claim | SecretFiles | Scratch | OwnVolume


@dataclass(frozen=True)
class Mount:
    """Where a container sees a volume, or one folder of it."""

    volume: str
    path: str
    read_only: bool = True
    folder: str | None = None


@dataclass(frozen=True)
class Root:
    """Why a container runs as root, and what it may do; all else runs unprivileged, without any capability."""

    reason: str
    capabilities: tuple[str, ...]


@dataclass(frozen=True)
class Container:
    """A program in an image that already has what it needs. The root file system is read-only, without exception."""

    name: str
    image: Image
    command: tuple[str, ...]
    memory: Bytes = "128Mi"
    mounts: tuple[Mount, ...] = ()
    root: Root | None = None
    credentials: dict[str, tuple[str, str]] = field(default_factory=dict)  # variable to the Secret's name and key


@dataclass(frozen=True)
class Job:
    """The containers run one after the other; the last one decides. `suspended`: only ever started by hand."""

    name: str
    schedule: Schedule
    deadline: timedelta
    containers: tuple[Container, ...]
    volumes: dict[str, Volume] = field(default_factory=dict)
    beside: str | None = None  # label `app` of the pod whose node holds the volumes
    only_beside: bool = True  # without that pod it waits; else it runs anywhere
    retries: int = 0
    suspended: bool = False


def python(script: str, *arguments: str) -> tuple[str, ...]:
    """A command for one of our scripts; -B, because the root file system is read-only, -u, for the log of one that is killed."""
    return ("python3", "-Bu", f"{SCRIPTS_DIR}/{script}", *arguments)


def option(name: str, value: object) -> tuple[str, ...]:
    """`--name value`, or nothing for None."""
    return () if value is None else (f"--{name}", str(value))
