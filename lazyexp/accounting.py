"""Counters, clocks and energy: everything that is claimed about a run is counted here."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from lazyexp.rules import Judged


class Clock:
    """Seconds inside `with clock:`, less those inside `with clock.off():`.

    On a GPU it is read only after a synchronise, and `off` does nothing: two synchronisations for every update
    would cost more than what they leave out.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = self.left_out = 0.0
        self.suspended = False  # set by whoever notices that the process was stopped and goes on
        self._cuda = device if device.type == "cuda" else None

    def _now(self) -> float:
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        return time.perf_counter()

    def __enter__(self) -> Clock:
        self._start, self._busy = self._now(), time.thread_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds += self._now() - self._start
        if self.suspended:
            # While stopped (Ctrl-Z, SLURM's suspend) a process uses no processor; training uses it all the time.
            idle = max(time.perf_counter() - self._start - (time.thread_time() - self._busy), 0.0)
            self.seconds, self.left_out, self.suspended = self.seconds - idle, self.left_out + idle, False

    @contextmanager
    def off(self) -> Iterator[None]:
        if self._cuda is not None:
            yield
            return
        start = time.perf_counter()
        yield
        self.seconds -= time.perf_counter() - start


@dataclass
class Outcome:
    """What became of a chunk of m samples: the `logits` (m, classes) by which they were judged, in the order
    presented, `chosen` (m,) bool which of them the rule let learn, and the samples that `learned` (k,) meanwhile:
    the chosen ones, unless they wait for a full batch. `forwards` are the samples forwarded, `updates` the optimizer
    steps.
    """

    logits: Tensor
    learned: Tensor
    forwards: int
    updates: int
    chosen: Tensor


@dataclass
class Tally:
    """The counters of a run, as defined in the documentation of metrics.csv."""

    samples_seen: int = 0
    forward_samples: int = 0
    backward_samples: int = 0
    updates: int = 0
    # Since the last evaluation:
    count: int = 0
    correct: int = 0
    loss: float = 0.0


class Counters:
    """The tally, and for every training sample how often it was presented, misclassified and learned from."""

    def __init__(self, samples: int, device: torch.device) -> None:
        self.tally = Tally()
        self.presented, self.misclassified, self.learned = (
            torch.zeros(samples, dtype=torch.int32, device=device) for _ in range(3)
        )

    def add(self, judged: Judged, outcome: Outcome) -> tuple[int, int, bool]:
        """Books a chunk. Returns (correct, learned, whether every loss was finite)."""
        # One transfer for the numbers that Python needs.
        loss, wrong = torch.stack([judged.loss.double().sum(), judged.wrong.sum().double()]).tolist()
        tally, size, learned = self.tally, len(judged.index), len(outcome.learned)
        tally.samples_seen += size
        tally.forward_samples += outcome.forwards
        tally.backward_samples += learned
        tally.updates += outcome.updates
        tally.count += size
        tally.correct += size - int(wrong)
        tally.loss += loss
        for counts, index in (
            (self.presented, judged.index),
            (self.misclassified, judged.index[judged.wrong]),
            (self.learned, outcome.learned),
        ):
            counts.index_add_(0, index, torch.ones_like(index, dtype=torch.int32))
        return size - int(wrong), learned, math.isfinite(loss)

    def take_interval(self) -> tuple[float, float]:
        """Mean loss and accuracy over the samples presented since the last call."""
        tally = self.tally
        count = max(tally.count, 1)
        means = tally.loss / count, tally.correct / count
        tally.count, tally.correct, tally.loss = 0, 0, 0.0
        return means

    def state(self) -> dict[str, Any]:
        samples = {name: getattr(self, name) for name in ("presented", "misclassified", "learned")}
        return {"tally": asdict(self.tally), **samples}

    def restore(self, state: dict[str, Any]) -> None:
        self.tally = Tally(**{field.name: state["tally"][field.name] for field in fields(Tally)})
        for name in ("presented", "misclassified", "learned"):
            getattr(self, name).copy_(state[name])


class Energy:
    """What plasticity costs: M1 = sum of |dw|, M0 = number of dw != 0, over all updates and parameters.

    After Li & van Rossum 2020 (eLife 9:e50804) and van Rossum & Pache 2024. Biases count. The minima are
    those of the direct path from the initial to the present weights.
    """

    def __init__(self, model: nn.Module, clock: Clock, enabled: bool = True) -> None:
        self.enabled, self.clock = enabled, clock
        self.parameters = list(model.parameters())
        self.initial = [parameter.detach().clone() for parameter in self.parameters] if enabled else []
        self._before: list[Tensor] = []
        device = self.parameters[0].device
        self.l0, self.l1 = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(2))

    def before_step(self) -> None:
        """Remembers the weights, whatever the optimizer is about to do to them."""
        if self.enabled:
            with self.clock.off(), torch.no_grad():
                if not self._before:
                    self._before = [torch.empty_like(parameter) for parameter in self.parameters]
                for kept, parameter in zip(self._before, self.parameters, strict=True):
                    kept.copy_(parameter)

    def after_step(self) -> None:
        """Adds what the step has changed."""
        if self.enabled:
            with self.clock.off(), torch.no_grad():
                for kept, parameter in zip(self._before, self.parameters, strict=True):
                    self.add_change(kept.sub_(parameter))

    def add_change(self, change: Tensor, factor: float = 1.0) -> None:
        """Adds an update of `factor * change` to some parameter; `change` is overwritten."""
        self.l0 += change.count_nonzero()
        self.l1 += change.abs_().sum().double() * factor

    def add_step(self, delta: Tensor, inputs: Tensor, rate: float = 1.0) -> None:
        """Adds one update of a linear layer, dW = rate * delta^T inputs, db = rate * sum of delta.

        delta (b, out), inputs (b, in). A single row factorises, see `add_rank_one_steps`.
        """
        if not self.enabled:
            return
        with self.clock.off():
            if len(delta) == 1:
                self._add_rank_one(delta, inputs, rate)
            else:
                self.add_change(delta.t() @ inputs, rate)
                self.add_change(delta.sum(0), rate)

    def add_rank_one_steps(self, deltas: Tensor, inputs: Tensor) -> None:
        """Adds n updates of a linear layer, the i-th being dW = deltas[i] inputs[i]^T, db = deltas[i].

        The sums factorise: sum |d_a x_b| = sum |d_a| * sum |x_b|, likewise for the counts.
        """
        if self.enabled:
            with self.clock.off():
                self._add_rank_one(deltas, inputs, 1.0)

    def _add_rank_one(self, deltas: Tensor, inputs: Tensor, rate: float) -> None:
        size = deltas.abs().sum(1).double() * (inputs.abs().sum(1).double() + 1)
        self.l1 += size.sum() * rate
        self.l0 += ((deltas != 0).sum(1) * ((inputs != 0).sum(1) + 1)).sum()

    def minimum(self) -> tuple[int, float]:
        """(M0, M1) of the direct path."""
        m0, m1 = 0, 0.0
        with torch.no_grad():
            for first, parameter in zip(self.initial, self.parameters, strict=True):
                change = parameter.double() - first.double()
                m0 += int(change.count_nonzero())
                m1 += float(change.abs_().sum())
        return m0, m1

    def state(self) -> dict[str, Tensor]:
        return {"l0": self.l0, "l1": self.l1}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.l0.copy_(state["l0"])
        self.l1.copy_(state["l1"])
