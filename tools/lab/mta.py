"""Mail servers on the Internet: a Postfix that keeps all it receives (the relay, when it has accounts), and sends for others."""

import email
import email.policy
import signal
from email.message import EmailMessage

from components.mail.image import VMAIL
from tools.lab.facts import Fact, nested
from tools.lab.hosts import Host, wait_for

KEPT = "/var/kept"
LOG = "/var/log/mail.log"

_DOVECOT = (
    Fact("protocols", "", ""),
    Fact("log_path", "/var/log/dovecot.log", ""),
    Fact("ssl", "no", ""),
    Fact("stats_writer_socket_path", "", ""),
    Fact("auth_mechanisms", "plain login", ""),
    Fact("passdb > driver", "static", ""),
    Fact("service auth > unix_listener /var/spool/postfix/private/auth > mode", "0666", ""),
)


class Mta:
    """One Postfix. With `login` (name and password) it takes mail on 587 from who has them, over TLS."""

    def __init__(
        self, host: Host, name: str, certificate: tuple[str, str], *, nameserver: str, login: tuple[str, str] | None = None, port: int = 587
    ) -> None:
        self.host, self.name, self.login, self.port = host, name, login, port
        host.write("/etc/resolv.conf", f"nameserver {nameserver}\n")
        self._write_certificate(certificate)
        host.write("/etc/postfix/master.cf", host.path("/etc/postfix/master.cf.proto").read_text())
        host.run("mkdir", "-p", KEPT, "/var/spool/postfix/private")
        host.run("chown", f"{VMAIL}:{VMAIL}", KEPT)
        settings = {
            "compatibility_level": "3.6",
            "maillog_file": LOG,
            "myhostname": name,
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "alias_maps": "",
            "inet_protocols": "all",
            "message_size_limit": "0",
            "mailbox_size_limit": "0",
            "smtpd_tls_chain_files": "/etc/ssl/mta.key /etc/ssl/mta.crt",
            "smtpd_tls_security_level": "may",
            "smtpd_tls_received_header": "yes",
            "smtp_tls_security_level": "may",
            "smtp_tls_CApath": "/etc/ssl/certs",
            "smtp_host_lookup": "dns",
            # Kept here, whatever the recipient.
            "virtual_mailbox_domains": "static:all" if login else name.partition(".")[2],
            "virtual_mailbox_base": KEPT,
            "virtual_mailbox_maps": "static:mail/",
            "virtual_uid_maps": f"static:{VMAIL}",
            "virtual_gid_maps": f"static:{VMAIL}",
            "virtual_mailbox_limit": "0",
            "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject"
            if login
            else "permit_mynetworks, reject_unauth_destination",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject" if login else "permit_mynetworks, reject_unauth_destination",
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": "private/auth",
            "smtpd_sasl_auth_enable": "yes" if login else "no",
            "smtpd_tls_auth_only": "yes",
        }
        host.write("/etc/postfix/main.cf", "".join(f"{key} = {value}\n" for key, value in settings.items()))
        host.settle_postfix()
        service = "smtp" if port == 25 else str(port)
        host.run(
            "postconf", "-M", f"{service}/inet={service} inet n - n - - smtpd", "postlog/unix-dgram=postlog unix-dgram n - n - 1 postlogd"
        )
        for service in host.run("postconf", "-F", "*/*/chroot").stdout.splitlines():
            if service.endswith("= y"):
                host.run("postconf", "-F", service.replace(" = y", " = n"))
        self.start()

    def _write_certificate(self, certificate: tuple[str, str]) -> None:
        self.host.write("/etc/ssl/mta.crt", certificate[0])
        self.host.write("/etc/ssl/mta.key", certificate[1], 0o600)

    def certify(self, certificate: tuple[str, str]) -> None:
        """Serve another certificate from now on."""
        self._write_certificate(certificate)
        self.stop()
        self.start()

    def start(self) -> None:
        if self.login:
            name, password = self.login
            static = Fact("passdb > args", f"user={name} password={password}", "")
            self.host.write("/etc/dovecot/dovecot.conf", nested((*_DOVECOT, static)))
            self.auth = self.host.spawn("dovecot", "dovecot", "-F", "-c", "/etc/dovecot/dovecot.conf")
            wait_for("the relay's passwords", self.host.path("/var/spool/postfix/private/auth").is_socket)
        self.daemon = self.host.spawn("postfix", "postfix", "start-fg")
        wait_for(self.name, lambda: f":{self.port} " in self.host.run("ss", "-Hltn").stdout)

    def stop(self) -> None:
        self.host.run("postfix", "stop", check=False)
        self.daemon.stop(signal.SIGTERM)
        if self.login:
            self.auth.stop(signal.SIGTERM)

    def kept(self) -> list[EmailMessage]:
        """What has arrived so far, envelope sender and recipient as Return-Path and X-Original-To."""
        return [email.message_from_bytes(raw, policy=email.policy.default) for raw in self.raw()]  # type: ignore[misc]

    def raw(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.host.path(f"{KEPT}/mail/new").glob("*"))]

    def submit(self, sender: str, recipients: list[str], message: str) -> None:
        """Hand a message to this server's queue; it delivers by MX like any other."""
        self.host.run("sendmail", "-i", "-f", sender, "--", *recipients, stdin=message)

    def log(self) -> str:
        path = self.host.path(LOG)
        return path.read_text(errors="replace") if path.exists() else ""
