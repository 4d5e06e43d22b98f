"""What a user may have meant: the key, the choice, the kind of value. Nothing here imports torch at the top."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches

from lazyexp.config.fields import walk
from lazyexp.config.registry import NAMES, RULES
from lazyexp.config.schema import Config

# Names that other programs give to a key.
SYNONYMS = {
    "learning_rate": ["optimizer.lr"],
    "bs": ["batch_size"],
    "batch": ["batch_size"],
    "num_epochs": ["epochs"],
    "max_epochs": ["epochs"],
    "n_epochs": ["epochs"],
    "epoch": ["epochs"],
    "wd": ["optimizer.weight_decay"],
    "hidden": ["model.width"],
    "data": ["dataset"],
    "network": ["model"],
    "optim": ["optimizer"],
    "scheduler": ["optimizer.schedule"],
    "output_dir": ["runs_dir"],
    "out": ["runs_dir"],
    "gpu": ["device"],
    "block_size": ["packing.block_size"],
}
TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list[float]": "a list such as [0.9,0.95]",
    "dict[str, Any]": "a dictionary",
}


def key_hint(key: str) -> str:
    """`; did you mean ...?` for an unknown key, or nothing."""
    found = _candidates(key.lstrip("+~"))
    return f"; did you mean {' or '.join(found)}?" if 0 < len(found) <= 6 else ""


def _candidates(key: str) -> list[str]:
    entries = [name for name, _ in walk(Config) if name != "rule"]
    group, _, last = key.rpartition(".")
    known = [*entries, *NAMES]
    same = [name for name in known if name.lower() == key.lower() or name.rpartition(".")[2] == last.lower()]
    if group not in {name.rpartition(".")[0] for name in entries} - {""}:
        same += [f"rule.{last}"] * (last in _rule_options())
    same += [name for name in known if "." in name and name.replace(".", "_") == key]
    if same or last in SYNONYMS:
        return list(dict.fromkeys([*same, *SYNONYMS.get(last, [])]))
    if group in {name.rpartition(".")[0] for name in entries}:  # an option of that group
        close = get_close_matches(key, [name for name in known if name.rpartition(".")[0] == group], 2, 0.7)
        if close:
            return close
    lasts = {name.rpartition(".")[2]: name for name in known}
    return [lasts[name] for name in get_close_matches(last, lasts, 2, 0.75)]


def _rule_options() -> set[str]:
    return {entry.name for name in RULES for entry in fields(RULES[name])}


def choice_hint(word: str) -> str:
    """What to write in place of a word without a key."""
    groups = [group for group, names in NAMES.items() if word in names]
    if groups:
        return f"; did you mean {' or '.join(f'{group}={word}' for group in groups)}?"
    if word.endswith((".yaml", ".yml")):
        return "; settings files are in folders of groups: --config-dir DIR rule=NAME reads DIR/rule/NAME.yaml"
    return " (without spaces around =)"


def wanted(key: str) -> str:
    """The kind of value that a key of the schema has, in words; empty for another key."""
    kinds = {name: str(entry.type) for name, entry in walk(Config)}
    kind = kinds.get(key, "").removesuffix(" | None")
    text = TYPES.get(kind, "")
    if kind.startswith("dict") and key != "rule":
        text += f"; set {key}.NAME=VALUE"
    return f"{text} or null" if text and kinds[key].endswith("| None") else text
