"""The jobs beside the mail server, with their programs and the volumes that backups go to."""

import pulumi
import pulumi_kubernetes as k8s

from components.base import MANAGED_BY, NO_WAIT, Component, Context
from components.jobs.backup import DUMP
from components.jobs.bounds import all_jobs
from components.jobs.cronjob import CONFIG_MAP, cron_job
from components.jobs.job import Job, SecretFiles
from components.mail.component import POD_SCRIPTS, MailServer
from components.settings.jobs import BackupTarget, Nfs


class Jobs(Component):
    """CronJobs of the probe, the backups, the restores and retention; nothing at all where the settings name none."""

    TYPE = "mailserver:jobs:Jobs"

    def __init__(self, name: str, context: Context, mail: MailServer, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, context, opts, namespace=mail.namespace)
        jobs = list(all_jobs(self.site))
        self.cron_jobs: dict[str, k8s.batch.v1.CronJob] = {}
        if jobs:
            programs = k8s.core.v1.ConfigMap(
                self.named("programs"),
                metadata=self.metadata(CONFIG_MAP),
                data={path.name: path.read_text("utf-8") for path in sorted([*POD_SCRIPTS.glob("*.py"), POD_SCRIPTS / DUMP])},
                opts=self.child("ConfigMap", CONFIG_MAP),
            )
            targets = self.site.jobs.backup, self.site.jobs.webmail_backup
            claims = [claim for backup in targets if backup and (claim := self._claim(backup.target))]
            for job in jobs:
                secrets = [mail.external_secrets[name] for name in _secrets(job) if name in mail.external_secrets]
                self.cron_jobs[job.name] = cron_job(self, job, [programs, *claims, *secrets])
        self.register_outputs({"cronJobs": sorted(self.cron_jobs)})

    def _claim(self, target: BackupTarget) -> k8s.core.v1.PersistentVolumeClaim | None:
        """The volume and claim of an export; both stay when the stack goes, for they are what it would be rebuilt from."""
        nfs = target.nfs
        if nfs is None:
            return None
        shared = {"access_modes": ["ReadWriteMany"], "storage_class_name": nfs.storage_class}
        volume = k8s.core.v1.PersistentVolume(
            self.named(f"volume-{target.claim}"),
            metadata=k8s.meta.v1.ObjectMetaArgs(name=target.claim, labels=MANAGED_BY),
            spec=k8s.core.v1.PersistentVolumeSpecArgs(
                **shared,
                capacity={"storage": nfs.size},
                persistent_volume_reclaim_policy="Retain",
                mount_options=list(nfs.mount_options),
                **_export(target.claim, nfs),
            ),
            opts=self.child("PersistentVolume", target.claim, keep=True),
        )
        return k8s.core.v1.PersistentVolumeClaim(
            self.named(f"claim-{target.claim}"),
            metadata=self.metadata(target.claim, annotations=NO_WAIT),
            spec=k8s.core.v1.PersistentVolumeClaimSpecArgs(
                **shared, volume_name=target.claim, resources=k8s.core.v1.VolumeResourceRequirementsArgs(requests={"storage": nfs.size})
            ),
            opts=self.child("PersistentVolumeClaim", target.claim, keep=True, depends_on=[volume]),
        )


def _export(name: str, nfs: Nfs) -> dict:
    if nfs.csi_driver is None:
        return {"nfs": k8s.core.v1.NFSVolumeSourceArgs(server=nfs.server, path=nfs.path)}
    attributes = {"server": nfs.server, "share": nfs.path}
    return {"csi": k8s.core.v1.CSIPersistentVolumeSourceArgs(driver=nfs.csi_driver, volume_handle=name, volume_attributes=attributes)}


def _secrets(job: Job) -> set[str]:
    """The names of the Secrets that a job reads."""
    files = {volume.name for volume in job.volumes.values() if isinstance(volume, SecretFiles)}
    return files | {secret for container in job.containers for secret, _ in container.credentials.values()}
