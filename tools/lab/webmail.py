"""The webmail's pod: Debian's Roundcube with the rendered configuration, what the image adds to it, and an Ingress before it."""

import contextlib
import secrets
import socket
import threading
from collections.abc import Iterator

from components.errors import UserError
from components.names import WEBMAIL as NAME
from components.webmail import image
from components.webmail.config import DATABASE_FILE
from tools.lab.edge import Lab
from tools.lab.hosts import Host, wait_for
from tools.lab.paths import POD, WEBMAIL
from tools.lab.pod import mounted_texts, objects

ROOT = "/var/lib/roundcube"  # Debian's; the image's is image.DOCUMENT_ROOT
BACKEND = 8000
ROUNDCUBE_LOG = "roundcube"

# What a TLS-ending Ingress does, and nothing else.
_INGRESS = """\
daemon off; pid /run/ingress.pid; error_log /dev/stderr; worker_processes 1;
events {{}}
http {{
  access_log off; client_max_body_size 0;
  server {{
    listen 443 ssl;
    ssl_certificate /etc/ingress.pem; ssl_certificate_key /etc/ingress.key;
    location / {{
      proxy_pass http://127.0.0.1:{port}; proxy_bind {pod};
      proxy_set_header Host {host}; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"""


def written_by_the_image(environment: dict[str, str]) -> dict[str, str]:
    """The two files that the image's entry point writes into config/ (apache/docker-entrypoint.sh), as far as they matter here."""
    dsn = environment.get("ROUNDCUBEMAIL_DSNW", f"sqlite:///{image.DATABASE_DIR}/{DATABASE_FILE}?mode=0646")
    own = secrets.token_urlsafe(18)[:24]
    return {
        "config.inc.php": f"""<?php
$config['plugins'] = [];
$config['log_driver'] = 'stdout';
$config['zipdownload_selection'] = true;
$config['des_key'] = '{own}';
include(__DIR__ . '/config.docker.inc.php');
""",
        "config.docker.inc.php": f"""<?php
$config['db_dsnw'] = '{dsn}';
$config['db_dsnr'] = '';
$config['imap_host'] = 'localhost:143';
$config['smtp_host'] = 'localhost:587';
$config['username_domain'] = '';
$config['temp_dir'] = '/tmp/roundcube-temp';
$config['skin'] = 'elastic';
$config['request_path'] = '/';
$config['plugins'] = array_filter(array_unique(array_merge($config['plugins'], ['archive', 'zipdownload'])));
include('{image.CONFIG_DIR}/custom.php');
""",
    }


class Webmail:
    """On a host of its own beside the mail server's pod."""

    def __init__(self, lab: Lab) -> None:
        if lab.site.webmail is None:
            raise UserError("webmail: is not set")
        self.lab, self.settings = lab, lab.site.webmail
        by_name = objects(lab.site.model_dump_json())
        (self.container,) = by_name["Deployment", NAME]["spec"]["template"]["spec"]["containers"]
        self.environment = {variable["name"]: variable["value"] for variable in self.container["env"]}
        self.files = mounted_texts(lab.site.model_dump_json(), NAME)
        self.session_key = secrets.token_urlsafe(18)
        self.host = Host("webmail", lab.folder / "webmail")

    def __enter__(self) -> "Webmail":
        with contextlib.ExitStack() as stack:
            stack.callback(self.host.close)
            self.host.link(self.lab.world, "webmail", WEBMAIL)
            self._files()
            user = ["setpriv", f"--reuid={image.USER}", f"--regid={image.USER}", "--clear-groups"]
            environment = self.environment | {"ROUNDCUBE_CONFIG_DIR": f"{ROOT}/config", "PHP_CLI_SERVER_WORKERS": "4"}
            self.php = self.host.spawn(ROUNDCUBE_LOG, *user, "php", "-S", f"127.0.0.1:{BACKEND}", "-t", ROOT, env=environment)
            stack.callback(self.php.stop)
            ingress = self.host.spawn("ingress", "nginx", "-c", "/etc/ingress.conf")
            stack.callback(ingress.stop)
            wait_for("the webmail", self._answers, 60)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _files(self) -> None:
        host, site = self.host, self.lab.site
        self.lab.authority.trust_on(host)
        host.write("/etc/hosts", f"127.0.0.1 localhost\n{POD} {site.in_cluster_host}\n")
        for path, text in self.files.items():
            host.write(path, text)
        host.write(image.SESSION_KEY_FILE, f"{self.session_key}\n")
        # Debian has configurations of its own for plugins; the image has none.
        host.run("sh", "-c", f"rm -f /etc/roundcube/plugins/*/config.inc.php {ROOT}/config && mkdir {ROOT}/config")
        host.run("cp", "/etc/roundcube/defaults.inc.php", "/etc/roundcube/mimetypes.php", f"{ROOT}/config/")
        for name, text in written_by_the_image(self.environment).items():
            host.write(f"{ROOT}/config/{name}", text)
        user = str(image.USER)
        host.run("install", "-d", "-o", user, "-g", user, image.DATABASE_DIR, "/tmp/roundcube-temp")  # noqa: S108 - the host's own
        certificate, key = self.lab.authority.issue(self.settings.host)
        host.write("/etc/ingress.pem", certificate)
        host.write("/etc/ingress.key", key)
        pod = str(site.cluster.pod_networks[0].network_address + 9)
        host.run("ip", "address", "add", pod, "dev", "lo")
        host.write("/etc/ingress.conf", _INGRESS.format(port=BACKEND, host=self.settings.host, pod=pod))

    def _answers(self) -> bool:
        shown = self.host.run("curl", "-sk", "https://127.0.0.1/", check=False).stdout
        return "rcmloginuser" in shown

    def log(self) -> str:
        return self.php.output.read_text(errors="replace")


@contextlib.contextmanager
def on_loopback(lab: Lab) -> Iterator[int]:
    """A port of this machine's loopback that leads into the lab's webmail; ended with the block."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with lab.outside(), contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    inside = socket.create_connection((WEBMAIL, 443), 10)
                    for source, target in ((client, inside), (inside, client)):
                        threading.Thread(target=_pump, args=(source, target), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
