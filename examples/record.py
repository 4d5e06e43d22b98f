"""98.9 % on handwritten digits (EMNIST) in one file: what `lazyexp rule=fast_lazy dataset=emnist` does.

    python examples/record.py DATA_FOLDER [SEED]

PyTorch alone. DATA_FOLDER holds EMNIST/raw/emnist-digits-{train,test}-{images-idx3,labels-idx1}-ubyte. A network with
one hidden layer of 1,000 units, and four ideas:

1. Lazy learning (Pache & van Rossum 2023, arXiv 2303.16067): only samples that are misclassified, or classified with
   little confidence, update the weights. Nine samples in ten need no backward pass.
2. Spaced review: a sample that needed no update is skipped for 1, 2, 4 epochs; a confident one for 4 at once.
3. Packing: whole blocks are scored at once; the selected samples wait in a queue and are trained on in full batches.
4. Components: which samples to select can be seen from 64 principal components of the images; that product is twelve
   times smaller. The projected weights follow every update.

The clock covers everything but reading the files and the final test.
"""

from __future__ import annotations

import hashlib
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

EPOCHS, BATCH, LEARNING_RATE, WIDTH, CLASSES = 12, 32, 0.2, 1000, 10
THRESHOLD, CONFIDENT, LONGEST = 0.67, 0.95, 4  # of the largest softmax; epochs to skip at most
COMPONENTS, SAMPLE, SCORED, BLOCK, SHARED = 64, 4096, 256, 2048, 128
# Scores may be rounded where the processor multiplies bfloat16 (AVX512-BF16, AMX).
SCORES = torch.bfloat16 if getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() else torch.float32


def read(folder: str, part: str) -> tuple[Tensor, Tensor]:
    """Pixels (n, 784) and labels (n,) from files in the IDX format: a header of 16 or 8 bytes, then bytes."""
    raw = Path(folder).expanduser() / "EMNIST" / "raw"
    images, labels = (
        torch.frombuffer(bytearray((raw / f"emnist-digits-{part}-{kind}-ubyte").read_bytes()), dtype=torch.uint8)[
            head:
        ]
        for kind, head in (("images-idx3", 16), ("labels-idx1", 8))
    )
    images = images.view(-1, 28, 28).transpose(1, 2)  # EMNIST stores them transposed
    return images.reshape(-1, 784), labels.long()


def generator(*name: object) -> torch.Generator:
    """A generator for each purpose, seeded by its name."""
    digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Inputs:
    """Images with zero mean and unit variance over all training pixels."""

    def __init__(self, pixels: Tensor) -> None:
        counts = torch.zeros(256, dtype=torch.float64)
        for part in pixels.split(20000):
            counts += torch.bincount(part.flatten(), minlength=256)
        values = torch.arange(256, dtype=torch.float64)
        mean = float((counts * values).sum() / counts.sum())
        self.scale = 1 / float(((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt())
        self.offset, self.pixels = -mean * self.scale, pixels

    def __call__(self, index: Tensor | slice, pixels: Tensor | None = None) -> Tensor:
        return (self.pixels if pixels is None else pixels)[index].float().mul_(self.scale).add_(self.offset)


class Scorer:
    """Logits from the principal components r = V^T (x - m): W x + b is close to (W V) r + (W m + b)."""

    def __init__(self, inputs: Inputs, w1: Tensor, b1: Tensor) -> None:
        n = len(inputs.pixels)
        sample = inputs(torch.arange(min(n, SAMPLE)) * (n // min(n, SAMPLE)))
        self.mean = sample.mean(0)
        sample.sub_(self.mean)
        basis = torch.randn(784, COMPONENTS + 10, generator=generator(0, "components"))
        for _ in range(2):  # subspace iteration (Halko, Martinsson & Tropp 2011, arXiv 0909.4061)
            basis = torch.linalg.qr(sample.t() @ (sample @ basis))[0]
        seen = sample @ basis
        basis = basis @ torch.linalg.eigh(seen.t() @ seen)[1][:, -COMPONENTS:]
        self.centre, self.first, self.bias = self.mean @ basis, w1 @ basis, b1 + w1 @ self.mean
        self.table, self.along_mean = torch.empty(n, COMPONENTS, dtype=SCORES), torch.empty(n)
        for start in range(0, n, 2048):
            x = inputs(slice(start, start + 2048))
            self.table[start : start + 2048] = torch.addmm(-self.centre, x, basis)
            self.along_mean[start : start + 2048] = (x @ self.mean).add_(1)

    def follow(self, deltas: Tensor, index: Tensor) -> None:
        """After W += deltas^T x and b += sum(deltas)."""
        self.first.addmm_(deltas.t(), self.table[index].float().add_(self.centre))
        self.bias.addmv_(deltas.t(), self.along_mean[index])

    def __call__(self, index: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        first, bias = self.first.to(SCORES).t(), self.bias.to(SCORES)
        last, shift = F.pad(w2, (0, 0, 0, 6)).to(SCORES).t(), F.pad(b2, (0, 6)).to(SCORES)  # 16 columns are faster
        logits = [
            torch.addmm(shift, torch.addmm(bias, self.table[part], first).clamp_min_(0), last)
            for part in index.split(SCORED)
        ]
        return torch.cat(logits)[:, :CLASSES].float()


def train_batches(
    index: Tensor, rate: float, net: list[Tensor], inputs: Inputs, labels: Tensor, scorer: Scorer
) -> None:
    """Exact SGD on batches of 32 that share the products with the first layer.

    After an update by sample i, the pre-activations of sample j change by (x_i . x_j + 1) delta_i.
    """
    w1, b1, w2, b2 = net
    for block in index.split(SHARED):
        x, onehot = inputs(block), F.one_hot(labels[block], CLASSES)
        z, overlap = torch.addmm(b1, x, w1.t()), (x @ x.t()).add_(1)
        deltas = torch.empty_like(z)
        for start in range(0, len(block), BATCH):
            here = slice(start, start + BATCH)
            if start:
                z[here].addmm_(overlap[here, :start], deltas[:start])
            h = z[here].clamp_min(0)
            last = torch.addmm(b2, h, w2.t()).softmax(1).sub_(onehot[here]).mul_(-rate / BATCH)
            deltas[here] = (last @ w2).mul_(h > 0)
            w2.addmm_(last.t(), h)
            b2.add_(last.sum(0))
        w1.addmm_(deltas.t(), x)
        b1.add_(deltas.sum(0))
        scorer.follow(deltas, block)


@torch.inference_mode()
def train(folder: str, seed: int = 0) -> dict[str, float]:
    """Train. Returns test accuracy, seconds, and numbers of presented and selected samples and of updates."""
    pixels, labels = read(folder, "train")
    n, presented, selected, updates = len(labels), 0, 0, 0
    began = time.perf_counter()
    inputs, rng = Inputs(pixels), generator(seed, "weights")
    net = [
        torch.empty(shape).uniform_(-1 / math.sqrt(fan), 1 / math.sqrt(fan), generator=rng)
        for shape, fan in (((WIDTH, 784), 784), ((WIDTH,), 784), ((CLASSES, WIDTH), WIDTH), ((CLASSES,), WIDTH))
    ]
    scorer = Scorer(inputs, net[0], net[1])
    skip, due = torch.ones(n, dtype=torch.int32), torch.zeros(n, dtype=torch.int32)
    queue, share = torch.empty(0, dtype=torch.int64), 1.0
    for epoch in range(EPOCHS):
        order = torch.randperm(n, generator=generator(seed, "order", epoch))
        order = order[due[order] <= epoch]
        position = 0
        while position < len(order):
            # While many samples are selected, blocks are short, so that the weights behind a selection are recent.
            wanted = min(4 * BATCH / max(share, 1e-6), BLOCK)
            size = BLOCK if wanted >= BLOCK else 1 << int(math.log2(wanted))
            index = order[position : min(position + size, (position // BLOCK + 1) * BLOCK)]
            position += len(index)
            confidence, guess = scorer(index, net[2], net[3]).softmax(1).max(1)
            chosen = (guess != labels[index]) | (confidence < THRESHOLD)
            pause = skip[index].masked_fill(confidence >= CONFIDENT, LONGEST)
            due[index] = epoch + 1 + torch.where(chosen, 0, pause).int()
            skip[index] = torch.where(chosen, 1, (2 * pause).clamp_max(LONGEST)).int()
            picked = index[chosen]
            presented, selected = presented + len(index), selected + len(picked)
            share = 0.5 * share + 0.5 * len(picked) / len(index)
            queue = torch.cat([queue, picked])
            full = len(queue) // BATCH * BATCH
            if full:
                begin = (position - 1) // BATCH * BATCH
                rate = LEARNING_RATE * (1 - (epoch + begin / len(order)) / EPOCHS)
                train_batches(queue[:full], rate, net, inputs, labels, scorer)
                queue, updates = queue[full:], updates + full // BATCH
    seconds = time.perf_counter() - began
    pixels, labels = read(folder, "test")
    right = 0
    for start in range(0, len(labels), 2048):
        here = slice(start, start + 2048)
        h = torch.addmm(net[1], inputs(here, pixels), net[0].t()).clamp_min_(0)
        right += int((torch.addmm(net[3], h, net[2].t()).argmax(1) == labels[here]).sum())
    return {"test_accuracy": right / len(labels), "train_seconds": seconds, "samples_seen": presented,
            "selected": selected, "backward_samples": updates * BATCH, "updates": updates}  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, value in train(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0).items():
        print(f"{name:<18}{value:,.4f}" if isinstance(value, float) else f"{name:<18}{value:,}")
