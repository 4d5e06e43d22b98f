"""Made-up runs whose answers are known."""

import csv
import json

COLUMNS = (
    "run_id", "dataset", "train_size", "rule", "width", "depth", "batch_size", "lr", "seed", "device",
    "epoch", "samples_seen", "forward_samples", "backward_samples", "updates", "updates_possible",
    "train_seconds", "eval_seconds", "train_loss", "train_accuracy", "val_accuracy", "test_accuracy",
    "energy_l0", "energy_l1", "energy_l0_min", "energy_l1_min", "distinct_learned", "learning_rate",
)  # fmt: skip


def make_run(
    top,
    rule="lazy",
    seed=0,
    cost=1.0,
    accuracies=(0.5, 0.9, 0.96),
    status="finished",
    val=None,
    options=None,
    upkeep=None,
    **changed,
):
    """A run's folder; evaluation k (from 1) has cost `k * cost` seconds, and 100 times that in every count."""
    settings = {
        "seed": seed, "epochs": 3, "batch_size": 1, "eval_every": 100, "targets": [0.9, 0.95], "stop_at": None,
        "data_dir": "data", "runs_dir": str(top), "checkpoint_every": 60.0, "overwrite": False, "engine": "auto",
        "dataset": {"name": "digits", "path": None, "mirror": None, "train_size": None, "subset": None},
        "model": {"name": "mlp", "width": 50, "depth": 1},
        "rule": {"name": rule, **(options or {})},
        "optimizer": {"name": "sgd", "lr": 0.01}, "plasticity": {},
    }  # fmt: skip
    for key, value in changed.items():
        part, _, name = key.partition("__")
        if name:
            settings[part][name] = value
        else:
            settings[part] = value
    shown = "-".join(f"{value}" for value in [*changed.values(), *(options or {}).values()])
    run_id = f"{rule}-{seed}-{shown}".replace("/", "_")
    folder = top / run_id
    folder.mkdir(parents=True)
    constants = {
        "run_id": run_id, "dataset": settings["dataset"]["name"], "train_size": 100, "rule": rule, "seed": seed,
        "device": "cpu", "width": settings["model"]["width"], "depth": 1, "batch_size": settings["batch_size"],
        "lr": settings["optimizer"]["lr"],
    }  # fmt: skip
    rows = []
    for k, accuracy in enumerate(accuracies, start=1):
        counts = dict.fromkeys(
            ("forward_samples", "backward_samples", "updates", "energy_l1"), round(100 * k * cost, 6)
        )
        measured = {
            "epoch": k,
            "samples_seen": 100 * k,
            "train_seconds": k * cost,
            "test_accuracy": accuracy,
            "val_accuracy": val,
        }
        rows.append({**dict.fromkeys(COLUMNS), **constants, **measured, **counts, "energy_maintenance": upkeep})
    with (folder / "metrics.csv").open("w") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    facts = {"settings": settings, "device": "A CPU", "threads": 1, "versions": {"lazyexp": "0"}}
    (folder / "run.json").write_text(json.dumps(facts))
    if status != "running":
        flat = {f"{a}.{b}": v for a in ("dataset", "model", "optimizer") for b, v in settings[a].items()}
        summary = {**(rows[-1] if rows else constants), **flat, "epochs": 3, "eval_every": 100, "engine": "auto"}
        summary |= {"stop_at": None, "targets": json.dumps(settings["targets"]), "status": status}
        summary["rule_options"] = json.dumps(options or {})
        with (folder / "summary.csv").open("w") as stream:
            writer = csv.DictWriter(stream, list(summary))
            writer.writeheader()
            writer.writerow(summary)
    return folder
