"""scripts/pod/plugins.sh with the real Composer, packages on disk, and no network at all."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.offline.stackfile import ROOT

SCRIPT = ROOT / "scripts" / "pod" / "plugins.sh"
COMPOSER = shutil.which("composer")
pytestmark = [
    pytest.mark.skipif(COMPOSER is None, reason="needs composer (tools/packages.sh)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root"),
]
ONE, OTHER = "acme/one:1.0.0", "acme/other-plugin:2.0.0"


class Pod:
    """The init container's folders. Composer finds packages in `registry` only, and no network is there to be had."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.registry = folder, folder / "registry"
        self.release = folder / "image"
        for name in ("kept", "target", "tmp", "calls"):
            (folder / name).mkdir()
        (self.release / "program" / "include").mkdir(parents=True)
        self.set_release("1.6.18")
        for package, folder_name, version in (("acme/one", "one", "1.0.0"), ("acme/other-plugin", "other_plugin", "2.0.0")):
            self.publish(package, folder_name, version)

    def set_release(self, version: str) -> None:
        (self.release / "program" / "include" / "iniset.php").write_text(f"<?php define('RCMAIL_VERSION', '{version}');\n")
        (self.release / "index.php").write_text(f"<?php // {version}\n")
        repositories = [{"packagist.org": False}, {"type": "path", "url": f"{self.registry}/*", "options": {"symlink": False}}]
        paths = {"plugins/one": ["acme/one"], "plugins/other_plugin": ["acme/other-plugin"]}
        project = {"name": "roundcube/roundcubemail", "repositories": repositories, "extra": {"paths": paths}}
        (self.release / "composer.json-dist").write_text(json.dumps(project))

    def publish(self, package: str, name: str, version: str) -> None:
        """A package whose own script puts it where roundcube/plugin-installer would."""
        place = self.registry / name
        place.mkdir(parents=True)
        (place / "composer.json").write_text(json.dumps({"name": package, "version": version, "type": "library"}))
        (place / f"{name}.php").write_text("<?php // a plugin\n")

    def start(self, *wanted: str) -> subprocess.CompletedProcess[str]:
        """A pod start. The wrapper counts calls of Composer, and moves packages to plugins/ as the plug-in of Composer does."""
        wrapper = self.folder / "bin" / "composer"
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(f"""#!/bin/sh
touch {self.folder}/calls/$$
{COMPOSER} "$@" || exit $?
for argument; do case $argument in --working-dir=*) cd "${{argument#*=}}" ;; esac; done
mkdir -p plugins
[ ! -d vendor/acme/one ] || mv vendor/acme/one plugins/one
[ ! -d vendor/acme/other-plugin ] || mv vendor/acme/other-plugin plugins/other_plugin
""")
        wrapper.chmod(0o755)
        environment = {
            "PATH": f"{wrapper.parent}:/usr/bin:/bin",
            "HOME": str(self.folder / "tmp"),
            "COMPOSER_ALLOW_SUPERUSER": "1",
            "IMAGE_DIR": str(self.release),
            "KEPT_DIR": str(self.folder / "kept"),
            "TARGET_DIR": str(self.folder / "target"),
            "WORDS_FILE": str(self.folder / "words"),
        }
        (self.folder / "words").write_text("")
        command = ["unshare", "--net", "sh", str(SCRIPT), *wanted]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    @property
    def calls(self) -> int:
        return len(list((self.folder / "calls").iterdir()))

    @property
    def words(self) -> str:
        return (self.folder / "words").read_text()

    def installed(self) -> set[str]:
        plugins = self.folder / "target" / "plugins"
        return {path.name for path in plugins.iterdir()} if plugins.exists() else set()

    def withdraw(self) -> None:
        """The registry is away."""
        shutil.rmtree(self.registry)


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def test_a_set_is_made_once_and_an_unchanged_one_is_only_copied(pod: Pod) -> None:
    first = pod.start(ONE, OTHER)
    assert first.returncode == 0, first.stderr
    assert pod.installed() == {"one", "other_plugin"}
    assert "installed: Roundcube 1.6.18" in pod.words
    pod.withdraw()
    shutil.rmtree(pod.folder / "target")
    (pod.folder / "target").mkdir()
    again = pod.start(ONE, OTHER)
    assert (again.returncode, pod.calls) == (0, 1), again.stderr
    assert pod.installed() == {"one", "other_plugin"}
    assert (pod.folder / "target" / "index.php").exists()


def test_a_failed_installation_keeps_the_set_that_works_and_says_so(pod: Pod) -> None:
    assert pod.start(ONE).returncode == 0
    pod.withdraw()
    failed = pod.start(ONE, OTHER)
    assert failed.returncode == 0, failed.stderr
    assert pod.installed() == {"one"}
    assert "INSTALLATION FAILED" in pod.words
    assert "acme/one:1.0.0" in pod.words
    assert "acme/other-plugin" not in pod.words
    assert pod.start(ONE).returncode == 0
    assert pod.words == ""


def test_without_any_set_nothing_starts(pod: Pod) -> None:
    pod.withdraw()
    failed = pod.start(ONE)
    assert failed.returncode == 1
    assert "nothing is started" in pod.words
    assert pod.installed() == set()


def test_the_next_start_tries_again(pod: Pod) -> None:
    assert pod.start(ONE).returncode == 0
    moved = pod.registry.rename(pod.folder / "away")
    assert "INSTALLATION FAILED" in (pod.start(ONE, OTHER) and pod.words)
    moved.rename(pod.registry)
    assert pod.start(ONE, OTHER).returncode == 0
    assert pod.installed() == {"one", "other_plugin"}


def test_a_new_release_is_a_new_set_and_the_one_before_it_is_kept(pod: Pod) -> None:
    for release in ("1.6.18", "1.6.19", "1.6.20"):
        pod.set_release(release)
        assert pod.start(ONE).returncode == 0
        assert release in (pod.folder / "target" / "index.php").read_text()
    assert len([path for path in (pod.folder / "kept").iterdir() if path.is_dir() and not path.is_symlink()]) == 2


def test_a_version_that_does_not_exist_is_not_replaced_by_another(pod: Pod) -> None:
    failed = pod.start("acme/one:1.0.1")
    assert failed.returncode == 1
    assert pod.installed() == set()


def test_a_package_without_a_plugin_is_refused(pod: Pod) -> None:
    (pod.registry / "one" / "one.php").unlink()
    assert pod.start(ONE).returncode == 1
    assert "acme/one brings no plugin one" in pod.words


def test_a_start_that_was_killed_leaves_nothing_that_the_next_one_trips_over(pod: Pod) -> None:
    half = pod.folder / "kept" / ".making-0123456789abcdef"
    half.mkdir()
    (half / "index.php").write_text("half")
    assert pod.start(ONE).returncode == 0
    assert not half.exists()
