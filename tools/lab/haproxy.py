"""HAProxy of the lab's firewall: its configuration from the table, and the process."""

import signal
import socket
from datetime import timedelta
from pathlib import Path

from components.listeners import Listener
from components.settings.site import Site
from tools.lab.hosts import Host, wait_for
from tools.lab.paths import EDGE_IPV6

CONFIG = "/etc/haproxy/lab.cfg"
SOCKET = "/run/haproxy.sock"

# The best row of the measured failover table: a dead node costs nobody a connection, a silent one costs a second.
CHECK = "check inter 2000 fall 2 rise 2"


def configuration(site: Site) -> str:
    """haproxy.cfg: one frontend and one pool for each mail service, every node in every pool."""
    text = f"""\
global
  maxconn 1000
  stats socket {SOCKET} mode 600 level admin expose-fd listeners
  log stdout format raw local0

defaults
  mode tcp
  log global
  option tcplog
  timeout connect 1s
  timeout check 1s
  retries 3
  option redispatch 1
"""
    return text + "".join(_service(site, listener) for listener in site.listeners)


def _service(site: Site, listener: Listener) -> str:
    idle = int(listener.idle / timedelta(seconds=1))
    servers = "".join(
        f"  server {name} {node.address}:{listener.node_port} send-proxy-v2 {CHECK} port {listener.health_node_port}\n"
        for name, node in site.cluster.nodes.items()
    )
    return f"""
frontend {listener.name}
  bind {site.firewall.address}:{listener.port}
  bind [{EDGE_IPV6}]:{listener.port}
  timeout client {idle}s
  default_backend {listener.name}

backend {listener.name}
  balance roundrobin
  timeout server {idle}s
{servers}"""


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
