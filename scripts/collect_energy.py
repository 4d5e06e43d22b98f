"""The table of the sweep `energy`, for collect.py: what rules and choices of synapses spend at equal accuracy."""

from __future__ import annotations

from pathlib import Path

from lazyexp.report.groups import matched_groups
from lazyexp.report.read import read_runs
from lazyexp.report.render import to_markdown
from lazyexp.report.synapses import energy_blocks, energy_table
from lazyexp.report.tables import run_table

# What the CSV of all runs keeps of them.
KEPT = ("run_id", "dataset.name", "rule", "epochs", "optimizer.lr", "batch_size", "seed", "status", "test_accuracy")
KEPT += ("samples_seen", "forward_samples", "backward_samples", "updates")
FAMILIES = ("plasticity.", "energy_l", "energy_m")


def energy_grid(folder: Path, place: Path) -> str:
    """Of the runs at any depth of `folder`; writes their CSVs to `place` and returns the report's section."""
    runs = read_runs([folder]).runs
    everything = run_table(matched_groups(runs))
    everything[[name for name in everything if name in KEPT or name.startswith(FAMILIES)]].to_csv(
        place / "summary.csv", index=False
    )
    table = energy_table(runs)
    table.to_csv(place / "energy.csv", index=False)
    # Without the heading, the page's own.
    return to_markdown("", energy_blocks(table)[1:]).partition("\n\n")[2].strip()
