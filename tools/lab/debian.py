"""The Debian below each major version of the image: this machine's own, and one that debootstrap makes once and keeps."""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from components.errors import UserError

CACHE = Path("/var/cache/mail-lab")
SUITES = {"15": "bookworm", "16": "trixie"}
PACKAGES = (
    *("ca-certificates", "curl", "hostname", "iproute2", "openssl", "procps", "python3", "util-linux"),
    *("dovecot-auth-lua", "dovecot-imapd", "dovecot-lmtpd", "dovecot-managesieved", "dovecot-sieve", "postfix", "postfix-pcre", "postsrsd"),
    *("libsasl2-modules", "redis-server", "rspamd", "rsyslog"),
)

# In a mount and process namespace of its own: whatever a package starts ends with it. A daemon that installs itself must not start.
_INSTALL = """
set -e
printf '#!/bin/sh\\nexit 101\\n' >"$1/usr/sbin/policy-rc.d"
chmod +x "$1/usr/sbin/policy-rc.d"
mount -t proc proc "$1/proc"
root=$1
shift
export DEBIAN_FRONTEND=noninteractive
chroot "$root" apt-get update -qq
chroot "$root" apt-get install -y -qq --no-install-recommends "$@"
chroot "$root" apt-get clean
rm -rf "$root"/var/lib/apt/lists/*
"""


def below(major: str) -> Path:
    """The files that the image of this major version is built on; UserError says why they are not to be had."""
    suite = SUITES[major]
    if f"VERSION_CODENAME={suite}" in Path("/etc/os-release").read_text("utf-8").splitlines():
        return Path("/")
    return _root(suite)


@functools.cache
def _root(suite: str) -> Path:
    version = hashlib.sha256("\n".join((*PACKAGES, _INSTALL)).encode()).hexdigest()[:12]
    root = CACHE / f"{suite}-{version}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _make(suite, root)
    return root


def _make(suite: str, root: Path) -> None:
    """Made beside its place and renamed at the end, so that a run that was killed leaves nothing that looks finished."""
    source, fresh = _source(), root.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    namespace = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--propagation", "private", "--"]
    _run("debootstrap", "--variant=minbase", suite, str(fresh), source)
    _run(*namespace, "bash", "-c", _INSTALL, "install", str(fresh), *PACKAGES)
    fresh.rename(root)


def _source() -> str:
    """Where this machine's own apt gets Debian from."""
    rows = _run("apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)", "Created-By: Packages").splitlines()
    for row in rows:
        *kind, source = row.split()
        if kind == ["Debian", "Debian", "main"]:
            return source
    raise UserError("apt has no source of Debian's own packages")


def _run(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise UserError(f"{command[0]} is not installed (tools/packages.sh)")
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env, check=False)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or [f"ended with {result.returncode}"]
        raise UserError(f"{command[0]}: {lines[-1]}")
    return result.stdout
