"""Puts the mail server's configuration folder together at pod start, from a ConfigMap and Secrets.

Runs as an init container on the mail server's own image, because hashing needs its `doveadm` and the key files its users.
Hashing happens here and not in the secret store: a new salt at every refresh would restart the pod each time.
Ends with 1 and one line for each problem when anything is missing or contradicts itself; the mail server then does not start.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

SCHEME = "SHA512-CRYPT"
ROUNDS = "50000"  # ten times the scheme's default: about 30 ms a login on one core
Result = TypeVar("Result")
HASHED = re.compile(r"\{[A-Z0-9][A-Z0-9.-]*\}\S+")


class ProblemError(Exception):
    """Something that would make the mail server lose or refuse mail."""


def read_text(path: Path) -> str:
    """A Secret's text. A store that was filled by Terraform may hold it as a JSON string; both forms are read."""
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith('"'):
        try:
            decoded = json.loads(text)
        except json.JSONDecodeError:
            return text
        if isinstance(decoded, str):
            return decoded
    return text


def lines_of(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def hash_password(password: str) -> str:
    """`{SCHEME}hash` as Dovecot stores it. The password goes through a pipe: an argument would show in the process list."""
    result = subprocess.run(
        ["doveadm", "pw", "-s", SCHEME, "-r", ROUNDS], input=f"{password}\n{password}\n", capture_output=True, text=True, check=False
    )
    hashed = result.stdout.strip().splitlines()[-1] if result.stdout.strip() else ""
    if result.returncode != 0 or not HASHED.fullmatch(hashed):
        raise ProblemError(f"doveadm pw failed with exit code {result.returncode}")
    return hashed


def accounts(text: str, declared: list[str]) -> str:
    """postfix-accounts.cf: `address|{SCHEME}hash` lines, sorted, from a JSON map of address to password or ready hash."""
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise ProblemError(f"accounts: not JSON ({error.msg} at line {error.lineno})") from None
    if not isinstance(entries, dict):
        raise ProblemError("accounts: must be a JSON object of address to password")
    problems = [f"accounts: {address} is declared in the settings but has no password" for address in declared if address not in entries]
    rows = []
    for address, password in sorted(entries.items()):
        if not re.fullmatch(r"[^\s|:/@]+@[^\s|:/@]+", address) or address != address.lower():
            problems.append(f"accounts: {address!r} is not a lower-case mail address")
        elif not isinstance(password, str) or not password:
            problems.append(f"accounts: {address} has an empty password")
        elif "\n" in password or "\r" in password or "\0" in password:
            problems.append(f"accounts: the password of {address} has a line break in it")
        else:
            rows.append((address, password))
    if problems:
        raise ProblemError("\n".join(problems))
    return "".join(f"{address}|{password if HASHED.fullmatch(password) else hash_password(password)}\n" for address, password in rows)


def aliases(declared: str, stored: str, addresses: set[str], quotas: bool) -> str:
    """postfix-virtual.cf from the settings' aliases and the store's. The same alias twice is fine if it says the same."""
    merged: dict[str, list[str]] = {}
    problems = []
    for origin, text in (("settings", declared), ("secret store", stored)):
        for line in text.splitlines():
            fields = re.split(r"(?:^|\s)#", line)[0].replace(",", " ").split()
            if not fields:
                continue
            alias, *targets = fields
            if not targets:
                problems.append(f"aliases: {alias} ({origin}) has no target")
            elif merged.setdefault(alias.lower(), targets) != targets:
                problems.append(f"aliases: {alias} has other targets in the {origin} than before; keep one of them")
    if quotas:
        # The image adds a user for such an alias, and Dovecot refuses a user list with a name in it twice.
        problems += [
            f"aliases: with quotas on, {alias} -> {targets[0]} between two mailboxes breaks Dovecot's user list"
            for alias, targets in merged.items()
            if alias in addresses and len(targets) == 1 and any(targets[0] in other for other in addresses - {alias})
        ]
    if problems:
        raise ProblemError("\n".join(problems))
    return "".join(f"{alias} {','.join(targets)}\n" for alias, targets in merged.items())


def relay_password(text: str) -> str:
    """postfix-sasl-password.cf: `[host]:port login:password` (postconf(5), smtp_sasl_password_maps)."""
    rows = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not rows or any(not re.fullmatch(r"\S+\s+[^\s:]+:\S.*", row) for row in rows):
        raise ProblemError("relay: sasl_passwd must have lines `[host]:port login:password`")
    return "".join(f"{row}\n" for row in rows)


def dkim_keys(folder: Path, names: list[str]) -> dict[str, str]:
    """The private keys by name; each must be there and look like a PEM key."""
    keys, problems = {}, []
    for name in names:
        path = folder / name
        text = read_text(path).strip() if path.is_file() else ""
        if not text:
            problems.append(f"dkim: the key {name} is missing")
        elif not re.fullmatch(r"-----BEGIN (RSA )?PRIVATE KEY-----\n.*\n-----END (RSA )?PRIVATE KEY-----", text, re.DOTALL):
            problems.append(f"dkim: {name} is not a PEM private key")
        else:
            keys[name] = f"{text}\n"
    if problems:
        raise ProblemError("\n".join(problems))
    return keys


def assemble(config: Path, secrets: Path, target: Path, *, quotas: bool, relay: bool) -> None:
    """Fill `target` from scratch. Nothing is written before everything was read and found good."""
    problems: list[str] = []

    def collect(make: Callable[[], Result], fallback: Result) -> Result:
        """What `make` returns, or its complaint among the problems."""
        try:
            return make()
        except ProblemError as problem:
            problems.append(str(problem))
        except FileNotFoundError as error:
            problems.append(f"{Path(error.filename).relative_to(secrets)}: is missing")
        return fallback

    stored = secrets / "aliases" / "aliases"
    account_lines = collect(lambda: accounts(read_text(secrets / "accounts" / "accounts"), lines_of(config / "mailboxes.txt")), "")
    addresses = {line.partition("|")[0] for line in account_lines.splitlines()}
    alias_lines = collect(
        lambda: aliases(
            (config / "postfix-virtual.cf").read_text("utf-8"), read_text(stored) if stored.exists() else "", addresses, quotas
        ),
        "",
    )
    relay_lines = collect(lambda: relay_password(read_text(secrets / "relay" / "sasl_passwd")), "") if relay else ""
    keys = collect(lambda: dkim_keys(secrets / "dkim", lines_of(config / "dkim-keys.txt")), {})
    if problems:
        raise ProblemError("\n".join(problems))

    for left_over in target.iterdir():
        shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
    for source in config.iterdir():
        if not source.name.startswith(".."):  # Kubernetes keeps its own bookkeeping in dotted names
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, target / source.name)
    shutil.copy(Path(__file__).with_name("user-patches.sh"), target)
    write(target / "postfix-accounts.cf", account_lines, 0o600)
    write(target / "postfix-virtual.cf", alias_lines, 0o644)
    if relay:
        write(target / "postfix-sasl-password.cf", relay_lines, 0o600)
    for name, text in keys.items():
        key = target / "rspamd" / "dkim" / name
        key.parent.mkdir(parents=True, exist_ok=True)
        write(key, text, 0o400)
        shutil.chown(key, "_rspamd", "_rspamd")  # Rspamd reads its keys in place, as itself


def write(path: Path, text: str, mode: int) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
    path.chmod(mode)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="the ConfigMap's files")
    parser.add_argument("--secrets", type=Path, required=True, help="folder with accounts/, aliases/, relay/, dkim/")
    parser.add_argument("--target", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--quotas", action="store_true", help="the image's quotas are on")
    parser.add_argument("--relay", action="store_true", help="outgoing mail needs the relay's password")
    options = parser.parse_args()
    try:
        assemble(options.config, options.secrets, options.target, quotas=options.quotas, relay=options.relay)
    except ProblemError as problem:
        for line in str(problem).splitlines():
            print(f"assemble: {line}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
