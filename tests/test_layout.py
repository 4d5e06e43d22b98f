"""The layout of the package: few entries, imports in one direction, light drop-ins, settings that stay at the top."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lazyexp"
MODULES = sorted(PACKAGE.rglob("*.py"))
# A part may import parts of lower layers and itself. Parts of one layer do not import each other.
LAYERS = [
    {"errors"},
    {"utils"},
    {"config"},
    {"data", "models", "rules", "streams"},
    {"loss", "settings"},
    {"sampler", "training"},
    {"runs"},
    {"report"},
    {"building"},
    {"experiment"},
    {"api", "sweeps"},
    {"cli"},
    {"tune"},  # a command of its own that runs experiments
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
# __init__ forwards names lazily, __main__ starts the command.
ENTRIES = {"__init__", "__main__"}
# Only these see the whole settings object.
SETTINGS = "Settings"
SEE_SETTINGS = {"api", "building", "cli", "config", "experiment", "settings", "sweeps"}


def part_of(module: Path) -> str:
    """The folder or module at the top of the package that a module belongs to."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes, without the bodies of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (node for branch in child.orelse for node in [branch, *statements(branch)])
            continue
        yield child
        yield from statements(child)


def imports(module: Path) -> Iterator[tuple[str, str]]:
    """(part, line) of every import of the package in a module, in functions too."""
    for node in statements(ast.parse(module.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, *rest = name.split(".")
            if first == "lazyexp" and rest:
                yield rest[0], f"{module.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: imports {name}"


def test_the_package_has_about_twenty_entries():
    entries = [path.name for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "py.typed")]
    assert len(entries) <= 21, sorted(entries)
    assert {part_of(module) for module in MODULES} == set(LEVEL) | ENTRIES


@pytest.mark.parametrize("part", sorted(LEVEL))
def test_imports_go_to_lower_layers_only(part):
    wrong = [
        line
        for module in MODULES
        if part_of(module) == part
        for target, line in imports(module)
        if target in LEVEL and target != part and LEVEL[target] >= LEVEL[part]
    ]
    assert not wrong, "\n".join(wrong)


def test_there_are_no_import_cycles_between_parts():
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        targets = {target for target, _ in imports(module) if target in LEVEL}
        graph.setdefault(part_of(module), set()).update(targets - {part_of(module)})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.slow
def test_the_settings_object_stays_at_the_top():
    seen = []
    for module in MODULES:
        if part_of(module) in SEE_SETTINGS:
            continue
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):  # TYPE_CHECKING counts here
            if isinstance(node, ast.alias) and node.name == SETTINGS:
                seen.append(f"{module.relative_to(ROOT)}:{node.lineno}")
    assert not seen, "\n".join(seen)


def test_the_settings_object_has_this_name():
    from lazyexp.config import schema

    assert isinstance(getattr(schema, SETTINGS), type)


def test_no_type_is_ignored():
    lines = [
        f"{module.relative_to(ROOT)}:{number}"
        for module in MODULES
        for number, line in enumerate(module.read_text(encoding="utf-8").splitlines(), 1)
        if "type: ignore" in line or "mypy: ignore" in line
    ]
    assert not lines, "\n".join(lines)


ONLY_TORCH = """
import sys
from importlib.abc import MetaPathFinder

import torch  # and whatever it imports itself


class OnlyTorch(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ("lazyexp", "torch") and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)


for name in [name for name in sys.modules if name.partition(".")[0] in BLOCKED]:
    del sys.modules[name]
sys.meta_path.insert(0, OnlyTorch())
"""
# All other requirements, whether or not torch has imported them.
BLOCKED = (
    "hydra",
    "joblib",
    "matplotlib",
    "numpy",
    "omegaconf",
    "pandas",
    "scipy",
    "seaborn",
    "sklearn",
    "torchvision",
)


def only_torch(code: str) -> subprocess.CompletedProcess[str]:
    program = f"BLOCKED = {BLOCKED}\n{ONLY_TORCH}\n{code}"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_loss_and_the_sampler_need_torch_alone():
    answer = only_torch(
        """
import lazyexp
from torch import nn
criterion = lazyexp.LazyLoss(nn.CrossEntropyLoss(), threshold=0.9)
logits = torch.tensor([[9.0, 0.0], [9.0, 0.0]], requires_grad=True)
criterion(logits, torch.tensor([0, 1])).backward()
assert int(criterion.learned) == 1, criterion.learned
sampler = lazyexp.SpacedSampler(4)
assert sorted(sampler) == [0, 1, 2, 3]
sampler.update(torch.arange(4), torch.eye(4) * 20, torch.arange(4))
assert not list(sampler)
"""
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.slow
def test_other_packages_are_blocked_in_that_test():
    assert "numpy is not installed here" in only_torch("import numpy").stderr
