"""restic on PATH with cheap keys: by itself it calibrates scrypt to half a second, which each of its calls then takes.

Only `restic init` differs: the first makes a repository and wraps its key again with the smallest cost that scrypt knows; the
others get a copy of it with an identity of its own. What a key and its encryption look like is told by restic's design document
(Keys, Encryption and MAC).
"""

import base64
import hashlib
import itertools
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

CHEAPEST = {"N": 2, "r": 1, "p": 1}


def install(folder: Path) -> None:
    """A `restic` in `folder`: this machine's, but for `init`."""
    restic, command = shutil.which("restic"), folder / "restic"
    init = shlex.join([sys.executable, "-B", __file__, str(folder / "repository"), str(restic)])
    command.write_text(f'#!/bin/sh\ncase " $* " in *" init "*) exec {init} "$@";; esac\nexec {restic} "$@"\n', encoding="utf-8")
    command.chmod(0o755)


def _crypt(key: bytes, nonce: bytes, text: bytes) -> bytes:
    return Cipher(algorithms.AES(key[:32]), modes.CTR(nonce)).encryptor().update(text)


def _open(key: bytes, data: bytes) -> bytes:
    return _crypt(key, data[:16], data[16:-16])


def _seal(key: bytes, text: bytes) -> bytes:
    nonce = secrets.token_bytes(16)
    sealed = _crypt(key, nonce, text)
    pad = Cipher(algorithms.AES(key[32:48]), modes.ECB()).encryptor().update(nonce)
    return nonce + sealed + Poly1305.generate_tag(key[48:] + pad, sealed)


def _derived(password: bytes, key: dict) -> bytes:
    salt = base64.b64decode(key["salt"])
    return hashlib.scrypt(password, salt=salt, n=key["N"], r=key["r"], p=key["p"], dklen=64, maxmem=1 << 28)


def _master(repository: Path, password: bytes) -> tuple[Path, dict, bytes]:
    """The file of its only key, what is in it, and what it protects."""
    (file,) = (repository / "keys").iterdir()
    key = json.loads(file.read_bytes())
    return file, key, _open(_derived(password, key), base64.b64decode(key["data"]))


def wrap_again(repository: Path, password: bytes) -> None:
    file, key, master = _master(repository, password)
    key |= CHEAPEST
    key["data"] = base64.b64encode(_seal(_derived(password, key), master)).decode()
    content = json.dumps(key).encode()
    (file.parent / hashlib.sha256(content).hexdigest()).write_bytes(content)
    file.unlink()


def rename(repository: Path, password: bytes) -> None:
    keys = json.loads(_master(repository, password)[2])
    master = b"".join(base64.b64decode(part) for part in (keys["encrypt"], keys["mac"]["k"], keys["mac"]["r"]))
    file = repository / "config"
    config = json.loads(_open(master, file.read_bytes())) | {"id": secrets.token_hex(32)}
    file.chmod(0o600)
    file.write_bytes(_seal(master, json.dumps(config).encode()))


def main(made: Path, restic: str, *arguments: str) -> None:
    given = dict(itertools.pairwise(arguments))
    repository, password = Path(given["--repo"]), Path(given["--password-file"]).read_bytes().strip()
    if any(repository.iterdir()):
        os.execv(restic, [restic, *arguments])
    if not made.exists():
        subprocess.run([restic, *arguments], check=True)
        wrap_again(repository, password)
        shutil.copytree(repository, made)
        return
    shutil.copytree(made, repository, dirs_exist_ok=True)
    rename(repository, password)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
