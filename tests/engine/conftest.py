"""The real CLI on a copy of the checkout, with its state beside it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import copy_checkout


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engine)
            if not shutil.which("pulumi"):
                item.add_marker(pytest.mark.skip(reason="pulumi is not on PATH"))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the backend, which the environment names."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PULUMI_BACKEND_URL", folder.as_uri())
        patch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
        patch.setenv("PULUMI_SKIP_UPDATE_CHECK", "true")
        yield folder


class Cli:
    """`cli("preview", …)` is what the CLI says of stack dev; an AssertionError with all of it where it fails."""

    def __init__(self, checkout: Path) -> None:
        self._checkout, self.said = checkout, ""

    def __call__(self, *arguments: str, text: str | None = None) -> str:
        command = ["pulumi", "--non-interactive", *arguments]
        result = subprocess.run(command, cwd=self._checkout, input=text, capture_output=True, text=True, check=False, timeout=300)
        said = result.stdout + result.stderr
        self.said += said
        assert result.returncode == 0, said
        return result.stdout

    def refused(self, *arguments: str) -> str:
        with pytest.raises(AssertionError) as error:
            self(*arguments)
        return str(error.value)


@pytest.fixture(scope="module")
def pulumi(checkout: Path, state: Path) -> Cli:
    cli = Cli(checkout)
    cli("stack", "select", "--create", "dev")
    return cli
