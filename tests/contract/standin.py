"""A firewall to try things on: OpenSSH, PHP and HAProxy for real, over an include tree of our own (pfsense/), below one folder."""

import functools
import itertools
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import asyncssh

from components.edge.client import COMMAND, Firewall, program
from components.edge.ssh import Connection
from components.listeners import LISTENERS
from tools.lab.certificates import Authority, server_context

TREE = Path(__file__).parent / "pfsense"
_PROXY_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_numbers = itertools.count(1)


def wait(holds: Any, seconds: float = 10) -> Any:
    end = time.monotonic() + seconds
    while not (result := holds()):
        if time.monotonic() > end:
            raise AssertionError("did not come to pass")
        time.sleep(0.02)
    return result


def missing() -> str:
    """Why no firewall can be stood in for here; empty when it can."""
    programs = [program for program in ("php", "haproxy", "/usr/sbin/sshd") if not shutil.which(program)]
    return f"not installed: {', '.join(programs)}" if programs else "" if os.geteuid() == 0 else "mail's ports need root"


def loopback() -> str:
    """The first three bytes of a network that no other test has."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return f"127.{40 + worker}.{next(_numbers)}"


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
    """One firewall with its workers. `core` is the generation of its configuration functions."""

    def __init__(self, root: Path, core: str = "2.8") -> None:
        self.root, self.core, self.net = root, core, loopback()
        self.address, self.wan = f"{self.net}.1", f"{self.net}.9"
        shutil.copytree(TREE, root, dirs_exist_ok=True)
        for folder in ("cf/conf", "tmp", "var/run", "var/etc", "log", "ssh"):
            (root / folder).mkdir(parents=True)
        self.config_file = root / "cf/conf/config.xml"
        self.new_configuration()
        self.nodes = [Node(f"{self.net}.{10 + number}", _tls()) for number in (1, 2)]
        self._keys()
        self._sshd = self._start_sshd()
        self.boot()

    def new_configuration(self) -> None:
        """The committed configuration, on this firewall's addresses."""
        self.config_file.write_text((TREE / "config.xml").read_text().replace("NET", self.net))
        for leftover in self.config_file.parent.glob("mailserver-edge-*"):
            leftover.unlink()

    def _keys(self) -> None:
        for name in ("host", "client", "stranger"):
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
        values = {"host": self.address, "port": 2222, "user": "root", "host_key": self.host_key} | changes
        return Connection(**values)

    def client(self, key: str | None = None, **changes: Any) -> Firewall:
        return Firewall(self.connection(**changes), key or self.private_key)

    def _start_sshd(self, *, keep_config: bool = False) -> subprocess.Popen[bytes]:
        Path("/run/sshd").mkdir(exist_ok=True)
        config = self.root / "ssh/sshd_config"
        text = (
            f"ListenAddress {self.address}:2222\nHostKey {self.root}/ssh/host\nAuthorizedKeysFile {self.root}/ssh/authorized_keys\n"
            f"ForceCommand {self.root}/bin/login {self.root} {self.core}\nPermitRootLogin prohibit-password\nUsePAM no\nStrictModes no\n"
            "PasswordAuthentication no\nPidFile none\n"
        )
        if not keep_config:
            config.write_text(text)
        with (self.root / "log/sshd").open("wb") as log:
            process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", config], stdout=log, stderr=log)
        wait(lambda: self.answers(self.address, 2222))
        return process

    def restart_sshd(self) -> None:
        self._sshd.terminate()
        self._sshd.wait(10)
        self._sshd = self._start_sshd(keep_config=True)

    def swap_login(self, script: str) -> None:
        (self.root / "bin/login").write_text(script)

    def program(self, verb: str, kind: str, wanted: Any) -> bytes:
        """What the client would send."""
        return program(verb, kind, wanted)

    def feed(self, text: bytes) -> int:
        """Exit code of PHP, given a program without SSH in between."""
        command = [self.root / "bin/login", self.root, self.core]
        env = os.environ | {"SSH_ORIGINAL_COMMAND": COMMAND}
        return subprocess.run(command, input=text, env=env, capture_output=True, check=False, timeout=60).returncode

    def boot(self) -> int:
        """A restart of the whole machine: nothing survives but /cf/conf."""
        self.kill_haproxy()
        for folder in ("tmp", "var/run", "var/etc"):
            shutil.rmtree(self.root / folder)
            (self.root / folder).mkdir(parents=True)
        return self.php("bin/boot.php").returncode

    def php(self, program: str) -> subprocess.CompletedProcess[bytes]:
        env = os.environ | {"EDGE_ROOT": str(self.root), "EDGE_CORE": self.core}
        path = f"{self.root}/inc:{self.root}/pkg"
        return subprocess.run(
            ["php", "-d", f"include_path={path}", "-d", "error_reporting=6135", self.root / program],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=30,
        )

    def haproxy_pids(self) -> list[int]:
        pids = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0] == b"haproxy" and any(str(self.root).encode() in word for word in words):
                pids.append(int(folder.name))
        return pids

    def kill_haproxy(self) -> None:
        for pid in self.haproxy_pids():
            os.kill(pid, signal.SIGKILL)
        wait(lambda: not self.haproxy_pids())

    def stop(self) -> None:
        self._sshd.terminate()
        self._sshd.wait(10)
        self.kill_haproxy()
        for node in self.nodes:
            node.stop()

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
            socket.create_connection((address, port), timeout=2).close()
        except OSError:
            return False
        return True

    def banner(self, port: int, tls: bool = False, source: str | None = None, address: str | None = None) -> str:
        """The first line a client gets, through HAProxy."""
        connection = socket.create_connection((address or self.address, port), timeout=5, source_address=(source, 0) if source else None)
        with connection:
            if tls:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                with context.wrap_socket(connection) as wrapped:
                    return wrapped.recv(200).decode()
            return connection.recv(200).decode()

    def listeners(self) -> set[tuple[str, int]]:
        """Address and port of every TCP socket that this firewall's HAProxy listens on."""
        inodes = set()
        for pid in self.haproxy_pids():
            for link in Path(f"/proc/{pid}/fd").glob("*"):
                try:
                    inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
                except OSError:
                    continue
        found = set()
        for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                cells = line.split()
                if cells[3] == "0A" and cells[9] in inodes:
                    raw, port = cells[1].split(":")
                    words = [bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8)]
                    found.add((socket.inet_ntop(family, b"".join(words)), int(port, 16)))
        return found


@functools.cache
def _tls() -> ssl.SSLContext:
    """A server context with a certificate made on the spot."""
    return server_context(*Authority().issue("mail.example.org"))
