"""Communication between the processes of a parallel sweep on one machine.

A launcher that starts workers (joblib) does not pass Ctrl-C on, loses all results when one worker is killed, and
leaves its workers running when it is killed itself. A temporary folder, named in the environment, makes up for that:
it holds the request to stop and the results so far.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from lazyexp.utils.signals import Interruption

FOLDER, PARENT = "LAZYEXP_SWEEP_FOLDER", "LAZYEXP_SWEEP_PID"

# A process that ends the workers if the parent is killed, that is if its input ends before the parent's last word.
# Workers with a run in progress notice the loss first, save and exit; those that wait for their first run would wait
# for minutes. The parent-death signal of Linux cannot replace this: a worker can only ask for it once it has
# unpickled a run, and the workers concerned have not.
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
    """The parent's side, as a context manager: the first signal stops all workers, the second one quits.

    Attributes:
        path: The shared folder, removed at the end.
    """

    MESSAGE = "saving and stopping all runs; repeat the signal to quit at once"

    def __enter__(self) -> SweepFolder:
        self.path = Path(tempfile.mkdtemp(prefix="lazyexp-sweep-"))
        os.environ[FOLDER], os.environ[PARENT] = str(self.path), str(os.getpid())
        self._guard = self._start_guard() if os.path.isdir("/proc/self") else None
        super().__enter__()
        return self

    def _start_guard(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-S", "-c", GUARD, str(os.getpid())]
        # In another session, where Ctrl-C does not reach it.
        return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self._guard is not None:
            with suppress(OSError):  # the guard was killed
                self._guard.communicate(b"done")
        del os.environ[FOLDER], os.environ[PARENT]
        shutil.rmtree(self.path, ignore_errors=True)

    def request_stop(self) -> None:
        """Ask all workers to save and stop."""
        with suppress(OSError):  # the folder was deleted; workers get their own signal or see the parent's end
            (self.path / "stop").touch()
        super().request_stop()

    def results(self) -> list[dict[str, Any]]:
        """Return what the workers have reported with `note`, without lines that were cut off."""
        results = []
        with suppress(OSError):
            for line in (self.path / "results.jsonl").read_text().splitlines():
                with suppress(ValueError):
                    results.append(json.loads(line))
        return results


def has_parent() -> bool:
    """Return whether the sweep has a shared folder."""
    return os.path.isdir(os.environ.get(FOLDER, ""))


def note(result: dict[str, Any]) -> None:
    """Report the end of a run to the parent. Called by workers; without a shared folder nothing happens."""
    if has_parent():
        with open(os.path.join(os.environ[FOLDER], "results.jsonl"), "ab", buffering=0) as stream:
            stream.write(json.dumps(result).encode() + b"\n")


def first_in_sweep(text: str) -> bool:
    """Return whether no run of this sweep has asked with this text before."""
    new = text not in _notes
    _notes.add(text)
    if new and has_parent():
        name = hashlib.sha256(text.encode(errors="replace")).hexdigest()
        with suppress(FileExistsError):
            os.close(os.open(os.path.join(os.environ[FOLDER], name), os.O_CREAT | os.O_EXCL))
            return True
        return False
    return new


def forget_notes() -> None:
    """Start a new sweep for `first_in_sweep`."""
    _notes.clear()


_notes: set[str] = set()


def asked_to_stop() -> bool:
    """Return whether the sweep of this process was asked to stop, or its parent has ended."""
    folder = os.environ.get(FOLDER)
    return folder is not None and (os.path.exists(os.path.join(folder, "stop")) or parent_is_gone())


def parent_is_gone() -> bool:
    """In a worker: return whether the process that started the sweep has ended."""
    parent = int(os.environ.get(PARENT, "0"))
    if not parent or parent in (os.getpid(), os.getppid()):
        return False
    try:
        os.kill(parent, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    # The process exists but is not the parent of this one. Either this is a worker's child, or the parent is a zombie
    # and this process has been adopted.
    return parent == STARTED_BY


STARTED_BY = os.getppid()
