"""What produced a run: versions, device, threads, commit, data; and what of it differs between sessions."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lazyexp import __version__
from lazyexp.runs.inputs import Inputs
from lazyexp.utils.products import library

if TYPE_CHECKING:
    from lazyexp.data import Data

PACKAGES = ("lazyexp", "torch", "torchvision", "hydra-core", "omegaconf", "numpy", "pandas", "scikit-learn")


def provenance(settings: dict[str, Any], run_id: str, data: Data, device: torch.device) -> dict[str, Any]:
    """Return the content of a new run.json."""
    return {
        "run_id": run_id,
        "status": "running",
        "start": now(),
        "end": None,
        "command": sys.argv,
        "settings": settings,
        **session(device),
        "device_type": device.type,
        "platform": platform.platform(),
        "data": {
            "sha256": data.sha256,
            "counts": data.counts,
            "notes": data.notes,
            "class_names": data.class_names,
            "inputs": asdict(Inputs.of(data.origin or data)),
        },
        "subset_chosen_by": data.scoring,
        "features": data.features,
    }


def session(device: torch.device) -> dict[str, Any]:
    """Return what can differ between the sessions of a resumed run."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "fp32_precision": {
            "float32_matmul": torch.get_float32_matmul_precision(),
            "cudnn": "tf32" if torch.backends.cudnn.allow_tf32 else "float32",
        },
        "products": library(),
        "git_commit": _git_commit(),
    }


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what differs between two sessions and can affect results or times, one phrase each."""
    pairs = {name: (before.get(name), now.get(name)) for name in ("device", "threads", "products", "git_commit")}
    for name in ("lazyexp", "torch"):
        pairs[name] = ((before.get("versions") or {}).get(name), now["versions"][name])
    return [f"{name} was {old}, is now {new}" for name, (old, new) in pairs.items() if old is not None and old != new]


def now() -> str:
    """Return the time in UTC, to the second, in ISO format."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@cache
def _version(package: str) -> str | None:
    if package == "lazyexp":  # the running code, which an older installation may not be
        return __version__
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache  # of the code that was loaded, even if the checkout changes later
def _git_commit() -> str | None:
    """Return the commit of the checkout that this code runs from, None outside of a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
