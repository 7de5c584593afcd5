"""Puts the mail server's configuration folder together at pod start, from a ConfigMap and Secrets.

Runs as an init container on the mail server's own image, because hashing needs its `doveadm` and the key files its users.
Hashing happens here and not in the secret store: a new salt at every refresh would restart the pod each time.
There are four parts: accounts, aliases, relay, dkim. A part that is missing, contradicts itself, or would make the server lose,
refuse or leave unsigned any mail, is told in one line for each problem, and taken as it was at the last good start (kept on the
state volume). Without one, this ends with 1 and the mail server does not start.
App passwords are never taken from an earlier start, which would bring a revoked one back: what is wrong among them is left out.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

SCHEME = "SHA512-CRYPT"
ROUNDS = "50000"  # ten times the scheme's default: about 30 ms a login on one core
HASHED = re.compile(r"\{[A-Z0-9][A-Z0-9.-]*\}\S+")
DEVICE = r"[a-z0-9][a-z0-9-]{0,31}"
ADDRESS = r"[^\s|:/@,]+@[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?"
GROUPS = 16
LAST_GOOD = "last-good"
Files = dict[str, str]  # text by file name


class ProblemError(Exception):
    """Something that would make the mail server lose or refuse mail."""


def read_text(path: Path) -> str:
    """A Secret's text. A store that was filled by Terraform may hold it as a JSON string; both forms are read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        fault = "is missing" if isinstance(error, FileNotFoundError) else "not UTF-8"
        raise ProblemError(f"{path.parent.name}/{path.name}: {fault}") from None
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


# --- Accounts -----------------------------------------------------------------------------------------------------------------


@cache
def schemes() -> frozenset[str]:
    return frozenset(subprocess.run(["doveadm", "pw", "-l"], capture_output=True, text=True, check=True).stdout.split())


def is_hash(password: str) -> bool:
    """Whether a password is a ready hash, `{SCHEME}…`. Raises ProblemError for what Dovecot would take for one and could not read."""
    found = re.match(r"\{([A-Za-z0-9][A-Za-z0-9.-]*)\}", password)
    if not found:
        return False
    if found[1].upper().partition(".")[0] not in schemes():
        raise ProblemError(f"begins with {{{found[1]}}}, which is not a scheme of `doveadm pw -l`; choose another password or hash")
    if re.search(r"[\s|:]", password):
        raise ProblemError("is a hash with a blank, a colon or a bar in it, which Dovecot's user list cannot hold")
    return True


def hash_password(password: str) -> str:
    """`{SCHEME}hash` as Dovecot stores it. The password goes through a pipe: an argument would show in the process list."""
    result = subprocess.run(
        ["doveadm", "pw", "-s", SCHEME, "-r", ROUNDS], input=f"{password}\n{password}\n", capture_output=True, text=True, check=False
    )
    hashed = result.stdout.strip().splitlines()[-1] if result.stdout.strip() else ""
    if result.returncode != 0 or not HASHED.fullmatch(hashed):
        raise ProblemError(f"doveadm pw failed with exit code {result.returncode}")
    return hashed


def hash_all(passwords: dict[Any, str]) -> dict[Any, str]:
    """The same names with each password's hash; a ready hash stays as it is."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(passwords, pool.map(lambda one: one if is_hash(one) else hash_password(one), passwords.values()), strict=True))


def read_object(text: str, secret: str, shape: str) -> tuple[dict[str, Any], list[str]]:
    """A Secret's JSON object, and a complaint for each name that is in it twice."""
    problems: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        problems.extend(f"{secret}: {name} is listed twice" for name in sorted({n for n in names if names.count(n) > 1}))
        return dict(pairs)

    try:
        entries = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ProblemError(f"{secret}: not JSON ({error.msg} at line {error.lineno})") from None
    if not isinstance(entries, dict):
        raise ProblemError(f"{secret}: must be a JSON object of {shape}")
    return entries, problems


def fault_of(password: Any) -> str | None:
    """What makes a value unusable as a password or ready hash."""
    if not isinstance(password, str) or not password:
        return "is empty"
    if "\n" in password or "\r" in password or "\0" in password:
        return "has a line break in it"
    try:
        is_hash(password)
    except ProblemError as problem:
        return str(problem)
    return None


def passwords(text: str, declared: list[str], domains: list[str]) -> dict[str, str]:
    """The accounts Secret: a JSON map of address to password or ready hash."""
    entries, problems = read_object(text, "accounts", "address to password")
    problems += [f"accounts: {address} is declared in the settings but has no password" for address in declared if address not in entries]
    for address, password in sorted(entries.items()):
        if not re.fullmatch(ADDRESS, address) or address != address.lower():
            problems.append(f"accounts: {address!r} is not a lower-case mail address")
        elif address.rpartition("@")[2] not in domains:
            problems.append(f"accounts: the domain of {address} is not one of the settings'; mail to others there would bounce")
        elif fault := fault_of(password):
            problems.append(f"accounts: the password of {address} {fault}")
    if problems:
        raise ProblemError("\n".join(problems))
    return entries


def accounts(entries: dict[str, str], known: Files) -> Files:
    """postfix-accounts.cf (`address|{SCHEME}hash` lines, sorted), with what tells at the next start which passwords are the same.

    That is an scrypt digest (8 MB, about 20 ms a try) of the passwords of each sixteenth of the accounts: guessing them by it
    costs no less than by the hashes. `known` are these two files of the last good start.
    """
    lines = known.get("postfix-accounts.cf", "").splitlines()
    old = {address: password for address, _, password in (line.partition("|") for line in lines)}
    try:
        digests = json.loads(known.get("passwords.json", "{}"))
    except ValueError:  # cut short by a crash
        digests = {}
    if digests.get("accounts") != _sha256(known.get("postfix-accounts.cf", "")):
        digests = {}  # of other hashes
    groups: dict[str, dict[str, str]] = {}
    for address, password in sorted(entries.items()):
        groups.setdefault(str(int(_sha256(address), 16) % GROUPS), {})[address] = password
    hashed: dict[str, str] = {}
    fresh: dict[str, Any] = {}
    for group, members in groups.items():
        salt = digests.get(group, {}).get("salt") or os.urandom(16).hex()
        digest = hashlib.scrypt(json.dumps(members, sort_keys=True).encode(), salt=bytes.fromhex(salt), n=2**13, r=8, p=1, dklen=32).hex()
        if digest == digests.get(group, {}).get("digest"):
            hashed |= {address: old[address] for address in members if old.get(address, "").startswith(f"{{{SCHEME}}}$6$rounds={ROUNDS}$")}
        fresh[group] = {"salt": salt, "digest": digest}
    hashed |= hash_all({address: password for address, password in entries.items() if address not in hashed or is_hash(password)})
    text = "".join(f"{address}|{hashed[address]}\n" for address in sorted(entries))
    return {"postfix-accounts.cf": text, "passwords.json": json.dumps(fresh | {"accounts": _sha256(text)})}


def app_passwords(path: Path, addresses: set[str]) -> tuple[str, list[str]]:
    """`address|device|{SCHEME}hash` lines, sorted, and a complaint for each entry that is left out."""
    try:
        entries, problems = read_object(read_text(path), path.name, "address to {device: password}")
    except ProblemError as problem:
        return "", [str(problem)]
    usable: dict[tuple[str, str], str] = {}
    for address, devices in sorted(entries.items()):
        if address not in addresses or not isinstance(devices, dict):
            what = "must be a JSON object of device to password" if address in addresses else "is not an account"
            problems.append(f"app_passwords: {address} {what}")
            continue
        for device, password in sorted(devices.items()):
            if not re.fullmatch(DEVICE, device):
                problems.append(f"app_passwords: {device!r} of {address} is not a device name; write up to 32 of a-z, 0-9 and -")
            elif fault := fault_of(password):
                problems.append(f"app_passwords: the password of {address} for {device} {fault}")
            else:
                usable[address, device] = password
    return "".join(f"{address}|{device}|{hashed}\n" for (address, device), hashed in hash_all(usable).items()), problems


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- Aliases, relay, DKIM -----------------------------------------------------------------------------------------------------


def aliases(declared: str, stored: str | None, addresses: set[str], domains: list[str], quotas: bool) -> str:
    """postfix-virtual.cf from the settings' aliases and the store's (None: there is no such Secret). The same one twice is fine."""
    merged: dict[str, list[str]] = {}
    problems = []
    counts = {"settings": 0, "secret store": 0}
    for origin, text in (("settings", declared), ("secret store", stored or "")):
        for line in text.splitlines():
            fields = re.split(r"(?:^|\s)#", line)[0].replace(",", " ").split()
            if not fields:
                continue
            counts[origin] += 1
            alias, targets = fields[0].lower(), fields[1:]
            if not re.fullmatch(f"@?{ADDRESS}" if alias[0] != "@" else r"@[a-z0-9.-]+", alias):
                problems.append(f"aliases: {alias!r} ({origin}) is not an address or @domain; write lines `alias target[,target…]`")
            elif alias.rpartition("@")[2] not in domains:
                problems.append(f"aliases: the domain of {alias} ({origin}) is not one of the settings'; mail to others there would bounce")
            elif not targets:
                problems.append(f"aliases: {alias} ({origin}) has no target")
            elif bad := [target for target in targets if not re.fullmatch(ADDRESS, target, re.IGNORECASE)]:
                problems.append(f"aliases: {alias} ({origin}) has the target {bad[0]!r}, which is not an address")
            elif set(merged.setdefault(alias, targets)) != set(targets):
                problems.append(f"aliases: {alias} has other targets in the {origin} than before; keep one of them")
    if stored is not None and not counts["secret store"]:
        problems.append("aliases: the Secret has no alias in it; fill it, or remove it from the settings")
    if quotas:
        # The image adds a user for such an alias, and Dovecot refuses a user list with a name in it twice.
        problems += [
            f"aliases: with quotas on, {alias} -> {first} between two mailboxes breaks Dovecot's user list; name {alias} itself first"
            for alias in merged
            if alias in addresses
            for first in [target for target in merged[alias] if any(target in address for address in addresses)][:1]
            if any(first in other for other in addresses - {alias})
        ]
    if problems:
        raise ProblemError("\n".join(problems))
    return "".join(f"{alias} {','.join(targets)}\n" for alias, targets in merged.items())


def relay_password(text: str, next_hop: str) -> str:
    """postfix-sasl-password.cf: `[host]:port login:password` (postconf(5), smtp_sasl_password_maps)."""
    rows = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not rows or any(not re.fullmatch(r"\S+\s+[^\s:]+:\S.*", row) for row in rows):
        raise ProblemError("relay: sasl_passwd must have lines `[host]:port login:password`")
    hops = [row.split()[0] for row in rows]
    if hops.count(next_hop) != 1:
        raise ProblemError(
            f"relay: sasl_passwd must have one line for {next_hop}, the relay of the settings; it has {', '.join(hops)}. "
            "Without it mail would go there without a login and bounce"
        )
    return "".join(f"{row}\n" for row in rows)


def dkim_keys(folder: Path, names: list[str]) -> Files:
    """The private keys by name; OpenSSL must be able to read each."""
    keys, problems = {}, []
    for name in names:
        path = folder / name
        text = read_text(path).strip() if path.is_file() else ""
        if not text:
            problems.append(f"dkim: the key {name} is missing")
        elif not re.fullmatch(r"-----BEGIN (RSA )?PRIVATE KEY-----\n.*\n-----END (RSA )?PRIVATE KEY-----", text, re.DOTALL):
            problems.append(f"dkim: {name} is not a PEM private key")
        elif subprocess.run(["openssl", "pkey", "-noout"], input=text.encode(), capture_output=True, check=False).returncode:
            problems.append(f"dkim: OpenSSL cannot read the key {name}; mail would leave unsigned")
        else:
            keys[name] = f"{text}\n"
    if problems:
        raise ProblemError("\n".join(problems))
    return keys


# --- The last good set --------------------------------------------------------------------------------------------------------


def load(folder: Path) -> Files:
    """A part as it was at the last good start; empty without one."""
    return {path.name: path.read_text("utf-8") for path in folder.iterdir() if path.name[0] != "."} if folder.is_dir() else {}


def keep(folder: Path, files: Files) -> None:
    """Remember a part that is good, for its owner alone."""
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.parent.chmod(0o700)
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, text in files.items():
        write(folder / f".{name}", text, 0o600)
        (folder / f".{name}").rename(folder / name)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    os.utime(folder)


def assemble(config: Path, secrets: Path, target: Path, state: Path, *, quotas: bool, relay: str | None) -> list[str]:
    """Fill `target` from scratch, after everything was read; what a person has to be told. Raises ProblemError, all in one."""
    domains, names = lines_of(config / "domains.txt"), lines_of(config / "dkim-keys.txt")
    stored = secrets / "aliases"
    last_good = state / LAST_GOOD
    parts: dict[str, Files] = {}
    said: list[str] = []
    fatal = False

    def part(name: str, make: Callable[[], Files], usable: Callable[[Files], bool] = bool) -> None:
        """What `make` returns, or its complaint and the files of the last good start, if these are usable."""
        nonlocal fatal
        try:
            parts[name] = make()
        except ProblemError as problem:
            said.extend(str(problem).splitlines())
            parts[name] = load(last_good / name)
            if not usable(parts[name]):
                fatal = True
                return
            since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime((last_good / name).stat().st_mtime))
            said.append(f"LAST GOOD SET IN USE: {name} as of {since}, because of the faults above; mend the Secret and restart the pod")
            return
        try:
            keep(last_good / name, parts[name])
        except OSError as error:
            said.append(f"the last good set could not be kept for the next start: {error.strerror}")

    def secret_aliases() -> str | None:
        return read_text(stored / "aliases") if stored.exists() else None

    def checked_accounts() -> Files:
        entries = passwords(read_text(secrets / "accounts" / "accounts"), lines_of(config / "mailboxes.txt"), domains)
        return accounts(entries, load(last_good / "accounts"))

    part("accounts", checked_accounts, lambda files: bool(files.get("postfix-accounts.cf")))
    addresses = {line.partition("|")[0] for line in parts["accounts"].get("postfix-accounts.cf", "").splitlines()}
    declared = (config / "postfix-virtual.cf").read_text("utf-8")
    part("aliases", lambda: {"postfix-virtual.cf": aliases(declared, secret_aliases(), addresses, domains, quotas)})
    if relay:
        part(
            "relay",
            lambda: {"postfix-sasl-password.cf": relay_password(read_text(secrets / "relay" / "sasl_passwd"), relay)},
            lambda files: any(line.split()[0] == relay for line in files.get("postfix-sasl-password.cf", "").splitlines()),
        )
    part("dkim", lambda: dkim_keys(secrets / "dkim", names), lambda files: set(names) <= files.keys())
    if fatal:
        raise ProblemError("\n".join(said))
    if (devices := secrets / "app-passwords").exists():
        text, problems = app_passwords(devices / "app_passwords", addresses)
        parts["app-passwords"] = {"app-passwords.txt": text}
        said.extend(problems)

    for left_over in target.iterdir():
        shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
    for source in config.iterdir():
        if not source.name.startswith(".."):  # Kubernetes keeps its own bookkeeping in dotted names
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, target / source.name)
    shutil.copy(Path(__file__).with_name("user-patches.sh"), target)
    for name in ("postfix-accounts.cf", "postfix-virtual.cf", "postfix-sasl-password.cf", "app-passwords.txt"):
        for files in parts.values():
            if name in files:
                write(target / name, files[name], 0o644 if name == "postfix-virtual.cf" else 0o600)
    for name in names:
        key = target / "rspamd" / "dkim" / name
        key.parent.mkdir(parents=True, exist_ok=True)
        write(key, parts["dkim"][name], 0o400)
        shutil.chown(key, "_rspamd", "_rspamd")  # Rspamd reads its keys in place, as itself
    return said


def write(path: Path, text: str, mode: int) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # a crash must not leave an empty file as the last good one
    path.chmod(mode)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="the ConfigMap's files")
    parser.add_argument("--secrets", type=Path, required=True, help="folder with accounts/, aliases/, relay/, dkim/, app-passwords/")
    parser.add_argument("--target", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--state", type=Path, required=True, help="a folder that outlives the pod")
    parser.add_argument("--quotas", action="store_true", help="the image's quotas are on")
    parser.add_argument("--relay", metavar="[HOST]:PORT", help="outgoing mail goes there and needs a password")
    options = parser.parse_args()
    try:
        said = assemble(options.config, options.secrets, options.target, options.state, quotas=options.quotas, relay=options.relay)
    except ProblemError as problem:
        said, code = str(problem).splitlines(), 1
    else:
        code = 0
        write(options.target / "assemble.txt", "".join(f"{line}\n" for line in said), 0o644)
    for line in said:
        print(f"assemble: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
