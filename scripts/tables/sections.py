"""Tables that the report has as sections: the method comparison and energy at equal accuracy."""

from __future__ import annotations

from pathlib import Path

from lazyexp.report.blocks import Table
from tables.report import (
    comparisons,
    energy_blocks,
    energy_table,
    markdown,
    matched_groups,
    method_rows,
    read_runs,
    run_table,
    without_dash,
    write_summary,
)

# Columns of the energy sweep's summary.csv.
KEPT: tuple[str, ...] = (
    "run_id",
    "dataset.name",
    "rule",
    "epochs",
    "optimizer.lr",
    "batch_size",
    "seed",
    "status",
    "test_accuracy",
)
KEPT += ("samples_seen", "forward_samples", "backward_samples", "updates")
FAMILIES = ("plasticity.", "energy_l", "energy_m")


def standings(folder: Path, output: Path) -> dict[str, str]:
    """Write summary.csv; return the time of every rule to backprop's best accuracy less 0.1 points."""
    runs = read_runs([folder]).runs
    write_summary(matched_groups(runs), output)
    columns = ["rule", "seconds", "speedup", "best test accuracy %", "forward passes", "backward passes", "M1"]
    rows = [without_dash(cells, 1) for comparison in comparisons(runs) for _, *cells in method_rows(comparison)]
    return {"standings": markdown(columns, rows)}


def energy(folder: Path, output: Path) -> dict[str, str]:
    """Write summary.csv and energy.csv; return the least energy of every rule and choice of synapses."""
    runs = read_runs([folder]).runs
    summary = run_table(matched_groups(runs))
    kept = [name for name in summary if name in KEPT or name.startswith(FAMILIES)]
    summary[kept].to_csv(output / "summary.csv", index=False)
    table = energy_table(runs)
    table.to_csv(output / "energy.csv", index=False)
    block = energy_blocks(table)[-1]
    assert isinstance(block, Table)
    rows = block.rows
    # Without the first column, the data set, and the last, the number of runs.
    columns = ["rule", "synapses", "M1", "times lower", "with upkeep", "best test accuracy %", "at"]
    return {"energy": markdown(columns, [without_dash(cells[1:-1], 2) for cells in rows])}
