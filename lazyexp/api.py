"""lazyexp from Python: what the commands do, with data frames for tables and exceptions for exit codes.

run = lazyexp.run("dataset=mnist", "rule=lazy", epochs=2, model__width=300)
run.metrics.plot("samples_seen", "test_accuracy")
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from lazyexp.config.compose import hydra_session, literal_texts
from lazyexp.config.quoting import arguments, override, quote
from lazyexp.config.schema import Config, Settings
from lazyexp.config.sweeps import expand, search_path
from lazyexp.errors import UserError
from lazyexp.runs.columns import COMPLETE
from lazyexp.runs.reader import read_json, read_rows
from lazyexp.settings import checked, settings_of, settings_of_job, sweep_settings

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Run:
    """A run on disk. Its files are read on access."""

    folder: Path

    @property
    def status(self) -> str:
        """finished, stopped, diverged or interrupted; running if the run has not ended, or was killed."""
        return str(self.summary["status"]) if (self.folder / "summary.csv").exists() else "running"

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """metrics.csv: a row per evaluation."""
        return pd.DataFrame(read_rows(self.folder / "metrics.csv"))

    @cached_property
    def summary(self) -> pd.Series[Any]:
        """The row of summary.csv: settings, final figures, crossings of targets; None where a cell is empty."""
        rows = read_rows(self.folder / "summary.csv")
        if not rows:
            raise UserError(f"{self.folder} has no summary.csv: the run has not ended")
        return pd.Series(rows[0], dtype=object, name=self.folder.name)

    @cached_property
    def learned(self) -> pd.DataFrame:
        """learned.npz: a row per training sample, by its index in the published set."""
        with np.load(self.folder / "learned.npz", allow_pickle=False) as archive:
            columns = {name: archive[name] for name in archive.files if archive[name].ndim == 1}
        return pd.DataFrame(columns).set_index("index")

    @property
    def settings(self) -> Settings:
        """The settings of the run, checked and read-only."""
        given = read_json(self.folder / "run.json").get("settings")
        if not given:
            raise UserError(f"{self.folder}/run.json has no settings")
        merged: Any = OmegaConf.merge(OmegaConf.structured(Config), given)
        return checked(merged)

    def model(self) -> nn.Module:
        """The trained network, on the CPU, in evaluation mode. Needs no data set."""
        from lazyexp.runs.rebuild import rebuild_model

        return rebuild_model(self.folder)

    @property
    def class_names(self) -> list[str] | None:
        """The labels in the order of the classes; None if they are 0, 1, ..."""
        names = (read_json(self.folder / "run.json").get("data") or {}).get("class_names")
        return None if names is None else [str(name) for name in names]

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """predictions.npz: a row per test sample with `target`, `prediction` and `confidence` (largest softmax)."""
        with np.load(self.folder / "predictions.npz", allow_pickle=False) as archive:
            return pd.DataFrame({name: archive[name] for name in archive.files})

    def preprocess(self, images: Any) -> torch.Tensor:
        """Samples as inputs of `model()`: scaled as in training.

        Args:
            images: (n, channels, height, width), (n, height, width, channels) or, for one channel,
                (n, height, width), with values as in the data set's files (0 to 255 for the published sets). Samples
                that are not images have the shape of the training samples.

        Returns:
            (n, channels, height, width) float32; tokens are returned as they are.
        """
        from lazyexp.runs.inputs import Inputs

        inputs = Inputs.read(read_json(self.folder / "run.json"))
        if inputs is None:
            raise UserError(f"{self.folder}/run.json: has no scaling constants; overwrite=true repeats the run")
        return inputs.preprocess(images)

    def predict(self, images: Any) -> np.ndarray:
        """The predicted classes (n,) of samples as for `preprocess`, as int64; `class_names` are their labels."""
        from lazyexp.runs.inputs import predict

        return predict(self.model(), self.preprocess(images))


def open(folder: str | os.PathLike[str]) -> Run:
    """The run in `folder`. Raises UserError if there is none."""
    path = Path(folder).expanduser()
    if not (path / "run.json").is_file():
        raise UserError(f"{path}: not the folder of a run (no run.json)")
    return Run(path)


def run(*overrides: str, **settings: Any) -> Run:
    """Do a run, or find it finished.

    Args:
        overrides: words as on the shell, such as `"rule=lazy"`.
        settings: the same as keyword arguments, with `__` for dots: `model__width=300`. Strings are literal.

    Raises:
        UserError: an error that the caller can fix.
        RunIsBusy: another process is working on this run.
        OSError: a file cannot be written.
        KeyboardInterrupt: the run was interrupted; everything is saved and the same call continues.
    """
    return _run(settings_of(arguments(overrides, settings)))


def _run(settings: Settings) -> Run:
    from lazyexp import experiment

    result = experiment.run(settings)
    if result.status == "interrupted" or result.signal:
        raise KeyboardInterrupt
    return Run(result.folder)


def sweep(*overrides: str, **settings: Any) -> list[Run]:
    """Do all combinations of values, one run after the other; `sweep="headline"` is a named sweep.

    Alternatives are separated by commas in a word, `"seed=0,1"`, or given as a list, `seed=[0, 1]`. All settings are
    checked before the first run starts. A failed run does not stop the others; failures are raised at the end, as one
    UserError.
    """
    words = [*arguments(overrides, {}), *(_alternatives(key, value) for key, value in settings.items())]
    ignored = [word for word in words if word.lstrip("+").startswith("hydra/")]
    if ignored:
        raise UserError(f"{ignored[0]}: from Python runs are done one after the other; use lazyexp -m for launchers")
    with hydra_session():
        words = literal_texts(words)
        jobs = [[*job, *search_path(words)] for job in expand(words)]
        sweep_settings(jobs, [])
    runs, failed = [], []
    for job in jobs:
        try:
            runs.append(_run(settings_of_job(job)))
        except (UserError, OSError, RuntimeError) as error:
            failed.append(f"{' '.join(job)}: {error}")
    if failed:
        raise UserError(f"{len(failed)} of {len(jobs)} runs failed: {'; '.join(failed)}")
    return runs


def read(*folders: str | Path) -> pd.DataFrame:
    """All runs below the folders as one table: the rows of metrics.csv, with status, rule options and settings.

    Settings are columns with dotted names, such as `optimizer.momentum`. Raises UserError if there is no run.
    """
    from lazyexp.report.read import read_runs

    found = read_runs([Path(folder).expanduser() for folder in folders])
    if not found.runs:
        reasons = "; ".join(f"{path}: {why}" for path, why in found.broken[:3])
        raise UserError(f"no readable run below {', '.join(map(str, folders))} ({reasons or 'no metrics.csv'})")
    tables = []
    for one in found.runs:
        rows = pd.DataFrame(read_rows(one.folder / "metrics.csv"))
        more = {"status": one.status, "rule_label": one.rule, "rule_options": one.options, **one.settings}
        new = {name: value for name, value in more.items() if name not in rows}
        tables.append(rows.assign(**new, folder=str(one.folder)))
    return pd.concat(tables, ignore_index=True)


def finished(table: pd.DataFrame) -> pd.DataFrame:
    """The last row of every ended run of `read`'s table."""
    ended = table[table["status"].isin(COMPLETE)]
    return ended.groupby("run_id", sort=False).tail(1).reset_index(drop=True)


def _alternatives(name: str, value: Any) -> str:
    """An override of a sweep: a list holds alternatives."""
    key = name.replace("__", ".")
    several = isinstance(value, (list, tuple, range)) or getattr(value, "ndim", 0) == 1
    return f"{key}={','.join(quote(element, key) for element in value)}" if several else override(key, value)
