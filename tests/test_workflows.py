"""The workflows: every job runs scripts of .ci/ that also run here. .ci/lint checks them against the schema."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = [path for path in sorted((ROOT / ".ci").iterdir()) if path.suffix != ".txt"]
pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="an archive of the sources has no workflows")


def steps() -> list[str]:
    """The commands of all jobs."""
    jobs = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values()]
    assert all(job["runs-on"] and job["timeout-minutes"] for job in jobs)
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_every_command_is_a_script():
    for command in steps():
        path = ROOT / command
        assert path.parent.name == ".ci" and path.is_file() and os.access(path, os.X_OK), command
    assert {".ci/quick", ".ci/run", ".ci/lowest", ".ci/bare", ".ci/docs", ".ci/wheel"} <= set(steps())


def test_quick_tests_run_on_the_oldest_and_the_newest_python():
    matrix = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["quick"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.10", "3.13"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_have_valid_syntax(script):
    subprocess.run(["bash", "-n", script], check=True)
