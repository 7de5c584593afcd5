"""Mail clients of the lab: SMTP and IMAP from an address of one's choice, with the certificate checked."""

import email.utils
import imaplib
import smtplib
import socket
import ssl
import uuid
from email.message import EmailMessage

from components.listeners import IMAPS, SMTP, SUBMISSION, SUBMISSIONS
from tools.lab.edge import Lab, client_name
from tools.lab.hosts import slowness
from tools.lab.paths import CLIENT_DOMAIN, EDGE_IPV6, POD

TIMEOUT = 20.0  # seconds of an idle machine


class _Smtp(smtplib.SMTP):
    def __init__(self, name: str, source: str, context: ssl.SSLContext | None) -> None:
        self._wrap = context
        super().__init__(local_hostname=client_name(source), timeout=TIMEOUT * slowness(), source_address=(source, 0))
        self._host = name  # whose certificate is expected

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = socket.create_connection((host, port), timeout, self.source_address)
        return self._wrap.wrap_socket(connection, server_hostname=self._host) if self._wrap else connection


class _Imap(imaplib.IMAP4_SSL):
    def __init__(self, name: str, source: str, address: str, port: int, context: ssl.SSLContext) -> None:
        self._name, self._source = name, source
        super().__init__(address, port, ssl_context=context, timeout=TIMEOUT * slowness())

    def _create_socket(self, timeout: float | None) -> socket.socket:
        connection = socket.create_connection((self.host, self.port), timeout, (self._source, 0))
        return self.ssl_context.wrap_socket(connection, server_hostname=self._name)


class Client:
    """A client at `source`, a new address unless one is given. `inside` speaks to the pod itself, as its neighbours do."""

    def __init__(self, lab: Lab, source: str | None = None, *, ipv6: bool = False, inside: bool = False) -> None:
        self.lab, self.site = lab, lab.site
        self.source = source or lab.client(ipv6=ipv6)
        ipv6 = ":" in self.source
        self.server = POD if inside else EDGE_IPV6 if ipv6 else str(self.site.edge.address)

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.lab.authority.certificate)

    def smtp(self, port: int = SMTP.port, login: str | None = None) -> smtplib.SMTP:
        """Connected and greeted; with TLS where the port wants it, and logged in as a mailbox when one is named."""
        wrapped = port in {SUBMISSIONS.port, SUBMISSIONS.proxy_port}
        client = _Smtp(self.site.hostname, self.source, self.context() if wrapped else None)
        with self.lab.outside():
            code, text = client.connect(self.server, port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, text)
        client.ehlo()
        if port in {SUBMISSION.port, SUBMISSION.proxy_port}:
            client.starttls(context=self.context())
            client.ehlo()
        if login:
            client.login(login, self.lab.passwords[login])
        return client

    def imap(self, login: str | None = None, port: int = IMAPS.port) -> imaplib.IMAP4_SSL:
        with self.lab.outside():
            client = _Imap(self.site.hostname, self.source, self.server, port, self.context())
        if login:
            client.login(login, self.lab.passwords[login])
        return client

    def send(self, message: EmailMessage, to: list[str], *, port: int = SMTP.port, login: str | None = None, sender: str = "") -> None:
        with self.smtp(port, login) as client:
            client.send_message(message, sender or message["From"], to)

    def raw(self, port: int, *, timeout: float = TIMEOUT) -> socket.socket:
        with self.lab.outside():
            return socket.create_connection((self.server, port), timeout * slowness(), (self.source, 0))


def message(sender: str = f"friend@{CLIENT_DOMAIN}", to: str = "alice@example.org", body: str = "Hello.\n", **headers: str) -> EmailMessage:
    """A message as a decent client writes it, with a subject that is found again."""
    mail = EmailMessage()
    mail["From"], mail["To"] = sender, to
    mail["Subject"] = f"subject {uuid.uuid4().hex}"
    mail["Date"] = email.utils.formatdate()
    mail["Message-ID"] = email.utils.make_msgid(domain=sender.rpartition("@")[2])
    for name, value in headers.items():
        mail[name.replace("_", "-")] = value
    mail.set_content(body)
    return mail
