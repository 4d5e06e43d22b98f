"""Trackers that people already have: told the same rows as metrics.csv, and unable to harm a run."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from lazyexp.runs.columns import MEASURED
from lazyexp.utils.files import atomic_write
from lazyexp.utils.terminal import log

# In the run's folder while it is not complete: which run of the tracker this is, and the last step it was told of.
MEMORY = "tracker.json"
FIGURES = tuple(column.name for column in MEASURED)


class Tracker(Protocol):
    """`id` is what the tracker finds this run by again. It is made with (run_id, settings, place, id): `place` a
    folder for what it keeps, `id` that of the tracker's run that goes on, None for a new one."""

    id: str

    def row(self, step: int, figures: dict[str, float]) -> None: ...
    def finish(self, status: str) -> None: ...


class Tracking:
    """Between a run and its tracker (`name`, None: there is none). The first error is said; then the tracker is left
    alone, and the run goes on."""

    def __init__(self, name: str | None, folder: Path, place: Path) -> None:
        # Absolute, as a library may write from a process of its own, which is elsewhere.
        self.name, self.place, self._memory = name, place.resolve(), folder / MEMORY
        self._tracker: Tracker | None = None
        self._step = -1

    def start(self, run_id: str, settings: dict[str, Any], resumed: bool, rows: list[dict[str, Any]]) -> None:
        """`rows`: those that metrics.csv has already; the tracker gets what it lacks of them."""
        if not resumed:
            self._memory.unlink(missing_ok=True)
        if self.name is None:
            return
        known = self._recall()
        try:
            self._tracker = TRACKERS[self.name](run_id, settings, self.place, known.get("id"))
            self._remember(known.get("step", -1))
        except ImportError as error:
            self._give_up(error, f'; pip install "lazyexp[{self.name}]"')
        except (Exception, SystemExit) as error:
            self._give_up(error)
        for row in rows:
            self.row(row)

    def row(self, row: dict[str, Any]) -> None:
        """A row of metrics.csv, with `samples_seen` as its step. One that a killed run makes again is left out."""
        step = int(row["samples_seen"])
        if self._tracker is None or step <= self._step:
            return
        try:
            self._tracker.row(step, {name: row[name] for name in FIGURES if row.get(name) is not None})
            self._remember(step)
        except (Exception, SystemExit) as error:
            self._give_up(error)

    def finish(self, status: str) -> None:
        """Tells the end of a run, or of its first part. Nothing happens the second time."""
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

    def _give_up(self, error: BaseException, mend: str = "") -> None:
        self._tracker = None
        said = " ".join(str(error).split())[:200]
        log(f"warning: tracker={self.name}: {type(error).__name__}: {said}{mend}; the run goes on without it")


def _named(run_id: str) -> str:
    """A name that a repeated run does not share with the one before."""
    return f"{run_id}-{uuid.uuid4().hex[:6]}"


class TensorBoard:
    """Event files under `<place>/tensorboard/<id>`; settings and status are its texts."""

    def __init__(self, run_id: str, settings: dict[str, Any], place: Path, id: str | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.id = id or _named(run_id)
        self.writer = SummaryWriter(str(place / "tensorboard" / self.id))
        if id is None:
            table = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
            self.writer.add_text("settings", f"| setting | value |\n|---|---|\n{table}")

    def row(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # it would keep them in memory for minutes, and a kill would lose them

    def finish(self, status: str) -> None:
        self.writer.add_text("status", status)
        self.writer.close()


class MLflow:
    """A run of the experiment `lazyexp` ($MLFLOW_EXPERIMENT_NAME), in $MLFLOW_TRACKING_URI or `<place>/mlflow.db`."""

    ENDS = {"interrupted": "KILLED", "failed": "FAILED"}

    def __init__(self, run_id: str, settings: dict[str, Any], place: Path, id: str | None) -> None:
        # A server that does not answer is given up after seconds, not minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / ".mlflow.lock", timeout=60):  # runs side by side must not make the data base at once
            address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{place / 'mlflow.db'}"
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
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in figures.items()])

    def finish(self, status: str) -> None:
        self.client.set_tag(self.id, "status", status)
        self.client.set_terminated(self.id, self.ENDS.get(status, "FINISHED"))


class WandB:
    """A run of the project `lazyexp` ($WANDB_PROJECT), in `<place>/wandb`; $WANDB_MODE=offline needs no network.

    Offline a resumed run is a second folder with the same id; `wandb sync --append` joins them. Neither the machine's
    figures nor what is printed are taken: the one would cost training time, the other is the run's own.
    """

    def __init__(self, run_id: str, settings: dict[str, Any], place: Path, id: str | None) -> None:
        import wandb

        self.id = id or _named(run_id)
        place.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "lazyexp",
            id=self.id,
            name=run_id,
            dir=str(place),
            config=settings,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, login_timeout=60),
        )

    def row(self, step: int, figures: dict[str, float]) -> None:
        self.run.log(figures, step=step)

    def finish(self, status: str) -> None:
        self.run.summary["status"] = status
        self.run.finish(exit_code=1 if status == "failed" else 0)


TRACKERS: dict[str, Callable[..., Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
