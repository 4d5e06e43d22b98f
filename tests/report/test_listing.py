"""`--list`, `--where` and `--baseline`, on made-up runs."""

from __future__ import annotations

import subprocess
import sys
import time

import pandas as pd
import pytest
from filelock import FileLock
from made_runs import make_run

from lazyexp.errors import UserError
from lazyexp.report import build, cli
from lazyexp.report.listing import list_runs, read_entry


def lines_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_every_run_has_status_accuracy_seconds_and_the_settings_that_differ(tmp_path):
    make_run(tmp_path, "backprop", cost=2.0, model__width=50)
    make_run(tmp_path, "lazy", 1, status="running", accuracies=(0.5, 0.9), model__width=100)
    head, *rows, total = lines_of(list_runs([tmp_path]))
    assert head[:5] == ["status", "rule", "seed", "accuracy", "seconds"]
    assert rows[0] == ["finished", "backprop", "0", "96.00%", "6.00", "model.width=50"]
    assert rows[1] == ["interrupted", "lazy", "1", "90.00%", "2.00", "67%", "done", "model.width=100"]
    assert total == ["2", "runs:", "1", "finished,", "1", "interrupted"]


def test_a_locked_run_is_running_with_time_left(tmp_path):
    folder = make_run(tmp_path, "lazy", status="running", accuracies=(0.5,))
    done = make_run(tmp_path, "backprop")
    with FileLock(folder / ".lock"), FileLock(done / ".lock"):
        text = list_runs([tmp_path])
    assert "running" in text and "33% done, 0:02 left" in text and "busy" in text
    assert "running" not in list_runs([tmp_path])


def test_a_run_that_is_continued_is_running(tmp_path):
    folder = make_run(tmp_path, "lazy", status="interrupted", accuracies=(0.5,))
    assert "interrupted" in list_runs([tmp_path])
    with FileLock(folder / ".lock"):
        assert "running" in list_runs([tmp_path])


def test_damaged_runs_are_not_listed(tmp_path):
    (make_run(tmp_path, "lazy") / "summary.csv").write_text("a,b\n1\n")
    assert read_entry(tmp_path / "lazy-0-", set()) is None
    with pytest.raises(UserError, match="no run"):
        list_runs([tmp_path])


@pytest.mark.slow
def test_listing_500_runs_takes_less_than_a_second(tmp_path):
    for seed in range(500):
        make_run(tmp_path, "lazy", seed)
    start = time.process_time()
    list_runs([tmp_path])
    assert time.process_time() - start < 1


@pytest.mark.slow
def test_listing_imports_neither_torch_nor_pandas_nor_matplotlib():
    code = "import sys, lazyexp.report.listing as _; sys.exit(any(m in sys.modules for m in ('torch', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    code = "import sys, lazyexp.report.cli as _; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def three_rules(top):
    make_run(top, "backprop", cost=4.0)
    make_run(top, "lazy", cost=2.0)
    make_run(top, "confidence", options={"threshold": 0.5})


@pytest.mark.slow
def test_where_selects_by_rule_option_and_number(tmp_path):
    three_rules(tmp_path)
    assert "confidence" not in list_runs([tmp_path], ["rule=lazy,backprop"])
    assert "lazy" not in list_runs([tmp_path], ["rule.threshold=0.50"])
    assert list_runs([tmp_path], ["model.width=50"]).endswith("3 runs: 3 finished")
    page = build.write_report([tmp_path], max_groups=0, where=["rule=lazy,backprop"])
    assert set(pd.read_csv(page.parent / "runs.csv")["rule"]) == {"lazy", "backprop"}


@pytest.mark.parametrize(
    "where, message",
    [("rule", "expected KEY=VALUE"), ("rule=", "expected KEY=VALUE"), ("width=50", "no run has the setting width"),
     ("rule=none", "rule is backprop, confidence, lazy")],
)  # fmt: skip
def test_a_condition_that_selects_nothing_is_a_user_error(tmp_path, where, message):
    three_rules(tmp_path)
    with pytest.raises(UserError, match=message):
        list_runs([tmp_path], [where])


@pytest.mark.slow
def test_any_rule_can_be_the_baseline(tmp_path, monkeypatch, capsys):
    three_rules(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lazyexp-report", str(tmp_path), "--baseline", "lazy", "--max-groups", "0"])
    cli.main()
    table = pd.read_csv(tmp_path / "report" / "speedup.csv")
    seconds = table[(table["measure"] == "train_seconds") & (table["target"] == "lazy-0.1")].set_index("rule")
    assert seconds["median"].to_dict() == {"backprop": 0.5, "confidence": 2.0}
    assert "`backprop` takes 2.0 times as long as `lazy`" in (tmp_path / "report" / "report.md").read_text()
    with pytest.raises(UserError, match="there are backprop, confidence, lazy"):
        build.write_report([tmp_path], baseline="none")


def test_the_list_command_prints_the_table(tmp_path, monkeypatch, capsys):
    three_rules(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lazyexp-report", str(tmp_path), "--list"])
    cli.main()
    assert capsys.readouterr().out.count("finished") == 4 and not (tmp_path / "report").exists()
