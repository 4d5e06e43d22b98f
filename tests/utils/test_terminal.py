"""The progress bar and the table at the end of a run."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from lazyexp.runs.display import summary_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_bar_shows_accuracy_and_the_share_of_selected_samples(tmp_path):
    """There is a bar on a terminal (here a pseudo-terminal), and none elsewhere."""
    command = [sys.executable, "-m", "lazyexp", "epochs=200", "model.width=20"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    screen, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=terminal) as run:
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
        assert run.stdout is not None and b"test accuracy" in run.stdout.read()
    os.close(screen)
    assert run.returncode == 0
    assert re.search(r"lazy:.*accuracy \d+\.\d%, selected \d+\.\d\d%", shown.decode())
    silent = subprocess.run(
        [*command, "overwrite=true"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert silent.returncode == 0 and "selected" not in silent.stderr


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
