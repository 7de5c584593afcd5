"""Passwords from the secret store as the hashes that Dovecot reads: accounts, and the app passwords of their devices.

Hashing happens at pod start and not in the secret store: a new salt at every refresh would restart the pod each time.
"""

import hashlib
import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from common import ProblemError

SCHEME = "SHA512-CRYPT"
ROUNDS = "50000"  # ten times the scheme's default: about 30 ms a login on one core
HASHED = re.compile(r"\{[A-Z0-9][A-Z0-9.-]*\}\S+")
DEVICE = r"[a-z0-9][a-z0-9-]{0,31}"
ADDRESS = r"[^\s|:/@,]+@[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?"
GROUPS = 16
Files = dict[str, str]  # text by file name


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


def read_accounts(text: str, declared: list[str], domains: list[str]) -> dict[str, str]:
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


def app_passwords(text: str, addresses: set[str]) -> tuple[str, list[str]]:
    """The app passwords' Secret as sorted lines `address|device|{SCHEME}hash`, and a complaint for each entry that is left out."""
    entries, problems = read_object(text, "app_passwords", "address to {device: password}")
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
