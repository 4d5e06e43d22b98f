"""The scripts beside the program."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lazyexp import cli

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_reproduce_asks_for_settings_that_exist(tmp_path):
    """Both versions, with a program in lazyexp's place that only notes what it was asked for."""
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@" >>"$NOTES"\n')
    (tmp_path / "python").chmod(0o755)
    cli.register()
    for version in ([], ["--quick"], ["fair"], ["fair", "--quick"], ["arena_trials"], ["arena_trials", "--quick"]):
        fights = (2 if "--quick" in version else 3) if "arena_trials" not in version else 0
        arena = version[:1] != ["fair"]
        notes = tmp_path / f"notes{'-'.join(version)}"
        environment = {**os.environ, "PYTHON": str(tmp_path / "python"), "NOTES": str(notes)}
        subprocess.run([ROOT / "scripts" / "reproduce.sh", *version, tmp_path / "runs"], env=environment, check=True)
        lines = [line for line in notes.read_text().splitlines() if "lazyexp.report" not in line]
        assert sum("--finals" in line for line in lines) == fights + arena
        assert sum("rule_label=fast_lazy" in line for line in lines) == fights
        assert sum("--borrow" in line for line in lines) == (fights > 0) + arena
        # Of a search, the settings that hold for all its trials.
        commands = [line.partition(" --")[0].split()[2:] for line in lines if "--finals" not in line]
        named = {word for command in commands for word in command if word.startswith("sweep=")}
        sweeps = (
            set()
            if {"fair", "arena_trials"} & set(version)
            else {path.stem for path in (ROOT / "conf" / "sweep").glob("*.yaml")}
        )
        assert named == {f"sweep={name}" for name in sweeps}
        for command in commands:
            words = [word for word in command if word != "-m"]
            with cli.hydra_session():
                jobs = cli.expand(words) if "-m" in command else [words]
                for job in (jobs[0], jobs[-1]):
                    cli.checked(cli.compose_settings(job))


@pytest.mark.slow
def test_collect_fills_the_tables_between_their_markers(call, tmp_path):
    words = ["-m", "rule=lazy,backprop", "seed=0,1", "epochs=1", "model.width=8", "targets=[0.3,0.999]"]
    for name in ("headline", "shifts", "arena_one", "arena_other", "failure"):
        more = ["rule=lazy,backprop,random", f"model.width={len(name)}"] * name.startswith("arena")
        assert call(*words, *more, f"runs_dir=runs/{name}", report=name == "headline").code == 0
    docs = tmp_path / "docs"
    docs.mkdir()
    page = docs / "results.md"
    empty = "".join(f"<!-- {name} -->\n<!-- end -->\n" for name in ("shifts", "arena", "failure"))
    old = "<!-- headline -->\nold\n<!-- end -->\nkept\n<!-- width -->\nold too\n<!-- end -->\n"
    page.write_text(f"before\n{old}{empty}after\n")
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "collect.py", tmp_path / "runs", docs],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    text = page.read_text()
    assert text.startswith("before\n<!-- headline -->\n| setting | rule | runs |") and text.endswith("after\n")
    assert "| `lazy` | 2 |" in text and "old\n" not in text and "kept\n<!-- width -->\nold too\n" in text
    figure = docs / "results" / "headline" / "error_train_seconds_matched_all_runs.png"
    assert figure.is_file() and f"results/headline/{figure.name}" in text
    assert len((docs / "results" / "headline" / "summary.csv").read_text().splitlines()) == 5
    assert "seconds to 30 %" in text and text.count("| 0 of 2 |") == 2  # nobody reaches 99.9 %
    assert "| 0 | 1 | `lazy` | " in text and (docs / "results" / "failure" / "failure.png").is_file()
    assert "Mean rank by that time over 2 races" in text


def test_slurm_local_explains_itself():
    bash = shutil.which("bash")
    answer = subprocess.run([bash, ROOT / "scripts" / "slurm_local.sh"], capture_output=True, text=True)
    assert answer.returncode == 2 and "start [FOLDER]" in answer.stdout


def test_the_mistakes_that_are_tried_can_be_made():
    """Every mutant's text stands in the code exactly once; whether tests notice it is for the script to show."""

    spec = importlib.util.spec_from_file_location("mutants", ROOT / "scripts" / "mutants.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, path, old, new in module.MUTANTS:
        assert (ROOT / "lazyexp" / path).read_text().count(old) == 1, name
        assert old != new
