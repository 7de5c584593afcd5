"""A firewall to try things on: OpenSSH, PHP and HAProxy for real, over an include tree of our own (pfsense/), on a machine of its own.

The machine is a set of namespaces (tools/lab/hosts.py), so paths, process names and addresses are those of a real firewall, two
suites at once do not meet, and the kernel ends everything with the process that started it.
"""

import contextlib
import functools
import os
import shutil
import socket
import ssl
import subprocess
import threading
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import asyncssh

from components.edge.client import COMMAND, Firewall, program
from components.edge.connection import Connection
from components.listeners import LISTENERS
from tools.lab.certificates import Authority, server_context
from tools.lab.hosts import PATH, Daemon, Host, slowness, wait_for
from tools.lab.names import NameServer

TREE = Path(__file__).parent / "pfsense"
PROGRAMS = ("php", "haproxy", "sshd", "ip", "ss", "pgrep", "unshare", "nsenter", "setpriv")
ADDRESS, WAN, CLIENT = "10.0.20.1", "192.168.1.2", "10.0.20.77"
NODES = ("10.0.20.101", "10.0.20.102")
TUNNEL = "2001:470:6e:43d::2"
INTERFACES = {"vtnet0": (WAN,), "vtnet1": ("10.0.10.1",), "vtnet2": (ADDRESS, CLIENT, *NODES), "gif0": (TUNNEL,)}
VERSIONS = ("2.7.2", "2.8", "master")
_PROXY_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def wait(holds: Any, seconds: float = 10) -> Any:
    return wait_for("what the test expects", holds, seconds)


def missing() -> str:
    """Why the stand-in cannot run here; empty when it can."""
    programs = [program for program in PROGRAMS if not shutil.which(program, path=f"{os.environ.get('PATH', '')}:{PATH}")]
    return f"not installed: {', '.join(programs)}" if programs else "" if os.geteuid() == 0 else "namespaces need root"


class Node:
    """A worker: the four PROXY listeners, each behind its NodePort, and the stock listeners that checks go to."""

    def __init__(self, address: str, tls: ssl.SSLContext) -> None:
        self.address = address
        self.clients: list[str] = []
        self.mute = False  # take connections and say nothing
        self._tls = tls
        self._sockets: list[socket.socket] = []
        for listener in LISTENERS:
            self.listen(listener.node_port, listener.name)
            self.listen(listener.health_node_port, None)

    def listen(self, port: int, service: str | None) -> None:
        server = socket.create_server((self.address, port), backlog=256)
        self._sockets.append(server)
        threading.Thread(target=self._accept, args=(server, service), daemon=True).start()

    def _accept(self, server: socket.socket, service: str | None) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            if service is None:
                client.close()
            else:
                threading.Thread(target=self._serve, args=(client, service), daemon=True).start()

    def _serve(self, client: socket.socket, service: str) -> None:
        client.settimeout(20)
        try:
            head = client.recv(16, socket.MSG_WAITALL)
            if not head.startswith(_PROXY_SIGNATURE):
                return
            body = client.recv(int.from_bytes(head[14:16]), socket.MSG_WAITALL)
            size = 4 if head[13] >> 4 == 1 else 16
            if len(body) < size:
                return  # HAProxy speaks for itself, not for a client
            self.clients.append(socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, body[:size]))
            if self.mute:
                return
            if service in ("submissions", "imaps"):
                client = self._tls.wrap_socket(client, server_side=True)
            client.sendall(b"* OK ready\r\n" if service == "imaps" else b"220 mail.example.org ESMTP\r\n")
            while line := client.recv(1024):
                client.sendall(line)
        except OSError:
            pass
        finally:
            client.close()

    def stop(self) -> None:
        for server in self._sockets:
            server.shutdown(socket.SHUT_RDWR)
            server.close()
        self._sockets = []


class StandIn:
    """One firewall with its workers. `core` is the generation of its configuration functions, one of VERSIONS.

    From its making to its stop, the sockets, threads and programs that this thread starts are in the firewall's network.
    """

    address, wan, client_address, tunnel = ADDRESS, WAN, CLIENT, TUNNEL

    def __init__(self, folder: Path, core: str = "2.8") -> None:
        self._entered = contextlib.ExitStack()
        self.machine = Host("edge", folder)
        self._entered.callback(self.machine.close)
        try:
            self._set_up(core)
        except BaseException:
            self._entered.close()
            raise

    def _set_up(self, core: str) -> None:
        machine = self.machine
        self.root = machine.path("/")
        (self.root / "var/run").unlink()  # Debian's link; followed from outside, it would point to this machine's own
        shutil.copytree(TREE, self.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("README.md"))
        for folder in ("var/run", "var/etc", "log", "ssh"):
            (self.root / folder).mkdir()
        (self.root / "etc/version").write_text(core)
        self.config_file = self.root / "cf/conf/config.xml"
        for number, (device, addresses) in enumerate(INTERFACES.items()):
            machine.run("ip", "link", "add", device, "type", "veth", "peer", "name", f"cable{number}")
            machine.run("ip", "link", "set", f"cable{number}", "up")
            machine.run("ip", "link", "set", device, "up")
            for address in addresses:
                self.address_on(device, address)
        self._entered.enter_context(machine.network())
        self.nodes = [Node(address, _tls()) for address in NODES]
        for node in self.nodes:
            self._entered.callback(node.stop)
        self._keys()
        self._start_sshd()
        self.boot()

    def stop(self) -> None:
        self._entered.close()

    def address_on(self, device: str, address: str) -> None:
        self.machine.run("ip", "address", "add", address, "dev", device, *(["nodad"] if ":" in address else []))

    def address_off(self, device: str, address: str) -> None:
        self.machine.run("ip", "address", "del", f"{address}/{128 if ':' in address else 32}", "dev", device)

    def name_server(self) -> NameServer:
        """One that answers on the firewall's address."""
        return NameServer(self.machine, self.address)

    def new_configuration(self) -> None:
        """The committed configuration."""
        shutil.copy(TREE / "cf/conf/config.xml", self.config_file)
        for leftover in self.config_file.parent.glob("mailserver-edge-*"):
            leftover.unlink()

    def _keys(self) -> None:
        for name in ("host", "client", "unknown"):
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(self.root / "ssh" / name)
            key.write_public_key(self.root / "ssh" / f"{name}.pub")
            (self.root / "ssh" / name).chmod(0o600)
        shutil.copy(self.root / "ssh/client.pub", self.root / "ssh/authorized_keys")

    @property
    def host_key(self) -> str:
        return " ".join((self.root / "ssh/host.pub").read_text().split()[:2])

    @property
    def private_key(self) -> str:
        return (self.root / "ssh/client").read_text()

    def connection(self, **changes: Any) -> Connection:
        values = {"host": self.address, "port": 22, "user": "root", "host_key": self.host_key} | changes
        return Connection(**values)

    def client(self, key: str | None = None, **changes: Any) -> Firewall:
        return Firewall(self.connection(**changes), key or self.private_key)

    def _start_sshd(self) -> None:
        config = self.root / "ssh/sshd_config"
        if not config.exists():
            config.write_text(
                "HostKey /ssh/host\nAuthorizedKeysFile /ssh/authorized_keys\nForceCommand /etc/rc.initial\nUsePAM no\nStrictModes no\n"
                "PermitRootLogin prohibit-password\nPasswordAuthentication no\nPidFile none\n"
            )
        (self.root / "run/sshd").mkdir(exist_ok=True)
        self._sshd = self.machine.spawn("sshd", "/usr/sbin/sshd", "-D", "-e", "-f", "/ssh/sshd_config")
        wait(lambda: self.answers(self.address, 22))

    def restart_sshd(self) -> None:
        self._sshd.stop()
        self._start_sshd()

    def swap_login(self, script: str) -> None:
        (self.root / "etc/rc.initial").write_text(script)

    def program(self, verb: str, kind: str, wanted: Any) -> bytes:
        """What the client would send."""
        return program(verb, kind, wanted)

    def feed(self, text: bytes) -> int:
        """Exit code of PHP, given a program without SSH in between."""
        return self.machine.run("sh", "-c", COMMAND, stdin=text.decode(), check=False).returncode

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command typed on the firewall."""
        return self.machine.run("sh", "-c", command, check=False)

    def spawn(self, name: str, *command: str) -> Daemon:
        return self.machine.spawn(name, *command)

    def boot(self) -> int:
        """A restart of the whole machine: nothing survives but /cf/conf."""
        self.kill_haproxy()
        return self.shell("rm -rf /tmp/* /var/run/* /var/etc/*; /usr/local/bin/php /etc/rc.bootup").returncode

    def bridge(self, *ports: int, name: str = "haproxy") -> str:
        """A standalone HAProxy on the tunnel's address, as an owner may run one for IPv6; the command that starts it, already run."""
        listen = "".join(f"listen p{port}\n mode tcp\n bind [{self.tunnel}]:{port}\n server one {NODES[0]}:30125\n" for port in ports)
        timeouts = "defaults\n timeout connect 1s\n timeout client 9s\n timeout server 9s\n"
        (self.root / "usr/local/etc/ipv6proxy.cfg").write_text(timeouts + listen)
        program = self.root / "usr/local/sbin" / name
        if not program.exists():
            shutil.copy(self.root / "usr/sbin/haproxy", program)
        command = f"/usr/local/sbin/{name} -D -f /usr/local/etc/ipv6proxy.cfg"
        assert self.shell(command).returncode == 0
        return command

    def service(self, action: str) -> None:
        """Start or stop of the HAProxy service, as its rc script does it."""
        self.shell(f"/usr/local/etc/rc.d/haproxy.sh {action}")

    def haproxy_pids(self) -> list[int]:
        """Of every process called haproxy."""
        return [int(line) for line in self.shell("pgrep -x haproxy").stdout.split()]

    def package_pids(self) -> set[int]:
        """Of those that the package started."""
        return {int(line.split()[0]) for line in self.shell("pgrep -a -x haproxy").stdout.splitlines() if "/var/etc/haproxy/" in line}

    def kill_haproxy(self) -> None:
        self.shell("kill -9 `pgrep -x haproxy`")
        wait(lambda: not self.haproxy_pids())

    def fault(self, text: str) -> None:
        (self.root / "fault").write_text(text)

    def calls(self, name: str) -> int:
        log = self.root / "log/calls"
        return log.read_text().splitlines().count(name) if log.exists() else 0

    def logins(self) -> int:
        log = self.root / "log/commands"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def config(self) -> ET.ElementTree:
        return ET.parse(self.config_file)

    def edit(self, change: Any) -> None:
        """An administrator's change: the file, and no cache of the old one."""
        tree = self.config()
        change(tree.getroot())
        tree.write(self.config_file)
        (self.root / "tmp/config.cache").unlink(missing_ok=True)

    def answers(self, address: str, port: int) -> bool:
        try:
            socket.create_connection((address, port), timeout=2 * slowness()).close()
        except OSError:
            return False
        return True

    def banner(self, port: int, tls: bool = False, source: str | None = None, address: str | None = None) -> str:
        """The first line a client gets, through HAProxy."""
        local = (source, 0) if source else None
        connection = socket.create_connection((address or self.address, port), timeout=5 * slowness(), source_address=local)
        with connection:
            if tls:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                with context.wrap_socket(connection) as wrapped:
                    return wrapped.recv(200).decode()
            return connection.recv(200).decode()

    def listeners(self) -> set[tuple[str, int]]:
        """Address and port of every TCP socket that the package's HAProxy listens on."""
        pids = {f"pid={pid}," for pid in self.package_pids()}
        found = set()
        for cells in map(str.split, self.shell("ss -Hltnp").stdout.splitlines()):
            if any(pid in cells[-1] for pid in pids):
                address, _, port = cells[3].rpartition(":")
                found.add((address.strip("[]"), int(port)))
        return found


@functools.cache
def _tls() -> ssl.SSLContext:
    """A server context with a certificate made on the spot."""
    return server_context(*Authority().issue("mail.example.org"))
