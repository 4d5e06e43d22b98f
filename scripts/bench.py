"""Time rules and engines against hand-written PyTorch loops; prints a table and writes a CSV.

    python scripts/bench.py                           # batch sizes and widths, then the whole 8-epoch run
    python scripts/bench.py --batches 1 --widths 1000 --repeats 5
    python scripts/bench.py --threads 1 2 --epochs 0
    python scripts/bench.py --device cuda --csv gpu.csv

The cases of a row run in one process and take turns; the table gives medians over the turns. Ratios are to plain
PyTorch; the last column is `fast` relative to `by hand`, the same products alone. Microseconds are per presented
sample; with --processor-time they are of processor time, summed over threads, for machines with other work.

    plain     nn.Sequential, CrossEntropyLoss, SGD, one loop over tensors in memory
    loader    the same with torchvision transforms and a DataLoader
    autograd  the autograd engine, backprop
    in place  the engine Direct, batch by batch, backprop
    fast      the engine of engine=auto, backprop
    by hand   the products of `fast` in a bare loop, without rules, counters and energy
    lazy      the engine of engine=auto, rule lazy, after a first epoch
    floor     only the forward products
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lazyexp.config.schema import DatasetConfig, ModelConfig, OptimizerConfig
from lazyexp.data import Samples, load_data
from lazyexp.errors import UserError
from lazyexp.models.builtin import make_model
from lazyexp.rules import RunInfo, make_rule
from lazyexp.training import EngineSpec, make_engine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.fast.deferred import BLOCK
from lazyexp.training.fast.direct import Direct
from lazyexp.utils.products import add_outer, affine, library

CASES = ("plain", "loader", "autograd", "in place", "fast", "by hand", "lazy", "floor")


class Bench:
    """The cases at one batch size and width, on `images`."""

    def __init__(self, images: Samples, batch_size: int, width: int, lr: float, samples: int) -> None:
        self.images, self.batch_size, self.width, self.lr = images, batch_size, width, lr
        self.device = images.targets.device
        # Enough samples for a stable number, few enough for a slow case.
        self.samples = max(min(samples, len(images)) // batch_size, 4) * batch_size
        self.order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).to(self.device)
        self.lazy: Callable[[int], None] | None = None

    def model(self) -> nn.Sequential:
        model = make_model(ModelConfig(width=self.width), self.images.shape, 10, 0)
        return model.to(self.device)

    timer = staticmethod(time.perf_counter)

    def seconds(self, act: Callable[[], None]) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        start = self.timer()
        act()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return self.timer() - start

    def engine(self, rule: str, kind: str) -> Callable[[int], None]:
        """A function that trains on n samples with an engine of lazyexp."""
        model, made = self.model(), make_rule({"name": rule})
        made.start(RunInfo(len(self.images), self.batch_size, 1, 0, self.device))
        energy = Energy(model, Clock(self.device), enabled=False)
        spec = EngineSpec(model, self.images, made, OptimizerConfig(lr=self.lr), self.batch_size, energy)
        engine = Direct(spec) if kind == "direct" else make_engine(kind, spec)

        def train(n: int) -> None:
            for index in self.order[:n].split(2048 // self.batch_size * self.batch_size or self.batch_size):
                engine.train(index, [self.lr] * -(-len(index) // self.batch_size))

        return train

    def plain(self) -> Callable[[int], None]:
        model, loss = self.model(), nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=self.lr)
        inputs, targets = self.images.batch(self.order[: self.samples])

        def train(n: int) -> None:
            for start in range(0, n, self.batch_size):
                optimizer.zero_grad()
                stop = start + self.batch_size
                loss(model(inputs[start:stop]), targets[start:stop]).backward()
                optimizer.step()

        return train

    def loader(self) -> Callable[[int], None]:
        from torch.utils.data import DataLoader, Dataset
        from torchvision import transforms

        to_input = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.17,), (0.33,))])
        pixels = self.images.pixels.view(-1, *self.images.shape[1:]).cpu().numpy()
        targets = self.images.targets.cpu()

        class Set(Dataset):
            def __len__(self) -> int:
                return len(targets)

            def __getitem__(self, i: int) -> tuple[Tensor, int]:
                return to_input(pixels[i][:, :, None]), int(targets[i])

        model, loss = self.model(), nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=self.lr)

        def train(n: int) -> None:
            left = n
            for x, y in DataLoader(Set(), batch_size=self.batch_size, shuffle=True):
                optimizer.zero_grad()
                loss(model(x.to(self.device)), y.to(self.device)).backward()
                optimizer.step()
                left -= self.batch_size
                if left <= 0:
                    return

        return train

    @torch.inference_mode()
    def by_hand(self) -> Callable[[int], None]:
        """Only what `fast` computes for backprop."""
        first, last = self.model()[1], self.model()[3]
        w1, b1, w2, b2 = (p.detach() for p in (first.weight, first.bias, last.weight, last.bias))
        b, lr = self.batch_size, self.lr
        block = BLOCK // b * b if b <= BLOCK // 4 else b
        relu_back = torch.ops.aten.threshold_backward

        def train(n: int) -> None:
            with torch.inference_mode():
                for start in range(0, n, block):
                    inputs, y = self.images.batch(self.order[start : min(start + block, n)])
                    x, size = inputs.flatten(1), len(y)
                    z, onehot = affine(x, w1, b1), nn.functional.one_hot(y, 10)
                    gram = (x @ x.t()).add_(1) if block > b else None
                    d = torch.empty_like(z)
                    for s in range(0, size, b):
                        here = z[s : s + b]
                        if s:
                            here.addmm_(gram[s : s + b, :s], d[:s])
                        h = torch.clamp_min(here, 0)
                        p = torch.softmax(torch.addmm(b2, h, w2.t()), 1).sub_(onehot[s : s + b]).mul_(-lr / b)
                        d[s : s + b] = relu_back(p @ w2, h, 0)
                        w2.addmm_(p.t(), h)
                        b2.add_(p.sum(0))
                    add_outer(w1, d, x)
                    b1.add_(d.sum(0))

        return train

    def floor(self) -> Callable[[int], None]:
        model, block = self.model(), max(256, self.batch_size)
        w1, w2 = model[1].weight.detach(), model[3].weight.detach()
        blocks = [self.images.batch(part)[0].flatten(1) for part in self.order[: self.samples].split(block)]

        def train(n: int) -> None:
            done = 0
            while done < n:
                for x in blocks:
                    torch.mm(torch.mm(x, w1.t()), w2.t())
                    done += len(x)

        return train

    def case(self, name: str) -> Callable[[int], None]:
        if name == "lazy":
            train = self.engine("lazy", "auto")
            train(len(self.images))  # mistakes are as rare as after a first epoch
            return train
        makers = {
            "plain": self.plain,
            "loader": self.loader,
            "autograd": lambda: self.engine("backprop", "autograd"),
            "in place": lambda: self.engine("backprop", "direct"),
            "fast": lambda: self.engine("backprop", "auto"),
            "by hand": self.by_hand,
            "floor": self.floor,
        }
        return makers[name]()

    def measure(self, repeats: int) -> dict[str, float]:
        """Microseconds per sample of every case, medians over turns."""
        slow = {"plain", "loader", "autograd", "in place"}
        trains = {name: self.case(name) for name in CASES}
        times: dict[str, list[float]] = {name: [] for name in CASES}
        for turn in range(repeats + 1):
            for name, train in trains.items():
                few = max(self.samples // (8 if name in slow else 1) // self.batch_size, 2) * self.batch_size
                n = min(few, self.samples)
                spent = self.seconds(lambda train=train, n=n: train(n)) / n * 1e6
                if turn:  # the first turn is the warm-up
                    times[name].append(spent)
        return {name: statistics.median(values) for name, values in times.items()}


def whole_run(images: Samples, width: int, epochs: int, repeats: int) -> list[tuple[str, float]]:
    """Seconds of `epochs` epochs at batch 1, learning rate 0.01 to 0: lazy whole, the others from their pace."""
    bench = Bench(images, 1, width, 0.01, 8192)
    n = len(images)
    paces: dict[str, list[float]] = {name: [] for name in ("plain", "in place", "fast", "floor")}
    trains = {name: bench.case(name) for name in paces}
    lazy, trained = [], 0
    for _ in range(repeats):
        # Paces before and after, because the speed of the machine may change during a run.
        for turn in range(2):
            if turn:
                seconds, trained = lazy_run(images, width, epochs)
                lazy.append(seconds)
            for name, train in trains.items():
                few = 2000 if name == "plain" else 8192
                train(few // 4)
                paces[name].append(bench.seconds(lambda train=train, few=few: train(few)) / few)
    median = {name: statistics.median(values) * epochs * n for name, values in paces.items()}
    print(f"\nlazy selected {trained:,} of {epochs * n:,} presented samples")
    return [("lazy", statistics.median(lazy)), *median.items()]


def lazy_run(images: Samples, width: int, epochs: int) -> tuple[float, int]:
    """A complete lazy run. Returns (training seconds, selected samples)."""
    device, n = images.targets.device, len(images)
    model, rule = make_model(ModelConfig(width=width), images.shape, 10, 0).to(device), make_rule({"name": "lazy"})
    clock = Clock(device)
    energy = Energy(model, clock)
    engine = make_engine("auto", EngineSpec(model, images, rule, OptimizerConfig(), 1, energy))
    trained = 0
    for epoch in range(epochs):
        with clock:
            order = torch.randperm(n, generator=torch.Generator().manual_seed(epoch)).to(device)
        for start in range(0, n, 2048):
            index = order[start : start + 2048]
            rates = [0.01 * (1 - (epoch + (start + i) / n) / epochs) for i in range(len(index))]
            with clock:
                outcome = engine.train(index, rates)
            trained += len(outcome.trained)
    return clock.seconds, trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 16, 64, 256, 1024])
    parser.add_argument("--widths", type=int, nargs="*", default=[100, 1000, 4000])
    parser.add_argument("--samples", type=int, default=16384, help="samples per turn of a fast case")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8, help="epochs of the whole run at batch 1; 0: skip it")
    parser.add_argument("--threads", type=int, nargs="*", default=[torch.get_num_threads()])
    parser.add_argument("--processor-time", action="store_true", help="of the process, instead of wall time")
    parser.add_argument("--data-dir", default=os.environ.get("LAZYEXP_DATA", "data"))
    parser.add_argument("--csv", default="bench.csv")
    options = parser.parse_args()
    device = torch.device(options.device)
    try:
        images = load_data(DatasetConfig(name="emnist"), options.data_dir, device).train
    except UserError as error:
        sys.exit(f"bench: {error}")
    if options.processor_time:
        Bench.timer = staticmethod(time.process_time)
    print(f"torch {torch.__version__}, {device}, products: {library()}, {len(images):,} images")
    table = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        print(
            f"\n{threads} threads\n{'batch':>5} {'width':>5}  " + "".join(f"{name:>10}" for name in (*CASES, "/hand"))
        )
        for width, batch_size in itertools.product(options.widths, options.batches):
            samples = max(options.samples // (4 if width > 1000 else 1), batch_size * 8)
            lr = 0.01 if batch_size == 1 else 0.1
            result = Bench(images, batch_size, width, lr, samples).measure(options.repeats)
            overhead = f"{result['fast'] / result['by hand']:>9.2f}x"
            ratios = "".join(f"{result['plain'] / result[name]:>9.2f}x" for name in CASES)
            micros = "".join(f"{result[name]:>8.1f}us" for name in CASES)
            print(f"{batch_size:>5} {width:>5}  {ratios}{overhead}\n{'':>13}{micros}", flush=True)
            table += [
                {"threads": threads, "batch": batch_size, "width": width, "case": name,
                 "us_per_sample": f"{result[name]:.3f}",
                 "times_faster_than_plain": f"{result['plain'] / result[name]:.3f}"}
                for name in CASES
            ]  # fmt: skip
    if options.epochs:
        result = whole_run(images, 1000, options.epochs, options.repeats)
        lazy = result[0][1]
        print(f"whole run, batch 1, width 1000, {options.epochs} epochs")
        for name, seconds in result:
            print(f"  {name:<10}{seconds:>9.2f} s  {seconds / lazy:>7.2f} x lazy")
            table.append({"threads": threads, "batch": 1, "width": 1000, "case": f"whole run: {name}",
                          "us_per_sample": f"{seconds / options.epochs / len(images) * 1e6:.3f}",
                          "times_faster_than_plain": f"{dict(result)['plain'] / seconds:.3f}"})  # fmt: skip
    with open(options.csv, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(table[0]) if table else ["case"])
        writer.writeheader()
        writer.writerows(table)
    print(f"\n{options.csv}")


if __name__ == "__main__":
    main()
