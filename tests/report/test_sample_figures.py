"""Figures of samples, from runs of the bundled digits."""

import numpy as np
import pandas as pd
import pytest
import torch

from lazyexp.api import Run
from lazyexp.config.schema import Config, DatasetConfig, ModelConfig
from lazyexp.config.validation import check
from lazyexp.data import load_data
from lazyexp.experiment import run
from lazyexp.report.read import read_runs
from lazyexp.report.sample_figures import sample_figures, shares, trained_runs
from lazyexp.report.style import FigureFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    top = tmp_path_factory.mktemp("runs")
    small = {"epochs": 2, "batch_size": 16, "dataset": DatasetConfig(augment="shift"), "model": ModelConfig(width=16)}
    for rule in ("backprop", "lazy"):
        run(check(Config(runs_dir=str(top), rule={"name": rule}, **small)))
    return top


def test_counts_are_put_into_doubling_bins():
    assert dict(shares(np.array([0, 0, 1, 2, 3, 4, 5, 8, 9, 0]))) == {
        "0": 30.0, "1": 10.0, "2": 10.0, "3-4": 20.0, "5-8": 20.0, "9-16": 10.0,
    }  # fmt: skip


@pytest.mark.slow
def test_hardest_images_and_confusions_are_those_of_the_runs(folder, tmp_path):
    runs = trained_runs(read_runs([folder]).runs)
    assert [one.rule for one in runs] == ["lazy", "backprop"]
    chosen = runs[0]
    sheet = FigureFolder(tmp_path, ["lazy"], ["lazy"])
    sample_figures(runs, sheet)
    assert not sheet.notes and [figure.name for figure in sheet.figures] == ["hardest_digits", "confusion_digits"]
    confusions = pd.read_csv(tmp_path / "confusion_digits.csv").set_index("label")
    for one in runs:
        matrix = confusions[confusions["rule"] == one.rule].drop(columns="rule").to_numpy()
        correct = matrix.trace() / matrix.sum()  # of the network that was tested
        assert correct == pytest.approx(one.final("test_accuracy"), abs=1e-9)
    hardest = pd.read_csv(tmp_path / "hardest_digits.csv")
    counts = np.load(chosen.folder / "learned.npz")["misclassified"]
    assert list(hardest["misclassified"]) == sorted(counts, reverse=True)[:32]
    # Labels and predictions computed independently of the report.
    data = load_data(DatasetConfig(), "data", torch.device("cpu"))
    assert list(hardest["label"]) == data.train.targets[torch.tensor(hardest["index"].to_numpy())].tolist()
    model = Run(chosen.folder).model()
    inputs, _ = data.train.part(0, len(data.train))
    with torch.no_grad():
        predictions = model(inputs[torch.tensor(hardest["index"].to_numpy())]).argmax(1)
    assert list(hardest["prediction"]) == predictions.tolist()


@pytest.mark.slow
def test_without_the_network_or_the_data_there_is_a_note(folder, tmp_path):
    (chosen, *_) = trained_runs(read_runs([folder]).runs)
    facts = (chosen.folder / "run.json").read_text()
    for broken in (facts.replace('"digits"', '"usps"'), facts.replace('"width": 16', '"width": 8'), "[]"):
        (chosen.folder / "run.json").write_text(broken)
        sheet = FigureFolder(tmp_path, ["lazy"], ["lazy"])
        sample_figures([chosen], sheet)
        assert [figure.name for figure in sheet.figures] == ["confusion_digits"]  # from predictions.npz
        assert sheet.notes[0].startswith("No images of digits (")
    (chosen.folder / "run.json").write_text(facts)
