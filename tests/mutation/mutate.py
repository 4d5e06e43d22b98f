"""How many random mistakes do the tests notice? A mutation score over the modules that make the published numbers.

    python tests/mutation/mutate.py --sample 80 --seed 0           a sample of all mistakes that can be made
    python tests/mutation/mutate.py --sample 80 --seed 0 --list    what they are, without trying them
    python tests/mutation/mutate.py --only peers.py:118            those of a place, whether in the sample or not

A mistake is one operator, number or condition changed, or one statement left out, in a copy of the package; the test
files that belong to its module then run until the first failure. Prints a line per mistake and the score; those that
change nothing that anybody could see are named in mutants_equivalent.txt with the reason, and are not counted.
Exit code 1 if one survived. `tests/mutation/mutants.py` does the same with mistakes that were thought of.
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
    "counted_by_hand",
    "properties",
    "packed",
    "accounting",
    "engines",
    "resume",
    "speed",
    "cuda",
    "gpu_budget",
)
RULES = ("counted_by_hand", "rules", "peers", "compose", "properties", "resume", "hostile_input", "own")
RUNS = ("counted_by_hand", "accounting", "experiment", "resume", "rules", "durable", "cuda")
# The modules, below lazyexp/, and the tests that belong to them, quickest first.
MODULES = {
    "schema.py": RULES,
    "rules/base.py": RULES,
    "rules/__init__.py": RULES,
    "rules/mistakes.py": RULES,
    "rules/controls.py": RULES,
    "rules/peers.py": RULES,
    "rules/selective_backprop.py": RULES,
    "rules/early_stopping.py": RULES,
    "rules/sampling.py": RULES,
    "rules/dropout.py": RULES,
    "training/__init__.py": ENGINES,
    "training/general.py": ENGINES,
    "training/trainer.py": RUNS,
    "training/fast/adaptive.py": ENGINES,
    "training/fast/deferred.py": ENGINES,
    "training/fast/direct.py": ENGINES,
    "training/fast/int8.py": ENGINES,
    "training/fast/layers.py": ENGINES,
    "training/fast/lookahead.py": ENGINES,
    "training/fast/packed.py": ENGINES,
    "accounting.py": RUNS,
    "energy.py": ("counted_by_hand", "accounting", "engines", "resume"),
    "clock.py": RUNS,
    "report/speedups.py": ("properties", "report"),
}
SECONDS = 300  # of the processor: who needs more is caught in a loop, and counts as noticed

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
    """The mistakes that can be made at a node, as what stands there instead."""
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
    if isinstance(node, ast.AugAssign) or _is_call(node) or _fills(node):
        yield ast.Pass()


def _is_call(node: ast.AST) -> bool:
    """A call whose answer is not used."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def _fills(node: ast.AST) -> bool:
    """`x[place] = y`: unlike a name, what is there is there without it as well."""
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript)


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Where a mistake can be made: (parent, field, place in the field's list, node); not in annotations, imports,
    decorators, the words of errors, or texts."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for place, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr | ast.Raise | ast.ImportFrom):
                continue
            yield node, field, place if isinstance(value, list) else None, child
            yield from places(child)


def mutants(path: str) -> list[tuple[str, str]]:
    """(what is done, the module's text with it) for every mistake that can be made in a module."""
    source = (ROOT / "lazyexp" / path).read_text()
    tree, lines = ast.parse(source), source.splitlines()
    found = []
    for parent, field, place, node in list(places(tree)):
        for new in changed(node):
            held = getattr(parent, field)
            if place is None:
                setattr(parent, field, new)
            else:
                held[place] = new
            before, after = (ast.unparse(ast.fix_missing_locations(which)).splitlines()[0] for which in (node, new))
            name = f"{path}:{node.lineno}: {before} -> {after}  in: {lines[node.lineno - 1].strip()}"
            found.append((name, ast.unparse(ast.fix_missing_locations(tree))))
            if place is None:
                setattr(parent, field, node)
            else:
                held[place] = node
    return found


def noticed(path: str, text: str, tests: tuple[str, ...]) -> str:
    """The test that fails on a copy of the project whose module at `path` has this text, "" if none does."""
    with tempfile.TemporaryDirectory() as place:
        project = Path(place) / "project"
        unneeded = shutil.ignore_patterns(".git", "runs", "__pycache__", ".venv", "*.egg-info", ".*_cache")
        shutil.copytree(ROOT, project, ignore=unneeded)
        (project / "lazyexp" / path).write_text(text)
        child = os.fork()  # torch and its like are imported already
        if not child:
            os._exit(_test(project, tests))
        _, status = os.waitpid(child, 0)
        said = (project / "output").read_text(errors="replace")
    code = os.waitstatus_to_exitcode(status)
    failed = [line.split()[1] for line in said.splitlines() if line.startswith(("FAILED", "ERROR "))]
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "a loop without end"
    if code not in (0, 1, 2) or (code and not failed):  # 2: the tests cannot even be collected
        raise RuntimeError(f"pytest ended with {code}: {said[-1000:]}")
    return failed[0] if code else ""


def _test(project: Path, tests: tuple[str, ...]) -> int:
    """Runs the tests in a process that was made for it. Returns pytest's exit code."""
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 10))
    os.chdir(project)
    sys.path.insert(0, str(project))
    os.environ["PYTHONPATH"] = str(project)
    for stream in (1, 2):
        os.dup2(os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    try:
        if Path(importlib.import_module("lazyexp").__file__ or "").parent.parent != project:
            return 99  # another copy would be tested
        files = [f"tests/test_{name}.py" for name in tests if Path(f"tests/test_{name}.py").exists()]
        return int(pytest.main(["-q", "-x", "-n", "0", "-p", "no:cacheprovider", *files]))
    except BaseException:  # pytest has not even started
        traceback.print_exc()
        return 98


def equivalent() -> dict[str, str]:
    """The mistakes that are none, without their line numbers, and why."""
    lines = EQUIVALENT.read_text().splitlines() if EQUIVALENT.exists() else []
    pairs = [line.rpartition("  # ") for line in lines if line and not line.startswith("#")]
    return {what: why for what, _, why in pairs}


def without_line(name: str) -> str:
    path, _, rest = name.partition(":")
    return f"{path}:{rest.partition(':')[2]}"


def main(arguments: argparse.Namespace) -> int:
    """Returns the number of survivors."""
    everything = [(path, *mutant) for path in MODULES for mutant in mutants(path)]
    if arguments.only:
        chosen = [mutant for mutant in everything if arguments.only in mutant[1]]
    else:
        chosen = random.Random(arguments.seed).sample(everything, min(arguments.sample, len(everything)))
    print(f"{len(chosen)} of {len(everything)} mistakes", flush=True)
    known, counts = equivalent(), {"noticed": 0, "equivalent": 0, "SURVIVED": 0}
    for module in ("torch", "torchvision", "pandas", "scipy.stats", "sklearn.datasets", "matplotlib.pyplot"):
        importlib.import_module(module)
    importlib.import_module("torch").set_num_threads(1)
    if not arguments.list:
        text = (ROOT / "lazyexp" / "accounting.py").read_text()
        if failed := noticed("accounting.py", text, tuple(dict.fromkeys(sum(MODULES.values(), ())))):
            raise RuntimeError(f"{failed} fails as it is; there is nothing to be learned from failures")
    for path, name, text in chosen:
        if arguments.list:
            print(name)
            continue
        why = known.get(without_line(name)) or noticed(path, text, MODULES[path])
        word = "equivalent" if without_line(name) in known else "noticed" if why else "SURVIVED"
        counts[word] += 1
        print(f"{word}: {name}  # {why}", flush=True)
    print(", ".join(f"{number} {word}" for word, number in counts.items()))
    return counts["SURVIVED"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=80, help="how many mistakes to try")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", default="", help="a word in the names of the mistakes to try, instead of a sample")
    parser.add_argument("--list", action="store_true", help="show them only")
    sys.exit(main(parser.parse_args()) > 0)
