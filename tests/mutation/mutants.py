"""Do the tests notice mistakes? Puts one mistake at a time into a copy of the package and runs the quick tests.

    python tests/mutation/mutants.py                  all of them, some seconds each
    python tests/mutation/mutants.py --only divisor   those whose name contains a word

Prints a line per mistake, `killed` or `SURVIVED`, and the score. Exit code 1 if one survived. A mistake whose text
is no longer in the code is an error: mend the list below.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# fmt: off
# name, file below lazyexp/, what stands there, what is put in its place
MUTANTS = [
    ("divisor swapped", "training/fast/layers.py", 'if reduction == "batch"', 'if reduction != "batch"'),
    ("look-ahead counts one too few", "training/fast/lookahead.py", "self.forwards += stop - start", "self.forwards += stop - start - 1"),
    ("look-ahead forgets the bias", "training/fast/lookahead.py", ".t()).add_(1)", ".t())"),
    ("deferred forgets the bias", "training/fast/deferred.py", "out=buffers.gram[:size, :size]).add_(1)", "out=buffers.gram[:size, :size])"),
    ("possible updates floored", "training/trainer.py", "-(-self.place * samples // (length * batch_size))", "self.place * samples // (length * batch_size)"),
    ("best accuracy is the last", "results.py", "max(accuracies, default=None)", "(accuracies or [None])[-1]"),
    ("crossing needs more than the target", "results.py", "if value >= target", "if value > target"),
    ("stop_at needs more", "training/trainer.py", "self.last_test_accuracy >= self.plan.stop_at", "self.last_test_accuracy > self.plan.stop_at"),
    ("packed uses the first rate", "training/fast/packed.py", "rates[(place - 1) // self.batch_size]", "rates[0]"),
    ("packed does not count judging", "training/fast/packed.py", "forwards: int | Tensor = len(index)", "forwards: int | Tensor = 0"),
    ("place in a replay is lost", "rules/controls.py", '"place": self.place}', '"place": torch.zeros_like(self.place)}'),
    ("kakurenbo hides the sure and wrong", "rules/peers.py", "~judged.wrong & (judged.confidence >= self.sure)", "judged.confidence >= self.sure"),
    ("progressive forgets the epoch", "rules/mistakes.py", "awake = super().epoch_indices(epoch)", "awake = super().epoch_indices(epoch) if self.selects else None"),
    ("lazy learns from the right ones", "rules/mistakes.py", "-> Tensor:\n        return judged.wrong\n", "-> Tensor:\n        return ~judged.wrong\n"),
    ("a sleeper wakes too late", "rules/mistakes.py", "self.epoch + 1 + torch.where", "self.epoch + 2 + torch.where"),
    ("infobatch does not rescale", "rules/peers.py", "self.weight[shuffled[:kept]] = 1 / (1 - self.ratio)", "self.weight[shuffled[:kept]] = 1.0"),
    ("energy forgets the biases", "energy.py", "inputs.abs().sum(1).double() + 1)", "inputs.abs().sum(1).double())"),
    ("minimum energy from nowhere", "energy.py", "change = parameter.double() - first.double()", "change = parameter.double()"),
    ("shape is not in the fingerprint", "data/raw.py", "{name} {array.shape} {array.dtype}", "{name}"),
    ("the older checkpoint is not kept", "results.py", "            os.replace(newest, former)\n", "            newest.unlink()\n"),
    ("rows are not forced to disk", "results.py", "            fsync(self.metrics)\n        if newest", "            pass\n        if newest"),
    ("checksums are not compared", "results.py", "if not path.exists() or _sha256(path) != summary.get(column)", "if not path.exists()"),
    ("suspended time counts", "clock.py", "self._seconds - idle, self.suspended + idle", "self._seconds, self.suspended + idle"),
    ("warm-up ends too early", "training/trainer.py", "if progress < plan.warmup", "if progress < plan.warmup / 2"),
    ("the schedule is not stretched after the warm-up", "training/trainer.py", "(progress - plan.warmup) / (1 - plan.warmup)", "progress"),
    ("defaults are part of the identity", "rules/base.py", "if value != default}", "}"),
    ("learning rates are made on the CPU", "training/fast/layers.py", "made.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else made", "made"),
    ("a round asks whether anybody learns", "training/fast/rounds.py", "updates = number.clamp_max(1)", "updates = number.clamp_max(1) if number.item() else number"),
    ("a graph reads a rule's replaced weights", "training/fast/rounds.py", "tape.weight[: len(index)] = 1 if weight is None else weight", "tape.weight = torch.ones_like(tape.weight) if weight is None else weight"),
    ("a round counts what lies behind the end", "training/fast/rounds.py", "presented = inside.sum()", "presented = (rows >= 0).sum()"),
    ("momentum fades while nobody learns", "training/fast/rounds.py", "1 - on * (1 - self.momentum), on * -rate", "self.momentum, on * -rate"),
    ("rehearsals overwrite what was judged", "training/fast/rounds.py", "tape.end.fill_(tape.room // self.batch_size)", "tape.end.zero_()"),
    ("a graph's filling learns", "training/fast/deferred.py", "buffers.step[size:].zero_()", "buffers.step[size:].fill_(0.1)"),
    ("nobody is judged again", "training/fast/bf16_split.py", "logits.index_copy_(0, doubtful,", "logits.clone().index_copy_(0, doubtful,"),
]
# fmt: on


def killed(path: str, old: str, new: str) -> bool:
    """Whether the quick tests fail on a copy of the project with `old` replaced by `new`. Raises ValueError."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "project"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".git", "runs", "__pycache__", ".venv", "*.egg-info")
        )
        target = copy / "lazyexp" / path
        text = target.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{path} holds {text.count(old)} times, and not once: {old}")
        target.write_text(text.replace(old, new))
        answer = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"],
            cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True,
        )  # fmt: skip
    if answer.returncode not in (0, 1):  # 2: interrupted by -x in another process
        return "failed" in answer.stdout
    return answer.returncode == 1


def main(only: str) -> int:
    """Returns the number of survivors."""
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
    parser.add_argument("--only", default="", help="a word in the names of the mistakes to try")
    sys.exit(main(parser.parse_args().only) > 0)
