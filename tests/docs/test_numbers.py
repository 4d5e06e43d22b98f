"""Measured numbers of README.md and docs/ are in the CSV files of docs/results/."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest
from pages import ROOT

SCRIPT = ROOT / "scripts" / "check_numbers.py"
spec = importlib.util.spec_from_file_location("check_numbers", SCRIPT)
assert spec is not None and spec.loader is not None
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)


@pytest.mark.slow
def test_every_number_of_the_readme_has_a_formula_that_gives_it():
    numbers, missing, _ = check.unfound(ROOT / "README.md", check.derived())
    assert len(numbers) >= 15 and missing == []


@pytest.mark.slow
def test_a_changed_number_is_not_found():
    formulas = {key: 1.03 * value for key, value in check.derived().items()}
    _, missing, _ = check.unfound(ROOT / "README.md", formulas)
    assert {"99.09", "163", "42.7", "11,290", "2.46"} <= set(missing)


def test_what_counts_as_measured():
    text = "Lazy (`lr 3 s`) takes 4.1 times less, 2.8 to 3.3 s, (0.1 to 0.2, paired) at 0.5 points less, lr 0.01.\n"
    text += "\n| rule | seconds |\n| --- | --- |\n| `lazy` | 12 [11, 13] |\n"
    found = [
        ("12", "lazy"),
        ("11", "lazy"),
        ("13", "lazy"),
        *((number, "") for number in ("4.1", "2.8", "3.3", "0.1", "0.2")),
    ]
    assert check.measured(text) == found


@pytest.mark.slow
def test_no_page_has_a_number_that_is_neither_found_nor_listed():
    answer = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout


def test_no_file_names_a_folder_of_the_machine_that_made_it():
    files = [path for path in check.RESULTS.rglob("*") if path.suffix in {".csv", ".json", ".md"}]
    found = [path.name for path in files if re.search(r"""[,"'\s]/(?:home|root|tmp|work|Users)/""", path.read_text())]
    assert len(files) > 50 and found == []
