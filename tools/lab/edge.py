"""The whole mail edge on one machine: client, HAProxy, nodes, pod, relay, world. `with Lab(site) as lab:` starts and ends it."""

import contextlib
import email
import email.policy
import itertools
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path

from components.settings.site import Site
from tools.lab import debian, haproxy
from tools.lab.certificates import Authority
from tools.lab.haproxy import HAProxy
from tools.lab.hosts import Host, wait_for
from tools.lab.image import MailServer, Secrets
from tools.lab.mta import Mta
from tools.lab.names import NameServer
from tools.lab.nodes import Nodes
from tools.lab.paths import CLIENT_DOMAIN, CLIENT_IPV6, CLIENTS, CLIENTS_IPV6, EDGE_IPV6, NAMESERVER, POD, RELAY, SENDER, SENDER_DOMAIN
from tools.new_site import dkim_key


def client_name(address: str) -> str:
    """The name of a client: one that does not look like a dial-up line to a spam filter."""
    number = int(ip_address(address))
    return f"box-{number // CLIENT_IPV6 % (1 << 16) or number & 0xFFFF:x}.{CLIENT_DOMAIN}"


class Lab:
    """A site's mail edge with generated passwords, keys and certificates.

    `edge` makes HAProxy's configuration, so that a test can put the predecessor's in. `accounts` overrides generated passwords.
    """

    def __init__(self, site: Site, edge: Callable[[Site], str] = haproxy.configuration, accounts: dict[str, str] | None = None) -> None:
        self.site, self._edge = site, edge
        self.passwords = {address: secrets.token_urlsafe(9) for address in site.mail.mailboxes} | (accounts or {})
        self.app_passwords = {list(site.mail.mailboxes)[-1]: {device: secrets.token_urlsafe(9) for device in ("phone", "tablet")}}
        self.client_secret = secrets.token_urlsafe(9)
        self.relay_login = ("relay-user", secrets.token_urlsafe(9))
        self.authority = Authority()
        self._hosts = contextlib.ExitStack()
        self._clients = itertools.count(10)
        self._clients6 = itertools.count(10)

    def __enter__(self) -> "Lab":
        with contextlib.ExitStack() as stack:
            folder = self.folder = Path(tempfile.mkdtemp(prefix="mail-lab-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self.world = self._host(stack, folder, "world")
            self._world()
            pod = self._host(stack, folder, "mailserver", debian.below(self.site.mail.image_major))
            pod.link(self.world, "pod", POD)
            self.names = NameServer(self.world, NAMESERVER)
            stack.callback(self.names.close)
            self.dkim = {f"{name}.{key.selector}": dkim_key() for name, domain in self.site.domains.items() for key in domain.dkim}
            self._records()
            self._mail_servers(stack, folder)
            relay = self.site.mail.relay
            store = Secrets(
                accounts=self.passwords,
                dkim={name: private for name, (private, _) in self.dkim.items()},
                app_passwords=self.app_passwords,
                client_secret=self.client_secret,
                relay=f"{relay.next_hop} {':'.join(self.relay_login)}\n" if relay else None,
            )
            self.authority.trust_on(pod)
            self.pod = MailServer(pod, self.site, store, self.authority.issue(*self.site.tls.names), NAMESERVER)
            self.pod.assemble()
            self.pod.set_up()
            self.pod.start()
            self.nodes = Nodes(self.world, self.site)
            self.haproxy = HAProxy(self.world, self._edge(self.site))
            self._hosts = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._hosts.close()

    def _host(self, stack: contextlib.ExitStack, folder: Path, name: str, below: Path = Path("/")) -> Host:
        host = Host(name, folder / name, below)
        stack.callback(host.close)
        return host

    def _world(self) -> None:
        world = self.world
        world.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.ip_nonlocal_bind=1")
        own = [NAMESERVER, EDGE_IPV6, str(self.site.edge.address)]
        for node in self.site.cluster.nodes.values():
            own += [str(address) for address in (node.address, node.tunnel_address) if address]
        own += [str(address) for relay in self.site.mail.trusted_relays for address in relay.addresses]
        for address in own:
            world.run("ip", "address", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
        world.run("ip", "route", "add", "local", str(CLIENTS), "dev", "lo")
        world.run("ip", "-6", "route", "add", "local", str(CLIENTS_IPV6), "dev", "lo")

    def _records(self) -> None:
        site, names = self.site, self.names
        for domain in site.domains:
            names.put(domain, "MX", f"10 {site.host(domain)}.")
            names.text(domain, f"v=spf1 ip4:{RELAY} -all")
            names.text(f"_dmarc.{domain}", "v=DMARC1; p=reject")
            for key in site.domains[domain].dkim:
                names.text(f"{key.selector}._domainkey.{domain}", f"v=DKIM1; k=rsa; p={self.dkim[key.secret_key(domain)][1]}")
        for host in {site.host(domain) for domain in site.domains}:
            names.host(host, str(site.edge.address), EDGE_IPV6)
        names.host(f"mx.{SENDER_DOMAIN}", SENDER)
        names.put(SENDER_DOMAIN, "MX", f"10 mx.{SENDER_DOMAIN}.")
        names.text(SENDER_DOMAIN, f"v=spf1 ip4:{SENDER} -all")
        # Any client may send for the clients' domain.
        names.put(CLIENT_DOMAIN, "MX", f"10 mx.{CLIENT_DOMAIN}.")
        names.text(CLIENT_DOMAIN, f"v=spf1 ip4:{CLIENTS} ip6:{CLIENTS_IPV6} -all")
        names.host(f"mx.{CLIENT_DOMAIN}", str(CLIENTS[9]))
        for relay in site.mail.trusted_relays:
            for address in relay.addresses:
                names.host(f"{relay.name}.{site.primary}", str(address))

    def _mail_servers(self, stack: contextlib.ExitStack, folder: Path) -> None:
        name = f"mx.{SENDER_DOMAIN}"
        host = self._host(stack, folder, "sender")
        host.link(self.world, "sender", SENDER)
        self.sender = Mta(host, name, self.authority.issue(name), nameserver=NAMESERVER, port=25)
        if relay := self.site.mail.relay:
            self.names.host(relay.host, RELAY)
            host = self._host(stack, folder, "relay")
            host.link(self.world, "relay", RELAY)
            certificate = self.authority.issue(relay.host)
            self.relay = Mta(host, relay.host, certificate, nameserver=NAMESERVER, login=self.relay_login, port=relay.port)

    def wait_until_served(self) -> None:
        """Until HAProxy finds every node in every pool in order."""
        wait_for("HAProxy's checks", lambda: set(self.haproxy.states().values()) == {"UP"}, 30)

    def client(self, *, ipv6: bool = False) -> str:
        """The address of a new client, with a name that points back."""
        address = str(CLIENTS_IPV6[next(self._clients6) * CLIENT_IPV6] if ipv6 else CLIENTS[next(self._clients)])
        self.names.host(client_name(address), address)
        return address

    def stored(self, mailbox: str, subject: str, folder: str = "") -> list[EmailMessage]:
        """Every message with that subject in a mailbox's folder, INBOX unless named; read from the Maildir."""
        name, _, domain = mailbox.partition("@")
        maildir = self.pod.host.path(f"/var/mail/{domain}/{name}" + (f"/.{folder}" if folder else ""))
        found = []
        for path in [*maildir.glob("new/*"), *maildir.glob("cur/*")]:
            with contextlib.suppress(FileNotFoundError):  # a client may move it this moment
                mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
                if mail["Subject"] == subject:
                    found.append(mail)
        return found

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """The calling thread is a client on the Internet: its new sockets belong to the host `world`."""
        with self.world.network():
            yield
