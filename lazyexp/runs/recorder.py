"""Between a run and its folder: passes on rows and checkpoints, shows the bar, has written what stands at the end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lazyexp.config.schema import Settings
from lazyexp.data import Data
from lazyexp.errors import UserError
from lazyexp.runs.columns import MEASURED, SCORING
from lazyexp.runs.folder import RunFolder, read_rows, settings
from lazyexp.runs.provenance import changes, now, provenance, session
from lazyexp.runs.trackers import Tracking
from lazyexp.training import EvalContext, Trainer
from lazyexp.utils.terminal import Bar, Interruption, log
from lazyexp.utils.workers import asked_to_stop


class Recorder:
    """Watches a trainer. As a context manager it also holds the keyboard: Ctrl-C becomes `stop`."""

    def __init__(
        self,
        config: Settings,
        folder: RunFolder,
        data: Data,
        device: torch.device,
        concurrent: bool = False,
        sources: dict[str, Any] | None = None,
    ) -> None:
        self.sources = sources or {}
        self.config, self.folder, self.data, self.device = config, folder, data, device
        self.concurrent = concurrent
        self.interruption = Interruption()
        self.tracking = Tracking(config.tracker, folder.path, Path(config.runs_dir).expanduser())

    def __enter__(self) -> Recorder:
        self.interruption.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.interruption.__exit__(kind, error, trace)
        if hasattr(self, "_bar"):
            self._bar.close()
        self.tracking.finish("failed")  # if it has not been told of another end
        if self.interruption.signal and isinstance(error, OSError):
            raise KeyboardInterrupt from error  # asked to stop and could not save: stop all the same

    def start(self, trainer: Trainer) -> None:
        """Continues from the folder's checkpoint if it has one, else starts its files anew."""
        state = self.folder.load_checkpoint(self.device)
        for note in self.folder.notes:
            log(f"note: {note}")
        self._clocks = (trainer.clock, trainer.eval_clock)
        self.interruption.on_continue = self._note_suspension
        self._facts = self.folder.read_json() if state else {}
        if state:
            try:
                trainer.restore(state)
            except Exception as error:  # torch has read it, but it is not what was written
                raise UserError(
                    f"{self.folder.path}/checkpoint.pt is damaged ({type(error).__name__}: "
                    f"{' '.join(str(error).split())[:120]}); delete it to start the run anew"
                ) from None
        else:
            self.folder.clear()
        sessions = self._facts.setdefault("sessions", [])
        for change in changes(sessions[-1], session(self.device)) if sessions else []:
            log(f"note: {change}; the seconds of this run are those of both")
        sessions.append({"command": sys.argv, "start": now(), "end": None, **session(self.device)})
        # One session beside others is enough to spoil a run's seconds.
        concurrent = self.concurrent or bool(self._facts.get("concurrent"))
        self._facts.update(provenance(self.config, self.folder.constants["run_id"], self.data, self.device))
        self._facts["concurrent"] = concurrent
        self._facts["sources"] = self.sources
        self.folder.write_json(self._facts)
        constants = self.folder.constants
        rows = read_rows(self.folder.metrics) if state else []
        self.tracking.start(constants["run_id"], {**constants, **settings(self.config)}, bool(state), rows)
        total = self.config.epochs * len(self.data.train)
        self._bar = Bar(total, trainer.counters.tally.samples_seen, self.config.rule["name"])

    def _note_suspension(self) -> None:
        for clock in self._clocks:
            clock.continued()

    def evaluated(self, context: EvalContext) -> None:
        self.row({column.name: column.measure(context) for column in MEASURED})

    def row(self, row: dict[str, Any]) -> None:
        self.folder.append(row)
        self.tracking.row(row)

    def checkpoint(self, state: dict[str, Any]) -> None:
        self.folder.save_checkpoint(state)

    def progress(self, samples: int, correct: int, learned: int) -> None:
        self._bar.advance(samples, correct, learned)

    def stop(self) -> bool:
        return self.interruption.signal != 0 or asked_to_stop()

    def finish(self, trainer: Trainer, status: str) -> dict[str, Any]:
        """Writes everything that stands at the end of a run. Returns its row of summary.csv."""
        counters = trainer.counters
        self.folder.write_learned(
            {
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
        self.folder.write_model({name: value.cpu() for name, value in trainer.model.state_dict().items()})
        self._facts["sessions"][-1]["end"] = self._facts["end"] = now()
        self._facts["sessions"][-1]["suspended_seconds"] = round(sum(clock.left_out for clock in self._clocks), 3)
        self._facts["status"] = status
        self.folder.write_json(self._facts)
        scoring = {f"scoring_{name}": self.data.scoring.get(name) for name in SCORING}
        # The summary comes last: a run that has one has everything else.
        summary = self.folder.write_summary(self.config, status, scoring)
        if status != "interrupted":
            self.folder.drop_checkpoints()
        self.tracking.finish(status)
        return summary
