"""A certificate authority of the lab's own, and DKIM keys. Made anew for each lab, never kept."""

import subprocess
import tempfile
from pathlib import Path

from tools.lab.hosts import Host


def _openssl(*arguments: str, stdin: str = "") -> str:
    return subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, text=True, check=True).stdout


class Authority:
    """Issues certificates that the lab's machines trust."""

    def __init__(self) -> None:
        self.key = _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        with tempfile.TemporaryDirectory() as scratch:
            key = Path(scratch) / "ca.key"
            key.write_text(self.key)
            self.certificate = _openssl("req", "-x509", "-new", "-key", str(key), "-subj", "/CN=Lab authority", "-days", "2")
        self._issued = 0

    def issue(self, *names: str) -> tuple[str, str]:
        """Certificate and key, both PEM, for the names; each call makes new ones."""
        self._issued += 1
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / "ca.key").write_text(self.key)
            (folder / "ca.crt").write_text(self.certificate)
            key = _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1")
            (folder / "key").write_text(key)
            request = _openssl("req", "-new", "-key", str(folder / "key"), "-subj", f"/CN={names[0]}")
            (folder / "request").write_text(request)
            (folder / "extensions").write_text(f"subjectAltName={','.join(f'DNS:{name}' for name in names)}\n")
            certificate = _openssl(
                *("x509", "-req", "-in", str(folder / "request"), "-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key")),
                *("-set_serial", str(self._issued), "-days", "2", "-extfile", str(folder / "extensions")),
            )
        return certificate, key

    def trust_on(self, host: Host) -> None:
        """Into the folder of hashed names that Postfix reads (smtp_tls_CApath)."""
        host.write("/etc/ssl/certs/lab.pem", self.certificate)
        name = _openssl("x509", "-noout", "-subject_hash", stdin=self.certificate).splitlines()[0]
        host.run("ln", "-sf", "lab.pem", f"/etc/ssl/certs/{name}.0")


def dkim_key() -> tuple[str, str]:
    """A private key (PEM, PKCS #8) and its public half as a DKIM record's p= value."""
    private = _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    public = _openssl("pkey", "-pubout", stdin=private)
    return private, "".join(line for line in public.splitlines() if not line.startswith("-----"))
