"""The report, on made-up runs whose answers are known."""

import math
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from made_runs import COLUMNS, make_run

from lazyexp.errors import UserError
from lazyexp.report import build, cli
from lazyexp.report.blocks import Table
from lazyexp.report.groups import label_rules, matched_groups, tuned_groups, varying
from lazyexp.report.intervals import interval, percentiles, unpaired_interval
from lazyexp.report.markdown import to_markdown
from lazyexp.report.read import read_runs
from lazyexp.report.speedups import speedups
from lazyexp.runs.reader import read_columns, read_rows
from lazyexp.utils.files import atomic_write, write_text


def answer(top, target="0.95", measure="train_seconds", group=0):
    """The row of speedup.csv for one target and measure."""
    rows = speedups(matched_groups(read_runs([top]).runs)[group])
    (row,) = [row for row in rows if (row.target, row.measure) == (target, measure)]
    return row


MISSED = (0.5, 0.9, 0.91)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("measure", ["train_seconds", "forward_samples", "backward_samples", "updates", "energy_l1"])
def test_known_speedup(tmp_path, n, measure):
    for seed in range(n):
        make_run(tmp_path, "backprop", seed, cost=2.0 + seed)
        make_run(tmp_path, "lazy", seed, cost=1.0 + seed / 2)
    for target in ("0.9", "0.95", "backprop-0.1", "backprop-0.2", "backprop-0.5"):
        row = answer(tmp_path, target, measure)
        assert (row.median, row.iqm, row.n_pairs, row.paired, row.protocol) == (2.0, 2.0, n, True, "matched")
        assert (row.n_rule_missed, row.n_control_missed, row.n_undecided) == (0, 0, 0)
        assert (math.isnan(row.ci_low) and math.isnan(row.ci_high)) if n == 1 else row.ci_low == row.ci_high == 2.0


@pytest.mark.parametrize(
    "rule, control, expected",
    [
        (MISSED, (0.5, 0.9, 0.96), (0.0, 1, 0)),
        ((0.5, 0.9, 0.96), MISSED, (math.inf, 0, 1)),
        (MISSED, MISSED, (math.nan, 1, 1)),
        ((0.5, 0.96, 0.9), (0.5, 0.9, 0.96), (1.5, 0, 0)),  # crossed, though it fell back
        ((0.5, 0.9, 0.95), (0.5, 0.9, 0.95), (1.0, 0, 0)),  # a tie, exactly at the target
    ],
)
def test_misses_stay_misses(tmp_path, rule, control, expected):
    make_run(tmp_path, "backprop", accuracies=control)
    make_run(tmp_path, "lazy", accuracies=rule)
    row = answer(tmp_path)
    np.testing.assert_equal((row.median, row.n_rule_missed, row.n_control_missed), expected)
    assert row.n_pairs == 1


def test_medians_count_zeros_and_infinities(tmp_path):
    ends = [((0.5, 0.96), MISSED), ((0.5, 0.96), MISSED), (MISSED, (0.96,)), ((0.96,), (0.96,)), ((0.96,), MISSED)]
    for seed, (rule, control) in enumerate(ends):
        make_run(tmp_path, "lazy", seed, accuracies=rule)
        make_run(tmp_path, "backprop", seed, accuracies=control)
    row = answer(tmp_path)
    assert (row.median, row.iqm, row.n_pairs, row.n_rule_missed, row.n_control_missed) == (
        math.inf,
        math.inf,
        5,
        1,
        3,
    )
    assert row.ci_low == 0 and row.ci_high == math.inf


def test_an_interval_holds_the_middle_95_percent():
    assert percentiles(np.arange(1.0, 1001.0)) == (25, 975)
    assert percentiles(np.array([math.nan, *np.arange(1.0, 41.0)])) == (1, 39)


def test_one_run_against_several_has_no_interval():
    known = unpaired_interval(np.array([[1.0, 2.0, 3.0]]))
    assert (known.n, known.median) == (3, 2.0) and math.isnan(known.low) and math.isnan(known.high)


def test_interval_of_known_values():
    stat = interval([1.0, 2.0, 3.0, 4.0, 100.0, math.nan])
    assert (stat.n, stat.median, stat.iqm) == (5, 3.0, 3.0)
    assert 1.0 <= stat.low <= 3.0 <= stat.high <= 100.0
    assert interval([0.0, 1.0, math.inf]).median == 1.0 and interval([math.inf] * 3).low == math.inf
    assert interval([]).n == 0 and math.isnan(interval([math.nan]).median)


def test_margin_is_of_the_same_seed(tmp_path):
    make_run(tmp_path, "backprop", accuracies=(0.5, 0.9, 0.98))
    make_run(tmp_path, "lazy", accuracies=(0.5, 0.9, 0.979))  # 0.98 - 0.001 is above 0.979 in binary
    assert answer(tmp_path, "backprop-0.1").median == 1.0
    make_run(tmp_path, "lazy", 1, accuracies=(0.5, 0.9, 0.9789))
    make_run(tmp_path, "backprop", 1, accuracies=(0.5, 0.9, 0.98))
    row = answer(tmp_path, "backprop-0.1")
    assert (row.median, row.n_rule_missed, row.n_pairs) == (0.5, 1, 2)


@pytest.mark.slow
def test_seeds_without_partner_are_compared_unpaired(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path, "backprop", seed, cost=4.0)
    for seed in (7, 8, 9):
        make_run(tmp_path, "lazy", seed, cost=1.0 if seed == 7 else 2.0)
    row = answer(tmp_path)
    assert (row.paired, row.n_pairs, row.n_unpaired, row.median) == (False, 6, 3, 2.0)
    assert row.ci_low == 2.0 and row.ci_high == 4.0
    make_run(tmp_path, "backprop", 7, cost=4.0)
    row = answer(tmp_path)
    assert (row.paired, row.n_pairs, row.n_unpaired, row.median) == (True, 1, 2, 4.0)


def test_missing_baseline(tmp_path):
    make_run(tmp_path / "runs", "lazy")
    make_run(tmp_path / "runs", "confidence", options={"threshold": 0.5})
    page = build.write_report([tmp_path / "runs"], max_groups=0)
    table = pd.read_csv(page.parent / "speedup.csv")
    assert list(table["note"]) == ["no baseline", "no baseline"]
    assert (table.filter(like="n_") == 0).all(axis=None) and table["median"].isna().all()
    assert "no baseline" in page.read_text().lower()


def test_diverged_runs_miss_what_comes_later(tmp_path):
    make_run(tmp_path, "backprop")
    make_run(tmp_path, "lazy", accuracies=(0.5, 0.91, math.nan), status="diverged")
    assert answer(tmp_path, "0.9").median == 1.0
    assert (answer(tmp_path).median, answer(tmp_path).n_rule_missed) == (0.0, 1)
    make_run(tmp_path, "lazy", batch_size=2)
    make_run(tmp_path, "backprop", accuracies=(0.5, 0.1), status="diverged", batch_size=2)
    assert answer(tmp_path, group=1).median == math.inf
    row = answer(tmp_path, "backprop-0.1", group=1)  # a diverged run has no final accuracy to reach
    assert math.isnan(row.median) and row.n_control_missed == 1


@pytest.mark.parametrize("status", ["running", "interrupted", "stopped"])
def test_interrupted_runs_have_not_missed(tmp_path, status):
    make_run(tmp_path, "backprop", cost=2.0)
    make_run(tmp_path, "lazy", accuracies=(0.5, 0.9), status=status)
    assert answer(tmp_path, "0.9").median == 2.0
    row = answer(tmp_path)
    assert (row.n_pairs, row.n_undecided, row.n_rule_missed) == (0, 1, 0) and math.isnan(row.median)


def test_tuned_takes_the_best_by_validation(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path, "backprop", seed, cost=6.0, val=0.9, optimizer__lr=0.1)
        make_run(tmp_path, "backprop", seed, cost=1.0, val=0.8, optimizer__lr=0.2)
        make_run(tmp_path, "lazy", seed, cost=0.1, val=0.7, optimizer__lr=0.1, accuracies=(0.99,))
        make_run(tmp_path, "lazy", seed, cost=2.0, val=0.9, optimizer__lr=0.2)
        make_run(tmp_path, "lazy", seed, cost=9.0, val=0.99, optimizer__lr=0.3, status="diverged")
    runs = read_runs([tmp_path]).runs
    (group,) = tuned_groups(runs)
    (row,) = [row for row in speedups(group) if (row.target, row.measure) == ("0.95", "train_seconds")]
    assert (row.protocol, row.median, row.n_pairs) == ("tuned", 3.0, 2)
    assert "lr=0.2" in row.rule_choice and "best of 3" in row.rule_choice and "lr=0.1" in row.control_choice
    assert len(matched_groups(runs)) == 3


def test_no_tuned_group_without_validation_or_choice(tmp_path):
    make_run(tmp_path / "a", "lazy", optimizer__lr=0.1)
    make_run(tmp_path / "a", "lazy", optimizer__lr=0.2)
    make_run(tmp_path / "b", "lazy", val=0.9)
    assert not tuned_groups(read_runs([tmp_path / "a"]).runs) and not tuned_groups(read_runs([tmp_path / "b"]).runs)


def test_groups_and_labels(tmp_path):
    for width in (50, 100):
        make_run(tmp_path, "backprop", model__width=width)
        make_run(tmp_path, "confidence", options={"threshold": 0.5, "same": 1}, model__width=width)
        make_run(tmp_path, "confidence", options={"threshold": 0.9, "same": 1}, model__width=width)
    runs = read_runs([tmp_path]).runs
    groups = matched_groups(runs)
    assert varying(groups) == ["model.width"]
    assert [group.label for group in groups] == ["model.width=50", "model.width=100"]
    rules = ["backprop", "confidence (threshold=0.5)", "confidence (threshold=0.9)"]
    assert list(groups[0].rules) == rules and set(label_rules(runs).values()) == set(rules)


def test_settings_are_the_same_from_either_file(tmp_path):
    make_run(tmp_path, "backprop")
    (make_run(tmp_path, "lazy") / "run.json").unlink()
    (group,) = matched_groups(read_runs([tmp_path]).runs)
    assert list(group.rules) == ["backprop", "lazy"]


@pytest.mark.slow
def test_broken_runs_are_listed_and_do_not_stop_the_report(tmp_path):
    top = tmp_path / "runs"
    make_run(top / "deep" / "er", "backprop")
    make_run(top, "lazy")
    make_run(top / ".hidden", "lazy", 5)
    torn = make_run(top, "lazy", 1) / "metrics.csv"
    torn.write_bytes(torn.read_bytes()[:-7])
    bad = {
        name: make_run(top, "lazy", seed) for seed, name in enumerate(("empty", "noise", "words", "lost", "head"), 2)
    }
    (bad["empty"] / "metrics.csv").write_text("")
    (bad["noise"] / "metrics.csv").write_bytes(bytes(range(256)) * 9 + b"\n")
    (bad["words"] / "metrics.csv").write_text(f"{','.join(COLUMNS)}\n{','.join(['what'] * len(COLUMNS))}\n")
    for name in ("run.json", "summary.csv"):
        (bad["lost"] / name).write_text("{")
    (bad["head"] / "metrics.csv").write_text(",".join(COLUMNS) + "\n")
    (top / "nothing").mkdir()
    found = read_runs([top, tmp_path / "missing", top])
    assert sorted((run.rule, run.seed, len(run.rows)) for run in found.runs) == [
        ("backprop", 0, 3), ("lazy", 0, 3), ("lazy", 1, 2),
    ]  # fmt: skip
    assert {path for path, _ in found.broken} == {*bad.values(), tmp_path / "missing"}
    page = build.write_report([tmp_path / "missing", top], max_groups=0)
    assert page.parent == top / "report" and all(folder.name in page.read_text() for folder in bad.values())


def test_repetitions_count_once(tmp_path):
    make_run(tmp_path / "a", "lazy", accuracies=(0.5,), status="interrupted")
    make_run(tmp_path / "b", "lazy")
    found = read_runs([tmp_path])
    assert [run.folder.parent.name for run in found.runs] == ["b"] and "repeats" in found.broken[0][1]


@pytest.mark.slow
def test_files_are_complete_and_the_same_again(tmp_path):
    for seed in (0, 1, 2):
        for width in (50, 100):
            make_run(tmp_path, "backprop", seed, cost=2.0, model__width=width)
            make_run(tmp_path, "lazy", seed, accuracies=(0.5, 0.9, 0.96 - 0.02 * (seed > 1)), model__width=width)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    page = build.write_report([tmp_path], max_groups=1)
    names = ("report.html", "report.md", "speedup.csv", "runs.csv")
    out = tmp_path / "report"
    first = {name: (out / name).read_bytes() for name in names}
    build.write_report([tmp_path], max_groups=1)
    assert {name: (out / name).read_bytes() for name in names} == first
    assert all(path.read_bytes() == content for path, content in before.items())
    speedup = pd.read_csv(out / "speedup.csv")
    assert {"model.width", "rule", "rule_options", "target", "measure", "iqm", "protocol"} <= set(speedup.columns)
    assert len(speedup) == 2 * 6 * 5 and set(speedup["model.width"]) == {50, 100}
    runs = pd.read_csv(out / "runs.csv")
    assert len(runs) == 12 and set(runs["protocol"]) == {"matched"} and "seconds_to_0.95" in runs
    pngs = {path.stem for path in (out / "figures").glob("*.png")}
    assert pngs == {path.stem for path in (out / "figures").glob("*.pdf")}
    assert pngs == {path.stem for path in (out / "figures").glob("*.csv")}
    starts = ("error_train_seconds", "error_forward_samples", "error_updates", "error_energy_l1", "swept_model.width")
    starts += ("time_to_target", "speedup_train_seconds", "share_selected", "pareto")
    assert all(any(name.startswith(start) for name in pngs) for start in starts)

    text = page.read_text()
    sources = re.findall(r"""src\s*=\s*["']?([^"'\s>]+)""", text)
    assert len(sources) == len(pngs) == text.count("<img") and all(one.startswith("data:") for one in sources)
    assert "@import" not in text and "url(" not in text and "<script" not in text
    links = [link for link in re.findall(r'href="([^"]+)"', text) if link != "data:,"]
    assert len(links) == 3 * len(pngs) and all((out / link).is_file() for link in links)


def test_files_of_a_run_are_never_overwritten(tmp_path):
    folder = make_run(tmp_path / "runs", "lazy")
    own = (folder / "summary.csv").read_bytes()
    assert build.write_report([folder], max_groups=0) == (tmp_path / "runs" / "report" / "report.html").resolve()
    with pytest.raises(UserError, match="--out"):
        build.write_report([folder], folder)
    assert (folder / "summary.csv").read_bytes() == own


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["lazyexp-report", *map(str, arguments)])
    cli.main()


def test_no_runs_is_one_line(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, tmp_path, tmp_path / "missing")
    _out, err = capsys.readouterr()
    assert end.value.code == 2 and err.startswith("lazyexp: error: ") and err.count("\n") == 1 and "runs_dir" in err


def test_help_and_out(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, "--help")
    assert end.value.code == 0 and "examples:" in capsys.readouterr().out
    make_run(tmp_path / "runs", "lazy")
    call(monkeypatch, tmp_path / "runs", "--max-groups", 0, "--out", tmp_path / "there" / "it" / "is")
    assert (tmp_path / "there" / "it" / "is" / "report.html").is_file()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, tmp_path / "runs", "--out", tmp_path / "file" / "out")
    assert end.value.code == 2 and "--out" in capsys.readouterr().err


def test_torch_is_not_imported():
    code = "import sys, lazyexp.report.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_matched_and_random_subsets_are_separate_groups(tmp_path):
    for subset in ("matched", "random"):
        make_run(tmp_path / subset, "lazy", 0, dataset__subset=subset)
    found = read_runs([tmp_path])
    assert sorted(group.settings["dataset.subset"] for group in matched_groups(found.runs)) == ["matched", "random"]
    assert not found.broken


def test_names_are_escaped_in_markdown_tables():
    row = ["a|b", "two\nlines", "<b>bold</b> & more"]
    text = to_markdown("title", [Table(["x", "y", "z"], [row])])
    assert text.splitlines()[-1] == "| a\\|b | two lines | &lt;b&gt;bold&lt;/b&gt; &amp; more |"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_report_leaves_complete_files(tmp_path):
    """SIGKILL right before and right after a file gets its name, one file after the other: old ones or new ones."""
    make_run(tmp_path / "runs", "backprop")
    out = tmp_path / "out"

    def report(kill_at: int) -> int:
        child = os.fork()
        if not child:
            count, replace = 0, os.replace

            def killed(*arguments):
                nonlocal count
                count += 1
                if count == kill_at and kill_at % 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                replace(*arguments)
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

            setattr(os, "replace", killed)  # noqa: B010
            build.write_report([tmp_path / "runs"], out, max_groups=1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def content():
        files = (path for path in out.rglob("*") if path.is_file() and not path.name.startswith("."))
        return {str(path.relative_to(out)): path.read_bytes() for path in files}

    assert report(0) == 0
    old = content()
    make_run(tmp_path / "runs", "lazy")  # from now on everything is another file
    assert report(0) == 0
    new = content()
    assert set(old) <= set(new) and old["report.html"] != new["report.html"]
    for number in range(1, len(new) + 1, max(len(new) // 4, 1)):
        shutil.rmtree(out)
        for name, data in old.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(data)
        assert report(number) == -signal.SIGKILL
        left = content()
        assert set(old) <= set(left)
        assert all(data in (old.get(name), new[name]) for name, data in left.items()), number
    assert report(0) == 0 and content() == new


def test_a_failed_write_keeps_the_former_report(tmp_path, monkeypatch):
    """Files are written beside the old ones and renamed: when the disk fails, the old report is still there."""
    for name in ("report.html", "report.png"):
        atomic_write(tmp_path / name, lambda stream: stream.write(b"old"))

    def fail(number):
        raise OSError("no space")

    monkeypatch.setattr("lazyexp.utils.files.os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_text(tmp_path / "report.html", "new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "report.html": b"old",
        "report.png": b"old",
    }


def test_rule_label_is_the_name_of_a_rule(tmp_path):
    make_run(tmp_path, "spaced", options={"block": 1024})
    make_run(tmp_path, "spaced", options={"block": 0})
    make_run(tmp_path, "spaced", 1, options={"block": 1024, "skip_threshold": 0.99}, rule_label="fast_lazy")
    runs = read_runs([tmp_path]).runs
    assert {run.rule for run in runs} == {"spaced", "fast_lazy"}
    assert set(label_rules(runs).values()) == {"spaced (block=0)", "spaced (block=1024)", "fast_lazy"}


def test_rows_are_typed_and_a_truncated_one_is_left_out(tmp_path):
    path = make_run(tmp_path, "lazy") / "metrics.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    rows = read_rows(path)
    assert (
        len(rows) == 2
        and rows[0]["seed"] == 0
        and rows[0]["test_accuracy"] == 0.5
        and rows[0]["val_accuracy"] is None
    )
    assert rows == read_rows(path) and read_columns(path)["samples_seen"] == [100, 200]
    path.write_bytes(whole.replace(b"lazy", b"lazy,more", 1))
    with pytest.raises(UserError, match="damaged"):
        read_rows(path)
    assert read_rows(tmp_path / "none.csv") == [] and read_columns(tmp_path / "none.csv") == {}
