"""With BatchNorm, selection within a batch saves nothing: a note, and the two ways out of it."""

from __future__ import annotations

import pytest
from conftest import only_run, rows

NOTE = "selecting samples saves no time"
SMALL = ["model=resnet", "model.depth=8", "model.width=2", "epochs=1", "batch_size=16", "dataset.train_size=160"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, noted",
    [
        (["rule=lazy"], True),
        (["rule=lazy", "model.norm=group"], False),
        (["rule=lazy", "packing.block_size=64"], False),
        (["rule=backprop"], False),
        (["rule=infobatch"], False),  # leaves samples out before a batch is made
        (["rule=lazy", "batch_size=1", "dataset.train_size=10"], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_note_is_printed_where_nothing_is_saved(call, tmp_path, arguments, noted):
    answer = call(*SMALL, *arguments)
    assert answer.code == 0, answer.err
    assert (NOTE in answer.err) is noted
    if noted:
        assert "packing.block_size" in answer.err and "model.norm=group" in answer.err
    row = rows(only_run(tmp_path) / "summary.csv")[0]
    seen, forward, backward = (int(row[name]) for name in ("samples_seen", "forward_samples", "backward_samples"))
    again = "model.norm=group" in arguments or "packing.block_size=64" in arguments or "batch_size=1" in arguments
    if "rule=lazy" in arguments and "batch_size=1" not in arguments:
        assert forward >= seen + backward if again else forward == seen  # selected samples are forwarded again
