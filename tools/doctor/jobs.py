"""The jobs that prove that mail arrives and can be restored: whether each has run, and how it ended."""

from collections.abc import Iterator

from components.jobs.bounds import all_jobs, overdue
from tools.doctor.check import Area, Seen, broken, degraded, ok
from tools.doctor.patient import Patient, since

AREA = Area("jobs", "probe, backup, drill and retention")


@AREA.check(
    "runs",
    expects="every job has succeeded within its bound",
    remedy="`make job JOB=<name>` runs it now and shows its log",
    page="runbooks/restore.md",
)
def runs(patient: Patient) -> Iterator[Seen]:
    """The last success of each CronJob, against the bounds that the alerts use too."""
    live = {thing["metadata"]["name"]: thing for thing in patient.objects("cronjobs")}
    for job in all_jobs(patient.site):
        if job.suspended:
            continue
        about = f"CronJob/{job.name}"
        if job.name not in live:
            yield broken(about, "does not exist")
            continue
        thing = live[job.name]
        if thing["spec"].get("suspend"):
            yield broken(about, "is suspended in the cluster, not in the settings")
            continue
        bound = overdue(job.name, job.schedule)
        last = thing.get("status", {}).get("lastSuccessfulTime")
        age = since(last or thing["metadata"]["creationTimestamp"])
        if age > bound:
            yield broken(about, f"last success {_hours(age)} ago, bound {_hours(bound)}" if last else f"no success since {_hours(age)}")
        else:
            yield ok(about, f"last success {_hours(age)} ago") if last else degraded(about, "has not run yet")


@AREA.check(
    "last-run",
    expects="the last run of every job succeeded",
    remedy="the Job's log names the fault; docs/runbooks/restore.md has each refusal of the backup",
    page="runbooks/restore.md",
)
def last_run(patient: Patient) -> Iterator[Seen]:
    """How the newest finished Job of each CronJob ended."""
    newest: dict[str, dict] = {}
    for thing in patient.objects("jobs"):
        owner = next((entry["name"] for entry in thing["metadata"].get("ownerReferences", []) if entry["kind"] == "CronJob"), None)
        ended = [entry for entry in thing.get("status", {}).get("conditions", []) if entry["type"] in {"Complete", "Failed"}]
        if owner and ended and thing["metadata"]["creationTimestamp"] >= newest.get(owner, thing)["metadata"]["creationTimestamp"]:
            newest[owner] = thing
    for owner, thing in sorted(newest.items()):
        ended = {entry["type"]: entry for entry in thing["status"]["conditions"]}
        if "Failed" in ended:
            yield broken(f"CronJob/{owner}", f"Job {thing['metadata']['name']}: {ended['Failed'].get('message') or 'failed'}")
        else:
            yield ok(f"CronJob/{owner}", f"Job {thing['metadata']['name']} succeeded")


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"
