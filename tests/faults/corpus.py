"""Small inputs of every kind that users bring, and the outcome of each: the right value, a refusal, or a warning.

`DATA` are data sets, `MODELS` custom networks. `origin` names the source: "issue" for kinds seen in bug reports,
"c" for further inputs of readers that drop information, "b" for further custom parts that change what they are given.
`python tests/faults/corpus.py` prints the table of docs/inputs.md.
"""

from __future__ import annotations

import gzip
import io
import json
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from corpus_settings import SETTINGS
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from lazyexp.data import Data

ROWS = 60


@dataclass(frozen=True)
class Case:
    """`make` writes the input into a folder and returns settings of the data set, or for a model returns it."""

    name: str
    outcome: str
    make: Callable[..., Any]
    text: str = ""
    check: Callable[[Data], bool] | None = None
    origin: str = "issue"
    needs: str = ""


DATA: list[Case] = []
MODELS: list[Case] = []


def case(
    name: str,
    outcome: str,
    text: str = "",
    check: Any = None,
    origin: str = "issue",
    needs: str = "",
    into: Any = DATA,
) -> Any:
    """Register the decorated function as a case."""

    def add(make: Any) -> Any:
        into.append(Case(name, outcome, make, text, check, origin, needs))
        return make

    return add


# --- tables ------------------------------------------------------------------------------------------------


def frame(rows: int = ROWS, classes: int = 3) -> pd.DataFrame:
    """Two columns of noise and a column of classes."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"a": rng.normal(size=rows).round(3), "b": rng.normal(size=rows).round(3), "label": np.arange(rows) % classes}
    )


def table(content: str | bytes, name: str = "t.csv", **options: Any) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
        return {"name": "folder", "path": str(folder / name), "options": options}

    return make


def csv(data: pd.DataFrame | None = None, name: str = "t.csv", index: bool = False, options=None, **more: Any):
    return table((frame() if data is None else data).to_csv(index=index, **more), name, **(options or {}))


def parquet(data: pd.DataFrame, **options: Any) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        data.to_parquet(folder / "t.parquet")
        return {"name": "folder", "path": str(folder / "t.parquet"), "options": options}

    return make


def columns(number: int) -> Callable[[Data], bool]:
    return lambda data: data.shape == (number,) and data.classes == 3 and len(data.train) == ROWS * 4 // 5


def named(*names: str) -> Callable[[Data], bool]:
    return lambda data: data.class_names == list(names)


def add(
    name: str, outcome: str, make: Callable[..., Any], text: str = "", check=None, origin="issue", needs=""
) -> None:
    DATA.append(Case(name, outcome, make, text, check, origin, needs))


def shuffled(data: pd.DataFrame) -> pd.DataFrame:
    return data.sample(frac=1, random_state=0)


def labelled(values: list[Any], rows: int = ROWS) -> pd.DataFrame:
    return frame(rows).assign(label=[values[row % len(values)] for row in range(rows)])


add("csv", "value", csv(), check=columns(2))
add("csv with pandas' index", "warning", csv(index=True), "column Unnamed: 0 counts the rows", columns(2))
add(
    "csv with pandas' index, sorted by class",
    "warning",
    csv(frame().sort_values("label"), index=True),
    "column Unnamed: 0 counts the rows",
    columns(2),
)
add(
    "csv with an id column",
    "warning",
    csv(frame().assign(id=range(1000, 1000 + ROWS))),
    "column id counts the rows",
    columns(2),
)
add("csv with an index column", "warning", csv(frame().reset_index()), "column index counts the rows", columns(2))
add(
    "csv with the label twice",
    "refused",
    table("a,label,label\n" + "1.5,0,0\n2.5,1,1\n" * 10),
    "label is the name of",
)
add(
    "csv with the label under a second name",
    "warning",
    csv(frame().assign(target=frame()["label"] + 5)),
    "column target tells the classes of label one to one",
)
add(
    "csv with longer rows", "refused", table("a,b,label\n" + "1,2,0,9\n3,4,1,9\n" * 20), "more fields than the header"
)
add(
    "csv with one longer row",
    "refused",
    table("a,b,label\n" + "1,2,0\n3,4,1\n" * 20 + "1,2,0,4\n"),
    "is not a readable",
)
for missing in ("NA", "None", "null", "nan", "n/a"):
    add(
        f"label {missing}",
        "warning",
        csv(labelled([missing, "de", "fr"])),
        f"{missing} in label is the name of a class",
        lambda data, missing=missing: data.class_names == sorted([missing, "de", "fr"]),
    )
add("labels 01 ... a", "value", csv(labelled(["01", "02", "a"])), check=named("01", "02", "a"))
add(
    "a at the end of many rows of 01",
    "value",
    csv(labelled(["01", "02"], 30_000).assign(label=["01", "02"] * 14_995 + ["a"] * 10)),
    check=named("01", "02", "a"),
)
add("labels 1.0 ... a", "value", csv(labelled(["1.0", "2.0", "a"])), check=named("1.0", "2.0", "a"))
add(
    "parquet with lists as labels",
    "refused",
    parquet(labelled([[1], [2], [3]])),
    "label holds values of the type",
    needs="pyarrow",
)
add(
    "parquet with dictionaries as labels",
    "refused",
    parquet(labelled([{"x": 1}, {"x": 2}])),
    "of the type dict",
    needs="pyarrow",
)
add(
    "column name twice",
    "refused",
    table("a,a,label\n" + "1,2,0\n3,4,1\n" * 20),
    "a is the name of more than one column",
)
add("options.label=[a]", "refused", csv(options={"label": ["a"]}), "must be the name of one column")
add(
    "options.label=64", "value", csv(frame().rename(columns={"label": "64"}), options={"label": 64}), check=columns(2)
)
add("semicolons", "value", csv(sep=";"), check=columns(2))
add("tabs", "value", csv(sep="\t"), check=columns(2))
add(
    "decimal commas",
    "warning",
    csv(sep=";", decimal=","),
    "read as decimal commas",
    lambda data: columns(2)(data) and abs(float(data.train.pixels.std()) - 1) < 0.1,
)
add(
    "comments before the header",
    "value",
    table("# made by hand\n# twice\n" + frame().to_csv(index=False)),
    check=columns(2),
)
add(".tsv", "value", csv(name="t.tsv", sep="\t"), check=columns(2))
add(".csv.gz", "value", table(gzip.compress(frame().to_csv(index=False).encode()), "t.csv.gz"), check=columns(2))
add(".xlsx", "refused", table(b"PK\3\4", "t.xlsx"), "is a spreadsheet; save it as .csv")
add(
    "whole-number table",
    "value",
    csv(frame().assign(a=range(5, 5 + 7 * ROWS, 7), b=np.arange(ROWS) % 7), options={"keep": ["a"]}),
    check=columns(2),
)

# Further ones (c).
add(
    "row numbers, shuffled",
    "warning",
    csv(shuffled(frame().assign(n=range(ROWS)))),
    "column n counts the rows",
    columns(2),
    "c",
)
add(
    "row numbers as floats",
    "warning",
    csv(frame().assign(n=np.arange(ROWS) * 1.0)),
    "column n counts the rows",
    columns(2),
    "c",
)
add(
    "patient_id with gaps",
    "warning",
    csv(frame().assign(patient_id=np.arange(ROWS) ** 2)),
    "patient_id counts the rows",
    columns(2),
    "c",
)
add(
    "rising time stamps",
    "warning",
    csv(frame().assign(t=np.cumsum(np.arange(1, ROWS + 1) % 5 + 0.5))),
    "column t rises from row to row",
    columns(3),
    "c",
)
add(
    "id that is kept",
    "value",
    csv(frame().assign(id=range(ROWS)), options={"keep": "id"}),
    check=columns(3),
    origin="c",
)
add(
    "a column to drop",
    "value",
    csv(frame().assign(name="x"), options={"drop": ["name"]}),
    check=columns(2),
    origin="c",
)
add("text column", "refused", csv(frame().assign(name="x")), "column name does not hold numbers ('x')", origin="c")
add(
    "only row numbers",
    "refused",
    csv(pd.DataFrame({"id": range(30), "label": np.arange(30) % 3})),
    "keep=[id] uses it",
    origin="c",
)
add(
    "header in a comment",
    "value",
    table("# a,b,label\n" + frame().to_csv(index=False, header=False)),
    check=columns(2),
    origin="c",
)
add("label c#", "value", csv(labelled(["c#", "c", "f#"])), check=named("c", "c#", "f#"), origin="c")
add(
    "labels with spaces around",
    "value",
    table("a,b,label\n" + "1, 2, x\n3, 5,y \n2,1,x\n4,4,y\n" * 10),
    check=named("x", "y"),
    origin="c",
)
add(
    "Cat and cat",
    "warning",
    csv(labelled(["Cat", "cat", "dog"])),
    "Cat and cat in label are different classes",
    origin="c",
)
add("labels 1 and 1.0", "warning", csv(labelled(["1", "1.0", "2"])), "1 and 1.0 in label are one class", origin="c")
add("fractions as labels", "warning", csv(labelled([0.5, 1.5, 2.0])), "not all whole", origin="c")
add("empty labels", "refused", csv(labelled(["x", "", "y"])), "rows have no label", origin="c")
add(
    "empty cells",
    "refused",
    csv(frame().mask(frame()["a"] > 1, np.nan).assign(label=frame()["label"])),
    "empty or infinite entries",
    origin="c",
)
add(
    "a separator at the end of rows",
    "value",
    table("".join(f"{line},\n" for line in frame().to_csv(index=False).splitlines())),
    check=columns(2),
    origin="c",
)
add(
    "byte order mark",
    "value",
    table(b"\xef\xbb\xbf" + frame()[["label", "a", "b"]].to_csv(index=False).encode()),
    check=columns(2),
    origin="c",
)
add("UTF-16", "refused", table(frame().to_csv(index=False).encode("utf-16")), "is not a readable table", origin="c")
add(
    "Excel's sep= line",
    "value",
    table("sep=;\n" + frame().to_csv(index=False, sep=";")),
    check=columns(2),
    origin="c",
)
add("empty file", "refused", table(""), "is an empty table", origin="c")
add("header alone", "refused", table("a,b,label\n"), "cannot be split", origin="c")
add("huge numbers", "refused", csv(frame() * 5e307), "too large", origin="c")
add(
    "a constant column",
    "value",
    csv(frame().assign(c=0.1)),
    check=lambda data: bool((data.train.pixels[:, 2].abs() < 1e-6).all()),
    origin="c",
)
add("True and False", "value", csv(labelled([True, False])), check=named("False", "True"), origin="c")
add(
    "thousands separators",
    "refused",
    table("a,label\n" + '"1,234",0\n"5,678",1\n' * 20),
    "does not hold numbers",
    origin="c",
)
add("another kind of file", "refused", table("{}", "t.json"), "files of the kind .json are not read", origin="c")
add("options.label of an .npz", "refused", table(b"", "t.npz", label="x"), "is not a table", origin="c")
add("options.drop of an unknown column", "refused", csv(options={"drop": ["zz"]}), "has no such column", origin="c")
add(
    "unknown option",
    "refused",
    csv(options={"colour": 1}),
    "unknown option of dataset=folder (it has label",
    origin="c",
)


def write_pair(folder: Path, names: tuple[str, ...], **changes: Any) -> dict[str, Any]:
    for name in names:
        changes.get(name, frame()).to_csv(folder / f"{name}.csv", index=False)
    return {"name": "folder", "path": str(folder)}


for parts, outcome, text in [
    (("train", "test"), "value", ""),
    (("training", "testing"), "value", ""),
    (("Train", "Test"), "value", ""),
    (("train", "val"), "warning", "val.csv is the test set"),
    (("train", "test", "val"), "warning", "val.csv is not read"),
    (("train",), "refused", "neither test nor val"),
]:
    add(
        f"tables {', '.join(parts)}",
        outcome,
        lambda folder, parts=parts: write_pair(folder, parts),
        text,
        (lambda data: data.shape == (2,) and len(data.train) == len(data.test) == ROWS)
        if text[:5] != "neith"
        else None,
    )
add(
    "columns in another order",
    "value",
    lambda folder: write_pair(folder, ("train", "test"), test=frame()[["label", "b", "a"]]),
    check=lambda data: torch.equal(data.train.pixels, data.test.pixels),
    origin="c",
)


@case(
    "image parquet of the Hugging Face hub",
    "value",
    needs="pyarrow",
    check=lambda data: data.shape == (3, 6, 6) and data.class_names == ["cat", "dog"] and len(data.test) == 10,
)
def hub(folder: Path) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet

    names = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    for part, rows in (("train-00000-of-00002", 10), ("train-00001-of-00002", 10), ("test-00000-of-00001", 10)):
        images = [{"bytes": encoded(noise(3, row)), "path": None} for row in range(rows)]
        content = pa.table({"image": images, "label": [row % 2 for row in range(rows)]})
        content = content.replace_schema_metadata({"huggingface": json.dumps(names)})
        pyarrow.parquet.write_table(content, folder / f"{part}.parquet")
    return {"name": "folder", "path": str(folder)}


# --- image folders -----------------------------------------------------------------------------------------


def noise(channels: int = 1, seed: int = 0, size: int = 6, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    shape = (size, size) if channels == 1 else (size, size, channels)
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def photos(
    folder: Path, image: Callable[[int, int], bytes], suffix: str = "png", parts=("train", "test"), n: int = 8
):
    """`image(number, class)` is the content of a file."""
    for part in parts:
        for number in range(n):
            path = folder / part / f"class{number % 2}" / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image(number, number % 2))
    return {"name": "folder", "path": str(folder), "scale": "unit"}


def bright(data: Data) -> bool:
    """Class 1 is bright, class 0 is dark, between 0 and 1."""
    inputs = data.train.part(0, len(data.train))[0].flatten(1)
    low, high = inputs[data.train.targets == 0].max(), inputs[data.train.targets == 1].min()
    return bool(0 <= low < high <= 1) and data.class_names == ["class0", "class1"]


def plain(number: int, label: int) -> bytes:
    return encoded((noise(1, number, high=50) + 200 * label).astype(np.uint8))


def deep(number: int, label: int) -> np.ndarray:
    return (noise(1, number, high=12_000, dtype=np.uint16) + 50_000 * label).astype(np.uint16)


add("folder of 8-bit images", "value", lambda folder: photos(folder, plain), check=bright)
add("16-bit PNG (I;16)", "value", lambda folder: photos(folder, lambda n, c: encoded(deep(n, c))), check=bright)
add(
    "16-bit TIFF (I;16)",
    "value",
    lambda folder: photos(folder, lambda n, c: encoded(deep(n, c), "TIFF"), "tif"),
    check=bright,
)
add(
    "32-bit TIFF (I)",
    "value",
    lambda folder: photos(folder, lambda n, c: encoded(deep(n, c).astype(np.int32), "TIFF"), "tif"),
    check=bright,
)
add(
    "32-bit TIFF beyond 16 bits",
    "refused",
    lambda folder: photos(folder, lambda n, c: encoded(deep(n, c).astype(np.int32) * 9, "TIFF"), "tif"),
    "save it with 16 bits",
)
add(
    "floating-point TIFF (F)",
    "value",
    lambda folder: photos(folder, lambda n, c: encoded(deep(n, c).astype(np.float32) / 65535, "TIFF"), "tif"),
    check=bright,
)


def alpha(number: int, label: int) -> bytes:
    picture = np.zeros((6, 6, 4), np.uint8)
    picture[..., 3] = noise(1, number, high=50) + 200 * label
    return encoded(picture)


add(
    "picture in the alpha channel",
    "warning",
    lambda folder: photos(folder, alpha),
    "some images are transparent",
    lambda data: data.shape == (4, 6, 6) and bright_alpha(data),
)


def bright_alpha(data: Data) -> bool:
    inputs = data.train.part(0, len(data.train))[0][:, 3].flatten(1).mean(1)
    return bool(inputs[data.train.targets == 0].max() < inputs[data.train.targets == 1].min())


def turned(number: int, label: int) -> bytes:
    """The upper half is bright once the image is turned by its EXIF orientation."""
    pixels = np.zeros((6, 8), np.uint8)
    pixels[:, :4] = 255  # the left half; orientation 6: to turn by 90 degrees clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(pixels, exif=exif)


add(
    "EXIF orientation",
    "value",
    lambda folder: photos(folder, turned),
    check=lambda data: (
        data.shape == (1, 8, 6)
        and bool((data.train.part(0, 1)[0][0, 0, :4] == 1).all() and (data.train.part(0, 1)[0][0, 0, 4:] == 0).all())
    ),
)


@case(".ipynb_checkpoints with an image", "value", check=bright)
def checkpoints(folder: Path) -> dict[str, Any]:
    for name in ("train/.ipynb_checkpoints", "train/class0/.ipynb_checkpoints", "test/.ipynb_checkpoints"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1-checkpoint.png").write_bytes(plain(0, 1))
    return photos(folder, plain)


@case("an empty .ipynb_checkpoints, ._1.png and __MACOSX", "value", check=bright)
def left_by_systems(folder: Path) -> dict[str, Any]:
    settings = photos(folder, plain)
    for name in ("train/.ipynb_checkpoints", "__MACOSX/train", "train/__MACOSX/class0"):
        (folder / name).mkdir(parents=True)
    for name in ("._1.png", ".DS_Store", "Thumbs.db"):
        (folder / "train" / "class0" / name).write_bytes(b"\0")
    (folder / "train" / ".DS_Store").write_bytes(b"\0")
    return settings


for names, outcome, text in [
    (("train", "val"), "warning", "val is the test set"),
    (("Train", "Test"), "value", ""),
    (("training", "testing"), "value", ""),
    (("train", "test", "val"), "warning", "val is not read"),
    (("train",), "refused", "neither test nor val"),
]:
    add(
        f"folders {', '.join(names)}",
        outcome,
        lambda folder, names=names: photos(folder, plain, parts=names),
        text,
        bright if outcome != "refused" else None,
    )


def uneven(number: int, label: int) -> bytes:
    return encoded(noise(1, number, 6 + number % 3, 50) + np.uint8(200 * label))


add("images of unequal size", "refused", lambda folder: photos(folder, uneven), "dataset.options.size=N resizes them")
add(
    "images of unequal size, resized",
    "value",
    lambda folder: photos(folder, uneven) | {"options": {"size": 5}},
    check=lambda data: bright(data) and data.shape == (1, 5, 5),
)
add(
    "resized to [height,width]",
    "value",
    lambda folder: photos(folder, uneven) | {"options": {"size": [4, 7]}},
    check=lambda data: data.shape == (1, 4, 7),
    origin="c",
)
add(
    "options.size=0",
    "refused",
    lambda folder: photos(folder, plain) | {"options": {"size": 0}},
    "must be N or [height,width]",
    origin="c",
)

# Further ones (c).
add(
    "opaque alpha channel",
    "value",
    lambda folder: photos(folder, lambda n, c: encoded(np.dstack([noise(3, n), np.full((6, 6), 255, np.uint8)]))),
    check=lambda data: data.shape == (3, 6, 6),
    origin="c",
)
add(
    "transparent colour of a palette",
    "warning",
    lambda folder: photos(folder, palette),
    "some images are transparent",
    lambda data: data.shape == (4, 6, 6),
    "c",
)


def palette(number: int, label: int) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(noise(3, number)).convert("P")
    image.save(stream, "PNG", transparency=int(np.asarray(image)[0, 0]))
    return stream.getvalue()


add(
    "16-bit beside 8-bit images",
    "value",
    lambda folder: photos(folder, lambda n, c: encoded(deep(n, c)) if n % 4 < 2 else plain(n, c)),
    check=bright,
    origin="c",
)
add(
    "grey beside coloured images",
    "value",
    lambda folder: photos(
        folder,
        lambda n, c: plain(n, c) if n % 4 < 2 else encoded(np.dstack([noise(1, n, high=50) + np.uint8(200 * c)] * 3)),
    ),
    check=lambda data: data.shape == (3, 6, 6) and bright(data),
    origin="c",
)
add(
    "1-bit images",
    "value",
    lambda folder: photos(folder, lambda n, c: encoded(np.full((6, 6), c == 1))),
    check=bright,
    origin="c",
)


def frames(number: int, label: int) -> bytes:
    stream = io.BytesIO()
    first, second = (Image.fromarray(noise(1, number + more)) for more in (0, 50))
    first.save(stream, "GIF", save_all=True, append_images=[second])
    return stream.getvalue()


add("animated GIF", "refused", lambda folder: photos(folder, frames, "gif"), "holds 2 frames", origin="c")
add("TIFF of several pages", "refused", lambda folder: photos(folder, pages, "tif"), "holds 2 frames", origin="c")


def pages(number: int, label: int) -> bytes:
    stream = io.BytesIO()
    first, second = (Image.fromarray(noise(1, number + more)) for more in (0, 50))
    first.save(stream, "TIFF", save_all=True, append_images=[second])
    return stream.getvalue()


add(
    "GIF",
    "value",
    lambda folder: photos(folder, lambda n, c: encoded(noise(1, n, high=50) + np.uint8(200 * c), "GIF"), "gif"),
    check=lambda data: data.classes == 2 and len(data.train) == 8,
    origin="c",
)


@case("files that are not images", "warning", "1 files are not images in a folder of a class", bright, "c")
def notes_beside(folder: Path) -> dict[str, Any]:
    settings = photos(folder, plain)
    (folder / "train" / "class0" / "notes.txt").write_text("x")
    return settings


@case("images beside the class folders", "warning", "are skipped: loose.png", bright, "c")
def loose(folder: Path) -> dict[str, Any]:
    settings = photos(folder, plain)
    (folder / "train" / "loose.png").write_bytes(plain(0, 0))
    return settings


@case("an empty folder of a class", "refused", "holds no image files", origin="c")
def empty_class(folder: Path) -> dict[str, Any]:
    settings = photos(folder, plain)
    (folder / "train" / "class2").mkdir()
    return settings


@case("a class in train alone", "refused", "must have the same classes", origin="c")
def other_class(folder: Path) -> dict[str, Any]:
    settings = photos(folder, plain)
    (folder / "train" / "class2").mkdir()
    (folder / "train" / "class2" / "1.png").write_bytes(plain(0, 0))
    return settings


@case("a truncated image", "refused", "is not a readable image", origin="c")
def truncated(folder: Path) -> dict[str, Any]:
    settings = photos(folder, lambda n, c: encoded(noise(3, n, 60), "JPEG"), "jpg")
    path = folder / "train" / "class0" / "0.jpg"
    path.write_bytes(path.read_bytes()[:300])
    return settings


@case("the data one folder deeper", "refused", "try dataset.path=", origin="c")
def deeper(folder: Path) -> dict[str, Any]:
    photos(folder / "photos", plain)
    (folder / "__MACOSX").mkdir()
    return {"name": "folder", "path": str(folder)}


@case("class folders without train and test", "refused", "found class0, class1", origin="c")
def unsplit(folder: Path) -> dict[str, Any]:
    photos(folder, plain, parts=(".",))
    return {"name": "folder", "path": str(folder)}


# --- arrays ------------------------------------------------------------------------------------------------


def arrays(seed: int = 0, shape: tuple[int, ...] = (6, 6), classes: int = 3, n: int = 30, dtype: Any = np.uint8):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape)).astype(dtype), np.arange(n) % classes


def npz(**changes: Any) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        x, y = arrays()
        parts = {"x_train": x, "y_train": y, "x_test": x[:9], "y_test": y[:9], **changes}
        np.savez(folder / "d.npz", **{name: array for name, array in parts.items() if array is not None})
        return {"name": "folder", "path": str(folder / "d.npz"), "scale": "unit"}

    return make


def custom(function: Callable[..., Any], **options: Any) -> Callable[[Path], dict[str, Any]]:
    """Settings of a data set that a function of this module makes."""
    globals()[f"data_{len(DATA)}"] = function
    settings = {"name": "custom", "_target_": f"corpus.data_{len(DATA)}", "options": options}
    return lambda folder: {**settings, "scale": "unit"}


def four(x: Any, y: Any) -> Callable[[], Any]:
    def load() -> Any:
        return x, y, x[:9], y[:9]

    return load


X, Y = arrays()


def inputs(expected: np.ndarray) -> Callable[[Data], bool]:
    """The training inputs are these."""

    def check(data: Data) -> bool:
        found = data.train.part(0, len(data.train))[0]
        return found.shape == expected.shape and bool(np.allclose(found.numpy(), expected, atol=1e-6))

    return check


RGBA = arrays(shape=(6, 5, 4))[0]
add("arrays", "value", custom(four(X, Y)), check=inputs(X[:, None] / 255))
add("arrays (n, H, W, 4)", "value", custom(four(RGBA, Y)), check=inputs(RGBA.transpose(0, 3, 1, 2) / 255))
add(
    "labels 1 to 10",
    "warning",
    custom(four(X, np.arange(30) % 10 + 1)),
    "become the classes 0 to 9",
    lambda data: data.classes == 10 and int(data.train.targets.max()) == 9,
)
add("boolean images", "value", custom(four(X > 100, Y)), check=inputs((X > 100)[:, None]))
add("images of 0 and 1", "value", custom(four((X > 100).astype(np.int64), Y)), check=inputs((X > 100)[:, None]))
add(
    "floats up to 255",
    "warning",
    custom(four(X.astype(np.float32), Y)),
    "dataset.scale=unit divides them by 255",
    inputs(X[:, None] / 255),
)
add(
    "MedMNIST's names",
    "warning",
    npz(
        x_train=None,
        y_train=None,
        x_test=None,
        y_test=None,
        train_images=X,
        train_labels=Y[:, None],
        test_images=X,
        test_labels=Y[:, None],
        val_images=X,
        val_labels=Y[:, None],
    ),
    "val_images, val_labels are not read",
    inputs(X[:, None] / 255),
)
add("Keras's names", "value", npz(), check=inputs(X[:, None] / 255))
add(
    "bfloat16",
    "value",
    custom(four(torch.from_numpy(X / 255).bfloat16(), torch.from_numpy(Y))),
    check=lambda data: data.shape == (1, 6, 6),
)
add("sparse tensors", "value", custom(lambda: sparse()), check=inputs(X[:, None] / 255))
add("nested tensors", "refused", custom(lambda: nested()), "a nested tensor; pad the samples")
add("meta tensors", "refused", custom(four(torch.empty(30, 6, 6, device="meta"), Y)), "a meta tensor has no values")


def sparse() -> Any:
    x = torch.from_numpy(X / 255).float()
    return x.to_sparse(), Y, x[:9].to_sparse(), Y[:9]


def nested() -> Any:
    x = torch.nested.nested_tensor([torch.rand(3), torch.rand(4)], layout=torch.jagged)
    return x, [0, 1], x, [0, 1]


class Items(Dataset):
    """Items by a function of the index."""

    def __init__(self, item: Callable[[int], Any], length: int | BaseException = 12) -> None:
        self.item, self.length = item, length

    def __getitem__(self, index: int) -> Any:
        if index >= 12:
            raise IndexError
        return self.item(index)

    def __len__(self) -> int:
        if isinstance(self.length, BaseException):
            raise self.length
        return self.length


def pair(item: Callable[[int], Any], length: Any = 12) -> Callable[[], Any]:
    def load() -> Any:
        return Items(item, length), Items(item, length)

    return load


add("items at random", "refused", custom(pair(lambda i: (torch.rand(4, 4), i % 2))), "set dataset.augment")
add(
    "items flipped at random",
    "refused",
    custom(pair(lambda i: (X[i][:, :: random.choice([1, -1])], i % 2))),
    "set dataset.augment",
)
add("item labels 0.7", "refused", custom(pair(lambda i: (X[i], 0.7))), "labels must be whole numbers, not 0.7")
add(
    "a raising __len__",
    "refused",
    custom(pair(lambda i: (X[i], i % 2), ValueError("no length"))),
    "ValueError: no length",
)

# Further ones (c).
add(
    "items (index % 3) as floats",
    "value",
    custom(pair(lambda i: (X[i], float(i % 3)))),
    check=lambda data: data.train.targets.tolist() == [i % 3 for i in range(12)],
    origin="c",
)
add(
    "items with labels of text",
    "value",
    custom(pair(lambda i: (X[i], "ab"[i % 2]))),
    check=named("a", "b"),
    origin="c",
)
add(
    "items as dictionaries",
    "refused",
    custom(pair(lambda i: {"image": X[i], "label": i})),
    "must be (sample, label), not a dict",
    origin="c",
)
add(
    "16-bit Pillow images as items",
    "value",
    custom(pair(lambda i: (Image.fromarray(deep(i, i % 2)), i % 2))),
    check=lambda data: 0.5 < float(data.train.part(0, 12)[0].max()) <= 1,
    origin="c",
)
add(
    "Pillow images with a palette as items",
    "value",
    custom(pair(lambda i: (Image.fromarray(np.dstack([X[i]] * 3)).convert("P"), i % 2))),
    check=lambda data: data.shape == (3, 6, 6),
    origin="c",
)
add(
    "bytes beside floats as items",
    "refused",
    custom(pair(lambda i: (X[i] if i % 2 else X[i] * 1.5, i % 2))),
    "some samples are integers, others floats",
    origin="c",
)
add(
    "one-hot labels",
    "value",
    custom(four(X, np.eye(3)[Y])),
    check=lambda data: data.train.targets.tolist() == Y.tolist(),
    origin="c",
)
add(
    "soft labels",
    "refused",
    custom(four(X, np.eye(3)[Y] * 0.8 + 0.1)),
    "neither (n,) labels nor one-hot rows",
    origin="c",
)
add(
    "scikit-learn's order of arrays",
    "refused",
    custom(lambda: (X, X[:9], Y, Y[:9])),
    "the order of arrays is x_train, y_train",
    origin="c",
)
add("masked arrays", "refused", custom(four(np.ma.masked_greater(X, 250), Y)), "some entries are masked", origin="c")
add(
    "16-bit arrays",
    "refused",
    custom(four(X.astype(np.uint16) * 257, Y)),
    "integer pixels must be from 0 to 255",
    origin="c",
)
add(
    "labels 100, 200, 300",
    "warning",
    custom(four(X, 100 * (Y + 1))),
    "the labels 100, 200, 300 become the classes 0 to 2",
    lambda data: data.classes == 3,
    "c",
)
add("a class without training samples", "warning", npz(y_train=2 * (Y % 2)), "no sample has the label 1", origin="c")
add("labels -1", "refused", npz(y_train=Y - 1), "labels run from -1", origin="c")
add(
    "labels of text",
    "value",
    npz(y_train=np.array(list("abc"))[Y], y_test=np.array(list("abc"))[Y[:9]]),
    check=named("a", "b", "c"),
    origin="c",
)
add(
    "text of the test set that is not in the training set",
    "refused",
    npz(y_train=np.array(list("abc"))[Y], y_test=np.array(list("abd"))[Y[:9]]),
    "label d of the test samples",
    origin="c",
)
add(
    "floats below 0",
    "warning",
    custom(four(X / 255.0 - 0.5, Y)),
    "dataset.scale=unit leaves them as they are",
    inputs(X[:, None] / 255 - 0.5),
    "c",
)
add(
    "pixels from 0 to 16",
    "warning",
    custom(four(X // 16, Y)),
    "divides them by 255",
    inputs((X // 16)[:, None] / 255),
    "c",
)
add(
    "13 channels last",
    "warning",
    custom(four(arrays(shape=(16, 16, 13))[0], Y)),
    "read as 13 channels of 16 x 16",
    lambda data: data.shape == (13, 16, 16),
    "c",
)
add(
    "volumes of 8 x 8 x 8",
    "warning",
    custom(four(arrays(shape=(8, 8, 8))[0], Y)),
    "read as 8 channels of 8 x 8",
    origin="c",
)
add("complex numbers", "refused", custom(four(X * 1j, Y)), "samples must be numbers", origin="c")
add(
    "numbers beyond single precision",
    "refused",
    custom(four(X * 1e300, Y)),
    "NaN or infinite in single precision",
    origin="c",
)
add("a dictionary of arrays", "refused", custom(lambda: {"x_train": X}), "not a dict", origin="c")
add(
    "data loaders",
    "refused",
    custom(lambda: [torch.utils.data.DataLoader(TensorDataset(torch.rand(4, 2)))] * 2),
    "not a pair of DataLoader and DataLoader",
    origin="c",
)
add("both x_train and train_images", "refused", npz(train_images=X), "has both", origin="c")

# Further ones (b).
BUFFER = np.zeros((6, 6), np.uint8)


def reused(index: int) -> tuple[np.ndarray, int]:
    BUFFER[:] = X[index]
    return BUFFER, index % 2


COUNTED = X.copy()


def changing(index: int) -> tuple[np.ndarray, int]:
    COUNTED[index] += 1
    return COUNTED[index], index % 2


SIZES = [3]


def consuming(sizes: list[int]) -> Any:
    sizes.append(1)
    return X, Y, X[:9], Y[:9]


def unseeded() -> Any:
    x = np.random.random((30, 4, 4)) + random.random() * 0 + torch.rand(1).item() * 0
    return x, Y, x[:9], Y[:9]


KEPT = X.copy()


def kept() -> Any:
    return KEPT, Y, KEPT, Y


add("a buffer that every item reuses", "value", custom(pair(reused)), check=inputs(X[:12, None] / 255), origin="b")
add(
    "items that are changed by reading",
    "refused",
    custom(pair(changing)),
    "differs when it is read again",
    origin="b",
)
add(
    "options that are changed by the call",
    "value",
    custom(consuming, sizes=SIZES),
    check=lambda data: SIZES == [3],
    origin="b",
)
add("arrays that the caller keeps", "value", custom(kept), check=inputs(X[:, None] / 255), origin="b")
add(
    "data drawn without a seed",
    "value",
    custom(unseeded),
    origin="b",
    check=lambda data: data.sha256 == data_again().sha256,
)


def data_again() -> Data:
    from lazyexp.config.schema import DatasetConfig
    from lazyexp.data import load_data

    (settings,) = (found.make(Path()) for found in DATA if found.name == "data drawn without a seed")
    return load_data(DatasetConfig(**settings), "", torch.device("cpu"))


# --- models ------------------------------------------------------------------------------------------------

IN_PLACE = "changes its input in place"


class Net(nn.Module):
    """A linear network; `before` sees the input first."""

    def __init__(self, before: Callable[[nn.Module, Tensor], Any] | None = None, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), *layers, nn.Linear(16, 3))
        self.before = before

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            self.before(self, x)
        return self.layers(x.float())


def model(name: str, outcome: str, make: Callable[[], Any], text: str = "", origin: str = "b") -> None:
    MODELS.append(Case(name, outcome, make, text, None, origin))


def only_in_training(module: nn.Module, x: Tensor) -> None:
    if module.training:
        x.add_(1)


def recent(module: Any, x: Tensor) -> None:
    if not hasattr(module, "recent"):
        module.recent = deque(maxlen=99)
    module.recent.append(len(x))


def cached(module: Any, x: Tensor) -> None:
    if not hasattr(module, "mask"):
        module.mask = torch.ones(4)


class Extra(Net):
    """Has a state besides parameters and buffers."""

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.extra = state

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


GLOBAL = Net()
model("x.mul_(.5)", "refused", lambda: Net(lambda module, x: x.mul_(0.5)), IN_PLACE, "issue")
model("get_extra_state: a dictionary", "value", lambda: Extra({"steps": 3}), "", "issue")
model("get_extra_state: an object", "refused", lambda: Extra(object()), "which cannot be saved safely", "issue")
model(
    "ReLU(inplace=True) first",
    "refused",
    lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 3)),
    IN_PLACE,
)
model(
    "ReLU(inplace=True) later", "value", lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.ReLU(inplace=True))
)
model("x[:, 0] = 0", "refused", lambda: Net(lambda module, x: x.__setitem__((slice(None), 0), 0.0)), IN_PLACE)
model("x.data.clamp_()", "refused", lambda: Net(lambda module, x: x.data.clamp_(0, 0.1)), IN_PLACE)
model("x.numpy() += 1", "refused", lambda: Net(lambda module, x: x.detach().numpy().__iadd__(1)), IN_PLACE)
model("a change through a view", "refused", lambda: Net(lambda module, x: x.flatten(1).t().add_(1)), IN_PLACE)
model("a change in training mode alone", "refused", lambda: Net(only_in_training), "in training mode")
model("a list of recent batches", "warning", lambda: Net(recent), "keeps recent outside of its state_dict")
model("a cache that is filled once", "value", lambda: Net(cached))
model(
    "NumPy's generator in forward", "warning", lambda: Net(lambda module, x: np.random.random()), "which have no seed"
)
model(
    "Python's generator in forward", "warning", lambda: Net(lambda module, x: random.random()), "which have no seed"
)


def changes_the_default_dtype() -> Any:
    torch.set_default_dtype(torch.float64)
    return Net()


model("the same network at every call", "refused", lambda: GLOBAL, "returned the same network as before")
model(
    "a change of the default dtype",
    "refused",
    changes_the_default_dtype,
    "default dtype",
)
model("batch normalisation and dropout", "value", lambda: Net(None, nn.BatchNorm1d(16), nn.Dropout()))


def markdown() -> str:
    """The tables of docs/inputs.md."""
    parts = []
    for title, cases in (
        ("Data sets", DATA),
        ("Custom models", MODELS),
        ("Settings and shell", [one for one in SETTINGS if one.origin == "issue"]),
    ):
        lines = [f"### {title}", "", "| input | outcome | message |", "|---|---|---|"]
        for one in cases:
            text, name = (word.replace("|", "\\|").replace("\n", " ") for word in (one.text, one.name))
            name = f"`{name}`" if "=" in name or "Python:" in name else name
            lines.append(f"| {name} | {one.outcome} | {f'`{text}`' if text else ''} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


if __name__ == "__main__":
    print(markdown())
