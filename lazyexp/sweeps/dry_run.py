"""`lazyexp --dry-run`: the runs of a command, which of them are finished, and how long the others take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lazyexp.config.compose import hydra_session, literal_texts, parse
from lazyexp.config.run_id import NOT_IN_RUN_ID
from lazyexp.config.schema import Settings
from lazyexp.config.settings_files import check_single
from lazyexp.config.sweeps import expand, search_path, varied_keys
from lazyexp.errors import UserError
from lazyexp.report.formatting import count
from lazyexp.report.listing import Entry, held_locks, read_entry
from lazyexp.runs.columns import COMPLETE
from lazyexp.settings import settings_of_each
from lazyexp.utils.terminal import duration

if TYPE_CHECKING:
    from lazyexp.building import Prepared
    from lazyexp.data import Data

# At most so many kinds of runs are timed; the others count as long as these on average.
TIMED = 24


@dataclass(frozen=True)
class Planned:
    """A run of the command.

    `entry`: what is on disk. `seconds`: estimate for the whole run, `measured` by training for a moment or else those
    of a finished run. `reason`: why the run is unknown.
    """

    title: str
    entry: Entry | None = None
    seconds: float | None = None
    measured: bool = False
    reason: str = ""

    @property
    def complete(self) -> bool:
        return self.entry is not None and self.entry.status in (*COMPLETE, "busy")

    @property
    def left(self) -> float | None:
        """Estimated seconds still to train."""
        if self.complete or self.seconds is None:
            return 0.0 if self.complete else None
        return self.seconds * (1 - (self.entry.progress or 0 if self.entry else 0))

    def line(self) -> str:
        """The run in a line."""
        if self.reason:
            return f"{self.title}: {self.reason}"
        if self.complete and self.entry is not None:
            figures = f", test accuracy {self.entry.accuracy:.2%}" if self.entry.accuracy is not None else ""
            return f"{self.title}: {self.entry.status}{figures}"
        status = "to do"
        if self.entry is not None:
            status = f"{self.entry.status} at {self.entry.progress or 0:.0%}"
        left = self.left
        return f"{self.title}: {status}" + ("" if left is None else f", {_bound(self.measured)} {duration(left)}")


def dry_run(overrides: list[str], multirun: bool) -> str:
    """The runs of a command line as text. Nothing is written or downloaded; every kind of run is timed briefly."""
    with hydra_session():
        overrides = literal_texts(overrides)
        if not multirun:
            check_single(parse(overrides))
        jobs = expand(overrides) if multirun else [overrides]
        settings = settings_of_each(jobs, search_path(overrides) if multirun else [])
    keys = varied_keys(jobs)
    titles = [", ".join(word for word in job if word.partition("=")[0].lstrip("+") in keys) for job in jobs]
    known: dict[str, tuple[float, bool]] = {}
    loaded: dict[str, Data] = {}
    runs = [_planned(title or _title(one), one, known, loaded) for title, one in zip(titles, settings, strict=True)]
    lines = [f"[{number}/{len(runs)}] {run.line()}" for number, run in enumerate(runs, 1)]
    return "\n".join([*lines, _total(runs)])


def _total(runs: list[Planned]) -> str:
    open_runs = [run for run in runs if not run.complete]
    times = [run.left for run in open_runs if run.left is not None]
    text = f"{count(len(runs), 'run')}: {len(runs) - len(open_runs)} finished, {len(open_runs)} to do"
    if not times:
        return text
    whole = duration(sum(times) / len(times) * len(open_runs))
    if not any(run.measured for run in open_runs):
        return f"{text}, about {whole} one after the other, as long as finished runs of the same settings"
    return (
        f"{text}, up to {whole} one after the other, at the pace of the first seconds; rules that select fewer "
        "samples later are faster"
    )


def _bound(measured: bool) -> str:
    return "up to" if measured else "about"


def _title(config: Settings) -> str:
    return f"{config.dataset.name} {config.rule['name']} seed {config.seed}"


def _planned(title: str, config: Settings, known: dict[str, tuple[float, bool]], loaded: dict[str, Data]) -> Planned:
    """One run: what is on disk and how long it takes.

    Args:
        known: seconds by settings without the seed, and whether they were measured.
        loaded: the data of the run before, by settings.
    """
    from lazyexp.building import prepare
    from lazyexp.training.isolation import isolated

    try:
        if _is_missing(config):
            return Planned(title, reason=f"{config.dataset.name} has not been downloaded")
        with isolated():
            matched = config.seed if config.dataset.subset else None
            key = repr((config.dataset, config.model.features, config.loss, config.data_dir, config.device, matched))
            run = prepare(config, loaded.get(key))
            if key not in loaded:
                loaded.clear()
                loaded[key] = run.data
            entry = read_entry(run.folder, held_locks())
            kind = _kind(run.config)
            if entry is not None and entry.status in COMPLETE and entry.seconds is not None:
                known[kind] = entry.seconds, False
            elif kind not in known and len(known) < TIMED:
                known[kind] = _timed(run), True
    except (UserError, OSError) as error:
        return Planned(title, reason=f"error: {' '.join(str(error).split())}")
    return Planned(title, entry, *known.get(kind, (None, False)))


def _timed(run: Prepared) -> float:
    """Estimated seconds, from a moment of training."""
    from lazyexp.building import build, training_schedule
    from lazyexp.training.pace import measure

    built = build(run)
    schedule = training_schedule(run.config, built.energy.clock)
    presented = built.course.planned(built.data.train.targets, built.data.classes)
    pace = measure(schedule, built.data, built.model, built.rule, built.engine)
    return pace.seconds(presented, schedule.eval_every)


def _kind(config: Settings) -> str:
    """What determines the time of a run: its settings without the seed."""
    return repr({key: value for key, value in asdict(config).items() if key not in (*NOT_IN_RUN_ID, "seed")})


def _is_missing(config: Settings) -> bool:
    """Whether the data set would have to be downloaded."""
    from lazyexp.data.torchvision_sets import SOURCES, is_there

    name, custom = config.dataset.name, config.dataset._target_
    return custom is None and name in SOURCES and not is_there(name, Path(config.data_dir).expanduser())
