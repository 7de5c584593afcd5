"""The Ingress of the webmail as plain data: host, certificate, and the annotations that decide who gets through."""

from components.settings.quantity import in_bytes
from components.settings.site import Site
from components.settings.webmail import Webmail

MIDDLEWARES = "traefik.ingress.kubernetes.io/router.middlewares"
NGINX_BODY_SIZE = "nginx.ingress.kubernetes.io/proxy-body-size"
# What other controllers call their login: an address that is asked about each request.
LOGIN_ANNOTATIONS = ("nginx.ingress.kubernetes.io/auth-url", "haproxy-ingress.github.io/auth-url")


def chain(webmail: Webmail) -> list[str]:
    """Traefik's middlewares in their order, the one that asks for the login last."""
    ingress = webmail.ingress
    gate = [ingress.auth_middleware] if ingress.auth_middleware and asks_for_login(webmail) else []
    return list(dict.fromkeys([*ingress.middlewares, *gate]))


def asks_for_login(webmail: Webmail) -> bool:
    return webmail.auth in {"required", "public"}


def gate(webmail: Webmail) -> str | None:
    """What asks for the login in front of Roundcube; None where nothing does."""
    if not asks_for_login(webmail):
        return None
    annotations = webmail.ingress.annotations
    return webmail.ingress.auth_middleware or next((name for name in LOGIN_ANNOTATIONS if annotations.get(name)), None)


def annotations(site: Site, webmail: Webmail) -> dict[str, str]:
    ingress = webmail.ingress
    made = {}
    if middlewares := chain(webmail):
        made[MIDDLEWARES] = ",".join(middlewares)
    if ingress.cluster_issuer:
        made["cert-manager.io/cluster-issuer"] = ingress.cluster_issuer
    if "nginx" in (ingress.ingress_class or ""):
        made[NGINX_BODY_SIZE] = str(in_bytes(site.mail.message_size_limit))  # its default is 1 MiB; Traefik has no limit
    return made | ingress.annotations


def certificate_secret(site: Site, webmail: Webmail) -> str:
    return webmail.ingress.secret or site.tls.secret
