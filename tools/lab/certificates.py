"""A certificate authority of the lab's own, and DKIM keys. Made anew for each lab, never kept."""

import ssl
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tools.lab.hosts import Host

PAST = timedelta(days=90)  # how long ago every certificate begins, so that one can be expired


def _openssl(*arguments: str, stdin: str = "") -> str:
    return subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, text=True, check=True).stdout


class Authority:
    """Issues certificates that the lab's machines trust."""

    def __init__(self, organisation: str = "Lab") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        names = {x509.NameOID.ORGANIZATION_NAME: organisation, x509.NameOID.COMMON_NAME: "Lab authority"}
        self._name = x509.Name([x509.NameAttribute(kind, name) for kind, name in names.items()])
        ours = x509.BasicConstraints(ca=True, path_length=0)
        self.certificate = self._sign(self._name, self._key.public_key(), ours, critical=True, days=2)

    def issue(self, *names: str, days: int = 2) -> tuple[str, str]:
        """Certificate and key, both PEM, for the names; each call makes new ones. With negative days it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return self._sign(subject, key.public_key(), alternatives, critical=False, days=days), text

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, more: x509.ExtensionType, *, critical: bool, days: int) -> str:
        now = datetime.now(UTC)
        serial = x509.random_serial_number()
        builder = x509.CertificateBuilder(self._name, subject, key, serial, now - PAST, now + timedelta(days=days))
        return builder.add_extension(more, critical).sign(self._key, SHA256()).public_bytes(Encoding.PEM).decode()

    def trust_on(self, host: Host) -> None:
        """Into the folder of hashed names that Postfix reads (smtp_tls_CApath)."""
        host.write("/etc/ssl/certs/lab.pem", self.certificate)
        name = _openssl("x509", "-noout", "-subject_hash", stdin=self.certificate).splitlines()[0]
        host.run("ln", "-sf", "lab.pem", f"/etc/ssl/certs/{name}.0")


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """For a server that shows this certificate; both are PEM."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:  # OpenSSL takes them from a file only
        file.write(certificate + key)
        file.flush()
        context.load_cert_chain(file.name)
    return context
