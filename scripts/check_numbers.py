#!/usr/bin/env python
"""Find the measured numbers of README.md and docs/ in the CSV files of docs/results/.

    scripts/check_numbers.py [--list] [--write]

--list   print every number that is not found
--write  write these numbers to docs/results/unfound.csv, the list of those that need a CSV file or have to go

A measured number is a number in a table of results, or in prose one with a unit (%, s, times, points, µs) or in
brackets as a range (`(1.2 to 1.5)`). Code, links, headings, the papers' claims and margins (`0.2 points less`) are no
measured numbers.

A number is found if docs/results/derived.csv has it with a formula that gives it (columns page, number, formula), or
if it is in a CSV file of its page: as a cell (or 100 times a cell), as a median, mean, minimum or maximum over seeds,
or as a difference from or ratio to backprop of the same seed, rounded to the digits shown. In a
table row that names a rule, only this rule's values count; in README.md, only formulas. Large files hold some
numbers by chance: printed is also the share of numbers that would be found after a change by 7 to 8 %.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from lazyexp.config.registry import RULES as KNOWN

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
PAGES = [ROOT / "README.md", *sorted(RESULTS.glob("*.md")), *(ROOT / "docs/design" / f"{n}.md" for n in ("costs",))]
RULES = {*KNOWN, "fast_lazy"}
PAPERS = {"7.6", "99.2"}  # claims of the papers, not measurements
NUMBER = r"(?<![\w.,/-])[-+−]?\d[\d,]*(?:\.\d+)?(?![\w/])"
UNIT = r"\s?(?:%|(?:s|seconds|times|points|percentage points|µs|microseconds)\b)"
WITH_UNIT = re.compile(rf"{NUMBER}(?:\s*(?:to|and|or|,)\s*{NUMBER})*(?={UNIT})")
BRACKETS = re.compile(rf"\({NUMBER} to {NUMBER}(?=[,;)])")
NOT_MEASURED = re.compile(
    r"```.*?```|<!--.*?-->|`[^`]*`|^#.*?$|\*\*Claims?\*\*.*?\n\n|\]\([^)]*\)|95 %(?: \w+)? interval"
    r"|(?:at|less|minus|within|most)\s+[\d.]+\s+(?:percentage )?points?|[\d.]+\s+(?:percentage )?points?\s+less",
    re.DOTALL | re.MULTILINE,
)
GROUPS = (
    "group", "protocol", "rule", "rule_label", "rule_options", "epochs", "batch_size", "lr", "data", "case",
    "dataset.label_noise", "dataset.imbalance", "target", "measure", "phase", "store_alone", "width",
)  # fmt: skip


def measured(text: str) -> list[tuple[str, str]]:
    """Return the measured numbers of a page, each with the rule of its table row or ""."""
    found: list[tuple[str, str]] = []
    prose: list[str] = []
    header = True
    text = re.sub(r"`([a-z_]+)`", r"\1", text)
    for line in NOT_MEASURED.sub(" ", text).splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if not line.startswith("|"):
            prose.append(line)
        elif not header and not set(line) <= set("|- "):
            rule = next((cell for cell in cells if re.fullmatch(r"[a-z_]+", cell) and cell in RULES), "")
            for cell in cells:
                if len(re.findall(r"[A-Za-z]{3,}", cell)) >= 4:
                    prose.append(cell)
                elif not cell.startswith("["):  # a list of classes
                    found += [(number, rule) for number in re.findall(NUMBER, cell)]
        header = not line.startswith("|")
    joined = "\n".join(prose)
    for pattern in (WITH_UNIT, BRACKETS):
        for match in pattern.finditer(joined):
            found += [(number, "") for number in re.findall(NUMBER, match[0])]
    stripped = [(number.rstrip(",").replace("−", "-"), rule) for number, rule in found]
    return [(number, rule) for number, rule in stripped if number not in PAPERS]


def shown(number: str) -> tuple[float, float]:
    """Return the value and half a unit of its last digit."""
    digits = number.replace(",", "")
    decimals = len(digits.partition(".")[2])
    return abs(float(digits)), 0.5 * 10.0**-decimals * (1 + 1e-9)


def weak(number: str) -> bool:
    return len(re.sub(r"\D", "", number).lstrip("0")) < 3


class Formulas:
    """What a formula of derived.csv may call; `where` are conditions on columns, dots written as __."""

    @staticmethod
    def values(name: str, column: str, **where: object) -> pd.Series:
        table = pd.read_csv(RESULTS / name)
        for key, value in where.items():
            table = table[table[key.replace("__", ".")] == value]
        if table.empty:
            raise ValueError(f"{name}: no row with {where}")
        return table.set_index("seed")[column] if "seed" in table else table[column]

    @classmethod
    def median(cls, name: str, column: str, **where: object) -> float:
        return float(cls.values(name, column, **where).median())

    @classmethod
    def behind(cls, name: str, rule: str, **where: object) -> pd.Series:
        """Percentage points by which a rule's test accuracy is below backprop of the same seed."""
        base, own = (cls.values(name, "test_accuracy", rule=one, **where) for one in ("backprop", rule))
        return 100 * (base - own)

    @staticmethod
    def rows(name: str) -> int:
        return len(pd.read_csv(RESULTS / name))


def evaluate(formula: str) -> float:
    names = {name: getattr(Formulas, name) for name in ("values", "median", "behind", "rows")}
    return float(eval(formula, {"__builtins__": {}, "min": min, "max": max}, names))


def derived(path: Path = RESULTS / "derived.csv") -> dict[tuple[str, str], float]:
    """Evaluate all formulas; a page may show a number for which a formula gives it."""
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["page"], row["number"]): evaluate(row["formula"]) for row in csv.DictReader(file)}


def pool(page: Path) -> dict[str, np.ndarray]:
    """Return, sorted, the values that the CSV files of a page give, by rule; those of all rules under ""."""
    text = page.read_text(encoding="utf-8")
    paths = {(page.parent / link).resolve() for link in re.findall(r"\]\(([^)#]+\.csv)\)", text)}
    if page.parent == RESULTS:
        paths |= {path.resolve() for path in (RESULTS / page.stem).rglob("*.csv")}
    parts: dict[str, list[np.ndarray]] = {"": [np.zeros(0)]}
    if page.stem == "index":  # claims repeat what the pages show
        linked = {page.parent / link for link in re.findall(r"\]\((\w+\.md)\)", text)}
        shown_there = [measured(other.read_text(encoding="utf-8")) for other in linked]
        parts[""] += [np.array([shown(number)[0] for number, _ in numbers]) for numbers in shown_there]
    for path in sorted(paths):
        table = pd.read_csv(path)
        names = next((table[key].astype(str) for key in ("rule_label", "rule") if key in table), None)
        for rule, values in given(table, names if names is not None else pd.Series(path.stem, table.index)).items():
            parts[""].append(values)
            parts.setdefault(rule, []).append(values)
    joined = {rule: np.abs(np.concatenate(values)) for rule, values in parts.items()}
    return {rule: np.sort(values[np.isfinite(values)]) for rule, values in joined.items()}


def given(table: pd.DataFrame, names: pd.Series) -> dict[str, np.ndarray]:
    """Return the cells, statistics over seeds and comparisons with backprop of one CSV file, by rule."""
    figures = table.select_dtypes("number").astype(float)
    frames = [figures.set_axis(names, axis=0)]
    keys = [key for key in GROUPS if key in table]
    if "seed" in table and keys:
        columns = [name for name in figures if name not in (*keys, "seed") and not re.search("_to_0", name)]
        of_group = table[keys].astype(str).assign(rule_name=names).groupby([*keys, "rule_name"]).ngroup()
        rule_of = names.groupby(of_group).first()
        compared = [figures[columns]]
        pairing = ["seed", *(key for key in keys if not key.startswith("rule"))]
        base = figures[names == "backprop"].groupby([table[key].astype(str) for key in pairing])[columns].first()
        if len(base):
            other = base.reindex(pd.MultiIndex.from_frame(table[pairing].astype(str))).set_axis(table.index, axis=0)
            accuracies = [name for name in columns if "accuracy" in name]
            rest = [name for name in columns if name not in accuracies]
            compared += [other[accuracies] - figures[accuracies], other[rest] / figures[rest]]
        for one in compared:
            grouped = one.groupby(of_group)
            frames += [getattr(grouped, s)().set_axis(rule_of, axis=0) for s in ("median", "mean", "min", "max")]
    result: dict[str, np.ndarray] = {}
    for rule in names.unique():
        values = np.concatenate([frame.loc[frame.index == rule].to_numpy(dtype=float).ravel() for frame in frames])
        result[rule] = np.concatenate([values, 100 * values[np.abs(values) <= 1]])
    return result


def holds(values: np.ndarray, value: float, half: float) -> bool:
    at = np.searchsorted(values, value - half)
    return bool(at < len(values) and values[at] <= value + half)


def unfound(page: Path, formulas: dict[tuple[str, str], float]) -> tuple[list[str], list[str], float]:
    """Return all measured numbers of a page, those not found, and the share of altered numbers that is found."""
    text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
    if name == "README.md":
        text = text.partition("## Results")[2].partition("\n## ")[0]
    numbers, missing, chance = measured(text), [], []
    known = {"": np.zeros(0)} if name == "README.md" else pool(page)
    for number, rule in numbers:
        value, half = shown(number)
        values = known.get(rule, known[""])
        if (name, number) in formulas:
            if abs(abs(formulas[name, number]) - value) > half:
                missing.append(number)
            continue
        chance += [holds(values, factor * value, half) for factor in (0.93, 1.08) if value]
        if not holds(values, value, half):
            missing.append(number)
    return [number for number, _ in numbers], missing, float(np.mean(chance)) if chance else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    formulas, rows = derived(), []
    listed = RESULTS / "unfound.csv"
    accepted = set(map(tuple, csv.reader(listed.open(encoding="utf-8")))) if listed.is_file() else set()
    for page in PAGES:
        numbers, missing, chance = unfound(page, formulas)
        name = page.relative_to(ROOT).as_posix()
        few = sum(map(weak, numbers))
        print(
            f"{name}: {len(numbers)} numbers ({few} of one or two digits), {len(missing)} not found; "
            f"{chance:.0%} of altered numbers would be found"
        )
        if options.list and missing:
            print("   ", *missing)
        rows += sorted({(name, number) for number in missing})
    if options.write:
        with listed.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("page", "number"), *rows])
        return 0
    new = [row for row in rows if row not in accepted]
    print(*(f"{page}: {number} is in no CSV file" for page, number in new), sep="\n")
    return bool(new)


if __name__ == "__main__":
    sys.exit(main())
