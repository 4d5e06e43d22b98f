"""Simulate power cuts at every moment of a run, on a model of a disk, and resume from what would be left.

    python tests/faults/power_cuts.py [--cuts 100] [--seed 0]

The calls of fsync, rename and unlink of a run are recorded, from its first file to the last, and again while it is
repeated with overwrite=true. After each of them, three kinds of disk are recorded: careful (only names and contents
that were forced), hasty (all names, but contents that were not forced are empty, as on ext4), and torn (half of what
was appended since it was forced). From a sample of these states the run is resumed and compared with an undisturbed
twin: rows (without times), weights, learned.npz, energies, checksums. A run that is called complete must equal the
twin, and a result that is being overwritten must be there, the former or the new one. Exit code 1 if anything differs
or is refused.

The model is simpler than a disk: names within one folder reach it together, and a drive that reports "written" too
early is not covered.
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
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from twins import CASES, differences, different, only, settings

from lazyexp.experiment import run

State = dict[str, bytes]


@dataclass
class Cuts:
    """Cuts by kind, the number of different states they were drawn from, and what went wrong."""

    kinds: Counter[str] = field(default_factory=Counter)
    moments: int = 0
    found: list[str] = field(default_factory=list)


class Disk:
    """Records what a power cut would leave of the files in `folder`, which exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contents: dict[int, bytes] = {}  # contents that were forced, by file
        self.states: dict[str, tuple[str, State]] = {}
        self._held: dict[int, int] = {}  # open files: their inode numbers are not reused
        self.names: dict[Path, dict[str, int]] = {}  # entries that were forced, by folder; 0 for a folder
        for path in [folder, *folder.rglob("*")]:  # what existed before is on the disk
            if path.is_dir():
                self.names[path] = self._entries(path)
            else:
                self.contents[path.stat().st_ino] = path.read_bytes()

    def _entries(self, folder: Path) -> dict[str, int]:
        files = {path.name: path for path in folder.iterdir() if path.name != ".lock"}
        return {name: 0 if path.is_dir() else self._number(path) for name, path in files.items()}

    def _number(self, path: Path) -> int:
        number = path.stat().st_ino
        if number not in self._held:
            self._held[number] = os.open(path, os.O_RDONLY)
        return number

    def now(self) -> dict[str, tuple[int, bytes]]:
        """(file, content) by name, as a process sees it; without locks."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.name != ".lock":
                found[str(path.relative_to(self.folder))] = (self._number(path), path.read_bytes())
        return found

    def forced(self, number: int) -> None:
        """Record an fsync of the file descriptor `number`."""
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        if path.is_file() and self.folder in path.parents:
            self.contents[self._number(path)] = path.read_bytes()
        elif path.is_dir() and (path == self.folder or self.folder in path.parents):
            self.names[path] = self._entries(path)

    def careful(self, folder: Path) -> State:
        """The files below `folder` whose content and all names on the path were forced."""
        found: State = {}
        for name, number in self.names.get(folder, {}).items():
            if number:
                found[str((folder / name).relative_to(self.folder))] = self.contents.get(number, b"")
            else:
                found.update(self.careful(folder / name))
        return found

    def note(self) -> None:
        """Record what each kind of disk holds now."""
        now = self.now()
        hasty = {name: self.contents.get(file, b"") for name, (file, _) in now.items()}
        torn = dict(hasty)
        for name, (file, content) in now.items():
            forced = self.contents.get(file, b"")
            if content.startswith(forced):
                torn[name] = content[: (len(forced) + len(content) + 1) // 2]
        for kind, state in (("careful", self.careful(self.folder)), ("hasty", hasty), ("torn", torn)):
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
            for number in self._held.values():
                os.close(number)


def faults(case: tuple, kind: str, state: State, top: Path, twin: Path, again: bool) -> Iterator[str]:
    """Yield what goes wrong when a run is resumed from `state`; `again`: it was being repeated."""
    folder = top / twin.name
    for name, content in state.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    name = f"{case[0]}{' again' if again else ''}, {kind} disk"
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            report = run(settings(case, top))
            if again:
                if not report.repeated:
                    yield f"{name}: lost: neither the former result nor the new one is there"
                yield from (f"{name}, called complete: {fault}" for fault in different(folder, twin))
                report = run(settings(case, top, overwrite=True))
    except Exception as error:
        yield f"{name}: {type(error).__name__}: {error}"
        return
    if report.status != "finished":
        yield f"{name}: ends as {report.status}"
    for difference in differences(folder, twin):
        yield f"{name}{', called complete' if report.repeated else ''}: {difference}"


def cut(cuts: int, seed: int, top: Path) -> Cuts:
    """Cut the power `cuts` times over runs of all kinds, or of `cuts` kinds; every other run is repeated."""
    draw, report = random.Random(seed), Cuts()
    cases = CASES if cuts >= len(CASES) else draw.sample(CASES, cuts)
    for number, case in enumerate(cases):
        runs, again = top / f"twin{number}", number % 2 == 1
        runs.mkdir(parents=True)
        with contextlib.redirect_stderr(io.StringIO()):
            if again:
                run(settings(case, runs))
            disk = Disk(runs.resolve())
            with disk.watched():
                run(settings(case, runs, overwrite=again))
        twin = only(runs)
        assert twin is not None
        report.moments += len(disk.states)
        done = sum(report.kinds.values())
        wanted = min((cuts - done) // (len(cases) - number), len(disk.states))
        for kind, state in draw.sample(list(disk.states.values()), wanted):
            target = top / f"cut{sum(report.kinds.values())}"
            report.found += faults(case, kind, state, target, twin, again)
            report.kinds[kind] += 1
    return report


def main(cuts: int, seed: int) -> int:
    """Cut the power and print the report. Returns the number of faults."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as top:
        report = cut(cuts, seed, Path(top))
    shown = ", ".join(f"{count} {kind}" for kind, count in sorted(report.kinds.items()))
    done = sum(report.kinds.values())
    print(f"{done} power cuts of {report.moments} over {len(CASES)} runs ({shown}): {len(report.found)} faults")
    for fault in report.found:
        print(f"  {fault}")
    return len(report.found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=100, help="states to resume from (100)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not Path("/proc/self/fd").exists():
        sys.exit("power_cuts: skipped, needs /proc to know which file is forced to disk")
    sys.exit(1 if main(options.cuts, options.seed) else 0)
