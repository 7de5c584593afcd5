"""Starts one of the stack's CronJobs now, with further arguments for its program, and shows its log until it ends."""

import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any

import click

from components.errors import UserError
from components.jobs.job import RESTORER
from tools.cluster import kubectl, kubectl_command
from tools.commands.shared import stack_option
from tools.offline.program import run
from tools.offline.stackfile import ROOT, load_stack, site_of

START_SECONDS = 300  # a volume has to follow to the pod's node, an image may have to be fetched


def manifest(cron_jobs: list[dict[str, Any]], name: str, arguments: list[str], suffix: str) -> dict[str, Any]:
    """The Job that a CronJob would start, with `arguments` behind its program's own."""
    by_name = {thing["metadata"]["name"]: thing for thing in cron_jobs if thing["kind"] == "CronJob"}
    if name not in by_name:
        there = f"it has {', '.join(sorted(by_name))}" if by_name else "it has none; is STACK the right one, and are its `jobs` set?"
        raise UserError(f"this stack has no job {name}; {there}" if name else f"name a job with JOB=…; {there}")
    cron_job = by_name[name]
    template = json.loads(json.dumps(cron_job["spec"]["jobTemplate"]))
    template["spec"]["backoffLimit"] = 0  # the operator reads the result and decides
    spec = template["spec"]["template"]["spec"]
    for container in _taking(spec):
        container["command"] += arguments
    # Not the scheduled job's host name: a run with the same one would take this run's repository locks for stale.
    template["spec"]["template"]["spec"]["hostname"] = f"{name}-{suffix}"
    metadata = {"name": f"{name}-{suffix}", "namespace": cron_job["metadata"]["namespace"], "labels": template["metadata"]["labels"]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}


def _taking(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The containers that are for the operator: the last one, and a restore before it."""
    return [container for container in spec.get("initContainers", []) if container["name"] == RESTORER] + spec["containers"][-1:]


def start(job: dict[str, Any], context: str | None) -> int:
    """Create the Job, follow its log, and return its result."""
    if shutil.which("kubectl") is None:
        raise UserError("needs kubectl; --print writes the manifest for it")
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    created = kubectl(context, "create", "-f", "-", text=json.dumps(job))
    if created.returncode:
        raise UserError(created.stderr.strip().removeprefix("error: "))
    print(f"started job {name}; waiting for its pod", flush=True)
    try:
        containers = [container["name"] for container in _taking(job["spec"]["template"]["spec"])]
        ended = follow(context, namespace, name, containers)
    except KeyboardInterrupt:
        print(
            f"job {name} continues; see `kubectl -n {namespace} logs -f job/{name}`, end it with `kubectl -n {namespace} delete job {name}`"
        )
        return 130
    print(f"job {name} {'succeeded' if ended else 'failed' if ended is False else 'has not ended'}")
    return 0 if ended else 1


def follow(context: str | None, namespace: str, name: str, containers: list[str]) -> bool | None:
    """Show the job's log, container by container, until it ends; as `_ended`. Raises UserError when it has no pod in time."""
    for container in containers:
        deadline = time.monotonic() + START_SECONDS
        log = kubectl_command(context, "-n", namespace, "logs", "-f", f"job/{name}", "-c", container)
        while time.monotonic() < deadline:
            # Follows once the container runs, and fails at once before that.
            shown = subprocess.run(log, check=False, stderr=subprocess.DEVNULL).returncode == 0
            if shown or _ended(context, namespace, name) is not None:
                break
            time.sleep(2)
        else:
            raise UserError(_give_up(context, namespace, name))
    deadline = time.monotonic() + 60
    while (ended := _ended(context, namespace, name)) is None and time.monotonic() < deadline:
        time.sleep(1)
    return ended


def _give_up(context: str | None, namespace: str, name: str) -> str:
    """Delete a job that did not start: a restore that runs once its volume comes, hours later, would meet a running server."""
    events = kubectl(context, "-n", namespace, "events", "--for", f"job/{name}").stdout.strip()
    deleted = kubectl(context, "-n", namespace, "delete", "job", name, "--cascade=foreground", "--ignore-not-found", "--timeout=60s")
    what = "it was deleted" if deleted.returncode == 0 else f"IT STILL EXISTS AND MAY RUN LATER: `kubectl -n {namespace} delete job {name}`"
    return f"no pod of job {name} ran within {START_SECONDS} s; {what}{f'. {events}' if events else ''}"


def _ended(context: str | None, namespace: str, name: str) -> bool | None:
    """True when it succeeded, False when it failed, None while it runs."""
    shown = kubectl(context, "-n", namespace, "get", "job", name, "-o", "json")
    conditions = json.loads(shown.stdout).get("status", {}).get("conditions", []) if shown.returncode == 0 else []
    kinds = {condition["type"] for condition in conditions if condition["status"] == "True"}
    return True if "Complete" in kinds else False if "Failed" in kinds else None


@click.command()
@click.argument("job")
@stack_option
@click.option("--print", "print_only", is_flag=True, help="write the Job's manifest (JSON) instead of starting it")
@click.argument("arguments", nargs=-1)
def job_command(job: str, stack: str, print_only: bool, arguments: tuple[str, ...]) -> None:
    """Starts the CronJob JOB now and shows its log until it ends; what follows `--` goes to its program.

    Runs what the stack declares: same image, same volumes, same program. Exit codes: 0 the job succeeded, 1 it failed,
    2 it could not be started, 130 it was left running with Ctrl-C.

    \b
        python -m tools job mail-restore --stack prod -- --what list
        python -m tools job mailserver-backup --stack prod --print
    """
    loaded = load_stack(ROOT, stack)
    suffix = f"{time.strftime('%m%d%H%M%S', time.gmtime())}-{os.getpid() % 1000}"
    started = manifest(run(loaded).kubernetes(), job, list(arguments), suffix)
    if print_only:
        print(json.dumps(started, indent=2))
    else:
        sys.exit(start(started, site_of(loaded).cluster.context))
