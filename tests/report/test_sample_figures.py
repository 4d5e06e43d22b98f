"""Pictures of what was learned, from runs of the bundled digits."""

import numpy as np
import pandas as pd
import pytest
import torch

from lazyexp.api import Run
from lazyexp.config.schema import Config, DatasetConfig, ModelConfig
from lazyexp.config.validation import check
from lazyexp.data import load_data
from lazyexp.experiment import run
from lazyexp.report.pictures import image_run, images, shares
from lazyexp.report.read import read_runs
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


def test_hardest_images_and_confusion_are_those_of_the_run(folder, tmp_path):
    chosen = image_run(read_runs([folder]).runs)
    assert chosen.rule == "lazy"
    sheet = FigureFolder(tmp_path, ["lazy"], ["lazy"])
    images(chosen, sheet)
    assert not sheet.remarks and [drawn.name for drawn in sheet.drawn] == ["hardest_digits", "confusion_digits"]
    confusion = pd.read_csv(tmp_path / "confusion_digits.csv").set_index("label").to_numpy()
    right = confusion.trace() / confusion.sum()
    assert right == pytest.approx(chosen.final("test_accuracy"), abs=1e-9)  # the network is the one that was tested
    hardest = pd.read_csv(tmp_path / "hardest_digits.csv")
    counts = np.load(chosen.folder / "learned.npz")["misclassified"]
    assert list(hardest["misclassified"]) == sorted(counts, reverse=True)[:32]
    # Labels are those of the data set itself, answers those of the final network, by another way to both.
    data = load_data(DatasetConfig(), "data", torch.device("cpu"))
    assert list(hardest["label"]) == data.train.targets[torch.tensor(hardest["index"].to_numpy())].tolist()
    model = Run(chosen.folder).model()
    inputs, _ = data.train.part(0, len(data.train))
    with torch.no_grad():
        answers = model(inputs[torch.tensor(hardest["index"].to_numpy())]).argmax(1)
    assert list(hardest["prediction"]) == answers.tolist()


def test_without_the_network_or_the_data_there_is_a_line(folder, tmp_path):
    chosen = image_run(read_runs([folder]).runs)
    facts = (chosen.folder / "run.json").read_text()
    for broken in (facts.replace('"digits"', '"usps"'), facts.replace('"width": 16', '"width": 8'), "[]"):
        (chosen.folder / "run.json").write_text(broken)
        sheet = FigureFolder(tmp_path, ["lazy"], ["lazy"])
        images(chosen, sheet)
        assert not sheet.drawn and sheet.remarks[0].startswith("No images of digits (")
    (chosen.folder / "run.json").write_text(facts)
