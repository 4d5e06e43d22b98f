"""Mutation testing: how many random code changes do the tests detect?

    python tests/mutation/mutate.py --sample 80 --seed 0           a random sample of all mutants
    python tests/mutation/mutate.py --sample 80 --seed 0 --list    list the sample only
    python tests/mutation/mutate.py --only infobatch.py:40         all mutants whose name contains this text

Only the modules that determine published numbers are changed. A mutant is one changed operator, number or condition,
or one omitted statement, in a copy of the package; the tests of its module then run until the first failure. Prints a
line per mutant and the score. Mutants that change no observable behaviour are listed with a reason in
mutants_equivalent.txt and are not counted. Exits with 1 if a mutant survived. See also mutants.py: hand-made mutants.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.txt")
ENGINES = (
    "training/test_counted_by_hand.py", "test_properties.py", "training/test_packed.py", "training/test_counters.py",
    "training/test_engines.py", "training/test_resume.py", "training/test_speed.py", "training/test_cuda.py",
    "training/test_gpu_budget.py",
)  # fmt: skip
RULES = (
    "training/test_counted_by_hand.py", "rules/test_rules.py", "rules/test_published.py", "config/test_compose.py",
    "test_properties.py", "training/test_resume.py", "faults/test_hostile_input.py", "test_custom.py",
)  # fmt: skip
RUNS = (
    "training/test_counted_by_hand.py", "training/test_counters.py", "test_experiment.py", "training/test_resume.py",
    "rules/test_rules.py", "runs/test_durability.py", "training/test_cuda.py",
)  # fmt: skip
# Modules below lazyexp/, and their tests below tests/, the fastest first.
MODULES = {
    "config/schema.py": RULES,
    **dict.fromkeys(
        (
            "rules/__init__.py", "rules/base.py", "rules/baselines.py", "rules/early_stopping.py",
            "rules/evolved_sampling.py", "rules/infobatch.py", "rules/kakurenbo.py", "rules/mistakes.py",
            "rules/order_dp.py", "rules/ordered_sgd.py", "rules/progressive.py", "rules/selective_backprop.py",
            "rules/scores.py", "rules/spacing.py",
        ),
        RULES,
    ),
    **dict.fromkeys(
        (
            "training/engines.py", "training/autograd.py", "training/selection.py", "training/fast/adaptive.py",
            "training/fast/deferred.py", "training/fast/direct.py", "training/fast/int8.py",
            "training/fast/layers.py", "training/fast/lookahead.py", "training/fast/packed.py",
        ),
        ENGINES,
    ),
    **dict.fromkeys(
        ("training/trainer.py", "training/schedules.py", "training/counters.py", "training/clock.py"), RUNS
    ),
    "training/energy.py": (
        "training/test_counted_by_hand.py", "training/test_counters.py", "training/test_engines.py",
        "training/test_resume.py",
    ),
    **dict.fromkeys(
        ("report/intervals.py", "report/speedups.py", "report/pareto.py"),
        ("test_properties.py", "report/test_pareto.py", "report/test_comparisons.py", "report/test_report.py"),
    ),
}  # fmt: skip
UNCHANGED = "training/counters.py"  # any module: its tests must pass before mutants are tried
CPU_SECONDS = 300  # limit per mutant; beyond it the mutant loops endlessly, which counts as detected

COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
BINARY = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the mutants of a node: what replaces it."""
    other = copy.deepcopy(node)
    if isinstance(other, ast.Compare) and type(other.ops[0]) in COMPARE:
        other.ops[0] = COMPARE[type(other.ops[0])]()
        yield other
    elif isinstance(other, ast.BinOp | ast.AugAssign) and type(other.op) in BINARY:
        other.op = BINARY[type(other.op)]()
        yield other
    elif isinstance(other, ast.BoolOp):
        other.op = ast.And() if isinstance(other.op, ast.Or) else ast.Or()
        yield other
    elif isinstance(other, ast.UnaryOp):
        yield other.operand
    elif isinstance(other, ast.Constant) and isinstance(other.value, bool | int | float):
        other.value = not other.value if isinstance(other.value, bool) else other.value + 1
        yield other
    elif isinstance(other, ast.If | ast.IfExp | ast.While) and not isinstance(other.test, ast.Compare | ast.UnaryOp):
        other.test = ast.UnaryOp(ast.Not(), other.test)
        yield other
    if isinstance(node, ast.AugAssign) or _is_call(node) or _assigns_item(node):
        yield ast.Pass()


def _is_call(node: ast.AST) -> bool:
    """A call whose result is not used."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def _assigns_item(node: ast.AST) -> bool:
    """`x[i] = y`: without it, unlike with a name, x[i] still exists."""
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript)


def positions(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Yield (parent, field, index in the field's list, node) for the nodes to change.

    Annotations, imports, decorators, error messages and strings are left out.
    """
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr | ast.Raise | ast.ImportFrom):
                continue
            yield node, field, index if isinstance(value, list) else None, child
            yield from positions(child)


def mutants(path: str) -> list[tuple[str, str]]:
    """Return (name, text of the changed module) of every mutant of a module."""
    source = (ROOT / "lazyexp" / path).read_text()
    tree, lines = ast.parse(source), source.splitlines()
    found = []
    for parent, field, index, node in list(positions(tree)):
        for new in changed(node):
            held = getattr(parent, field)
            if index is None:
                setattr(parent, field, new)
            else:
                held[index] = new
            before, after = (ast.unparse(ast.fix_missing_locations(which)).splitlines()[0] for which in (node, new))
            line = getattr(node, "lineno", 1)
            name = f"{path}:{line}: {before} -> {after}  in: {lines[line - 1].strip()}"
            found.append((name, ast.unparse(ast.fix_missing_locations(tree))))
            if index is None:
                setattr(parent, field, node)
            else:
                held[index] = node
    return found


def copy_project(target: Path) -> None:
    """Copy what the tests need; not the runs at the top."""
    target.mkdir()
    for name in ("lazyexp", "conf", "tests", "scripts", "examples", "docs"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (path for path in ROOT.iterdir() if path.suffix in (".toml", ".md", ".cff", ".yml")):
        shutil.copy(file, target)


def detected(path: str, text: str, tests: tuple[str, ...]) -> str:
    """Return the test that fails on a copy of the project whose module at `path` has this text, "" if none does."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        copy_project(project)
        (project / "lazyexp" / path).write_text(text)
        child = os.fork()  # inherits the imported libraries
        if not child:
            os._exit(_test(project, tests))
        _, status = os.waitpid(child, 0)
        output = (project / "output").read_text(errors="replace")
    code = os.waitstatus_to_exitcode(status)
    failed = [line.split()[1] for line in output.splitlines() if line.startswith(("FAILED", "ERROR "))]
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "endless loop"
    if code not in (0, 1, 2) or (code and not failed):  # 2: the tests cannot be collected
        raise RuntimeError(f"pytest ended with {code}: {output[-1000:]}")
    return failed[0] if code else ""


def _test(project: Path, tests: tuple[str, ...]) -> int:
    """Run the tests in a forked process. Return pytest's exit code."""
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 10))
    os.chdir(project)
    sys.path.insert(0, str(project))
    os.environ["PYTHONPATH"] = str(project)
    for stream in (1, 2):
        os.dup2(os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    try:
        if Path(importlib.import_module("lazyexp").__file__ or "").parent.parent != project:
            return 99  # not the copy under test
        files = [f"tests/{name}" for name in tests]
        return int(pytest.main(["-q", "-x", "-n", "0", "-p", "no:cacheprovider", *files]))
    except BaseException:  # pytest has not started
        traceback.print_exc()
        return 98


def equivalent() -> dict[str, str]:
    """Return the equivalent mutants, named without line numbers, and the reasons."""
    lines = EQUIVALENT.read_text().splitlines() if EQUIVALENT.exists() else []
    pairs = [line.rpartition("  # ") for line in lines if line and not line.startswith("#")]
    return {name: reason for name, _, reason in pairs}


def without_line(name: str) -> str:
    path, _, rest = name.partition(":")
    return f"{path}:{rest.partition(':')[2]}"


def main(arguments: argparse.Namespace) -> int:
    """Return the number of survivors."""
    everything = [(path, *mutant) for path in MODULES for mutant in mutants(path)]
    if arguments.only:
        chosen = [mutant for mutant in everything if arguments.only in mutant[1]]
    else:
        chosen = random.Random(arguments.seed).sample(everything, min(arguments.sample, len(everything)))
    print(f"{len(chosen)} of {len(everything)} mutants", flush=True)
    known, counts = equivalent(), {"detected": 0, "equivalent": 0, "SURVIVED": 0}
    for module in ("torch", "torchvision", "pandas", "scipy.stats", "sklearn.datasets", "matplotlib.pyplot"):
        importlib.import_module(module)
    importlib.import_module("torch").set_num_threads(1)
    if not arguments.list:
        text = (ROOT / "lazyexp" / UNCHANGED).read_text()
        tests = {test: None for path, *_ in chosen for test in MODULES[path]}
        if failed := detected(UNCHANGED, text, tuple(tests)):
            raise RuntimeError(f"{failed} fails without a mutant")
    for path, name, text in chosen:
        if arguments.list:
            print(name)
            continue
        reason = known.get(without_line(name)) or detected(path, text, MODULES[path])
        outcome = "equivalent" if without_line(name) in known else "detected" if reason else "SURVIVED"
        counts[outcome] += 1
        print(f"{outcome}: {name}  # {reason}", flush=True)
    print(", ".join(f"{number} {outcome}" for outcome, number in counts.items()))
    return counts["SURVIVED"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=80, help="number of mutants")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--only", default="", help="text in the names of the mutants to try, instead of a sample")
    parser.add_argument("--list", action="store_true", help="list the mutants without running tests")
    sys.exit(main(parser.parse_args()) > 0)
