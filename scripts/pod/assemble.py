"""Puts the mail server's configuration folder together at pod start, from a ConfigMap and Secrets.

Runs as an init container on the mail server's own image, because hashing needs its `doveadm` and the key files its users.
There are four parts: accounts, aliases, relay, dkim. A part that is missing, contradicts itself, or would make the server lose,
refuse or leave unsigned any mail, is told in one line for each problem, and taken as it was at the last good start (kept on the
state volume). Without one, this ends with 1 and the mail server does not start.
App passwords are never taken from an earlier start, which would bring a revoked one back: what is wrong among them is left out.
A client secret that is unusable costs log-ins by token, and no one else anything.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common import ProblemError
from passwords import ADDRESS, Files, accounts, app_passwords, read_accounts

LAST_GOOD = "last-good"


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


def oauth(template: str, secret: str) -> str:
    """oauth.cf with the client secret: as the empty password of its URL (Dovecot 2.4), or the empty setting (2.3)."""
    if not re.fullmatch(r"[A-Za-z0-9._~-]+", secret):  # none of them has to be quoted in either
        raise ProblemError("oauth: client_secret must be of letters, digits and -._~; until then no one logs in by a token")
    return re.sub(r"(?<=:)(?=@)|(?<=^client_secret=)$", secret, template, flags=re.MULTILINE)


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
        entries = read_accounts(read_text(secrets / "accounts" / "accounts"), lines_of(config / "mailboxes.txt"), domains)
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
        try:
            text, problems = app_passwords(read_text(devices / "app_passwords"), addresses)
        except ProblemError as problem:
            text, problems = "", [str(problem)]
        parts["app-passwords"] = {"app-passwords.txt": text}
        said.extend(problems)
    if (client := secrets / "oauth").exists():
        try:
            secret = read_text(client / "client_secret").strip()
            parts["oauth"] = {"oauth.cf": oauth((config / "oauth.cf").read_text("utf-8"), secret)}
        except ProblemError as problem:
            said.append(str(problem))
    fill(target, config, names, parts)
    return said


def fill(target: Path, config: Path, keys: list[str], parts: dict[str, Files]) -> None:
    """The folder anew: the ConfigMap's files, then those with what comes from Secrets."""
    for left_over in target.iterdir():
        shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
    for source in config.iterdir():
        if not source.name.startswith(".."):  # Kubernetes keeps its own bookkeeping in dotted names
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, target / source.name)
    shutil.copy(Path(__file__).with_name("user-patches.sh"), target)
    for name in ("postfix-accounts.cf", "postfix-virtual.cf", "postfix-sasl-password.cf", "app-passwords.txt", "oauth.cf"):
        for files in parts.values():
            if name in files:
                write(target / name, files[name], 0o644 if name == "postfix-virtual.cf" else 0o600)
    for name in keys:
        key = target / "rspamd" / "dkim" / name
        key.parent.mkdir(parents=True, exist_ok=True)
        write(key, parts["dkim"][name], 0o400)
        shutil.chown(key, "_rspamd", "_rspamd")  # Rspamd reads its keys in place, as itself


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
    parser.add_argument(
        "--secrets", type=Path, required=True, help="folder with accounts/, aliases/, relay/, dkim/, app-passwords/, oauth/"
    )
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
