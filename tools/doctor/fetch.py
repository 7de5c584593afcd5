"""HTTP for checks: public addresses directly, Services of the cluster through its API server, which needs only kubectl."""

import re
import urllib.error
import urllib.request

from tools.cluster import answer
from tools.doctor.check import BlindError
from tools.doctor.patient import Patient

SECONDS = 15
BYTES = 4 << 20
# A name that only pods resolve: service.namespace, with or without the rest.
_SERVICE = re.compile(r"(https?)://([a-z0-9-]+)\.([a-z0-9-]+)(?:\.svc(?:\.[a-z0-9.-]+)?)?(?::(\d+))?(/.*)?")


def fetch(patient: Patient, url: str) -> str:
    """The text at a URL. Raises UserError where it cannot be had."""
    if match := _SERVICE.fullmatch(url):
        scheme, name, namespace, port, path = match.groups()
        port = port or {"http": "80", "https": "443"}[scheme]
        service = f"{'https:' if scheme == 'https' else ''}{name}:{port}"
        return answer(patient.kubectl("get", "--raw", f"/api/v1/namespaces/{namespace}/services/{service}/proxy{path or '/'}"))
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as response:  # noqa: S310 - the settings' http or https
            return response.read(BYTES).decode("utf-8", "replace")
    except (urllib.error.URLError, OSError) as error:
        raise BlindError(f"{url}: {getattr(error, 'reason', None) or error}") from None
