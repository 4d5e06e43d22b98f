"""Cuts the power at every moment of a run, on a disk that exists in memory, and resumes from what would be left.

    python scripts/power_cuts.py [--cuts 100] [--seed 0]

A run's calls of fsync, rename and unlink are watched. What a disk holds after each of them is written down three
times: the careful disk (only names and contents that were forced), the hasty one (all names, but contents that were
not forced are empty, as ext4 leaves them), and the torn one (half of what was appended since it was forced). From a
sample of these states the run is resumed and compared with an undisturbed twin: rows (clocks aside), weights,
learned.npz, energies, checksums. A run that is called done must be the twin. Exit code 1 if anything differs or is
refused.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from stress import CASES, differences, only, settings  # noqa: E402

from lazyexp.experiment import run  # noqa: E402

State = dict[str, bytes]


class Disk:
    """Watches the files of `folder` and notes what a power cut would leave of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, int] = {}  # that were forced, and which file each stands for
        self.contents: dict[int, bytes] = {}  # that were forced
        self.states: dict[str, tuple[str, State]] = {}

    def now(self) -> dict[str, tuple[int, bytes]]:
        """Name -> (file, content), as a process sees it; locks left out."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.name != ".lock":
                found[str(path.relative_to(self.folder))] = (path.stat().st_ino, path.read_bytes())
        return found

    def forced(self, number: int) -> None:
        """An fsync of the open file or folder `number`."""
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        if path.is_file() and self.folder in path.parents:
            self.contents[path.stat().st_ino] = path.read_bytes()
        elif path.is_dir() and (path == self.folder or self.folder in path.parents):
            self.names = {name: file for name, (file, _) in self.now().items()}

    def note(self) -> None:
        """Writes down what each kind of disk holds now."""
        now = self.now()
        hasty = {name: self.contents.get(file, b"") for name, (file, _) in now.items()}
        torn = dict(hasty)
        for name, (file, content) in now.items():
            forced = self.contents.get(file, b"")
            if content.startswith(forced):
                torn[name] = content[: (len(forced) + len(content) + 1) // 2]
        careful = {name: self.contents.get(file, b"") for name, file in self.names.items()}
        for kind, state in (("careful", careful), ("hasty", hasty), ("torn", torn)):
            key = hashlib.sha256(repr(sorted(state.items())).encode()).hexdigest()
            self.states.setdefault(key, (kind, state))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        former = os.fsync, os.replace, os.unlink

        def watch(call: Callable[..., Any], is_fsync: bool) -> Callable[..., Any]:
            def watching(*arguments: Any, **options: Any) -> Any:
                self.note()
                answer = call(*arguments, **options)
                if is_fsync:
                    self.forced(arguments[0])
                self.note()
                return answer

            return watching

        os.fsync, os.replace, os.unlink = watch(os.fsync, True), watch(os.replace, False), watch(os.unlink, False)
        try:
            yield
        finally:
            os.fsync, os.replace, os.unlink = former


def faults(case: tuple, kind: str, state: State, place: Path, twin: Path) -> Iterator[str]:
    """What goes wrong when a run is resumed from `state`."""
    config = settings(case, place)
    folder = place / twin.name
    for name, content in state.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            report = run(config)
    except Exception as error:
        yield f"{case[0]}, {kind} disk: {type(error).__name__}: {error}"
        return
    if report.status != "finished":
        yield f"{case[0]}, {kind} disk: ends as {report.status}"
    for difference in differences(folder, twin):
        yield f"{case[0]}, {kind} disk{', called done at once' if report.repeated else ''}: {difference}"


def main(cuts: int, seed: int) -> int:
    """Returns the number of faults; prints what was done."""
    torch.set_num_threads(1)
    draw = random.Random(seed)
    found, done, kinds, moments = [], 0, {"careful": 0, "hasty": 0, "torn": 0}, 0
    with tempfile.TemporaryDirectory() as place:
        for number, case in enumerate(CASES):
            config = settings(case, Path(place) / f"twin{number}")
            disk = Disk(Path(config.runs_dir).resolve())
            with disk.watched(), contextlib.redirect_stderr(io.StringIO()):
                run(config)
            twin = only(Path(config.runs_dir))
            assert twin is not None
            moments += len(disk.states)
            wanted = (cuts - done) // (len(CASES) - number)
            for kind, state in draw.sample(list(disk.states.values()), min(wanted, len(disk.states))):
                inside = {name.partition("/")[2]: content for name, content in state.items()}
                found += faults(case, kind, inside, Path(place) / f"cut{done}", twin)
                kinds[kind] += 1
                done += 1
    shown = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    print(f"{done} power cuts of {moments} different ones over {len(CASES)} runs ({shown}): {len(found)} faults")
    for fault in found:
        print(f"  {fault}")
    return len(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=100, help="states to resume from (100)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not Path("/proc/self/fd").exists():
        sys.exit("power_cuts: skipped, it needs /proc to know which file is forced to disk")
    sys.exit(1 if main(options.cuts, options.seed) else 0)
