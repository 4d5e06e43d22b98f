"""Fresh seeds for finals: none that a trial of these searches, or another finals of them, was run with.

A search folder's seeds.json holds the seeds of all finals made from it. A search that borrowed settings of another
one has seen what those finals showed, so the seeds of its sources count, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from lazyexp.errors import UserError
from lazyexp.runs.reader import read_json
from lazyexp.tune.fronts import read_trials
from lazyexp.utils.files import write_text

FIRST_SEED = 100
FILE = "seeds.json"


def fresh_seeds(sources: Sequence[Path], folder: Path, number: int) -> tuple[list[int], list[int]]:
    """(seeds for the finals in `folder`, seeds from 100 on that were skipped because they were used before).

    Finals that continue keep their seeds. Raises UserError if one of these was used elsewhere since.
    """
    used: set[int] = set()
    own: set[int] = set()
    for search in with_sources(sources):
        used.update(int(seed) for seed in read_trials(search)["seed"].dropna())
        for finals, seeds in read_json(search / FILE).items():
            (own if finals == relative(folder, search) else used).update(seeds)
    again = sorted(own & used)
    if again:
        raise UserError(f"{folder}: its seed {again[0]} was used by a trial or by other finals, too; set --folder")
    kept, skipped = sorted(own)[:number], list[int]()
    seed = max(own, default=FIRST_SEED - 1) + 1
    while len(kept) < number:
        (skipped if seed in used else kept).append(seed)
        seed += 1
    return kept, skipped


def record_seeds(sources: Sequence[Path], folder: Path, seeds: Sequence[int]) -> None:
    """Record the seeds of the finals in `folder` in every search folder."""
    for search in sources:
        known = read_json(search / FILE)
        finals = relative(folder, search)
        known[finals] = sorted({*known.get(finals, []), *seeds})
        write_text(search / FILE, json.dumps(known, indent=1) + "\n")


def relative(folder: Path, search: Path) -> str:
    """The folder as seen from the search, so that both can be moved together."""
    return Path(os.path.relpath(folder.resolve(), search.resolve())).as_posix()


def with_sources(sources: Sequence[Path]) -> list[Path]:
    """The search folders and those whose settings they borrowed, directly or not, as far as they still exist."""
    found: dict[Path, None] = {}
    waiting = [source.resolve() for source in sources]
    while waiting:
        search = waiting.pop()
        if search not in found and (search / "trials.csv").is_file():
            found[search] = None
            waiting += [
                (search / other).resolve() for other in read_json(search / "about.json").get("borrowed_from", [])
            ]
    return list(found)
