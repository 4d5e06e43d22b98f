"""Runs, sweeps and lists on a pseudo-terminal; the table at the end of a run."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from importlib.util import find_spec
from pathlib import Path

import pytest

from lazyexp.runs.display import summary_table

ROOT = Path(__file__).resolve().parents[2]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm"}
RUN = ("model.width=20", "device=cpu", "batch_size=8", "engine=autograd", "rule=backprop")


def on_terminal(
    folder: Path, width: int, *words: str, interrupt: str = "", command: str = "main"
) -> tuple[int, list[str]]:
    """Run a command on a pseudo-terminal. Ctrl-C is typed once `interrupt` has been shown.

    Returns the exit code and all lines shown, those that a bar overwrote included.
    """
    screen, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {key: value for key, value in ENVIRONMENT.items() if key not in ("COLUMNS", "LINES")}
    code = (
        f"import os, sys, fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); sys.argv = {['lazyexp', *words]!r}; "
    )
    code += f"from lazyexp.__main__ import {command} as main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment, stdin=terminal, stdout=terminal, stderr=terminal,
        start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(screen, 4096)
        except OSError:  # the terminal is closed when the program ends
            break
        if not part:
            break
        shown += part
        if interrupt and interrupt.encode() in shown:
            os.write(screen, b"\x03")
            interrupt = ""
    os.close(screen)
    return process.wait(), [line for line in re.split(r"[\r\n]+", shown.decode()) if line.strip()]


def bars(lines: list[str]) -> list[str]:
    return [line for line in lines if "(running)" in line]


@pytest.mark.slow
def test_a_run_shows_a_bar_is_interrupted_and_continues_where_it_was(tmp_path):
    width = 120
    words = (*RUN, "epochs=400", "eval_every=1437")
    code, lines = on_terminal(tmp_path, width, *words, interrupt="epoch 4/400")
    assert code == 130 and "saving and stopping" in "\n".join(lines) and "the same command continues it" in lines[-1]
    assert all(len(line) < width for line in bars(lines)) and re.search(
        r"epoch 3/400.*test (accuracy )?\d", str(lines)
    )
    code, lines = on_terminal(tmp_path, width, *words, interrupt="(running)")
    assert code == 130
    assert re.search(r"continuing at epoch \d+(\.\d+)? of 400, after [\d,]+ samples", "\n".join(lines))


@pytest.mark.slow
def test_a_sweep_names_its_runs_shows_the_time_left_and_ends_with_a_table(tmp_path):
    width = 80
    words = ("-m", *RUN[:-1], "rule=lazy,backprop", "optimizer.lr=0.05,1e30", "epochs=20", "dataset.train_size=1000")
    code, lines = on_terminal(tmp_path, width, *words)
    text = "\n".join(lines)
    assert code == 0 and "4 of 4 runs done (2 diverged)" in text
    assert re.search(r"\[3/4\] backprop, epoch \d+/20.*\(running\).*sweep \d+:\d\d", text)
    assert re.search(r"\[1/4\] rule=lazy, optimizer.lr=0.05: finished, test accuracy \d\d\.\d\d%, ", text)
    assert all(len(line) < width for line in bars(lines))
    end = lines[next(i for i, line in enumerate(lines) if "making the report of 4 runs" in line) :]
    assert any(line.startswith("backprop") for line in end) and lines[-1].startswith("report: ")
    assert all(
        len(line) <= width for line in end if line.startswith(("backprop ", "lazy ", "rule ")) and "  " in line
    )
    code, lines = on_terminal(tmp_path, width, "runs", "--list", command="report")
    assert code == 0 and lines[-1].startswith("4 runs: ") and all(len(line) <= width for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("hydra_plugins.hydra_joblib_launcher") is None, reason="needs the extra `parallel`")
def test_a_parallel_sweep_has_one_bar_and_ctrl_c_fails_no_run(tmp_path):
    words = ("-m", *RUN, "seed=0,1,2", "epochs=400", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    finished = on_terminal(tmp_path, 100, *words[:-2], "hydra/launcher=joblib", "epochs=1", "hydra.launcher.n_jobs=2")
    text = "\n".join(finished[1])
    assert finished[0] == 0 and "3 of 3 runs done" in text and "of 3 runs ended" in text and not bars(finished[1])
    assert len(re.findall(r"\[\d/3\] seed=\d: finished, test accuracy", text)) == 3
    code, lines = on_terminal(tmp_path, 100, *words, interrupt="sweep:")
    text = "\n".join(lines)
    assert code == 130 and "failed" not in text and "Traceback" not in text
    assert re.search(r"0 of 3 runs done, .*(interrupted|not started)", text)


def test_the_table_gives_every_figure():
    summary = {
        "test_accuracy": "0.98765", "best_test_accuracy": "0.99", "train_seconds": "12.345", "samples_seen": "1000",
        "forward_samples": "1500", "backward_samples": "20", "distinct_learned": "15", "train_size": "500",
        "updates": "20", "updates_possible": "1000", "energy_l1": "30.0", "energy_l1_min": "10.0",
        "energy_l0": "400", "energy_l0_min": "100", "val_accuracy": "",
        "seconds_to_0.9": "1.5", "samples_to_0.9": "100", "backward_to_0.9": "10", "updates_to_0.9": "9",
        "energy_l1_to_0.9": "8", "seconds_to_0.992": "", "samples_to_0.992": "",
    }  # fmt: skip
    text = summary_table(summary)
    for line in (
        "test accuracy              98.77% (best 99.00%)",
        "training seconds           12.35",
        "samples forwarded          1,500",
        "samples backpropagated     20 (2.00%)",
        "distinct samples selected  15 (3.00%)",
        "updates                    20 (2.00%)",
        "energy M1                  30, 3 times the direct path",
        "energy M0                  400, 4 times the direct path",
        "to 90.0%                   1.50 s, 100 samples, 10 backpropagated, 9 updates",
        "to 99.2%                   not reached",
    ):
        assert line in text, line
