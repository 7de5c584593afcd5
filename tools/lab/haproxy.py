"""HAProxy of the lab's firewall: the configuration that the real one would have, and the process."""

import signal
import socket
from ipaddress import ip_address
from pathlib import Path

from components.edge.desired import haproxy_set
from components.edge.haproxy_cfg import haproxy_cfg
from components.settings.site import Site
from tools.lab.hosts import Host, wait_for
from tools.lab.paths import EDGE_IPV6

CONFIG = "/etc/haproxy/lab.cfg"
SOCKET = "/run/haproxy.sock"


def configuration(site: Site) -> str:
    """haproxy.cfg: what the package on the firewall generates for this site, below a global section of the lab's own."""
    both = site.model_copy(update={"edge": site.edge.model_copy(update={"ipv6_address": ip_address(EDGE_IPV6)})})
    text = f"""\
global
  maxconn 1000
  stats socket {SOCKET} mode 600 level admin expose-fd listeners
  log stdout format raw local0

"""
    return text + haproxy_cfg(haproxy_set(both), with_global=False)


class HAProxy:
    """The process, in master-worker mode as the package on pfSense reloads it: new workers take over the listening sockets."""

    def __init__(self, host: Host, text: str) -> None:
        self.host = host
        self.write(text)
        self.daemon = host.spawn("haproxy", "haproxy", "-W", "-f", CONFIG)
        wait_for("HAProxy", lambda: host.path(SOCKET).exists() or not self.daemon.running())

    def write(self, text: str) -> None:
        self.host.write(CONFIG, text)
        self.host.run("haproxy", "-c", "-q", "-f", CONFIG)

    def reload(self) -> None:
        self.daemon.send(signal.SIGUSR2)

    def restart(self) -> None:
        self.stop()
        self.host.path(SOCKET).unlink(missing_ok=True)
        self.daemon = self.host.spawn("haproxy", "haproxy", "-W", "-f", CONFIG)
        wait_for("HAProxy", self.host.path(SOCKET).exists)

    def stop(self) -> None:
        self.daemon.stop(signal.SIGTERM)

    def command(self, line: str) -> str:
        """Ask HAProxy through its socket."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.host.path(SOCKET)))
            connection.sendall(f"{line}\n".encode())
            answer = b""
            while part := connection.recv(65536):
                answer += part
        return answer.decode()

    def states(self) -> dict[str, str]:
        """`pool/server` to UP, DOWN and their like."""
        rows = [row.split(",") for row in self.command("show stat").splitlines() if row and not row.startswith("#")]
        return {f"{row[0]}/{row[1]}": row[17] for row in rows if row[1] not in {"FRONTEND", "BACKEND"}}

    def log(self) -> str:
        return Path(self.daemon.output).read_text(errors="replace")
