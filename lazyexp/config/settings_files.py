"""Settings files of the user: which are read, what they set, and those that would be ignored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lazyexp.config.paths import CONF
from lazyexp.config.registry import NAMES
from lazyexp.config.streams import MEMORIES, STREAMS
from lazyexp.config.validation import ENTRIES
from lazyexp.errors import UserError

# Groups of settings whose choices are registered by name; a file in conf/ says more than a name.
GROUPS: dict[str, Any] = {**NAMES, "plasticity": ("all",), "stream": STREAMS, "memory": MEMORIES}
FOLDERS = (*GROUPS, "sweep")
GLOBAL = re.compile(r"^#\s*@package\s+_global_\s*$", re.MULTILINE)


def folders_of(parsed: Sequence[Any]) -> list[Path]:
    """The folders that overrides add to the search path."""
    found: list[Path] = []
    for item in parsed:
        if item.key_or_group == "hydra.searchpath" and isinstance(item.value(), list):
            words = [str(word) for word in item.value()]
            found += [Path(word.removeprefix("file://")) for word in words if "://" not in word or word[:4] == "file"]
    return found


def check_folders(folders: Sequence[Path]) -> None:
    """Raise UserError for files that would be ignored, or would be read otherwise than they are meant."""
    found: dict[str, Path] = {}
    for folder in folders:
        _check_folder(folder)
        for file in [file for group in FOLDERS for file in (folder / group).glob("*.yaml")]:
            first = found.setdefault(f"{file.parent.name}/{file.name}", file)
            if first != file:
                raise UserError(f"{file}: is not read, because of {first}; rename one of them")


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of settings files")
    if (folder / "config.yaml").is_file():
        raise UserError(f"{folder / 'config.yaml'}: is not read; {_advice(folder, 'config')}")
    files = [file for group in FOLDERS for file in sorted((folder / group).glob("*.yaml"))]
    for file in files:
        group = file.parent.name
        if file.stem in GROUPS.get(group, ()) or (CONF / group / file.name).is_file():
            raise UserError(f"{file}: {group}={file.stem} is a built-in choice; rename the file")
        if not content(file):
            raise UserError(f"{file}: has no settings; remove it or write some")
        if group == "sweep" and not _is_global(file):
            raise UserError(f"{file}: needs a first line `# @package _global_`")
        for key, value in _settings_in(file):
            if is_text(key) and isinstance(value, (bool, int, float)):
                raise UserError(f"{file}: {key}={value}: must be a text; put it into quotes")
    if not files and not (folder / "hydra").is_dir():
        loose = min((file.stem for file in folder.glob("*.y*ml")), default="NAME")
        raise UserError(f"{folder}: has no settings files in a folder of a group; {_advice(folder, loose)}")


def is_text(key: str) -> bool:
    """Whether the values of a key are texts."""
    return key in ENTRIES and str(ENTRIES[key].type).startswith("str")


def _is_global(file: Path) -> bool:
    return bool(GLOBAL.search(file.read_text(encoding="utf-8")))


def _settings_in(file: Path) -> list[tuple[str, Any]]:
    """Dotted keys and values of a settings file."""
    values = content(file)
    prefix = "" if _is_global(file) else f"{file.parent.name}."
    return list(_flat(values, prefix)) if isinstance(values, dict) else []


def _advice(folder: Path, name: str) -> str:
    name = "mine" if name == "config" else name
    return (
        f"settings of several groups belong in {folder / 'sweep' / name}.yaml, below a first line "
        f"`# @package _global_`, and are used with sweep={name}"
    )


def content(file: Path) -> Any:
    """The content of a settings file, with interpolations as they are. Hydra reports files that are not YAML."""
    try:
        return OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except Exception:  # YAML's and OmegaConf's errors have no common class
        return "unreadable"


def chosen_files(parsed: Sequence[Any]) -> Iterator[tuple[str, Path]]:
    """Group and file of every choice among the overrides that is a settings file."""
    for item in parsed:
        group = item.key_or_group
        if group in FOLDERS and isinstance(item.value(), str):
            for folder in (CONF, *folders_of(parsed)):
                file = folder / group / f"{item.value()}.yaml"
                if file.is_file():
                    yield group, file


def preset_values(parsed: Sequence[Any]) -> dict[str, Any]:
    """What the chosen files set, by dotted key: presets and user files, not the defaults of a built-in part."""
    found: dict[str, Any] = {}
    for _, file in chosen_files(parsed):
        if _is_global(file) or CONF not in file.parents:
            found.update(_settings_in(file))
    return found


def _flat(values: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name in ("defaults", "hydra") and not prefix:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif name != "defaults":
            yield f"{prefix}{name}", value


def check_single(parsed: Sequence[Any]) -> None:
    """Raise UserError for overrides that have an effect in a sweep only."""
    for item in parsed:
        key = item.key_or_group
        if key.startswith("hydra") and key != "hydra.searchpath":
            raise UserError(f"{item.input_line}: has an effect in a sweep only, lazyexp -m")
    for group, file in chosen_files(parsed):
        values = content(file)
        hydra = values.get("hydra") if isinstance(values, dict) else None
        if isinstance(hydra, dict):
            raise UserError(
                f"{group}={file.stem}: is a sweep of several runs; use lazyexp -m (in Python: lazyexp.sweep)"
            )
