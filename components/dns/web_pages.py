"""What the policy server serves: MTA-STS policies and, where wanted, settings for mail programs; and the nginx in front of the files."""

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from components.dns.client_pages import LOGIN_NAME, autoconfig, autodiscover, profile
from components.dns.mta_sts import POLICY_HOST, POLICY_PATH, policy_text
from components.settings.dns import Certificate, DomainRecords
from components.settings.site import Site
from components.settings.types import Fqdn

AUTOCONFIG_HOST, AUTODISCOVER_HOST = "autoconfig", "autodiscover"
AUTOCONFIG_PATH = "/mail/config-v1.1.xml"
AUTODISCOVER_PATH = "/autodiscover/autodiscover.xml"  # MS-OXDSCLI section 3.2.5
PROFILE_PATH = "/mobileconfig"
PORT = 8080
FILE_PORT = 8081  # on the pod's loopback: the file behind a page that is asked for with POST
HEALTH_PATH = "/healthz"


class _Page(NamedTuple):
    """`text` under `host` and `path`, kept in `file`."""

    host: Fqdn
    path: str
    kind: str
    text: str
    file: str


def web_hosts(dns: DomainRecords) -> dict[str, Certificate]:
    """The label of each of a domain's hosts on the policy server, with the source of its certificate."""
    mta_sts = dns.mta_sts.certificate if dns.mta_sts else None
    hosts = {POLICY_HOST: mta_sts, AUTOCONFIG_HOST: dns.autoconfig, AUTODISCOVER_HOST: dns.autodiscover}
    return {label: certificate for label, certificate in hosts.items() if certificate}


def served(site: Site) -> dict[Fqdn, Certificate]:
    """Each host of the policy server with the source of its certificate."""
    domains = site.domains.items() if site.dns else ()
    return {f"{label}.{name}": certificate for name, domain in domains for label, certificate in web_hosts(domain.dns).items()}


def files(site: Site) -> dict[str, str]:
    """File name to text: nginx.conf, and one file for each page."""
    texts = {page.file: page.text for page in _pages(site)}
    return {"nginx.conf": nginx_conf(site), **texts} if texts else {}


def _pages(site: Site) -> Iterator[_Page]:
    """Everything that is served, a host's pages together."""
    for name, domain in site.domains.items():
        for label in web_hosts(domain.dns):
            host = f"{label}.{name}"
            if label == POLICY_HOST:
                yield _Page(host, POLICY_PATH, "text/plain", policy_text(site, name), host)
            elif label == AUTODISCOVER_HOST:
                yield _Page(host, AUTODISCOVER_PATH, "text/xml", autodiscover(site, name), host)
            else:
                yield _Page(host, AUTOCONFIG_PATH, "text/xml", autoconfig(site, name), host)
                yield _Page(host, PROFILE_PATH, "application/x-apple-aspen-config", profile(site, name), f"{host}.mobileconfig")


def nginx_conf(site: Site) -> str:
    """A whole nginx.conf, its paths relative to the folder it is in (`nginx -p`).

    TLS ends at the Ingress. Everything but the pages of each host is 404: a redirect or an error page with status 200
    would be taken for a policy that cannot be fetched, or for a wrong one (RFC 8461 section 3.3).
    """
    hosts = ""
    for host, pages in groupby(_pages(site), key=lambda page: page.host):
        hosts += f"  server {{\n    listen {PORT};\n    server_name {host};\n"
        hosts += "".join(_posted(page) if page.path == AUTODISCOVER_PATH else _static(page) for page in pages)
        hosts += "    location / { return 404; }\n  }\n"
    posted = [page for page in _pages(site) if page.path == AUTODISCOVER_PATH]
    for page in posted:
        hosts += f"  server {{\n    listen 127.0.0.1:{FILE_PORT};\n    server_name {page.host};\n{_static(page)}  }}\n"
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
{_LOGIN_NAMES if posted else ""}\
  server {{
    listen {PORT} default_server;
    location = {HEALTH_PATH} {{ return 204; }}
    location / {{ return 404; }}
  }}
{hosts}}}
"""


# The login name is the address that the request asks about. Nothing that could be markup in the answer matches.
_LOGIN_NAMES = r"""  map $request_body $login_name {
    default "";
    "~<EMailAddress>\s*([^<>&\s]+@[^<>&\s]+)\s*</EMailAddress>" "<LoginName>$1</LoginName>";
  }
"""


def _static(page: _Page) -> str:
    # An exact location, and `alias` to the file: no folder is served, so no name can lead out of one.
    return f'    location = {page.path} {{\n      types {{}}\n      default_type "{page.kind}";\n      alias {page.file};\n    }}\n'


def _posted(page: _Page) -> str:
    """A page that is asked for with POST, its path in any case.

    nginx refuses POST for a file, and only reads a request's body to pass it on: so it asks itself for the file.
    """
    return f"""\
    location ~* ^{page.path.replace(".", "[.]")}$ {{
      client_max_body_size 8k;
      client_body_buffer_size 8k;
      proxy_method GET;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header Host {page.host};
      rewrite ^ {page.path} break;
      proxy_pass http://127.0.0.1:{FILE_PORT};
      sub_filter_types {page.kind};
      sub_filter_once off;
      sub_filter "{LOGIN_NAME}" $login_name;
    }}
"""
