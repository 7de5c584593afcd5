"""The one builder of CronJobs: what holds for every job is written here once."""

from collections.abc import Sequence
from datetime import timedelta

import pulumi
import pulumi_kubernetes as k8s

from components.base import MANAGED_BY, Component
from components.jobs.job import SCRIPTS_DIR, Claim, Container, Job, OwnVolume, Scratch, SecretFiles, Volume
from components.pods import BESIDE, JOB_LABEL, affinity, pod_spec, rights
from components.settings.extension import PodFields
from components.settings.schedule import most_runs_per_day, period

CONFIG_MAP = "mail-jobs"
NOBODY = 65534
KEPT = timedelta(days=1)  # a finished job's log is wanted the morning after


def labels(job: Job) -> dict[str, str]:
    """Without `app`, by which Services select. A log parser that goes by pod name takes `mailserver-backup-…` for the server's."""
    beside = {BESIDE: job.beside} if job.beside else {}
    return MANAGED_BY | JOB_LABEL | {"app.kubernetes.io/name": job.name} | beside


def cron_job(component: Component, job: Job, depends_on: Sequence[pulumi.Resource]) -> k8s.batch.v1.CronJob:
    more = component.site.jobs.pod
    history = max(3, most_runs_per_day(job.schedule) + 1)  # the limit would otherwise delete what KEPT wants to keep
    return k8s.batch.v1.CronJob(
        component.named(f"cronjob-{job.name}"),
        metadata=component.workload_metadata(job.name, labels(job)),
        spec=k8s.batch.v1.CronJobSpecArgs(
            schedule=job.schedule,
            time_zone=component.site.jobs.time_zone,
            suspend=job.suspended,
            concurrency_policy="Forbid",
            # A late controller must not cost a night's backup; the next run is still far.
            starting_deadline_seconds=max(600, int(period(job.schedule).total_seconds()) // 4),
            successful_jobs_history_limit=history,
            failed_jobs_history_limit=history,
            job_template=k8s.batch.v1.JobTemplateSpecArgs(
                metadata=k8s.meta.v1.ObjectMetaArgs(labels=labels(job)),
                spec=k8s.batch.v1.JobSpecArgs(
                    backoff_limit=job.retries,
                    active_deadline_seconds=int(job.deadline.total_seconds()),
                    ttl_seconds_after_finished=int(max(KEPT, 2 * period(job.schedule)).total_seconds()),
                    template=k8s.core.v1.PodTemplateSpecArgs(
                        metadata=k8s.meta.v1.ObjectMetaArgs(
                            labels=component.site.cluster.workload_labels | labels(job),
                            annotations=more.annotations | _reasons(job) or None,
                        ),
                        spec=_pod(job, more),
                    ),
                ),
            ),
        ),
        opts=component.child("CronJob", job.name, depends_on=depends_on),
    )


def _reasons(job: Job) -> dict[str, str]:
    """Why a container is root, for readers of the pod."""
    return {f"mail-jobs/root-{c.name}": c.root.reason for c in job.containers if c.root}


def _pod(job: Job, more: PodFields) -> k8s.core.v1.PodSpecArgs:
    *first, last = [_container(container) for container in job.containers]
    return pod_spec(
        more,
        restart_policy="Never",
        hostname=job.name,  # restic writes it into its locks, so that a job knows those of its own dead runs
        termination_grace_period_seconds=60,
        affinity=affinity({"app": job.beside}, required=job.only_beside) if job.beside else None,
        init_containers=first or None,
        containers=[last],
        volumes=[
            k8s.core.v1.VolumeArgs(name="scripts", config_map=k8s.core.v1.ConfigMapVolumeSourceArgs(name=CONFIG_MAP)),
            *(_volume(name, volume) for name, volume in job.volumes.items()),
        ],
    )


def _container(container: Container) -> k8s.core.v1.ContainerArgs:
    return k8s.core.v1.ContainerArgs(
        name=container.name,
        image=container.image,
        image_pull_policy="IfNotPresent",
        command=list(container.command),
        env=[_credential(variable, *place) for variable, place in container.credentials.items()] or None,
        resources=k8s.core.v1.ResourceRequirementsArgs(
            requests={"cpu": "10m", "memory": container.memory}, limits={"memory": container.memory}
        ),
        security_context=rights(0 if container.root else NOBODY, capabilities=container.root.capabilities if container.root else ()),
        volume_mounts=[
            k8s.core.v1.VolumeMountArgs(name="scripts", mount_path=SCRIPTS_DIR, read_only=True),
            *(
                k8s.core.v1.VolumeMountArgs(name=m.volume, mount_path=m.path, sub_path=m.folder, read_only=m.read_only)
                for m in container.mounts
            ),
        ],
    )


def _credential(variable: str, secret: str, key: str) -> k8s.core.v1.EnvVarArgs:
    source = k8s.core.v1.EnvVarSourceArgs(secret_key_ref=k8s.core.v1.SecretKeySelectorArgs(name=secret, key=key))
    return k8s.core.v1.EnvVarArgs(name=variable, value_from=source)


def _volume(name: str, volume: Volume) -> k8s.core.v1.VolumeArgs:
    match volume:
        case Claim():
            source = k8s.core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name=volume.name, read_only=volume.read_only)
            return k8s.core.v1.VolumeArgs(name=name, persistent_volume_claim=source)
        case SecretFiles():
            # Readable for all in the pod, because users other than root own nothing in such a volume.
            return k8s.core.v1.VolumeArgs(name=name, secret=k8s.core.v1.SecretVolumeSourceArgs(secret_name=volume.name, default_mode=0o444))
        case Scratch():
            return k8s.core.v1.VolumeArgs(name=name, empty_dir=k8s.core.v1.EmptyDirVolumeSourceArgs(size_limit=volume.size))
        case OwnVolume():
            template = k8s.core.v1.PersistentVolumeClaimTemplateArgs(
                spec=k8s.core.v1.PersistentVolumeClaimSpecArgs(
                    access_modes=["ReadWriteOnce"],
                    storage_class_name=volume.storage_class,
                    resources=k8s.core.v1.VolumeResourceRequirementsArgs(requests={"storage": volume.size}),
                )
            )
            return k8s.core.v1.VolumeArgs(name=name, ephemeral=k8s.core.v1.EphemeralVolumeSourceArgs(volume_claim_template=template))
