"""What the jobs' tests run against, and how they run a job: as the pod does, as a program of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.jobs import quick
from tests.lab.jobs.world import SCRIPTS, World
from tools.lab.certificates import Authority
from tools.lab.servers import NAME, Dovecot, Gateway, dovecot, http_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if shutil.which("restic") is None and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="needs restic"))


@pytest.fixture(scope="session", autouse=True)
def cheap_restic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("programs")
    quick.install(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        yield


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def trusted(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Path:
    """A file with the one authority that the jobs trust."""
    file = tmp_path_factory.mktemp("trusted") / "ca.pem"
    file.write_text(authority.certificate, encoding="utf-8")
    return file


@pytest.fixture
def imap(tmp_path: Path, authority: Authority) -> Iterator[Dovecot]:
    with dovecot(tmp_path / "dovecot", authority.issue(NAME), ["spam@example.org", "alice@example.org"]) as running:
        yield running


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    receiver = Gateway()
    with http_server(receiver.answer) as url:
        receiver.url = url
        yield receiver


@pytest.fixture
def job(trusted: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`job("probe.py", "--polls", 3, environment={…})`: run a script to its end; never with more environment than a pod has."""

    def run(
        script: str,
        *arguments: object,
        environment: dict[str, str] | None = None,
        programs: Path = SCRIPTS,
        within: tuple[str, ...] = (),
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*within, sys.executable, "-B", programs / script, *map(str, arguments)],
            env={"PATH": os.environ["PATH"], "SSL_CERT_FILE": str(trusted), **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=3600,
            check=False,
        )

    return run


@pytest.fixture
def world(tmp_path, gateway, job):
    made = World(tmp_path, gateway, job)
    yield made
    shutil.rmtree(made.scratch)


@pytest.fixture
def memory_limit(tmp_path: Path):
    """`with memory_limit(bytes) as command`: a command before another lets it and its children have so much memory, as in a pod."""
    version_1 = Path("/sys/fs/cgroup/memory")
    home = version_1 if version_1.is_dir() else Path("/sys/fs/cgroup")
    file = "memory.limit_in_bytes" if version_1.is_dir() else "memory.max"

    @contextmanager
    def limit(size: int) -> Iterator[tuple[str, ...]]:
        group = home / f"jobs-{os.getpid()}-{tmp_path.name}"
        try:
            group.mkdir()
            (group / file).write_text(str(size))
        except OSError as error:
            pytest.skip(f"needs a memory cgroup: {error.strerror}")
        try:
            yield ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
        finally:
            group.rmdir()

    return limit
