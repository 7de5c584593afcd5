"""The doctor's ways to ask a lab: its pod for a cluster's, its name server for the Internet's."""

import ssl
import subprocess

from components.names import CONTAINER
from tools.doctor.patient import Patient
from tools.lab.edge import Lab
from tools.lab.image import LOG
from tools.lab.paths import NAMESERVER


def patient_of_lab(lab: Lab) -> Patient:
    def inside(*command: str) -> subprocess.CompletedProcess[str]:
        return lab.pod.host.run(*command, check=False)

    def kubectl(*arguments: str) -> subprocess.CompletedProcess[str]:
        if arguments[0] != "logs":
            return subprocess.CompletedProcess(arguments, 1, "", "error: a lab is not a cluster")
        # The log's own times are those that kubectl would add.
        return inside("cat", LOG) if CONTAINER in arguments else inside("printf", "%s", lab.pod.said)

    return Patient(
        site=lab.site,
        kubectl=kubectl,
        inside=inside,
        firewall=None,
        resolvers=(NAMESERVER,),
        tls=lambda: ssl.create_default_context(cadata=lab.authority.certificate),
    )
