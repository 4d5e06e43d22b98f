"""The scripts for users: reproduce.sh and collect.py; the list of hand-made mutants."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lazyexp.config.compose import compose_settings, hydra_session, register
from lazyexp.config.sweeps import expand
from lazyexp.settings import checked

ROOT = Path(__file__).resolve().parent.parent
SEARCHES = {"fair_fight"}


@pytest.mark.slow
@pytest.mark.parametrize("size", [[], ["--quick"]], ids=["full", "quick"])
@pytest.mark.parametrize("part", ["", "headline", "fair_fight", "cifar10", "cifar10_gpu"])
def test_reproduce_asks_for_all_runs_with_settings_that_exist(part, size, tmp_path):
    """A stand-in for Python only notes the command lines; all of them must be valid."""
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@" >>"$NOTES"\n')
    (tmp_path / "python").chmod(0o755)
    notes = tmp_path / "notes"
    environment = {**os.environ, "PYTHON": str(tmp_path / "python"), "NOTES": str(notes)}
    command = [ROOT / "scripts" / "reproduce.sh", *filter(None, [part]), *size, tmp_path / "runs"]
    subprocess.run(command, env=environment, check=True)
    asked = notes.read_text().splitlines()
    if not part:  # every page's data
        for script in ("paper_loop.py", "sampler.py", "text/run.py", "bench.py"):
            assert any(script in line for line in asked), script
    lines = [line for line in asked if "lazyexp.report" not in line and ".py" not in line]
    assert sum("--finals" in line for line in lines) == (part in ("", *SEARCHES))
    # Of a search, the settings of all its trials.
    commands = [line.partition(" --")[0].split()[2:] for line in lines if "--finals" not in line]
    sweeps = {word for command in commands for word in command if word.startswith("sweep=")}
    named = {f"sweep={path.stem}" for path in (ROOT / "conf" / "sweep").glob("*.yaml")}
    cifar = {word for word in named if word.startswith("sweep=cifar10")}
    gpu = cifar - {"sweep=cifar10"}
    parts = {"cifar10": cifar - gpu, "cifar10_gpu": gpu, "headline": {"sweep=headline"}}
    assert sweeps == parts.get(part, set() if part in SEARCHES else named - gpu)
    if part:
        return  # the settings are those of all parts
    register()
    for command in commands:
        words = [word for word in command if word != "-m"]
        with hydra_session():
            jobs = expand(words) if "-m" in command else [words]
            for job in (jobs[0], jobs[-1]):
                checked(compose_settings(job))


def collect(*folders: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "collect.py"), *map(str, folders)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def table(name: str, text: str = "old") -> str:
    return f"<!-- table: {name} -->\n\n{text}\n\n<!-- end -->\n"


def read_table(page: str, name: str) -> list[list[str]]:
    """The cells of a page's table, the line below the head left out."""
    text = page.partition(f"<!-- table: {name} -->\n\n")[2].partition("\n\n<!-- end -->")[0]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line[:1] == "|"]
    return rows[:1] + rows[2:]


@pytest.mark.slow
def test_collect_writes_the_tables_between_their_markers(call, tmp_path):
    words = ["-m", "rule=lazy,backprop", "seed=0,1", "epochs=1", "model.width=8", "targets=[0.3,0.999]"]
    for name, *more in (
        ("headline", "optimizer.lr=0.01,0.02"), ("shifts/matched",), ("failure",),
        ("methods/one", "rule=lazy,backprop,random"), ("energy/mnist", "plasticity=all,cached"),
    ):  # fmt: skip
        assert call(*words, *more, f"runs_dir=runs/{name}").code == 0
    shutil.copytree("runs/methods/one", "runs/cifar10/matched")
    docs = tmp_path / "docs"
    docs.mkdir()
    figure = "headline/a_figure.png"  # as the report would have drawn it
    (tmp_path / "runs" / "headline" / "report" / "figures").mkdir(parents=True)
    (tmp_path / "runs" / figure.replace("/", "/report/figures/")).write_bytes(b"png")
    pages = {
        "headline": f"before\n{table('final')}kept\n{table('costs')}![a figure]({figure})\n",
        "shifts": table("matched/times") + table("matched/targets") + table("trials/finals"),
        "failure": "".join(map(table, ("test_accuracy", "above_backprop", "worst_class", "calibration"))),
        "methods": table("one/standings"),
        "cifar10": table("matched/savings"),
        "energy": table("mnist/energy"),
        "width": table("final"),
    }
    for name, text in pages.items():
        (docs / f"{name}.md").write_text(text)
    collect(tmp_path / "runs", docs)
    new = {name: (docs / f"{name}.md").read_text() for name in pages}

    assert new["headline"].startswith("before\n<!-- table: final -->\n\n| learning rate | rule | test accuracy % |")
    assert new["headline"].endswith(f"<!-- end -->\n![a figure]({figure})\n") and "\nkept\n" in new["headline"]
    assert [row[:2] for row in read_table(new["headline"], "costs")[1:]] == [
        ["0.01", "`backprop`"], ["0.01", "`lazy`"], ["0.02", "`backprop`"], ["0.02", "`lazy`"]
    ]  # fmt: skip
    assert (docs / figure).is_file()
    summary = (docs / "headline" / "summary.csv").read_text()
    assert len(summary.splitlines()) == 9 and str(tmp_path) not in summary

    made = [
        line for line in new["headline"].splitlines() if line.startswith("*Made by* `scripts/reproduce.sh headline`")
    ]
    assert len(made) == 2 and "; threads: " in made[0] and "not recorded" not in made[0]
    head, *rows = read_table(new["shifts"], "matched/targets")
    assert head == ["rule", "seconds to 30 %", "seconds to 99.9 %"]
    assert [row[2] for row in rows] == ["0 of 2", "0 of 2"]
    assert len(read_table(new["shifts"], "matched/times")) == 3 and table("trials/finals") in new["shifts"]
    assert new["width"] == pages["width"]

    for name, columns in (("test_accuracy", 3), ("above_backprop", 2), ("worst_class", 3), ("calibration", 3)):
        head, row = read_table(new["failure"], name)
        assert len(row) == len(head) == columns and row[0] == "0; 1"
    assert (docs / "failure" / "failure.png").is_file()
    assert {row[0] for row in read_table(new["methods"], "one/standings")[1:]} == {"lazy", "backprop", "random"}
    assert {row[1] for row in read_table(new["energy"], "mnist/energy")[1:]} == {"all", "cached"}
    assert (docs / "energy" / "mnist" / "energy.csv").is_file()
    saved = {row[0]: row[1:] for row in read_table(new["cifar10"], "matched/savings")[1:]}
    assert set(saved) == {"`lazy`", "`backprop`", "`random`"} and saved["`backprop`"][1:] == [
        "0.0",
        "0.0",
        *["0"] * 4,
    ]
    with (docs / "cifar10" / "matched" / "summary.csv").open(newline="") as file:
        runs = {(row["rule"], row["seed"]): row for row in csv.DictReader(file)}
    share = [
        float(runs["lazy", s]["backward_samples"]) / float(runs["backprop", s]["backward_samples"]) for s in "01"
    ]
    assert saved["`lazy`"][5].startswith(f"{100 - 50 * sum(share):.0f}")

    collect(tmp_path / "runs", docs)
    assert new == {name: (docs / f"{name}.md").read_text() for name in pages}


@pytest.mark.slow
def test_collect_writes_the_tables_of_equal_trials(tmp_path):
    pytest.importorskip("optuna")
    runs, docs = tmp_path / "runs", tmp_path / "docs"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def command(module: str, *words: object) -> None:
        run = [sys.executable, "-m", module, *map(str, words)]
        subprocess.run(run, env=environment, check=True, cwd=tmp_path)

    space = tmp_path / "space.yaml"
    space.write_text("all: [{key: epochs, choices: [1, 2]}]\nrules: {}\nstart: []\n")
    rules = [runs / "methods" / "trials" / rule for rule in ("lazy", "backprop")]
    common = ["dataset.val_size=200", "model.width=8", "--space", space, "--trials", 2]
    for folder in rules:
        command("lazyexp.tune.cli", f"rule={folder.name}", *common, "--folder", folder)
    finals = runs / "methods" / "trials" / "finals"
    command("lazyexp.tune.cli", "--finals", *rules, "--seeds", 2, "--margins", 90, "--folder", finals)
    docs.mkdir()
    page = docs / "methods.md"
    page.write_text("".join(map(table, ("trials/speedups", "trials/finals"))))
    collect(runs, docs)
    head, *rows = read_table(page.read_text(), "trials/finals")
    assert head[1] == "settings" and all(row[1].startswith(("1 epochs, batch", "2 epochs, batch")) for row in rows)
    names = {path.name for path in (docs / "methods" / "trials").iterdir()}
    made = {"about.json", "chosen.csv", "finals.csv", "speedups.csv", "within.csv"}
    assert names == {*made, "backprop.csv", "lazy.csv"}
    speedups = [row for row in read_table(page.read_text(), "trials/speedups")[1:] if len(row) > 1]
    assert [row[1] for row in speedups] == ["`backprop`", "`lazy`"] * 2  # at two lines


def test_tables_of_the_pages_have_a_kind_and_runs():
    """Every marker of docs/results/ is known to collect.py, and reproduce.sh makes the runs of its folder."""
    spec = importlib.util.spec_from_file_location("collect", ROOT / "scripts" / "collect.py")
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    script = (ROOT / "scripts" / "reproduce.sh").read_text()
    script = script.replace("$rule", "rule").replace("$dataset", "fashion_mnist").replace("$data", "fashion_mnist")
    markers = 0
    for path in (ROOT / "docs" / "results").glob("*.md"):
        page = path.read_text()
        assert page.count("<!-- table: ") == len(module.MARKED.findall(page)) == page.count("<!-- end -->"), path.name
        for name in module.MARKED.findall(page):
            markers += 1
            folder, _, kind = name.rpartition("/")
            assert kind in module.KINDS, name
            runs = f"{path.stem}/{folder}" if folder else path.stem
            made = runs if path.stem not in ("methods", "fair_fight") else runs.replace("/emnist", "/fashion_mnist")
            made = made.replace("/mnist", "/fashion_mnist") if path.stem == "methods" else made
            assert re.search(rf"(runs|search) {made}\b", script) or path.stem in script, runs
            assert (ROOT / "docs" / "results" / runs).is_dir(), runs
    assert markers > 30


def test_slurm_local_explains_itself():
    bash = shutil.which("bash")
    answer = subprocess.run([bash, ROOT / "tests" / "faults" / "slurm_local.sh"], capture_output=True, text=True)
    assert answer.returncode == 2 and "start [FOLDER]" in answer.stdout
