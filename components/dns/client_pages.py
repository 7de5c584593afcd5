"""What mail programs read to set an account up: Thunderbird's autoconfig, Outlook's Autodiscover and Apple's configuration profile."""

import plistlib
import uuid
from collections.abc import Iterable, Mapping
from xml.etree import ElementTree as Xml

from components.listeners import Listener
from components.settings.site import Site
from components.settings.types import Fqdn

LOGIN_NAME = "<LoginName />"  # the web server puts the address of the request in its place

_SOCKET_TYPES = {"implicit": "SSL", "starttls": "STARTTLS"}  # Thunderbird's words for the table's
_REQUEST_SCHEMA = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"
_OUTLOOK_SCHEMA = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"


def autoconfig(site: Site, domain: Fqdn) -> str:
    """Thunderbird's config-v1.1.xml: where its users log in, with their whole address."""
    root = Xml.Element("clientConfig", version="1.1")
    provider = Xml.SubElement(root, "emailProvider", id=domain)
    _add(provider, {"domain": domain, "displayName": domain, "displayShortName": domain})
    # Clients try the servers in this order: IMAP, then sending with TLS from the start, then with STARTTLS.
    for listener in sorted((s for s in site.listeners if s.for_users), key=lambda s: (s.protocol, s.tls)):
        server = Xml.SubElement(provider, "incomingServer" if listener.protocol == "imap" else "outgoingServer", type=listener.protocol)
        values = {"hostname": site.host(domain), "port": str(listener.port), "socketType": _SOCKET_TYPES[listener.tls]}
        # The password is inside TLS.
        _add(server, values | {"authentication": "password-cleartext", "username": "%EMAILADDRESS%"})
    return _text(root)


def autodiscover(site: Site, domain: Fqdn) -> str:
    """Outlook's settings (MS-OXDSCLI section 2.2.4, POX), with an empty login name.

    An Outlook that is told no login name takes the part before the `@`, which is not one here. Only services with TLS from the
    start are listed: the elements that Microsoft documents can ask for TLS, but not for STARTTLS.
    """
    root = Xml.Element("Autodiscover", xmlns=_REQUEST_SCHEMA)
    response = Xml.SubElement(root, "Response", xmlns=_OUTLOOK_SCHEMA)
    Xml.SubElement(response, "User")
    account = Xml.SubElement(response, "Account")
    _add(account, {"AccountType": "email", "Action": "settings"})
    for listener in _with_tls(site):
        protocol = Xml.SubElement(account, "Protocol")
        _add(protocol, {"Type": listener.protocol.upper(), "Server": site.host(domain), "Port": str(listener.port)})
        _add(protocol, {"LoginName": None, "DomainRequired": "off", "SPA": "off", "SSL": "on", "AuthRequired": "on"})
        if listener.protocol == "smtp":
            _add(protocol, {"UsePOPAuth": "on"})  # the login of the incoming server
    return _text(root)


def profile(site: Site, domain: Fqdn) -> str:
    """Apple's configuration profile. The device asks for what it does not say: address, user names and password."""
    servers = {listener.protocol: listener for listener in _with_tls(site)}
    account: dict = {"EmailAccountType": "EmailTypeIMAP", "EmailAccountDescription": domain, "OutgoingPasswordSameAsIncomingPassword": True}
    for side, listener in (("Incoming", servers["imap"]), ("Outgoing", servers["smtp"])):
        account |= {
            f"{side}MailServerHostName": site.host(domain),
            f"{side}MailServerPortNumber": listener.port,
            f"{side}MailServerUseSSL": True,
            f"{side}MailServerAuthentication": "EmailAuthPassword",
        }
    account |= _payload("com.apple.mail.managed", domain, "mail", "account")
    return plistlib.dumps(_payload("Configuration", domain, "mail") | {"PayloadDisplayName": domain, "PayloadContent": [account]}).decode()


def _payload(kind: str, domain: Fqdn, *parts: str) -> dict:
    """What every payload has; the same identifier and UUID each time, so that a device replaces what it installed before."""
    identifier = ".".join([*reversed(domain.split(".")), *parts])
    return {
        "PayloadType": kind,
        "PayloadVersion": 1,
        "PayloadIdentifier": identifier,
        "PayloadUUID": str(uuid.uuid5(uuid.NAMESPACE_DNS, identifier)).upper(),
    }


def _with_tls(site: Site) -> Iterable[Listener]:
    """The services for users that speak TLS from the first byte, IMAP first."""
    return sorted((s for s in site.listeners if s.for_users and s.tls == "implicit"), key=lambda s: s.protocol)


def _add(parent: Xml.Element, values: Mapping[str, str | None]) -> None:
    for tag, text in values.items():
        Xml.SubElement(parent, tag).text = text


def _text(root: Xml.Element) -> str:
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"
