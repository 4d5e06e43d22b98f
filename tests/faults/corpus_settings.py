"""Settings as users write them, on a shell, in settings files and from Python, and the outcome of each.

Every entry is the right value (`expected`, by key) or a refusal with `text` in it. `origin`: "issue" for kinds seen
in bug reports, "a" for further inputs of quoting, "e" for nested errors, "f" for the dictionary of a rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lazyexp.config.quoting import override


@dataclass(frozen=True)
class Words:
    """`words` of a command line; `files` are settings files, by their path below the folder of --config-dir."""

    name: str
    words: list[str]
    text: str = ""
    expected: dict[str, Any] = field(default_factory=dict)
    origin: str = "issue"
    files: dict[str, str] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        return "refused" if self.text else "value"

    def make(self, folder: Path) -> list[str]:
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
        return [*self.words, override("hydra.searchpath", [f"file://{folder}"])] if self.files else self.words


SETTINGS: list[Words] = []
HEAD = "# @package _global_\n"


def refuse(text: str, *words: str, origin: str = "issue", name: str = "", **files: str) -> None:
    SETTINGS.append(Words(name or " ".join(words), list(words), text, {}, origin, _paths(files)))


def value(expected: dict[str, Any], *words: str, origin: str = "issue", name: str = "", **files: str) -> None:
    SETTINGS.append(Words(name or " ".join(words), list(words), "", expected, origin, _paths(files)))


def python(key: str, given: Any, origin: str = "a") -> None:
    """A value from Python, which is literal."""
    shown = str(given) if isinstance(given, Path) else given
    more = ["dataset=folder"] if key == "dataset.path" else []
    SETTINGS.append(Words(f"from Python: {key}, {given!r}", [*more, override(key, given)], "", {key: shown}, origin))


def _paths(files: dict[str, str]) -> dict[str, str]:
    """`rule__mine` is the file rule/mine.yaml."""
    return {f"{name.replace('__', '/')}.yaml": content for name, content in files.items()}


# --- the shell and Python: words of Hydra's grammar ---------------------------------------------------------

QUOTES = "needs quotes: "
refuse(f"(space ( )) {QUOTES}\"dataset.path='a (1).npz'\"", "dataset.path=a (1).npz")
refuse(f"(~) {QUOTES}\"dataset.path='~/x'\"", "dataset.path=~/x")
refuse(f"(=) {QUOTES}\"dataset.path='a=b'\"", "dataset.path=a=b")
refuse("a text with a comma \"dataset.path='a,b'\"", "dataset.path=a,b")
refuse(f"(ö ß) {QUOTES}\"runs_dir='größe'\"", "runs_dir=größe")
value({"runs_dir": "1e3"}, "runs_dir=1e3")
refuse("needs lazyexp -m", "seed=0,1")
refuse("needs lazyexp -m", "rule=glob(*)")
refuse("did you mean optimizer.lr?", "lr=0.1")
python("dataset.path", Path("x (1).npz"), "issue")
python("rule_label", "lazy (ours)", "issue")
python("runs_dir", "größe", "issue")
python("runs_dir", "a,b", "issue")

value({"runs_dir": "001"}, "runs_dir=001", origin="a")
value({"runs_dir": "true"}, "runs_dir=true", origin="a")
value({"runs_dir": "1_0"}, "runs_dir=1_0", origin="a")
value({"rule_label": "0.10"}, "rule_label=0.10", origin="a")
value({"runs_dir": "a b"}, "runs_dir=a b", origin="a")
value({"runs_dir": "it's"}, r"runs_dir='it\'s'", origin="a")
value({"runs_dir": "a,b"}, "runs_dir='a,b'", origin="a")
value({"rule_label": "null"}, "rule_label='null'", origin="a")
value({"rule_label": None}, "rule_label=null", origin="a")
value({"optimizer.lr": 1e-3}, "optimizer.lr=1E-3", origin="a")
value({"epochs": 10}, "epochs=010", origin="a")
refuse("quotes and brackets complete?", "runs_dir='x", origin="a")
refuse("(') needs quotes", "runs_dir=it's", origin="a")
refuse('(") needs quotes', 'runs_dir=a"b', origin="a")
refuse("(#) needs quotes", "runs_dir=a#b", origin="a")
refuse("(&) needs quotes", "runs_dir=a&b", origin="a")
refuse("(日 本) needs quotes", "runs_dir=日本", origin="a")
refuse("quotes and brackets complete?", "targets=[0.9", origin="a")
refuse("a list is targets=[0.9,0.95]", "targets=0.9,0.95", origin="a")
refuse("no space follows it", "optimizer.lr =0.1", origin="a")
refuse("without spaces around =", "lr", origin="a")
refuse("did you mean rule=lazy?", "lazy", origin="a")
refuse("not of the form key=value; settings files", "mine.yaml", origin="a")
refuse("must be true or false", "overwrite=2", origin="a")
for key, given in (
    ("runs_dir", "1e3"),
    ("runs_dir", "null"),
    ("rule_label", "${seed}"),
    ("rule_label", "it's"),
    ("rule_label", "a\\"),
    ("rule_label", "[a"),
    ("rule_label", " a "),
    ("rule_label", "日本"),
    ("dataset.path", Path("~/a=b")),
    ("rule_label", "a\nb"),
    ("rule_label", 'say "x"'),
    ("targets", [0.9, 0.95]),
):
    python(key, given)

# --- settings files, and what Hydra says in several lines ----------------------------------------------------

refuse("mine.yaml: has no settings", "rule=mine", name="an empty file", rule__mine="")
refuse("mine.yaml: has no settings", "rule=mine", name="a file of comments", rule__mine="# nothing\n")
refuse("rule=lazy is a built-in choice", name="a file lazy.yaml", rule__lazy="name: backprop\n")
refuse("rule=fast_lazy is a built-in choice", name="a file fast_lazy.yaml", rule__fast_lazy="name: lazy\n")
value(
    {"rule": {"name": "confidence", "threshold": 0.6}},
    "rule=mine",
    name="a file for a rule",
    rule__mine="name: confidence\nthreshold: 0.6\n",
)
value(
    {"epochs": 3, "optimizer.lr": 0.5},
    "sweep=mine",
    name="a file for several groups",
    sweep__mine="# @package _global_\nepochs: 3\noptimizer: {lr: 0.5}\n",
)

refuse("config.yaml: is not read", name="a file config.yaml", origin="e", config="epochs: 3\n")
refuse("has no settings files in a folder of a group", name="a loose file", origin="e", mine="epochs: 3\n")
refuse("plasticity=cached is a built-in", name="a file cached.yaml", origin="e", plasticity__cached="decay: .1\n")
refuse(
    "optimizer.momentun",
    "optimizer=mine",
    name="a wrong key in a file",
    origin="e",
    optimizer__mine="momentun: 0.9",
)
refuse(
    "Value 'fast' of type 'str'",
    "optimizer=mine",
    name="a file with a wrong value",
    origin="e",
    optimizer__mine="lr: fast",
)
refuse("mine.yaml", "rule=mine", name="a file that is not YAML", origin="e", rule__mine="threshold: [0.6\n")
refuse("found duplicate key lr", "optimizer=mine", name="a key twice", origin="e", optimizer__mine="lr: 1\nlr: 2")
refuse("Cannot merge DictConfig with ListConfig", "rule=mine", name="a list", origin="e", rule__mine="- a\n- b\n")
refuse("nothere", "rule=mine", name="an unknown default", origin="e", rule__mine="defaults: [nothere]\nname: lazy\n")
refuse(
    "'nothing' not found", "optimizer=mine", name="an unknown reference", origin="e", optimizer__mine="lr: ${nothing}"
)
refuse("rule.rule: unknown option", "rule=mine", name="the group again", origin="e", rule__mine="rule: {name: lazy}")
refuse("Interpolation key 'nothing' not found", "optimizer.lr=${nothing}", origin="e")
refuse("Environment variable 'NOPE' not found", "optimizer.lr=${oc.env:NOPE}", origin="e")
refuse("optimizer.lr=abc: must be a number", "optimizer.lr=abc", origin="e")
refuse("epochs=2.5: must be a whole number or null", "epochs=2.5", origin="e")
refuse("must be a list such as [0.9,0.95] or null", "targets=0.9", origin="e")
refuse("must be a dictionary; set dataset.options.NAME", "dataset.options=3", origin="e")
refuse("the key exists; leave out the +", "+optimizer.lr=.1", origin="e")
refuse("no key can be removed", "~optimizer.lr", origin="e")
refuse("no key can be removed", "~rule", origin="e")
refuse("must be a text", "runs_dir=null", origin="e")
refuse("must be the name of one choice", "rule=null", origin="e")
refuse("must be the name of one choice", "rule=[backprop,confidence]", origin="e")
refuse("must be one of adam, adamw, sgd", "optimizer=Adam", origin="e")
refuse("did you mean dataset.val_size", "dataset.size=3", origin="e")
refuse("did you mean optimizer.lr?", "learning_rate=.1", origin="e")
refuse("did you mean model.width?", "width=3", origin="e")
refuse("did you mean plasticity.threshold or rule.threshold?", "threshold=.5", origin="e")
refuse("is a sweep of several runs; use lazyexp -m", "sweep=headline", origin="e")
refuse("has an effect in a sweep only", "hydra/launcher=joblib", origin="e")
refuse("has an effect in a sweep only", "hydra.run.dir=x", origin="e")

refuse(
    "put it into quotes",
    "sweep=m",
    name="a number as a text",
    origin="e",
    sweep__m="# @package _global_\nruns_dir: 1e3",
)
refuse("needs a first line", "sweep=m", name="sweep/m.yaml without a package", origin="e", sweep__m="epochs: 1\n")

# --- settings without an effect --------------------------------------------------------------------------------

refuse("unknown option of rule lazy", "rule.threshold=0.5")
refuse("momentum is a key of sgd", "optimizer=adam", "optimizer.momentum=0.9")
refuse("it has no effect", "dataset.max_shift=3")
refuse("it has no effect", "plasticity.cost=3")
refuse("it has no effect", "plasticity=cached", "plasticity.share=0.5")
refuse("must be null for dataset=digits", "dataset.mirror=http://localhost/")
refuse("it has no effect", "rule.skip_threshold=0.9")
refuse("must be 0 for optimizer.schedule=onecycle", "optimizer.schedule=onecycle", "optimizer.warmup=0.1")
refuse("must be null unless model=torchvision", "model.arch=resnet18")
refuse("must be empty for model=mlp", "model.options.a=1")
refuse("must be float32 without packing", "packing.precision=int8")

# --- the dictionary of a rule -----------------------------------------------------------------------------------

refuse("letters, digits", "rule=mine", name="a rule a/b", rule__mine="name: a/b\n_target_: lazyexp.Rule\n")
refuse("letters, digits", "rule=mine", name="a rule ../../x", rule__mine="name: ../../x\n_target_: lazyexp.Rule\n")

CONFIDENCE = "rule=confidence"
for word, text in {
    "rule.threshold='0.5'": "must be of type float",
    "rule.threshold=true": "must be of type float",
    "rule.threshold=null": "must be of type float",
    "rule.threshold=[0.5]": "must be of type float",
    "rule.threshold={a:1}": "must be of type float",
    "rule.threshold=nan": "at least 0, at most 1",
    "rule.threshold=1e400": "at least 0, at most 1",
    "rule.threshold=-0.1": "at least 0, at most 1",
    "rule.threshhold=0.5": "unknown option of rule confidence",
    "rule.Threshold=0.5": "unknown option of rule confidence",
    "rule/threshold=0.5": "unknown key",
    "rule.options.threshold=0.5": "rule.options: unknown option",
    "rule.info=3": "rule.info: unknown option",
    "rule.reduction=selected": "rule.reduction: unknown option",
    "rule.max_interval=4.0": "must be of type int",
    "rule.max_interval=true": "must be of type int",
    "rule.name=nonsense": "must be one of",
    "rule.name=[lazy]": "must be a name",
    "rule.name=3": "must be a name",
    "rule.name=": "letters, digits",
    "rule.name=.hidden": "letters, digits",
    "rule._target_=3": "must be an import path",
    "rule._target_=torch.nn.Linear": "must be a class derived from lazyexp.Rule",
    "rule._target_=os.getcwd": "must be a class derived from lazyexp.Rule",
    "rule._target_=lazyexp.nothing": "has no nothing",
    "+rule.name.x=3": "must be a name",
}.items():
    refuse(text, CONFIDENCE, word, origin="f")
value({"rule": {"name": "confidence", "threshold": 1}}, CONFIDENCE, "rule.threshold=1", origin="f")
value({"rule": {"name": "confidence"}}, "rule={name:confidence}", origin="f")
refuse("unknown option of rule lazy", CONFIDENCE, "rule.threshold=0.5", "rule.name=lazy", origin="f")
refuse("unknown option of rule lazy", "rule=fast_lazy", "rule.name=lazy", origin="f")
