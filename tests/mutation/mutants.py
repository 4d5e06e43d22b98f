"""Hand-made mutants: put one error at a time into a copy of the package and run the quick tests.

    python tests/mutation/mutants.py                  all mutants, some seconds each
    python tests/mutation/mutants.py --only divisor   those whose name contains a word

Prints a line per mutant, `killed` or `SURVIVED`, and the score. Exits with 1 if a mutant survived. If the text of a
mutant is no longer in the code, adapt the list below; test_mutants.py reports it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mutate import copy_project

ROOT = Path(__file__).resolve().parents[2]
# fmt: off
# (name, file below lazyexp/, text, replacement)
MUTANTS = [
    ("divisor swapped", "training/fast/layers.py", 'if reduction == "batch"', 'if reduction != "batch"'),
    ("look-ahead counts one forward pass too few", "training/fast/lookahead.py", "self.forwards += stop - start", "self.forwards += stop - start - 1"),
    ("look-ahead omits the bias", "training/fast/lookahead.py", ".t()).add_(1)", ".t())"),
    ("deferred omits the bias", "training/fast/deferred.py", "        buffers.gram[:size, :size].add_(1)\n", ""),
    ("possible updates rounded down", "training/schedules.py", "-(-position * samples // (length * self.batch_size))", "position * samples // (length * self.batch_size)"),
    ("best accuracy is the last one", "runs/tables.py", "max(accuracies, default=None)", "(accuracies or [None])[-1]"),
    ("crossing needs more than the target", "runs/tables.py", "if value >= target", "if value > target"),
    ("stop_at needs more than the accuracy", "training/trainer.py", "self.last_test_accuracy >= schedule.stop_at", "self.last_test_accuracy > schedule.stop_at"),
    ("packed uses the first learning rate", "training/fast/packed.py", "rates[(position - 1) // self.batch_size]", "rates[0]"),
    ("packed does not count scored samples", "training/fast/packed.py", "forwards: int | Tensor = len(index)", "forwards: int | Tensor = 0"),
    ("position of the random rule is lost", "rules/baselines.py", '"position": self.position}', '"position": torch.zeros_like(self.position)}'),
    ("kakurenbo hides confident mistakes", "rules/kakurenbo.py", "~batch.wrong & (batch.confidence >= self.confidence_threshold)", "batch.confidence >= self.confidence_threshold"),
    ("a rule's factor on the learning rate is left out", "training/course.py", "[rate * self.rate_factor for rate in rates]", "rates"),
    ("progressive never sees the last epochs", "rules/progressive.py", "return self.epoch >= self.info.epochs - self.revision_epochs", "return False"),
    ("lazy selects correct samples", "rules/mistakes.py", "-> Tensor:\n        return batch.wrong\n", "-> Tensor:\n        return ~batch.wrong\n"),
    ("mistake gating forgets", "rules/mistakes.py", "self.ever_wrong[batch.index] |= batch.wrong", "self.ever_wrong[batch.index] = batch.wrong"),
    ("skipped samples return one epoch too late", "rules/spacing.py", "epoch + 1 + torch.where", "epoch + 2 + torch.where"),
    ("infobatch does not rescale", "rules/infobatch.py", "self.weight[shuffled[:kept]] = 1 / (1 - self.ratio)", "self.weight[shuffled[:kept]] = 1.0"),
    ("energy omits the biases", "training/energy.py", "inputs.abs().sum(1).double() + 1)", "inputs.abs().sum(1).double())"),
    ("minimum energy from zero", "training/energy.py", "change = parameter.double() - first.double()", "change = parameter.double()"),
    ("shape is not in the fingerprint", "data/raw.py", "{name} {tuple(array.shape)} {array[:0].numpy().dtype}", "{name}"),
    ("the older checkpoint is not kept", "runs/checkpoints.py", "        os.replace(newest, former)\n", "        newest.unlink()\n"),
    ("rows are not flushed to disk", "runs/checkpoints.py", "        fsync(metrics)\n    if newest", "        pass\n    if newest"),
    ("checksums are not compared", "runs/folder.py", "if not path.exists() or sha256(path) != summary.get(column)", "if not path.exists()"),
    ("suspended time counts", "training/clock.py", "self._seconds - idle, self.suspended + idle", "self._seconds, self.suspended + idle"),
    ("warm-up ends too early", "training/schedules.py", "if progress < self.warmup", "if progress < self.warmup / 2"),
    ("the schedule is not stretched after the warm-up", "training/schedules.py", "(progress - self.warmup) / (1 - self.warmup)", "progress"),
    ("defaults are part of the identity", "rules/base.py", "if value != default}", "}"),
    ("learning rates are made on the CPU", "training/fast/layers.py", "made.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else made", "made"),
    ("a round reads the number of selected samples on the host", "training/fast/rounds.py", "updates = number.clamp_max(1)", "updates = number.clamp_max(1) if number.item() else number"),
    ("a graph reads replaced weights of a rule", "training/fast/rounds.py", "buffers.weight[: len(index)] = 1 if weight is None else weight", "buffers.weight = torch.ones_like(buffers.weight) if weight is None else weight"),
    ("a round counts samples behind the end", "training/fast/rounds.py", "presented = inside.sum()", "presented = (rows >= 0).sum()"),
    ("momentum decays without selected samples", "training/fast/rounds.py", "1 - on * (1 - self.momentum), on * -rate", "self.momentum, on * -rate"),
    ("rehearsals of a graph overwrite scored samples", "training/fast/rounds.py", "buffers.end.fill_(buffers.room // self.batch_size)", "buffers.end.zero_()"),
    ("padding of a graph updates the weights", "training/fast/deferred.py", "buffers.step[size:].zero_()", "buffers.step[size:].fill_(0.1)"),
    ("doubtful samples are not scored again", "training/fast/bf16_split.py", "logits.index_copy_(0, doubtful,", "logits.clone().index_copy_(0, doubtful,"),
]
# fmt: on


def killed(path: str, old: str, new: str) -> bool:
    """Return whether the quick tests fail on a copy of the project with `old` replaced by `new`. Raises ValueError."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        copy_project(copy)
        target = copy / "lazyexp" / path
        text = target.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{path} contains this text {text.count(old)} times instead of once: {old}")
        target.write_text(text.replace(old, new))
        answer = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"],
            cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True,
        )  # fmt: skip
    if answer.returncode not in (0, 1):  # 2: interrupted by -x in another process
        return "failed" in answer.stdout
    return answer.returncode == 1


def main(only: str) -> int:
    """Return the number of survivors."""
    chosen = [mutant for mutant in MUTANTS if only in mutant[0]]
    survivors = 0
    for name, *change in chosen:
        dead = killed(*change)
        survivors += not dead
        print(f"{'killed' if dead else 'SURVIVED'}: {name}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} killed")
    return survivors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a word in the names of the mutants to try")
    sys.exit(main(parser.parse_args().only) > 0)
