"""Experiment trackers: they get the rows of metrics.csv, and cannot harm a run."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

from filelock import FileLock

from lazyexp.runs.columns import MEASURED
from lazyexp.utils.files import atomic_write
from lazyexp.utils.terminal import log

# In a run's folder until the run is complete: the tracker's id of this run, and the last step it was sent.
MEMORY = "tracker.json"
FIGURES = tuple(column.name for column in MEASURED if column.kind is not str)


class Tracker(Protocol):
    """A run of an experiment tracker, created from `(run_id, settings, folder, id)`.

    `folder` is for the tracker's files; `id` is None for a new run, else the one to resume.

    Attributes:
        id: By which the tracker finds the run again.
    """

    id: str

    def row(self, step: int, figures: dict[str, float]) -> None:
        """Log one evaluation."""

    def finish(self, status: str) -> None:
        """End the run, or its first part."""


class Tracking:
    """Connects a run to its tracker. The tracker's first error is reported; the run continues without it.

    Args:
        name: Key of TRACKERS; None: no tracker.
        folder: The run's folder.
        tracker_folder: Where the tracker keeps its files.
    """

    def __init__(self, name: str | None, folder: Path, tracker_folder: Path) -> None:
        # Absolute, as a library may write from another process with another current directory.
        self.name, self.folder, self._memory = name, tracker_folder.resolve(), folder / MEMORY
        self._tracker: Tracker | None = None
        self._step = -1

    def start(self, run_id: str, settings: dict[str, Any], resumed: bool, rows: list[dict[str, Any]]) -> None:
        """Start or resume the tracker's run, and send it those of the `rows` of metrics.csv that it lacks."""
        if not resumed:
            self._memory.unlink(missing_ok=True)
        if self.name is None:
            return
        known = self._recall()
        try:
            self._tracker = TRACKERS[self.name](run_id, settings, self.folder, known.get("id"))
            self._remember(known.get("step", -1))
        except ImportError as error:
            self._give_up(error, f'; pip install "lazyexp[{self.name}]"')
        except (Exception, SystemExit) as error:
            self._give_up(error)
        for row in rows:
            self.row(row)

    def row(self, row: dict[str, Any]) -> None:
        """Send a row of metrics.csv, with `samples_seen` as its step. Rows that a resumed run repeats are skipped."""
        step = int(row["samples_seen"])
        if self._tracker is None or step <= self._step:
            return
        try:
            self._tracker.row(step, {name: row[name] for name in FIGURES if row.get(name) is not None})
            self._remember(step)
        except (Exception, SystemExit) as error:
            self._give_up(error)

    def finish(self, status: str) -> None:
        """Send the end of a run, or of its first part. A second call has no effect."""
        tracker, self._tracker = self._tracker, None
        if tracker is None:
            return
        try:
            tracker.finish(status)
            if status not in ("interrupted", "failed"):
                self._memory.unlink(missing_ok=True)
        except (Exception, SystemExit) as error:
            self._give_up(error)

    def _remember(self, step: int) -> None:
        assert self._tracker is not None
        self._step = step
        content = json.dumps({"tracker": self.name, "id": self._tracker.id, "step": step}).encode()
        atomic_write(self._memory, lambda stream: stream.write(content))

    def _recall(self) -> dict[str, Any]:
        try:
            known = json.loads(self._memory.read_text())
            return known if known["tracker"] == self.name else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _give_up(self, error: BaseException, fix: str = "") -> None:
        self._tracker = None
        reason = " ".join(str(error).split())[:200]
        log(f"warning: tracker={self.name}: {type(error).__name__}: {reason}{fix}; the run continues without it")


def _named(run_id: str) -> str:
    """Return a name that differs when a run is repeated."""
    return f"{run_id}-{uuid.uuid4().hex[:6]}"


class TensorBoard:
    """TensorBoard event files in `<folder>/tensorboard/<id>`; settings and status are texts."""

    def __init__(self, run_id: str, settings: dict[str, Any], folder: Path, id: str | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.id = id or _named(run_id)
        self.writer = SummaryWriter(str(folder / "tensorboard" / self.id))
        if id is None:
            table = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
            self.writer.add_text("settings", f"| setting | value |\n|---|---|\n{table}")

    def row(self, step: int, figures: dict[str, float]) -> None:
        """Write one evaluation."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # rows kept in memory would be lost by a kill

    def finish(self, status: str) -> None:
        """Close the event file."""
        self.writer.add_text("status", status)
        self.writer.close()


class MLflow:
    """A run of the experiment `lazyexp` ($MLFLOW_EXPERIMENT_NAME) in $MLFLOW_TRACKING_URI or `<folder>/mlflow.db`."""

    ENDS: ClassVar[dict[str, str]] = {"interrupted": "KILLED", "failed": "FAILED"}

    def __init__(self, run_id: str, settings: dict[str, Any], folder: Path, id: str | None) -> None:
        # Give up on a server that does not answer after seconds, not minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".mlflow.lock", timeout=60):  # concurrent runs must not create the database together
            address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
            self.client = MlflowClient(address)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "lazyexp"
            experiment = self.client.get_experiment_by_name(name)
            experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(name)
        if id is None:
            self.id = self.client.create_run(experiment_id, run_name=run_id).info.run_id
            self.client.log_batch(self.id, params=[Param(key, str(value)) for key, value in settings.items()])
        else:
            self.id = id
            self.client.update_run(id, status="RUNNING")

    def row(self, step: int, figures: dict[str, float]) -> None:
        """Log one evaluation."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in figures.items()])

    def finish(self, status: str) -> None:
        """Set the run's status."""
        self.client.set_tag(self.id, "status", status)
        self.client.set_terminated(self.id, self.ENDS.get(status, "FINISHED"))


class WandB:
    """A run of the project `lazyexp` ($WANDB_PROJECT) in `<folder>/wandb`; $WANDB_MODE=offline needs no network.

    A run resumed offline is a second folder with the same id; `wandb sync --append` joins them. Machine statistics
    and console output are not logged: the former would cost training time.
    """

    def __init__(self, run_id: str, settings: dict[str, Any], folder: Path, id: str | None) -> None:
        import wandb

        self.id = id or _named(run_id)
        folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "lazyexp",
            id=self.id,
            name=run_id,
            dir=str(folder),
            config=settings,
            resume="allow",
            reinit="create_new",
            mode=cast(Any, os.environ.get("WANDB_MODE")),  # wandb itself reads it once per process
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, login_timeout=60),
        )

    def row(self, step: int, figures: dict[str, float]) -> None:
        """Log one evaluation."""
        self.run.log(figures, step=step)

    def finish(self, status: str) -> None:
        """Set the run's status."""
        self.run.summary["status"] = status
        self.run.finish(exit_code=1 if status == "failed" else 0)


TRACKERS: dict[str, Callable[..., Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
