"""Tables, speedups with intervals, and figures from runs on disk. Only `trained` imports torch.

The package is callable: `lazyexp.report("runs/headline")` is the command `lazyexp-report runs/headline`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

# Defaults of the command and of the function.
BASELINE = "backprop"
MAX_GROUPS = 3


class _Report(ModuleType):
    """The attribute `lazyexp.report` is this package once any of its modules is imported, so it is callable."""

    def __call__(
        self,
        *folders: str | Path,
        out: str | Path | None = None,
        max_groups: int = MAX_GROUPS,
        where: Sequence[str] = (),
        baseline: str = BASELINE,
        cost_ratio: float | None = None,
    ) -> Path:
        """Write the report on the runs below `folders`. Returns the path of report.html. Raises UserError.

        Args:
            out: output folder, by default `report/` in the first folder.
            max_groups: number of groups whose curves are drawn; tables have all groups.
            where: conditions on settings such as `"rule=lazy,backprop"`.
            baseline: the rule that the others are compared with.
            cost_ratio: cost of a backward pass and its step relative to a forward pass (default: 2), for what a lazy
                rule could save according to a backprop run.
        """
        from lazyexp.report.build import write_report

        paths = [Path(folder).expanduser() for folder in folders]
        folder = None if out is None else Path(out).expanduser()
        return write_report(paths, folder, max_groups, where, baseline, cost_ratio)


sys.modules[__name__].__class__ = _Report
