"""The text of the progress bar: what it names, what fits the terminal."""

from __future__ import annotations

import pytest

from lazyexp.utils import terminal
from lazyexp.utils.terminal import Bar, Position, duration

SWEEP = Position(4, 6, "rule=lazy, seed=1", [100.0, 120.0])
RUNNING = "training (running) 97.0%, test 95.1%"
IN_FULL = "training accuracy (running) 97.0%, test accuracy 95.1%, selected 2.00%"


@pytest.mark.parametrize(
    "title, position, width, text",
    [
        ("lazy", None, 120, f"lazy, epoch 6/20: {{bar:10}} 25%, {IN_FULL}, 0:30 left"),
        ("lazy", None, 80, f"lazy, epoch 6/20, {RUNNING}, 0:30 left"),
        ("lazy", SWEEP, 120, f"[4/6] lazy, epoch 6/20: 25%, {RUNNING}, selected 2.00%, 0:30 left, sweep 4:10 left"),
        ("lazy", SWEEP, 80, f"[4/6] lazy, epoch 6/20, {RUNNING}, sweep 4:10"),
        ("composer_selective_backprop", SWEEP, 80, f"[4/6] composer_se, epoch 6/20, {RUNNING}, sweep 4:10"),
    ],
)
def test_the_bar_names_its_accuracies_and_fits(monkeypatch, title, position, width, text):
    """5 of 20 epochs in 10 s: 30 s are left, and two runs of 110 s each, the mean of those done."""
    monkeypatch.setattr(terminal.time, "monotonic", iter([0.0, *[10.0] * 99]).__next__)
    bar = Bar(20, 0, title, position)
    bar.test_accuracy = 0.951
    bar.advance(5.0, 100, 97, 2)
    shown = bar._layout(width - 1)
    assert shown == text and len(shown.replace("{bar:10}", " " * 10)) < width


def test_a_resumed_run_counts_the_time_of_its_own_epochs(monkeypatch):
    monkeypatch.setattr(terminal.time, "monotonic", iter([0.0, *[10.0] * 99]).__next__)
    bar = Bar(20, 10.0, "lazy")
    bar.advance(15.0, 100, 97, 2)
    assert "epoch 16/20: 75%" in bar._text(terminal.LAYOUTS[1]) and "0:10 left" in bar._text(terminal.LAYOUTS[1])


def test_parallel_runs_have_no_bar_of_their_own():
    assert Bar(2, 0, "lazy", Position(1, 2, parallel=True))._bar.disable
    assert Position(1, 2, parallel=True).seconds_left(1, 1) is None


def test_durations():
    assert [duration(seconds) for seconds in (0.2, 61, 3600)] == ["0:00", "1:01", "1:00:00"]
