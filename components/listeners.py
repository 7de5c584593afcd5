"""The table of mail services: every port of the system stands here and nowhere else."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Listener:
    """One mail service and the ports it is reached by.

    `name` is the IANA service name; Postfix calls its stock service the same (all but `imaps`, which is Dovecot's).
    `port` is what clients know (RFC 5321, 6409, 8314, 9051) and what pods in the cluster use.
    `proxy_port` is its twin in the pod that demands a PROXY v2 header.
    `node_port` leads HAProxy to `proxy_port`; `health_node_port` leads its checks to `port`, because a
    check on a PROXY listener kills smtpd (96 fatals a minute before the two were split).
    `idle` is how long a silent client may stay.
    """

    name: str
    port: int
    proxy_port: int
    node_port: int
    health_node_port: int
    idle: timedelta

    @property
    def on_postfix(self) -> bool:
        return self.name != "imaps"

    @property
    def health_service_port(self) -> int:
        """Port of the health entry in the NodePort Service: `port` filled up to four digits.

        Nobody connects to it, but it is the merge key of the live Service, so it keeps the live object's numbers.
        """
        return int(str(self.port).ljust(4, "0"))


SMTP = Listener("smtp", 25, 2525, 30125, 30145, timedelta(minutes=5))
SUBMISSIONS = Listener("submissions", 465, 4465, 30126, 30146, timedelta(minutes=5))
SUBMISSION = Listener("submission", 587, 5587, 30127, 30147, timedelta(minutes=5))
IMAPS = Listener("imaps", 993, 10993, 30128, 30148, timedelta(minutes=31))  # IDLE is renewed every 29 min (RFC 2177)

LISTENERS = (SMTP, SUBMISSIONS, SUBMISSION, IMAPS)
