"""Kills runs with SIGKILL at random moments, resumes them to the end, and compares them with undisturbed twins.

    python scripts/stress.py [--kills 300] [--seed 0]

Half of the kills fall at a random time, half right before or after a random call that makes a file durable or gives
it its name, where a program that writes carelessly is torn. After every kill all files are read; at the end rows
(clocks aside), weights, learned.npz and energies must be those of the twin. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from lazyexp.config import Config, check
from lazyexp.experiment import run
from lazyexp.results import CHECKED, CHECKPOINTS, RunIsBusy

# (rule, its options, engine, batch size, optimizer, momentum): every rule, every engine, every optimizer.
CASES = [
    ("backprop", {}, "general", 8, "adam", 0.0),
    ("lazy", {}, "fast", 1, "sgd", 0.0),
    ("confidence", {"threshold": 0.8}, "auto", 8, "sgd", 0.0),
    ("backprop", {}, "fast", 1, "sgd", 0.0),
    ("random", {"window": 100}, "auto", 1, "sgd", 0.0),
    ("sticky", {}, "fast", 64, "sgd", 0.9),
    ("progressive", {}, "auto", 8, "adamw", 0.0),
    ("spaced", {"max_interval": 2}, "auto", 8, "sgd", 0.0),
    ("lazy", {"block": 64}, "auto", 8, "sgd", 0.0),
    ("top_loss", {}, "general", 16, "sgd", 0.9),
    ("selective_backprop", {}, "auto", 8, "sgd", 0.0),
    ("infobatch", {}, "fast", 16, "sgd", 0.0),
    ("kakurenbo", {}, "auto", 16, "sgd", 0.0),
]


def settings(case: tuple, runs_dir: Path) -> Config:
    rule, options, engine, batch_size, optimizer, momentum = case
    config = Config(
        epochs=3, eval_every=150, batch_size=batch_size, engine=engine, device="cpu", checkpoint_every=0,
        runs_dir=str(runs_dir), rule={"name": rule, **options},
    )  # fmt: skip
    config.model.width, config.dataset.train_size = 24, 700
    config.optimizer.name, config.optimizer.momentum, config.optimizer.schedule = optimizer, momentum, "linear"
    return check(config)


def attempt(config: Config, deadly_call: int = 0) -> int:
    """Does a run in a forked process. Returns the process id. It kills itself around its `deadly_call`th file."""
    child = os.fork()
    if child:
        return child
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        if deadly_call:
            die_at(deadly_call)
        run(config)
        os._exit(0)
    except RunIsBusy:
        os._exit(3)
    except BaseException:
        os._exit(1)


def die_at(number: int) -> None:
    """Replaces the calls that finish a file by ones that kill this process at the `number`th, before or after."""
    count = 0

    def deadly(function):
        def call(*arguments):
            nonlocal count
            count += 1
            if count == number and number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = function(*arguments)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return call

    os.replace, os.fsync = deadly(os.replace), deadly(os.fsync)


def finish(child: int) -> str:
    """Waits for a process. Returns how it ended."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed"
    return {0: "done", 3: "busy"}.get(os.waitstatus_to_exitcode(status), "failed")


def only(folder: Path) -> Path | None:
    runs = [path for path in folder.iterdir() if path.is_dir()] if folder.exists() else []
    return runs[0] if runs else None


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def timeless(path: Path) -> list[dict[str, str]]:
    clocked = ("seconds", "metrics_sha256")  # a checksum of seconds, too
    return [{k: v for k, v in row.items() if not any(word in k for word in clocked)} for row in rows(path)]


def faults_after_kill(folder: Path, twin: Path) -> Iterator[str]:
    """What is torn or wrong in a run's folder that a kill has left."""
    if (folder / "metrics.csv").exists():
        text = (folder / "metrics.csv").read_text()
        if text and not text.endswith("\n"):
            yield "metrics.csv ends in a torn line"
        found, right = timeless(folder / "metrics.csv"), timeless(twin / "metrics.csv")
        if found != right[: len(found)]:
            yield "metrics.csv has rows that the twin has not"
    readers = {
        "summary.csv": rows,
        "run.json": lambda path: json.loads(path.read_text()),
        "learned.npz": lambda path: dict(np.load(path, allow_pickle=False)),
        "model.pt": lambda path: torch.load(path, weights_only=True),
        **dict.fromkeys(CHECKPOINTS, lambda path: torch.load(path, weights_only=True)),
    }
    for name, read in readers.items():
        if (folder / name).exists():
            try:
                read(folder / name)
            except Exception as error:
                yield f"{name} is torn: {error}"


def differences(folder: Path, twin: Path) -> Iterator[str]:
    """In what a finished run differs from its twin."""
    for name in ("metrics.csv", "summary.csv"):
        if timeless(folder / name) != timeless(twin / name):
            yield f"{name} differs"
    seconds = [float(row["train_seconds"]) for row in rows(folder / "metrics.csv")]
    if seconds != sorted(seconds) or not math.isfinite(sum(seconds)):
        yield "train_seconds goes back"
    for name, read in (("learned.npz", np.load), ("model.pt", torch.load)):
        one, other = read(folder / name), read(twin / name)
        if set(one) != set(other) or not all(np.array_equal(one[key], other[key]) for key in one):
            yield f"{name} differs"
    (summary,) = rows(folder / "summary.csv")
    for name, column in CHECKED.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != summary[column]:
            yield f"{name} is not what summary.csv says"
    if any((folder / name).exists() for name in CHECKPOINTS) or list(folder.glob(".*.tmp")):
        yield "a checkpoint or a temporary file is left"


def main(kills: int, seed: int) -> int:
    """Returns the number of faults; prints what was done."""
    torch.set_num_threads(1)  # threads do not survive a fork
    random_ = random.Random(seed)
    ends, faults, done, killed = Counter(), [], 0, 0
    with tempfile.TemporaryDirectory() as place:
        run(settings(CASES[0], Path(place) / "warm_up"))  # what is imported here need not be in every fork
        while killed < kills:
            case = CASES[done % len(CASES)]
            twin_config = settings(case, Path(place) / f"twin{done % len(CASES)}")
            begun = time.monotonic()
            if done < len(CASES) and finish(attempt(twin_config)) != "done":
                raise SystemExit(f"{case}: the undisturbed run failed")
            length = time.monotonic() - begun if done < len(CASES) else 0.5
            twin = only(Path(twin_config.runs_dir))
            config = settings(case, Path(place) / f"run{done}")
            end, mine = "", 0
            while end != "done":
                by_time = random_.random() < 0.5
                wait, call = random_.uniform(0, length), random_.randrange(1, 60)
                # After a handful of kills it may live, so that every run comes to an end.
                child = attempt(config, deadly_call=0 if by_time or mine >= 6 else call)
                if by_time and mine < 6:
                    time.sleep(wait)
                    os.kill(child, signal.SIGKILL)
                end = finish(child)
                mine += end == "killed"
                ends[f"{end}, {'at a random time' if by_time else 'at a file'}"] += 1
                folder = only(Path(config.runs_dir))
                if end not in ("killed", "done"):
                    faults.append(f"{case}: {end}")
                    break
                if folder:
                    faults += [f"{case}: {fault}" for fault in faults_after_kill(folder, twin)]
            if end == "done":
                faults += [f"{case}: {fault}" for fault in differences(only(Path(config.runs_dir)), twin)]
            killed += mine
            done += 1
    print(f"{killed} kills over {done} runs of {min(done, len(CASES))} kinds (seed {seed}), {len(faults)} faults")
    for name, count in sorted(ends.items()):
        print(f"  {count:4d} {name}")
    for fault in faults:
        print(f"  fault: {fault}")
    return len(faults)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(1 if main(arguments.kills, arguments.seed) else 0)
