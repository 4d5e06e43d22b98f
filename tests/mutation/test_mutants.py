"""The mutation rigs fit the code: texts, modules and tests that they name exist. No mutant is run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("mutant", load("mutants").MUTANTS, ids=lambda mutant: mutant[0])
def test_the_text_of_a_mutant_occurs_once(mutant):
    _, path, old, new = mutant
    text = (ROOT / "lazyexp" / path).read_text()
    assert text.count(old) == 1 and old != new
    compile(text.replace(old, new), path, "exec")


def test_names_of_mutants_differ():
    names = [name for name, *_ in load("mutants").MUTANTS]
    assert len(set(names)) == len(names)


def test_modules_and_tests_of_the_random_mutants_exist():
    mutate = load("mutate")
    for path, tests in mutate.MODULES.items():
        assert (ROOT / "lazyexp" / path).is_file(), path
        for test in tests:
            assert (ROOT / "tests" / test).is_file(), test


def test_lines_of_equivalent_mutants_exist():
    for name in load("mutate").equivalent():
        path, _, rest = name.partition(":")
        lines = [line.strip() for line in (ROOT / "lazyexp" / path).read_text().splitlines()]
        assert rest.partition("  in: ")[2] in lines, name


def test_a_random_mutant_is_valid_python():
    mutate = load("mutate")
    mutants = mutate.mutants("rules/infobatch.py")
    assert len(mutants) > 15
    for name, text in mutants:
        compile(text, name, "exec")
