"""The trainer's callback in a run: writes rows and checkpoints, shows progress, stops on signals."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lazyexp.errors import UserError
from lazyexp.runs.columns import MEASURED, SCORING
from lazyexp.runs.folder import RunFolder
from lazyexp.runs.provenance import changes, now, provenance, session
from lazyexp.runs.reader import read_rows
from lazyexp.runs.tables import flat_settings
from lazyexp.runs.trackers import Tracking
from lazyexp.utils.signals import Interruption
from lazyexp.utils.terminal import Bar, Position, log
from lazyexp.utils.workers import asked_to_stop

if TYPE_CHECKING:
    from lazyexp.data import Data
    from lazyexp.training import EvalContext, Trainer


def on_cpu(state: dict[str, Any]) -> dict[str, Any]:
    """A state_dict with its tensors on the CPU; what get_extra_state returned may be no tensor."""
    return {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in state.items()}


class Recorder:
    """Connects a trainer to a run's folder. As a context manager it also catches signals: `stop` returns True.

    Args:
        folder: The locked folder.
        data: The data set.
        device: The device of the run.
        settings: All settings, nested, for run.json and summary.csv.
        targets: Test accuracies whose first crossing summary.csv gives.
        tracking: The run's experiment tracker, if any.
        position: Where the run is in its sweep.
        sources: File and SHA-256 of custom parts, by settings group.
    """

    def __init__(
        self,
        folder: RunFolder,
        data: Data,
        device: torch.device,
        *,
        settings: dict[str, Any],
        targets: Sequence[float],
        tracking: Tracking,
        position: Position | None = None,
        sources: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.data, self.device = folder, data, device
        self.settings, self.targets = settings, targets
        self.tracking, self.sources = tracking, sources or {}
        self.interruption, self.position = Interruption(), position
        self._bar: Bar | None = None

    def __enter__(self) -> Recorder:
        self.interruption.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.interruption.__exit__(kind, error, trace)
        if self._bar is not None:
            self._bar.close()
        self.tracking.finish("failed")  # no effect after `finish`
        if self.interruption.signal and isinstance(error, OSError):
            raise KeyboardInterrupt from error  # asked to stop and could not save: stop all the same

    def start(self, trainer: Trainer) -> None:
        """Resume from the folder's checkpoint if it has one, else start its files from the beginning."""
        state = self.folder.load_checkpoint(self.device)
        for note in self.folder.notes:
            log(f"note: {note}")
        self._clocks = (trainer.clock, trainer.eval_clock)
        self.interruption.on_continue = self._subtract_suspension
        self._facts = self.folder.read_json() if state else {}
        if state:
            try:
                trainer.restore(state)
            except Exception as error:  # readable, but not a state of this run
                reason = " ".join(str(error).split())[:120]
                raise UserError(
                    f"{self.folder.path}/checkpoint.pt is damaged or of another version ({type(error).__name__}: "
                    f"{reason}); delete it to start the run again"
                ) from None
        else:
            self.folder.clear()
        self._begin_session()
        constants = self.folder.constants
        rows = read_rows(self.folder.metrics) if state else []
        self.tracking.start(constants["run_id"], {**constants, **flat_settings(self.settings)}, bool(state), rows)
        self._trainer = trainer
        self._bar = Bar(trainer.epochs, trainer.epochs_done, str(constants["rule"]), self.position)
        if state:
            self._bar.test_accuracy = trainer.last_test_accuracy if trainer.rows else None
            log(
                f"{constants['run_id']}: continuing at epoch {trainer.epochs_done:.4g} of {trainer.epochs}, "
                f"after {trainer.seen:,} samples"
            )

    def _begin_session(self) -> None:
        here = session(self.device)
        sessions = self._facts.setdefault("sessions", [])
        for change in changes(sessions[-1], here) if sessions else []:
            log(f"note: {change}; the seconds of this run are the sum over both")
        sessions.append({"command": sys.argv, "start": now(), "end": None, **here})
        # One concurrent session is enough to make the seconds of a run incomparable.
        concurrent = (self.position is not None and self.position.parallel) or bool(self._facts.get("concurrent"))
        self._facts.update(provenance(self.settings, self.folder.constants["run_id"], self.data, self.device))
        self._facts.update(concurrent=concurrent, sources=self.sources)
        self.folder.write_json(self._facts)

    def _subtract_suspension(self) -> None:
        for clock in self._clocks:
            clock.continued()

    def evaluated(self, context: EvalContext) -> None:
        """Write a row of metrics.csv."""
        assert self._bar is not None
        self._bar.test_accuracy = context.test_accuracy
        row = {column.name: column.measure(context) for column in MEASURED}
        self.folder.append(row)
        self.tracking.row(row)

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Save a state to resume from."""
        self.folder.save_checkpoint(state)

    def progress(self, samples: int, correct: int, selected: int) -> None:
        """Advance the progress bar."""
        assert self._bar is not None
        self._bar.advance(self._trainer.epochs_done, samples, correct, selected)

    def stop(self) -> bool:
        """Return whether the run should save and stop."""
        return self.interruption.signal != 0 or asked_to_stop()

    def finish(self, trainer: Trainer, status: str) -> dict[str, Any]:
        """Write the files of the end of a run. Returns the row of summary.csv."""
        counters = trainer.counters
        replay = trainer.course.replay
        stored = {} if replay is None else {"stored": replay.store.stored.cpu().numpy()}
        self.folder.write_learned(
            {
                **stored,
                "index": self.data.index.numpy(),
                "presented": counters.presented.cpu().numpy(),
                "misclassified": counters.misclassified.cpu().numpy(),
                "learned": counters.learned.cpu().numpy(),
                "forgotten": trainer.scores.forgotten.cpu().numpy(),
                "el2n": trainer.scores.el2n.cpu().numpy(),
                "noisy": self.data.noisy.numpy(),
                "data_sha256": np.array(self.data.sha256),
            }
        )
        if status != "interrupted":
            self._write_predictions(trainer)
        self.folder.write_model(on_cpu(trainer.trained_model()))
        self._facts["sessions"][-1]["end"] = self._facts["end"] = now()
        self._facts["sessions"][-1]["suspended_seconds"] = round(sum(clock.suspended for clock in self._clocks), 3)
        self._facts["status"] = status
        self.folder.write_json(self._facts)
        scoring = {f"scoring_{name}": self.data.scoring.get(name) for name in SCORING}
        # The summary comes last: a run with a summary has everything else.
        summary = self.folder.write_summary(self.settings, self.targets, status, scoring)
        if status != "interrupted":
            self.folder.drop_checkpoints()
        self.tracking.finish(status)
        return summary

    def _write_predictions(self, trainer: Trainer) -> None:
        predictions, confidences = (part.numpy() for part in trainer.test_predictions())
        kind = np.min_scalar_type(max(self.data.classes - 1, 0))
        self.folder.write_predictions(
            {
                "target": self.data.test.targets.cpu().numpy().astype(kind),
                "prediction": predictions.astype(kind),
                "confidence": confidences,
            }
        )
