"""Kill and stop the workers and parents of joblib sweeps, and start the sweeps again until they are complete.

Used by stress.py. A sweep has six runs, two at a time; it is disturbed up to three times. After each fault every
complete run must equal its undisturbed twin, finished results must be unchanged, no worker may outlive its parent for
long, and the last line must not count more runs than are finished.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from twins import different, status

ROOT = Path(__file__).resolve().parents[2]
RUNS = 6
WORDS = f"""-m seed=range(0,{RUNS}) epochs=10 model.width=32 batch_size=8 eval_every=2000 checkpoint_every=0.1
rule=backprop engine=autograd device=cpu""".split()
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
# Valid exit codes of the parent, by kind of fault; 0: all runs were done already.
KINDS = {
    "joblib worker killed": (1, 0),
    "joblib parent killed": (-signal.SIGKILL, 0),
    "joblib sweep, Ctrl-C": (130, 0),
    "joblib parent, SIGTERM": (143, 0),
}


def missing() -> str:
    """Why sweeps cannot be disturbed here, empty if they can."""
    if not Path("/proc/self/stat").exists():
        return "no /proc to find the workers"
    return "" if find_spec("hydra_plugins.hydra_joblib_launcher") else "hydra-joblib-launcher is not installed"


def start(folder: Path, *words: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lazyexp", *WORDS, *words]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True)


def workers(session: int) -> list[int]:
    """Process ids of the living workers of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            state, *fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == session and state != "Z" and b"popen_loky" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (OSError, ValueError, IndexError):
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def finished(folder: Path) -> dict[str, bytes]:
    """Content of summary.csv of the finished runs, by name."""
    found = {path.parent.name: path for path in folder.glob("runs/*/summary.csv")}
    return {name: path.read_bytes() for name, path in found.items() if status(path.parent) == "finished"}


def strike(process: subprocess.Popen, kind: str) -> bool:
    """Send the signal of `kind`. Returns whether there was a sweep with workers."""
    victims = workers(process.pid)
    if process.poll() is not None or not victims:
        return False
    if "worker" in kind:
        os.kill(victims[0], signal.SIGKILL)
    elif "Ctrl-C" in kind:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM if "SIGTERM" in kind else signal.SIGKILL)
    return True


def disturb(wanted: int, seed: int, top: Path) -> tuple[list[str], Counter[str]]:
    """Disturb sweeps until `wanted` faults took effect. Returns the problems, and the number of faults by kind."""
    draw, found = random.Random(seed), list[str]()
    faults: Counter[str] = Counter()
    twin = top / "sweep_twin"
    if start(twin).wait(timeout=600) != 0:
        raise SystemExit(f"the undisturbed sweep failed: {(twin / 'log').read_text()}")
    number = 0
    while sum(faults.values()) < wanted:
        folder, hits = top / f"sweep{number}", 0
        number += 1
        while True:
            kind = min(KINDS, key=lambda kind: (faults[kind], draw.random())) if hits < 3 else ""
            before = finished(folder)
            process = start(folder, *JOBLIB)
            if kind:
                wait_for(lambda: workers(process.pid) or process.poll() is not None, 60)  # noqa: B023
                begun = len(list(folder.glob("runs/*/checkpoint.pt")))
                wait_for(
                    lambda: len(list(folder.glob("runs/*/checkpoint.pt"))) > begun or process.poll() is not None,  # noqa: B023
                    draw.choice((0.2, 1, 30)),
                )
                time.sleep(draw.uniform(0, 1))
                took = strike(process, kind)
                faults[kind] += took
                hits += took
            code = process.wait(timeout=300)
            found += [
                f"{kind or 'undisturbed'}: {problem}" for problem in problems(folder, twin, process.pid, before)
            ]
            right = KINDS[kind] if kind else (0,)
            over = "runs done" in (folder / "log").read_text()  # only the report was missing
            if code not in right and not (over and kind.endswith("SIGTERM") and code == -signal.SIGTERM):
                found.append(
                    f"{kind or 'undisturbed'}: exit code {code}, not {right}: {(folder / 'log').read_text()[-300:]}"
                )
            if code == 0 or not kind:
                break
        if len(finished(folder)) != RUNS:
            found.append(f"lost: {len(finished(folder))} of {RUNS} runs are there at the end")
    return found, faults


def problems(folder: Path, twin: Path, session: int, before: dict[str, bytes]) -> list[str]:
    """What is wrong after a sweep has ended."""
    found = []
    if not wait_for(lambda: not workers(session), 60):
        found.append("workers outlive their parent")
        for number in workers(session):
            os.kill(number, signal.SIGKILL)
    after = finished(folder)
    for name in after:
        found += [f"falsely complete: {fault}" for fault in different(folder / "runs" / name, twin / "runs" / name)]
    if any(after.get(name) != content for name, content in before.items()):
        found.append("lost: a finished result is gone or was changed")
    log = (folder / "log").read_text()
    if (count := re.search(r"(\d+) of \d+ runs done", log)) and int(count[1]) > len(after):
        found.append(f"falsely complete: {count[0]}, but {len(after)} are finished")
    # Workers that are interrupted while they start have not loaded lazyexp: Python prints its KeyboardInterrupt.
    if log.count("Traceback") > log.count("\nKeyboardInterrupt"):
        found.append(f"a traceback: {log[-300:]}")
    return found
