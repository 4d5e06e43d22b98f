"""Waiting for SLURM jobs. Needs submitit, so this module is imported only for sweeps on SLURM.

submitit asks `sacct` for the state of a job, at intervals that grow to ten minutes; where SLURM keeps no accounts it
waits forever for a job that was cancelled or killed. `squeue` is always there: a job that has left the queue without
a result is lost.
"""

from __future__ import annotations

import getpass
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from hydra.core.utils import JobReturn, JobStatus
from submitit.core.utils import UncompletedJobError
from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

from lazyexp.utils.terminal import log

INTERVAL = 15.0  # seconds between two looks at the queue
MISSES = 2  # looks in a row at which a lost job is missing: a requeued job can be missing for a moment


class QueueWatcher(SlurmInfoWatcher):
    """The states of all submitted jobs, from `squeue`."""

    def __init__(self, interval: float = INTERVAL) -> None:
        super().__init__()
        self._interval = interval
        self._misses: dict[str, int] = {}
        self._failed = False

    def update_if_long_enough(self, mode: str) -> None:
        """Look at the queue if `interval` seconds have passed since the last time."""
        if mode == "force" or (mode != "cache" and time.time() - self._last_status_check > self._interval):
            self.update()

    def update(self) -> None:
        """Look at the queue. A failure of `squeue` is reported once, and changes no state."""
        self._num_calls += 1
        self._last_status_check = time.time()
        command = ["squeue", "--noheader", "--array", "--format=%i %T", f"--user={getpass.getuser()}"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            if not self._failed:
                log(f"warning: squeue does not answer ({error}); still waiting for the jobs")
            self._failed = True
            return
        self._failed = False
        queue = dict(line.split(maxsplit=1) for line in answer.stdout.splitlines() if " " in line.strip())
        for job_id in self._registered:
            self._misses[job_id] = 0 if job_id in queue else self._misses.get(job_id, 0) + 1
            state = "LEFT THE QUEUE" if self._misses[job_id] >= MISSES else queue.get(job_id, "UNKNOWN")
            self._info_dict[job_id] = {"State": state}

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        """Return whether a job has left the queue."""
        return self.get_state(job_id, mode) == "LEFT THE QUEUE"


@contextmanager
def lost_jobs_as_results(result: Callable[[str, str], Any], interval: float = INTERVAL) -> Iterator[None]:
    """Inside, the result of a job that was cancelled or killed is `result(title, error)`, not an exception.

    The other jobs are still waited for.
    """
    former_results = SlurmJob.results

    def results(job: SlurmJob[Any]) -> list[Any]:
        try:
            return former_results(job)
        except UncompletedJobError:
            error = "was cancelled or killed and left no result; the same command continues it"
            log(f"SLURM job {job.job_id} {error}")
            lost = result(f"SLURM job {job.job_id}", error)
            return [JobReturn(_return_value=lost, status=JobStatus.COMPLETED)]

    with patch.multiple(SlurmJob, results=results, watcher=QueueWatcher(interval)):
        yield
