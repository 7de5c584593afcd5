"""The cluster: what the program expects of it, and whether the mail server runs in it as declared."""

from collections.abc import Iterator

from components.jobs.bounds import all_jobs
from components.names import CONTAINER, MAIL_SERVER
from components.settings.site import Site
from tools.cluster import answer
from tools.doctor.check import Area, Seen, broken, degraded, ok, unused
from tools.doctor.patient import Patient, since

AREA = Area("cluster", "what the program expects of the cluster, and the mail server's pod")
RESTARTS = 3  # since the pod began; more are a fault that repeats
HOUR = 3600.0
EXTERNAL_SECRETS = "externalsecrets.external-secrets.io"
CERTIFICATES = "certificates.cert-manager.io"
PROMETHEUS_RULES = "prometheusrules.monitoring.coreos.com"


def _interfaces(site: Site) -> Iterator[tuple[str, str, str]]:
    """Kinds of others that the site's settings use, as the API names them, the version that is written, and who brings them."""
    if site.secret_store and site.cluster.external_secrets:
        yield EXTERNAL_SECRETS, site.cluster.external_secrets, "External Secrets"
    if site.tls.cluster_issuer:
        yield CERTIFICATES, "v1", "cert-manager"
    if site.monitoring and site.monitoring.prometheus and site.monitoring.prometheus.form == "prometheus-rule":
        yield PROMETHEUS_RULES, "v1", "the Prometheus operator"


@AREA.check(
    "interfaces",
    expects="every kind that the settings use is known to the API server",
    remedy="install what brings it, or take the setting out",
    page="runbooks/first-up.md",
)
def interfaces(patient: Patient) -> Iterator[Seen]:
    """Custom resources of the operators that the site relies on, in the version that is written."""
    served = "jsonpath={.spec.versions[?(@.served==true)].name}"
    for name, version, owner in _interfaces(patient.site):
        versions = answer(patient.kubectl("get", "customresourcedefinition", name, "--ignore-not-found", "--output", served)).split()
        if not versions:
            yield broken(name, f"is not known here; {owner} brings it")
        elif version not in versions:
            yield broken(name, f"is known as {', '.join(versions)}, not as {version}; install another version of {owner}")
        else:
            yield ok(name, version)


@AREA.check(
    "permissions",
    expects="this user may write what `make up` writes, also in the namespaces of others",
    remedy="give the user of this context the missing right in the namespace",
    page="runbooks/first-up.md",
)
def permissions(patient: Patient) -> Iterator[Seen]:
    """The rights that an `up` and an adoption need, asked of the API server itself (`kubectl auth can-i`)."""
    missing: dict[str, list[str]] = {}
    for namespace, kind in written(patient.site):  # one by one: an executor's threads would outlive an interrupt
        refused = missing.setdefault(namespace, [])
        for verb in ("get", "create", "patch"):
            said = patient.kubectl("auth", "can-i", verb, kind, "--namespace", namespace)
            if said.stdout.strip() == "no" or not answer(said):
                refused.append(f"{verb} {kind}")
    for namespace, refused in missing.items():
        yield broken(namespace, f"may not {', '.join(refused)}") if refused else ok(namespace, "may write")


def written(site: Site) -> Iterator[tuple[str, str]]:
    """What an `up` or a `make job` of the site writes: namespace, and kind as `kubectl auth can-i` takes it."""
    own = ["configmaps", "deployments.apps", "namespaces", "networkpolicies.networking.k8s.io", "persistentvolumeclaims", "services"]
    if any(all_jobs(site)):
        own += ("cronjobs.batch", "jobs.batch")
    if any(backup and backup.target.nfs for backup in (site.jobs.backup, site.jobs.webmail_backup)):
        own.append("persistentvolumes")
    if site.webmail or site.dns:
        own.append("ingresses.networking.k8s.io")
    if site.mail.priority_class and site.mail.priority_class.value is not None:
        own.append("priorityclasses.scheduling.k8s.io")
    if site.secret_store and site.cluster.external_secrets:
        own.append(EXTERNAL_SECRETS)
    if site.tls.cluster_issuer:
        own.append(CERTIFICATES)
    yield from ((site.namespace, kind) for kind in own)
    monitoring = site.monitoring
    if monitoring is None:
        return
    if (rules := monitoring.prometheus) and rules.form == "prometheus-rule":
        yield rules.namespace, PROMETHEUS_RULES
    maps = [monitoring.loki, monitoring.dashboard, rules if rules and rules.form == "config-map" else None]
    yield from dict.fromkeys((place.namespace, "configmaps") for place in maps if place)


@AREA.check(
    "claims",
    expects="every claim is bound",
    remedy="`kubectl describe pvc` says what it waits for",
    page="runbooks/protection.md",
)
def claims(patient: Patient) -> Iterator[Seen]:
    """The volumes behind the namespace's claims."""
    for claim in patient.objects("persistentvolumeclaims"):
        name, phase = claim["metadata"]["name"], claim.get("status", {}).get("phase", "unknown")
        # A volume of a class that waits for its first pod is fine before that pod has run.
        seen = {"Bound": ok, "Pending": degraded}.get(phase, broken)
        yield seen(f"PersistentVolumeClaim/{name}", phase)


@AREA.check(
    "secrets",
    expects="every ExternalSecret has been fetched",
    remedy="`kubectl describe externalsecret` has the store's own words",
    page="runbooks/first-up.md",
)
def secrets(patient: Patient) -> Iterator[Seen]:
    """Secrets that come from the store: whether the last fetch worked."""
    if not patient.site.secret_store:
        yield unused("secret_store")
        return
    for secret in patient.objects(EXTERNAL_SECRETS):
        about = f"ExternalSecret/{secret['metadata']['name']}"
        conditions = {entry["type"]: entry for entry in secret.get("status", {}).get("conditions", [])}
        ready = conditions.get("Ready", {})
        if ready.get("status") == "True":
            yield ok(about, "fetched")
        else:
            yield broken(about, ready.get("message") or "not fetched yet")


@AREA.check(
    "mail-server",
    expects="one pod of the declared image is ready",
    remedy="`kubectl describe deployment mailserver`, and the pod's own log",
    page="runbooks/deploy.md",
)
def mail_server(patient: Patient) -> Iterator[Seen]:
    """The Deployment has rolled out, and it and its pod name the image of the settings; another program may have changed it."""
    yield from rolled_out(patient, MAIL_SERVER, patient.site.mail.image)
    for pod in patient.mail_pods():
        (image,) = (container["image"] for container in pod["spec"]["containers"] if container["name"] == CONTAINER)
        if image != patient.site.mail.image:
            yield degraded(pod["metadata"]["name"], f"runs {image}, declared is {patient.site.mail.image}")


def rolled_out(patient: Patient, name: str, image: str) -> Iterator[Seen]:
    about = f"Deployment/{name}"
    (deployment,) = [thing for thing in patient.objects("deployments") if thing["metadata"]["name"] == name] or [None]
    if deployment is None:
        yield broken(about, "does not exist")
        return
    status = deployment.get("status", {})
    if status.get("observedGeneration") != deployment["metadata"].get("generation") or not status.get("readyReplicas"):
        messages = [entry["message"] for entry in status.get("conditions", []) if entry["status"] != "True" and entry.get("message")]
        yield broken(about, "; ".join(messages) or "no pod is ready")
    else:
        yield ok(about, "ready")
    running = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    if running != image:
        yield degraded(about, f"runs {running}, declared is {image}")


@AREA.check(
    "restarts",
    expects="the pod's containers keep running",
    remedy="`kubectl logs --previous` has the last words of the one that ended",
    page="runbooks/deploy.md",
)
def restarts(patient: Patient) -> Iterator[Seen]:
    """Containers of the mail server that were started again, and why the last one ended."""
    for pod in patient.mail_pods():
        for container in pod.get("status", {}).get("containerStatuses", []):
            about = f"{pod['metadata']['name']} {container['name']}"
            last = container.get("lastState", {}).get("terminated")
            if last and (container["restartCount"] > RESTARTS or since(last["finishedAt"]) < HOUR):
                yield degraded(about, f"started again {container['restartCount']} times; last ended: {last.get('reason', 'unknown')}")
            else:
                yield ok(about, f"started again {container['restartCount']} times")


@AREA.check(
    "events",
    expects="no warnings in the namespace within the last hour",
    remedy="as the event says",
    page="runbooks/deploy.md",
)
def events(patient: Patient) -> Iterator[Seen]:
    """Warnings of Kubernetes about the namespace's objects."""
    for event in patient.objects("events"):
        when = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
        if event.get("type") == "Warning" and since(when) < HOUR:
            thing = event["involvedObject"]
            yield degraded(f"{thing['kind']}/{thing['name']}", " ".join(f"{event.get('reason', '')}: {event.get('message', '')}".split()))
