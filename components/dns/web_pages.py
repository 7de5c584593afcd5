"""What the policy server serves: MTA-STS policies and, where wanted, Thunderbird's autoconfig; and the nginx in front of the files."""

from collections.abc import Iterator
from xml.etree import ElementTree as Xml

from components.dns.mta_sts import POLICY_HOST, POLICY_PATH, policy_text
from components.settings.dns import Certificate
from components.settings.site import Site
from components.settings.types import Fqdn

AUTOCONFIG_HOST = "autoconfig"
AUTOCONFIG_PATH = "/mail/config-v1.1.xml"
PORT = 8080
HEALTH_PATH = "/healthz"

_SOCKET_TYPES = {"implicit": "SSL", "starttls": "STARTTLS"}  # Thunderbird's words for the table's


def served(site: Site) -> dict[Fqdn, Certificate]:
    """Each host of the policy server with the source of its certificate."""
    hosts = {}
    for name, domain in site.domains.items():
        if domain.dns.mta_sts:
            hosts[f"{POLICY_HOST}.{name}"] = domain.dns.mta_sts.certificate
        if domain.dns.autoconfig:
            hosts[f"{AUTOCONFIG_HOST}.{name}"] = domain.dns.autoconfig
    return hosts if site.dns else {}


def files(site: Site) -> dict[str, str]:
    """File name to text: nginx.conf, and one file for each host."""
    texts = {host: text for host, _, _, text in _pages(site)}
    return {"nginx.conf": nginx_conf(site), **texts} if texts else {}


def _pages(site: Site) -> Iterator[tuple[Fqdn, str, str, str]]:
    """Host, path, content type and text of everything that is served. The file is named like its host."""
    for name, domain in site.domains.items():
        if domain.dns.mta_sts:
            yield f"{POLICY_HOST}.{name}", POLICY_PATH, "text/plain", policy_text(site, name)
        if domain.dns.autoconfig:
            yield f"{AUTOCONFIG_HOST}.{name}", AUTOCONFIG_PATH, "text/xml", autoconfig(site, name)


def nginx_conf(site: Site) -> str:
    """A whole nginx.conf, its paths relative to the folder it is in (`nginx -p`).

    TLS ends at the Ingress. Everything but the one page of each host is 404: a redirect or an error page with status 200
    would be taken for a policy that cannot be fetched, or for a wrong one (RFC 8461 section 3.3).
    """
    hosts = ""
    for host, path, kind, _ in _pages(site):
        # An exact location, and `alias` to the file: no folder is served, so no name can lead out of one.
        hosts += (
            f"  server {{\n    listen {PORT};\n    server_name {host};\n"
            f'    location = {path} {{\n      types {{}}\n      default_type "{kind}";\n      alias {host};\n    }}\n'
            "    location / { return 404; }\n  }\n"
        )
    return f"""\
worker_processes 1;
pid /tmp/nginx.pid;
daemon off;
events {{
  worker_connections 256;
}}
http {{
  access_log /dev/stdout;
  server_tokens off;
  server_names_hash_bucket_size 512;
  server_names_hash_max_size 4096;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  charset utf-8;
  charset_types text/plain text/xml;
  server {{
    listen {PORT} default_server;
    location = {HEALTH_PATH} {{ return 204; }}
    location / {{ return 404; }}
  }}
{hosts}}}
"""


def autoconfig(site: Site, domain: Fqdn) -> str:
    """Thunderbird's config-v1.1.xml: where its users log in, with their whole address."""
    root = Xml.Element("clientConfig", version="1.1")
    provider = Xml.SubElement(root, "emailProvider", id=domain)
    for tag, text in (("domain", domain), ("displayName", domain), ("displayShortName", domain)):
        Xml.SubElement(provider, tag).text = text
    # Clients try the servers in this order: IMAP, then sending with TLS from the start, then with STARTTLS.
    for listener in sorted((s for s in site.listeners if s.for_users), key=lambda s: (s.protocol, s.tls)):
        server = Xml.SubElement(provider, "incomingServer" if listener.protocol == "imap" else "outgoingServer", type=listener.protocol)
        for tag, text in (
            ("hostname", site.host(domain)),
            ("port", str(listener.port)),
            ("socketType", _SOCKET_TYPES[listener.tls]),
            ("authentication", "password-cleartext"),  # inside TLS
            ("username", "%EMAILADDRESS%"),
        ):
            Xml.SubElement(server, tag).text = text
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"
