"""What alerts ask of a job that has a schedule."""

from components.jobs.bounds import all_jobs, overdue
from components.monitoring.alert import series
from components.settings.schedule import Schedule
from components.settings.site import Site


def schedules(site: Site) -> dict[str, Schedule]:
    """Of the jobs that a site has and that run by themselves."""
    return {job.name: job.schedule for job in all_jobs(site) if not job.suspended}


def stale(site: Site, job: str) -> str | None:
    schedule = schedules(site).get(job)
    success = series("kube_cronjob_status_last_successful_time", namespace=site.namespace, cronjob=job)
    return schedule and f"(time() - {success}) > {overdue(job, schedule)}"


def never(site: Site, job: str) -> str | None:
    """Before the first success the CronJob has no such time at all, so a comparison with 0 could never hold."""
    schedule = schedules(site).get(job)
    labels = {"namespace": site.namespace, "cronjob": job}
    return schedule and (
        f"(time() - {series('kube_cronjob_created', **labels)}) > {overdue(job, schedule)} "
        f"unless on (namespace, cronjob) {series('kube_cronjob_status_last_successful_time', **labels)}"
    )


def stale_or_never(site: Site, job: str) -> str | None:
    return stale(site, job) and f"{stale(site, job)} or {never(site, job)}"


def pushed(site: Site, job: str, query: str) -> str | None:
    return query if job in schedules(site) and site.jobs.pushgateway else None
