"""Starts one of the stack's CronJobs now, with further arguments for its program, and shows its log until it ends.

    python -m tools.job mail-restore --stack prod -- --what list
    python -m tools.job mailserver-backup --stack prod --print

What runs is the CronJob that the stack declares: same image, same volumes, same program. Ends as the job does: 0 when it
succeeded, 1 when it failed, 2 when it could not be started, 130 when it was left to itself with Ctrl-C.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any

import pulumi

from components.settings.site import KEY
from tools.failure import print_errors
from tools.program import ROOT, ProgramError, run
from tools.stackfile import StackFileError, load_stack

START_SECONDS = 300  # a volume has to follow to the pod's node, an image may have to be fetched


class JobError(Exception):
    """The job was not started; the text says why."""


def manifest(cron_jobs: list[dict[str, Any]], name: str, arguments: list[str], suffix: str) -> dict[str, Any]:
    """The Job that a CronJob would start, with `arguments` behind its program's own."""
    by_name = {thing["metadata"]["name"]: thing for thing in cron_jobs if thing["kind"] == "CronJob"}
    if name not in by_name:
        there = f"it has {', '.join(sorted(by_name))}" if by_name else "it has none; is STACK the right one, and are its `jobs` set?"
        raise JobError(f"this stack has no job {name}; {there}" if name else f"name a job with JOB=…; {there}")
    cron_job = by_name[name]
    template = json.loads(json.dumps(cron_job["spec"]["jobTemplate"]))
    template["spec"]["backoffLimit"] = 0  # a person reads the result and decides
    last = template["spec"]["template"]["spec"]["containers"][-1]
    last["command"] += arguments
    # Not the scheduled job's host name: whoever shares it takes the other's locks in the repository for those of a dead run.
    template["spec"]["template"]["spec"]["hostname"] = f"{name}-{suffix}"
    metadata = {"name": f"{name}-{suffix}", "namespace": cron_job["metadata"]["namespace"], "labels": template["metadata"]["labels"]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}


def kubectl(context: str | None, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(context, *arguments), input=text, text=True, capture_output=True, check=False)


def _command(context: str | None, *arguments: str) -> list[str]:
    return ["kubectl", *(["--context", context] if context else []), *arguments]


def start(job: dict[str, Any], context: str | None) -> int:
    """Create the Job, follow its log, and return its result."""
    if shutil.which("kubectl") is None:
        raise JobError("needs kubectl; --print writes the manifest for it")
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    created = kubectl(context, "create", "-f", "-", text=json.dumps(job))
    if created.returncode:
        raise JobError(created.stderr.strip().removeprefix("error: "))
    print(f"started job {name}; waiting for its pod", flush=True)
    try:
        ended = follow(context, namespace, name)
    except KeyboardInterrupt:
        print(
            f"job {name} goes on; see `kubectl -n {namespace} logs -f job/{name}`, end it with `kubectl -n {namespace} delete job {name}`"
        )
        return 130
    print(f"job {name} {'succeeded' if ended else 'failed' if ended is False else 'has not ended'}")
    return 0 if ended else 1


def follow(context: str | None, namespace: str, name: str) -> bool | None:
    """Show the job's log until it ends; as `_ended`. Raises JobError when it has no pod in time."""
    deadline = time.monotonic() + START_SECONDS
    log = _command(context, "-n", namespace, "logs", "-f", f"job/{name}")
    while time.monotonic() < deadline:
        # Follows once the pod runs, and fails at once before that.
        shown = subprocess.run(log, check=False, stderr=subprocess.DEVNULL).returncode == 0
        if shown or _ended(context, namespace, name) is not None:
            break
        time.sleep(2)
    else:
        raise JobError(f"no pod of job {name} ran within {START_SECONDS} s; look at `kubectl -n {namespace} describe job {name}`")
    deadline = time.monotonic() + 60
    while (ended := _ended(context, namespace, name)) is None and time.monotonic() < deadline:
        time.sleep(1)
    return ended


def _ended(context: str | None, namespace: str, name: str) -> bool | None:
    """True when it succeeded, False when it failed, None while it runs."""
    shown = kubectl(context, "-n", namespace, "get", "job", name, "-o", "json")
    conditions = json.loads(shown.stdout).get("status", {}).get("conditions", []) if shown.returncode == 0 else []
    kinds = {condition["type"] for condition in conditions if condition["status"] == "True"}
    return True if "Complete" in kinds else False if "Failed" in kinds else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", help="name of the CronJob")
    parser.add_argument("--stack", default="dev")
    parser.add_argument("--print", action="store_true", help="write the Job's manifest (JSON) instead of starting it")
    given = sys.argv[1:]
    split = given.index("--") if "--" in given else len(given)  # what follows is for the job's program
    options = parser.parse_args(given[:split])
    try:
        stack = load_stack(ROOT, options.stack)
        suffix = f"{time.strftime('%m%d%H%M%S', time.gmtime())}-{os.getpid() % 1000}"
        job = manifest(run(stack).kubernetes(), options.job, given[split + 1 :], suffix)
        if options.print:
            print(json.dumps(job, indent=2))
            return 0
        return start(job, json.loads(stack.config[KEY])["cluster"].get("context"))
    except (JobError, StackFileError, ProgramError, pulumi.RunError) as error:
        print_errors(error)
        return 2


if __name__ == "__main__":
    sys.exit(main())
