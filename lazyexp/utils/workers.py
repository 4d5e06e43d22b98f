"""What the processes of a sweep share: a folder with the word to stop and with the results so far.

A launcher that starts workers (joblib) neither passes Ctrl-C on to them in order, nor returns what was done when a
worker is killed, nor ends them when their parent is killed. The folder, named in the environment, makes up for that.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lazyexp.utils.terminal import Interruption, log

FOLDER, PARENT = "LAZYEXP_SWEEP_FOLDER", "LAZYEXP_SWEEP_PID"


# Waits for the parent's word that all is well. Without it the parent was killed: workers with a run under way notice
# that by themselves, save and go; those that have not begun one would wait for it for minutes, and are ended.
GUARD = f"""
import os, signal, sys, time
if not sys.stdin.read():
    time.sleep(10)
    mark = "{PARENT}=%s" % sys.argv[1]
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open("/proc/%s/environ" % name, "rb") as stream:
                marked = mark.encode() in stream.read().split(bytes(1))
            if marked and int(name) != os.getpid():
                os.kill(int(name), signal.SIGTERM)
        except OSError:
            pass
"""


class SweepFolder(Interruption):
    """The parent's side, as a context manager: the first signal asks all workers to stop, the second one quits."""

    def __enter__(self) -> SweepFolder:
        self.path = Path(tempfile.mkdtemp(prefix="lazyexp-sweep-"))
        os.environ[FOLDER], os.environ[PARENT] = str(self.path), str(os.getpid())
        self.guard = self._start_guard() if os.path.isdir("/proc/self") else None
        super().__enter__()
        return self

    def _start_guard(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-S", "-c", GUARD, str(os.getpid())]
        # In a session of its own, out of the reach of Ctrl-C.
        return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self.guard is not None:
            self.guard.communicate(b"done")
        del os.environ[FOLDER], os.environ[PARENT]
        shutil.rmtree(self.path, ignore_errors=True)

    def _handle(self, number: int, frame: object) -> None:
        if self.signal:
            (self.path / "stop").touch()
            os._exit(128 + number)  # the workers notice that they are alone, save and go
        self.signal = number
        (self.path / "stop").touch()
        log("stopping all runs as soon as everything is saved; again to quit at once")

    def results(self) -> list[dict[str, Any]]:
        """What the workers have noted of the runs that ended."""
        try:
            lines = (self.path / "results.jsonl").read_text().splitlines()
        except OSError:
            return []
        return [json.loads(line) for line in lines]


def note(result: dict[str, Any]) -> None:
    """Called by a worker at the end of a run; without a shared folder (another machine) nothing is noted."""
    folder = os.environ.get(FOLDER)
    if folder and os.path.isdir(folder):
        known = {key: result[key] for key in ("title", "error", "code")}
        with open(os.path.join(folder, "results.jsonl"), "ab", buffering=0) as stream:
            stream.write(json.dumps(known).encode() + b"\n")


def asked_to_stop() -> bool:
    """Whether the sweep of this process was told to stop, or its parent is gone."""
    folder = os.environ.get(FOLDER)
    return folder is not None and (os.path.exists(os.path.join(folder, "stop")) or parent_is_gone())


def parent_is_gone() -> bool:
    """In a worker: whether the process that started the sweep has ended."""
    parent = int(os.environ.get(PARENT, "0"))
    if not parent or parent in (os.getpid(), os.getppid()):
        return False
    try:
        os.kill(parent, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    # A worker's worker; or its own parent has ended and waits to be buried, and somebody else has adopted it.
    return STARTED_BY == parent


STARTED_BY = os.getppid()
