"""Tables, speedups with intervals, and figures from runs on disk. Nothing here imports torch.

The package can be called: `lazyexp.report("runs/headline")` does what `lazyexp-report runs/headline` does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType


class _Report(ModuleType):
    """A package is what `lazyexp.report` names as soon as any of its modules is imported, so it must do the work."""

    def __call__(self, *folders: str | Path, out: str | Path | None = None, max_groups: int = 12) -> Path:
        """Writes the report on the runs below `folders`. Returns the path of report.html. Raises UserError."""
        from lazyexp.report.cli import write_report

        places = [Path(folder).expanduser() for folder in folders]
        return write_report(places, None if out is None else Path(out).expanduser(), max_groups)


sys.modules[__name__].__class__ = _Report
