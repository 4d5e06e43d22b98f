"""The text of the progress bar at several widths."""

from __future__ import annotations

import pytest

from lazyexp.utils import terminal
from lazyexp.utils.terminal import Bar, Position


def bar_at(monkeypatch, position=None, title="lazy", test=0.951):
    monkeypatch.setattr(terminal.time, "monotonic", iter([0.0, *[10.0] * 99]).__next__)
    bar = Bar(20, 0, title, position)
    bar.test_accuracy = test
    bar.advance(5.0, 100, 97, 2)
    return bar


@pytest.mark.parametrize("width, wanted", [
    (120, "lazy, epoch 6/20: {bar:10} 25%, training accuracy (running) 97.0%, test accuracy 95.1%, selected 2.00%, "
          "0:30 left"),
    (80, "lazy, epoch 6/20: 25%, training (running) 97.0%, test 95.1%, selected 2.00%, 0:30 left"[:0]
         or "lazy, epoch 6/20, training (running) 97.0%, test 95.1%, 0:30 left"),
])  # fmt: skip
def test_a_single_run(monkeypatch, width, wanted):
    assert bar_at(monkeypatch)._layout(width - 1) == wanted
