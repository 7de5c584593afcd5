"""What the lab simulates, and how. Everything else is as the pod and the firewall see it.

| in production | in the lab |
|---|---|
| the pod | a host (hosts.py) with network, processes and files of its own: paths, ports and users are the pod's |
| ConfigMap, Secret volumes | `/config`, `/secrets`, `/scripts`, as the init container mounts them |
| the image | facts.py on Debian 12's packages |
| Rspamd's rule for a trusted relay by address (`ip_map`, since 3.6) | the same rule by the relay's name where Rspamd is older |
| the mail volume | folders of the host: `/var/mail`, `/var/log/mail`, `/var/spool/postfix`, `/var/lib/*` |
| pfSense | the host `world`, which has the firewall's own address (`edge.address`), and `EDGE_IPV6` for the AAAA record |
| the webmail's pod, the Ingress before it | the host `webmail` at `WEBMAIL`: Debian's Roundcube under PHP's own server, nginx for TLS |
| nodes, NodePorts, kube-proxy | nftables rules of `world` (nodes.py): NodePort to the pod, seen there as the node's tunnel address |
| the pod's address | `POD`, on the first node |
| the cluster's DNS, the Internet's DNS | one server at `NAMESERVER` (names.py) |
| the relay (`mail.relay.host`) | a Postfix at `RELAY` that keeps what it is given; a certificate of the lab's own authority |
| mail servers on the Internet | a Postfix at `SENDER` |
| clients on the Internet | any address of `CLIENTS` and `CLIENTS_IPV6`, each with a name that points back |
| trusted relays | their own addresses |
| public certificate authorities | the lab's own, among Debian's in `/etc/ssl/certs` |
"""

from ipaddress import ip_network

POD = "10.244.1.5"
WEBMAIL = "10.244.2.7"
NAMESERVER = "10.96.0.10"
RELAY = "203.0.113.25"
SENDER = "203.0.113.99"
EDGE_IPV6 = "2001:db8:e::25"
CLIENTS = ip_network("198.18.0.0/16")  # of tests (RFC 2544); a documentation network has too few for all of theirs
CLIENTS_IPV6 = ip_network("2001:db8:c::/64")
CLIENT_IPV6 = 1 << 44  # addresses of one client: Postfix counts a /84 as one since 3.8 (smtpd_client_ipv6_prefix_length)
SENDER_DOMAIN = "sender.example"
CLIENT_DOMAIN = "clients.example"
