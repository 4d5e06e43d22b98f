"""The text of `lazyexp --help`. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import Field
from typing import Any

from lazyexp.config.fields import default_of, walk
from lazyexp.config.registry import DATASETS, RULE_SUMMARIES
from lazyexp.config.schema import Config

TEMPLATE = """lazyexp: train networks on the samples they misclassify, and measure what that costs and saves.

Examples
  lazyexp                                             lazy learning on scikit-learn's digits, offline
  lazyexp rule=lazy dataset=emnist                    the paper's headline setting
  lazyexp rule=backprop dataset=emnist                its matched baseline
  lazyexp -m rule=lazy,backprop dataset=mnist model.width=100,300 seed=0,1,2    a sweep over all combinations
  lazyexp -m sweep=headline                           a named sweep; there is one per claim
  lazyexp -m sweep=headline hydra/launcher=joblib hydra.launcher.n_jobs=4    several runs at once
  lazyexp model._target_=my_nets.Net rule=lazy        a custom network (likewise rule, dataset, optimizer)
  lazyexp --config-dir my_conf rule=mine              with settings files in my_conf/rule/mine.yaml
  lazyexp -m sweep=headline --dry-run                 its runs, those that are finished, and how long the others take
  lazyexp-report runs --list                          status, accuracy and time left of every run, also during a sweep
  lazyexp-report runs/headline                        tables and figures of finished and running runs

Choices (group=choice)
$APP_CONFIG_GROUPS
Rules (rule=name): samples that update the weights
{rules}

Keys (key=value): default, meaning, values
{keys}

Defaults per data set: epochs, eval_every, targets
{datasets}

Results: RUNS_DIR/<run>/metrics.csv, summary.csv, run.json, learned.npz, model.pt, predictions.npz. The same command
finds the same folder: a finished run is not repeated, an interrupted run continues.
Exit codes: 0 done; 1 a run of a sweep failed; 2 user error (one line says how to fix it); 130 interrupted.
LAZYEXP_TRACEBACK=1 shows the traceback of an error in custom code. --version prints the version.
Shell completion: eval "$$(lazyexp -sc install=bash)" (or zsh, fish). Hydra's own flags: lazyexp --hydra-help
"""


def help_text() -> str:
    """The help as a template of Hydra's, in which `$` is doubled."""
    return TEMPLATE.format(
        rules="\n".join(f"  {name:<28} {summary}" for name, summary in RULE_SUMMARIES.items()),
        keys="\n".join(key_lines()).replace("$", "$$"),
        datasets="\n".join(
            f"  {name:<16} {entry.epochs:>3} {entry.eval_every:>7}  {', '.join(f'{t:g}' for t in entry.targets)}"
            for name, entry in DATASETS.items()
        ),
    )


def key_rows() -> list[tuple[str, str, str]]:
    """(key, default, meaning with its values) of every key."""
    rows = []
    for key, entry in walk(Config):
        if key == "rule":
            rows.append(("rule._target_", "null", "import path of a custom lazyexp.Rule"))
            rows.append(("rule.<option>", "(the rule's)", "option of the chosen rule"))
        else:
            default = default_of(entry)
            shown = {"None": "null", "True": "true", "False": "false"}.get(str(default), str(default))
            rows.append((key, shown, f"{entry.metadata['help']}{_choices(key, entry)}"))
    return rows


def key_lines() -> list[str]:
    """A line of help per key."""
    return [f"  {key:<22} {default:<13} {meaning}" for key, default, meaning in key_rows()]


def keys_markdown() -> str:
    """The keys as a Markdown table."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key, default, meaning in key_rows():
        lines.append(f"| `{key}` | `{default}` | {meaning} |".replace("<class>", "&lt;class&gt;"))
    return "\n".join(lines)


def _choices(key: str, entry: Field[Any]) -> str:
    """The values of a key with their meanings. The choices of a group are listed elsewhere in the help."""
    choices = entry.metadata.get("choices")
    if not choices or key.endswith(".name"):
        return ""
    meanings = choices if isinstance(choices, dict) else dict.fromkeys(choices, "")
    return ": " + ", ".join(f"{choice} ({meaning})" if meaning else choice for choice, meaning in meanings.items())
