"""Inject faults into runs and sweeps, and compare their results with those of undisturbed twins.

    python tests/faults/stress.py [--faults 300] [--seed 0]

Faults: SIGKILL at a random time, and right before or after a random fsync or rename; SIGSTOP, then SIGCONT or
SIGKILL; SIGHUP, SIGTERM and SIGUSR1; Ctrl-C while files are saved, once or twice; a power cut at a random time
(power_cuts.py); and joblib sweeps whose worker or parent is killed or asked to stop (sweep_faults.py; skipped, with a
message, if the joblib launcher is missing).

After every fault all files are read. A run must not have lost its newest checkpoint ("lost"), and a complete run must
equal its twin (otherwise "falsely complete"). At the end rows (without times), weights, learned.npz and energies must
equal those of the twin. Every third run is repeated with overwrite=true under the same faults; its former result must
be there all the time. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
import power_cuts
import sweep_faults
from twins import CASES, differences, only, rows, saved_rows, settings, status, torn

from lazyexp.config.schema import Settings
from lazyexp.experiment import run
from lazyexp.runs.columns import COMPLETE
from lazyexp.runs.folder import REPLACEMENT, RunIsBusy

SENT = {"SIGHUP": signal.SIGHUP, "SIGTERM": signal.SIGTERM, "SIGUSR1": signal.SIGUSR1}
AT_A_FILE = {
    "SIGKILL at a file": (signal.SIGKILL,),
    "Ctrl-C at a file": (signal.SIGINT,),
    "Ctrl-C twice at a file": (signal.SIGINT, signal.SIGINT),
}
KINDS = ("SIGKILL", "SIGSTOP", "SIGSTOP, SIGKILL", *AT_A_FILE, *SENT)
STOPPED = 0.15  # seconds
FAULTS_OF_A_RUN = 6  # after these it is left undisturbed, so that it ends


@dataclass
class Tally:
    """Faults and problems so far."""

    faults: Counter[str] = field(default_factory=Counter)  # that took effect, by kind
    ends: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)


def attempt(config: Settings, at_call: int = 0, signals: tuple[int, ...] = ()) -> int:
    """Do a run in a forked process, which sends itself `signals` at its `at_call`th fsync or rename.

    Returns the process id. Its exit code is that of the command.
    """
    child = os.fork()
    if child:
        return child
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        if signals:
            raise_at(at_call, signals)
        report = run(config)
        os._exit(128 + report.signal if report.status == "interrupted" else 0)
    except RunIsBusy:
        os._exit(3)
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException:
        os._exit(1)


def raise_at(number: int, signals: tuple[int, ...]) -> None:
    """Make the `number`th call of fsync or rename send `signals`, right before or after it."""
    count = 0

    def disturbed(function):
        def call(*arguments):
            nonlocal count
            count += 1
            here = count
            if here == number and number % 2:
                disturb()
            answer = function(*arguments)
            if here == number and not number % 2:
                disturb()
            return answer

        return call

    def disturb():
        for one in signals:
            signal.raise_signal(one)

    os.replace, os.fsync = disturbed(os.replace), disturbed(os.fsync)


def disturb(config: Settings, kind: str, wait: float, at_call: int) -> tuple[str, bool]:
    """Do one attempt with one fault of `kind`. Returns how it ended, and whether the fault came before the end."""
    if kind not in KINDS:
        return finish(attempt(config)), False
    if kind in AT_A_FILE:
        end = finish(attempt(config, at_call, AT_A_FILE[kind]))
        return end, end != "done"
    child = attempt(config)
    time.sleep(wait)
    if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        return finish(child), False
    os.kill(child, SENT.get(kind, signal.SIGSTOP if "STOP" in kind else signal.SIGKILL))
    if "STOP" in kind:
        time.sleep(STOPPED)
        os.kill(child, signal.SIGKILL if "KILL" in kind else signal.SIGCONT)
    return finish(child), True


def finish(child: int) -> str:
    """Wait for a process. Returns how it ended."""
    _, code = os.waitpid(child, 0)
    if os.WIFSIGNALED(code):
        return f"killed by {signal.Signals(os.WTERMSIG(code)).name}"
    code = os.waitstatus_to_exitcode(code)
    if code > 128:
        return f"stopped by {signal.Signals(code - 128).name}"
    return {0: "done", 3: "busy"}.get(code, "failed")


def disturbed_run(config: Settings, name: str, twin: Path, length: float, draw: random.Random, tally: Tally) -> None:
    """Do a run under one fault after the other until it is complete, and compare it with its twin."""
    top, end, mine, active = Path(config.runs_dir), "", 0, 0.0

    def work() -> Path | None:
        folder = only(top)
        return folder / REPLACEMENT if config.overwrite and folder else folder

    while end != "done":
        before, began = saved_rows(work()), time.monotonic()
        kind = draw.choice(KINDS) if mine < FAULTS_OF_A_RUN else "undisturbed"
        end, took = disturb(config, kind, draw.uniform(0, length), draw.randrange(1, 60))
        active += time.monotonic() - began - (STOPPED if took and "STOP" in kind else 0)
        tally.faults += Counter({kind: took})
        tally.ends[end] += 1
        mine += 1
        problems = []
        if end in ("busy", "failed") or (kind == "SIGSTOP" and end != "done"):
            problems.append(end)
        folder = work()
        if config.overwrite:  # the former result stays until the new one is complete
            if not {status(only(top)), status(folder)} & set(COMPLETE):
                problems.append("lost: neither the former result nor the new one is there")
            former = only(top)
            assert former is not None
            problems += torn(former, twin)
        elif end != "done" and folder:
            problems += torn(folder, twin)
        if end != "done" and folder and folder.exists() and saved_rows(folder) < before:
            problems.append(f"lost: it could resume from row {before}, now from {saved_rows(folder)}")
        tally.found += [f"{name}, {kind}: {problem}" for problem in problems]
        if end in ("busy", "failed"):
            return
    folder = only(top)
    assert folder is not None
    tally.found += [f"{name}, at the end: {problem}" for problem in differences(folder, twin)]
    last = rows(folder / "metrics.csv")[-1]
    if (clocked := float(last["train_seconds"]) + float(last["eval_seconds"])) > active:
        tally.found.append(f"{name}: its clocks show {clocked:.2f} s, but it ran for {active:.2f} s")


def single_runs(wanted: int, seed: int, top: Path, tally: Tally) -> int:
    """Disturb runs of all kinds until `wanted` faults took effect. Returns the number of runs."""
    draw, done = random.Random(seed), 0
    lengths: dict[int, float] = {}
    while sum(tally.faults.values()) < wanted:
        number = done % len(CASES)
        case, twin_config = CASES[number], settings(CASES[number], top / f"twin{number}")
        if number not in lengths:
            begun = time.monotonic()
            if finish(attempt(twin_config)) != "done":
                raise SystemExit(f"{case}: the undisturbed run failed")
            lengths[number] = time.monotonic() - begun
        twin = only(Path(twin_config.runs_dir))
        assert twin is not None
        config = settings(case, top / f"run{done}")
        disturbed_run(config, f"{case[0]}", twin, lengths[number], draw, tally)
        if done % 3 == 2:
            again = settings(case, top / f"run{done}", overwrite=True)
            disturbed_run(again, f"{case[0]} again", twin, lengths[number], draw, tally)
        done += 1
    return done


def power_cuts_of(faults: int) -> int:
    """How many of the faults are power cuts: one per kind of run at least, if there are many faults."""
    return max(faults // 5, min(len(CASES), faults // 3))


def main(faults: int, seed: int) -> int:
    """Inject the faults and print the report. Returns the number of problems."""
    torch.set_num_threads(1)  # threads do not survive a fork
    tally, began = Tally(), time.monotonic()
    if not Path("/proc/self/fd").exists():
        raise SystemExit("stress: skipped, needs /proc")
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        run(settings(CASES[0], top / "warm_up"))  # imports what every fork needs
        cuts = power_cuts_of(faults)
        missing = sweep_faults.missing()
        sweeps = 0 if missing else max(faults // 25, 2)
        runs = single_runs(faults - cuts - sweeps, seed, top, tally)
        report = power_cuts.cut(cuts, seed, top / "cuts")
        tally.faults["power cut"] = sum(report.kinds.values())
        tally.found += [f"power cut: {fault}" for fault in report.found]
        if missing:
            print(f"sweeps are skipped: {missing}")
        else:
            found, counts = sweep_faults.disturb(sweeps, seed, top)
            tally.faults.update(counts)
            tally.found += found
    lost = sum("lost" in problem for problem in tally.found)
    false_done = sum("falsely complete" in problem for problem in tally.found)
    print(
        f"{sum(tally.faults.values())} faults (seed {seed}, {runs} single runs of {min(runs, len(CASES))} kinds, "
        f"{time.monotonic() - began:.0f} s): {lost} lost, {false_done} falsely complete, {len(tally.found)} problems"
    )
    for name, count in sorted(tally.faults.items()):
        print(f"  {count:4d} {name}")
    print("  ends of single runs:", ", ".join(f"{count} {name}" for name, count in sorted(tally.ends.items())))
    for problem in tally.found:
        print(f"  problem: {problem}")
    return len(tally.found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(1 if main(arguments.faults, arguments.seed) else 0)
