"""Names of the training and test parts in a folder: train or training; test or testing, else val."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lazyexp.errors import UserError

NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev"),
}


def part_of(name: str) -> str | None:
    """train, test or val, whichever a file's or folder's name without its suffix stands for."""
    return next((part for part, known in NAMES.items() if name.lower() in known), None)


def find_parts(entries: Iterable[tuple[str, Path]], path: Path) -> tuple[dict[str, Path], list[str]]:
    """The paths of train and test among (name, path) `entries`, and notes; empty without train.

    Raises UserError if a part is there twice, or the test part is missing.
    """
    found: dict[str, Path] = {}
    for name, entry in entries:
        part = part_of(name)
        if part in found:
            raise UserError(f"{path}: both {found[part].name} and {entry.name}; keep one of them")
        if part:
            found[part] = entry
    if "train" not in found:
        return {}, []
    notes = []
    if "val" in found and "test" in found:
        notes.append(f"{found['val']} is not read; dataset.val_size holds out training samples for validation")
    elif "val" in found:
        notes.append(f"{path} has no test part; {found['val'].name} is the test set")
    test = found.get("test", found.get("val"))
    if test is None:
        raise UserError(f"{path}: {found['train'].name} is there, but neither test nor val")
    return {"train": found["train"], "test": test}, notes
