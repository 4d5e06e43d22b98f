"""Custom models, rules and optimizers that change or keep what they are given: the right value, or a clear error."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lazyexp.config.schema import ModelConfig, OptimizerConfig, PackingConfig
from lazyexp.data import Data, Samples
from lazyexp.errors import UserError
from lazyexp.models.builtin import make_model
from lazyexp.rules import Rule, RunInfo, ScoredBatch, make_rule
from lazyexp.rules.mistakes import Lazy
from lazyexp.training import EngineSpec, Trainer, TrainingSchedule, accuracy, isolated, make_engine
from lazyexp.training.autograd import AutogradEngine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.evaluation import evaluate
from lazyexp.training.fast.adaptive import Adaptive
from lazyexp.training.fast.layers import Layers
from lazyexp.training.guards import warm_up
from lazyexp.training.optimizers import make_optimizer
from lazyexp.training.selection import Selector
from lazyexp.utils.memory import is_out_of_memory

CPU = torch.device("cpu")
N, CLASSES = 48, 3


def samples(tokens: bool = False) -> Samples:
    rng = torch.Generator().manual_seed(0)
    if tokens:
        return Samples(torch.randint(7, (N, 4), generator=rng), torch.arange(N) % CLASSES)
    return Samples(torch.rand(N, 1, 3, 3, generator=rng), torch.arange(N) % CLASSES)


def mlp() -> nn.Module:
    return make_model(ModelConfig(width=6), (1, 3, 3), CLASSES, 0)


class Net(nn.Module):
    """A custom model; `before` is called with the inputs."""

    def __init__(self, before=lambda model, x: x, tokens=False):
        super().__init__()
        self.layers = nn.Sequential(nn.Embedding(7, 2), nn.Flatten(), nn.Linear(8, CLASSES)) if tokens else mlp()
        self.before = before

    def forward(self, x):
        return self.layers(self.before(self, x))


def make_spec(model, rule="lazy", batch_size=8, tokens=False, packing=0, **optimizer) -> EngineSpec:
    made = rule if isinstance(rule, Rule) else make_rule({"name": rule} if isinstance(rule, str) else rule)
    made.start(RunInfo(N, batch_size, 2, 0, CPU))
    made.epoch_indices(0)
    config = OptimizerConfig(**{"lr": 0.1, **optimizer})
    energy = Energy(model, Clock(CPU))
    return EngineSpec(model, samples(tokens), made, config, batch_size, energy, packing=PackingConfig(packing))


def train(spec: EngineSpec, engine: str = "auto", chunks: int = 2):
    """Train on all samples `chunks` times. Returns the last outcome."""
    made = make_engine(engine, spec)
    batches = -(-N // spec.batch_size)
    for _ in range(chunks):
        outcome = made.train(torch.arange(N), [spec.optimizer.lr] * batches)
    return outcome


class Silent:
    def __init__(self):
        self.contexts, self.states = [], []

    def evaluated(self, context):
        self.contexts.append((context.test_accuracy, context.train_loss, context.tally.updates))

    def checkpoint(self, state):
        self.states.append(state)

    def progress(self, samples, correct, selected): ...
    def stop(self):
        return False


def run(spec: EngineSpec, epochs: int = 2):
    """A whole run. Returns its callback."""
    data = Data(spec.samples, spec.samples, None, torch.arange(N), CLASSES, spec.samples.shape, "", None, {})
    schedule = TrainingSchedule(0, epochs, spec.batch_size, N, 0.1, "constant", 0.0, "float32", None, 0)
    callback = Silent()
    trainer = Trainer(schedule, data, spec.model, spec.rule, make_engine("auto", spec), spec.energy, callback)
    assert trainer.run() == "finished"
    return callback


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# Inputs changed in place


def in_evaluation(model, x):
    return x if model.training else x.add_(1)


MUTATIONS = {
    "mul_": (lambda model, x: x.mul_(0.5), False),
    "tokens": (lambda model, x: x.add_(5).remainder_(7), True),
    "view": (lambda model, x: x.flatten(1).clamp_(max=0.1).view(x.shape), False),
    "relu": (lambda model, x: nn.functional.relu(x - 0, inplace=True).copy_(x.relu_()), False),
    "item": (lambda model, x: x.__setitem__((slice(None), 0), 0) or x, False),
}


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.parametrize("rule", ["lazy", "backprop", "infobatch"])
def test_a_model_that_changes_its_input_is_refused(name, rule):
    before, tokens = MUTATIONS[name]
    spec = make_spec(Net(before, tokens), rule, tokens=tokens)
    pixels = spec.samples.pixels.clone()
    with pytest.raises(UserError, match=r"model Net: changes its input in place; use x = x\.clone\(\)"):
        train(spec)
    for check in (evaluate, accuracy):
        with pytest.raises(UserError, match="changes its input in place"):
            check(spec.model, spec.samples)
    with pytest.raises(UserError, match="changes its input in place"):
        warm_up(spec.model, spec.samples)
    assert torch.equal(spec.samples.pixels, pixels)


def test_a_model_that_changes_its_input_in_evaluation_only_is_refused():
    spec = make_spec(Net(in_evaluation), "backprop")
    train(spec)
    with pytest.raises(UserError, match="changes its input in place"):
        evaluate(spec.model, spec.samples)


def test_a_packed_model_that_changes_its_input_is_refused():
    with pytest.raises(UserError, match="changes its input in place"):
        train(make_spec(Net(in_evaluation), packing=16))


@pytest.mark.parametrize("change", [lambda model, x: x.data.mul_(0.5) * 1, lambda model, x: x.detach().mul_(0.5)])
def test_hidden_changes_of_the_input_are_found_before_training(change):
    """PyTorch does not count changes through x.data."""
    with pytest.raises(UserError, match="changes its input in place"):
        run(make_spec(Net(change)))


def test_a_model_may_keep_and_later_change_its_last_input():
    def keep(model, x):
        if hasattr(model, "last"):
            model.last.zero_()
        model.last = x
        return x

    kept, plain = make_spec(Net(keep), "backprop"), make_spec(Net(), "backprop")
    for spec in (kept, plain):
        train(spec)
    assert torch.equal(weights(kept.model), weights(plain.model))
    pixels = kept.samples.pixels.clone()
    for _ in range(2):
        assert accuracy(kept.model, kept.samples) == accuracy(plain.model, plain.samples)
    assert torch.equal(kept.samples.pixels, pixels)


def test_a_model_may_reuse_its_output():
    class Reusing(Net):
        def forward(self, x):
            out = super().forward(x)
            if torch.is_grad_enabled():
                return out
            self.out = out if not hasattr(self, "out") or len(self.out) != len(out) else self.out.copy_(out)
            return self.out

    for packing in (0, 8):
        outcomes = [train(make_spec(kind(), packing=packing)) for kind in (Reusing, Net)]
        assert torch.equal(outcomes[0].logits, outcomes[1].logits)


# Hooks and layers that hand-derived engines would skip


def double_gradient(layer, grad_input, grad_output):
    return tuple(None if grad is None else 2 * grad for grad in grad_input)


def double_accumulated(weight):
    weight.grad.mul_(2)


HOOKS = {
    "forward": lambda model: model[1].register_forward_hook(lambda layer, inputs, output: 2 * output),
    "forward_pre": lambda model: model[3].register_forward_pre_hook(lambda layer, inputs: (2 * inputs[0],)),
    "backward": lambda model: model[3].register_full_backward_hook(double_gradient),
    "backward_pre": lambda model: model[3].register_full_backward_pre_hook(lambda layer, grads: (2 * grads[0],)),
    "tensor": lambda model: model[1].weight.register_hook(lambda grad: 2 * grad),
    "accumulated": lambda model: model[1].weight.register_post_accumulate_grad_hook(double_accumulated),
    "instance": lambda model: setattr(model[2], "forward", lambda x: x.clamp(0, 0.1)),
    "parametrized": lambda model: parametrizations.weight_norm(model[1]),
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", HOOKS)
def test_hooks_of_a_custom_mlp_have_their_effect(name, optimizer):
    ends = []
    for engine in ("auto", "autograd"):
        model = mlp()
        HOOKS[name](model)
        assert not Layers.fit(model)
        spec = make_spec(model, name=optimizer, lr=0.01)
        train(spec, engine)
        ends.append(weights(model))
    assert torch.equal(*ends)
    plain = make_spec(mlp(), name=optimizer, lr=0.01)
    train(plain)
    assert ends[0].shape != weights(plain.model).shape or not torch.allclose(ends[0], weights(plain.model))


def test_global_hooks_are_not_skipped():
    model = mlp()
    assert Layers.fit(model)
    handle = nn.modules.module.register_module_forward_hook(lambda layer, inputs, output: output)
    try:
        assert not Layers.fit(model)
    finally:
        handle.remove()
    assert Layers.fit(model)


def two_layers():
    layers = [nn.Linear(9, 9) for _ in range(2)]
    return layers, nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1], nn.ReLU(), nn.Linear(9, CLASSES))


def test_shared_frozen_and_additional_parameters_are_not_for_hand_derived_engines():
    layers, model = two_layers()
    assert Layers.fit(model)
    layers[1].weight = layers[0].weight
    assert not Layers.fit(model)
    layers, model = two_layers()
    layers[1].weight.data = layers[0].weight.data  # the same memory in two parameters
    assert not Layers.fit(model)
    model = mlp()
    model[3].bias.requires_grad_(False)
    assert not Layers.fit(model)
    model = mlp()
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    assert not Layers.fit(model)
    model = mlp()
    model[3].double()
    assert not Layers.fit(model)

    class Mine(nn.Parameter): ...

    model = mlp()
    model[1].weight = Mine(model[1].weight.data)
    assert not Layers.fit(model)


def test_shared_weights_train_as_by_hand():
    layers, model = two_layers()
    layers[1].weight, layers[1].bias = layers[0].weight, layers[0].bias
    spec = make_spec(model, "backprop", batch_size=N)
    inputs, targets = spec.samples.batch(torch.arange(N))
    gradients = torch.autograd.grad(nn.functional.cross_entropy(model(inputs), targets), list(model.parameters()))
    expected = [p.detach() - 0.1 * g for p, g in zip(model.parameters(), gradients, strict=True)]
    train(spec, chunks=1)
    for parameter, value in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)


# Models with state that a checkpoint lacks


def counts(model, x):
    model.steps = getattr(model, "steps", 0) + 1
    return x


def moves_tensor(model, x):
    model.mean = getattr(model, "mean", torch.zeros(1)) * 0.9 + 0.1 * x.mean().detach()
    return x


class Buffered(Net):
    def __init__(self, persistent):
        super().__init__(lambda model, x: model.moved(x))
        self.register_buffer("moving", torch.zeros(1), persistent=persistent)

    def moved(self, x):
        self.moving += 1
        return x


class Aliased(Net):
    def __init__(self):
        super().__init__()
        self.first, self.constant = self.layers[1].weight.data, torch.ones(3)
        self.undefined = float("nan")


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: Net(counts), "steps"),
        (lambda: Net(moves_tensor), "mean"),
        (lambda: Buffered(persistent=False), "moving"),
        (lambda: Buffered(persistent=True), None),
        (Aliased, None),
        (Net, None),
    ],
)
def test_state_outside_state_dict_is_noted_once(make, name, capfd):
    run(make_spec(make()))
    err = capfd.readouterr().err
    if name is None:
        assert "note" not in err
    else:
        assert err.count(f": {name} changes in training but is not in state_dict") == err.count("note") == 1


class Noisy(Net):
    """Draws from all global generators, also in evaluation."""

    def forward(self, x):
        noise = torch.rand(1) + random.random() + np.random.rand()
        return super().forward(x * (1 + noise.float()))


@pytest.mark.parametrize("packing", [0, 16])
def test_models_that_draw_random_numbers_repeat_and_leave_the_callers_generators(packing):
    seen = []
    for start in (1, 2):
        torch.manual_seed(start), random.seed(start), np.random.seed(start)
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        model = Noisy()
        callback = run(make_spec(model, packing=packing))
        assert torch.equal(torch.get_rng_state(), states[0])
        assert random.getstate() == states[1] and np.random.get_state()[1].tolist() == states[2]
        seen.append((callback.contexts, weights(model).tolist()))
    assert seen[0] == seen[1]


def test_a_model_that_cannot_be_copied_is_trained():
    model = Net()
    model.lock = threading.Lock()
    assert len(run(make_spec(model)).contexts) == 3


def test_a_model_that_caches_tensors_in_evaluation_is_trained():
    """Tensors of inference mode could not be used in training."""

    def cached(model, x):
        model.scales = getattr(model, "scales", {})
        scale = model.scales.setdefault(len(x), torch.ones(len(x), 1, 1, 1))
        return x * scale

    for packing in (0, 8):
        spec = make_spec(Net(cached), batch_size=8, packing=packing)
        accuracy(spec.model, spec.samples)
        assert len(run(spec).contexts) == 3


def test_a_model_without_a_graph_fails_with_one_error():
    with pytest.raises(RuntimeError, match="does not require grad"):
        run(make_spec(Net(lambda model, x: x.detach() if model.layers.requires_grad_(False) else x)))


@pytest.mark.parametrize("number", [1, 2])
def test_warm_up_with_one_test_sample_and_batch_normalisation(number):
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES))
    few = Samples(torch.rand(number, 1, 3, 3), torch.zeros(number, dtype=torch.int64))
    warm_up(model, few)
    assert not model[2].running_mean.any()  # a copy is warmed up
    assert 0 <= accuracy(model, few) <= 1


# Rules


class Spoils(Rule):
    """Selects the misclassified samples and overwrites everything that it was given."""

    def select(self, batch):
        wrong = batch.wrong.clone()
        batch.logits.zero_(), batch.targets.zero_(), batch.index.zero_()
        return wrong

    def update(self, batch):
        batch.logits.fill_(7), batch.targets.zero_(), batch.selected.zero_(), batch.index.zero_()


class SpoilsIndex(Rule):
    def preselect(self, index):
        index.zero_()
        return

    def select(self, batch):
        return batch.wrong


class ReusesMask(Rule):
    def select(self, batch):
        if not hasattr(self, "mask") or len(self.mask) != len(batch.index):
            self.mask = torch.zeros_like(batch.wrong)
        return self.mask.copy_(batch.wrong)


class ShufflesOrder(Rule):
    """Returns one tensor every epoch and changes it while the epoch is presented."""

    def epoch_indices(self, epoch):
        self.order = super().epoch_indices(epoch)
        return self.order

    def select(self, batch):
        return batch.wrong

    def update(self, batch):
        self.order.zero_()


class KeepsLogits(Rule):
    def select(self, batch):
        self.kept = [*getattr(self, "kept", []), (batch.logits, batch.logits.clone())]
        return batch.wrong


class GradientMask(Rule):
    """Float weights that require a gradient."""

    def select(self, batch):
        return torch.ones(len(batch.index), requires_grad=True) * batch.wrong


class Plain(Rule):
    def select(self, batch):
        return batch.wrong


@pytest.mark.parametrize("kind", [Spoils, SpoilsIndex, ReusesMask, ShufflesOrder, KeepsLogits, GradientMask])
@pytest.mark.parametrize("batch_size", [1, 8, 48])
@pytest.mark.parametrize("make", [mlp, Net])
def test_rules_may_change_and_keep_what_they_are_given(kind, batch_size, make):
    ends = []
    for rule in (kind(), Plain()):
        spec = make_spec(make(), rule, batch_size)
        ends.append((run(spec).contexts, weights(spec.model), spec.samples.targets.tolist()))
        if kind is KeepsLogits and rule.__class__ is kind:
            assert all(torch.equal(kept, copy) for kept, copy in rule.kept)
    assert ends[0][0] == ends[1][0] and torch.equal(ends[0][1], ends[1][1]) and ends[0][2] == ends[1][2]


class Half(Lazy):
    """Of every batch the half with the largest losses: not decided by a sample's own logits."""

    def select(self, batch):
        return batch.loss >= batch.loss.median()


class Declared(Half):
    pointwise = True


class Renamed(Lazy):
    """Inherits select and its flags."""


def test_flags_of_a_built_in_rule_do_not_hold_for_an_overridden_select():
    assert not Selector(Half()).pointwise and not Selector(Half()).capturable
    assert Selector(Declared()).pointwise and Selector(Renamed()).pointwise
    ends = []
    for engine in ("auto", "autograd"):
        spec = make_spec(mlp(), Half(), 8)
        train(spec, engine)
        ends.append(weights(spec.model))
    torch.testing.assert_close(*ends)
    assert isinstance(make_engine("auto", make_spec(mlp(), Renamed(), 8)), Adaptive)


def test_weights_of_a_rule_are_refused_by_packing():
    class Weighted(Rule):
        def select(self, batch):
            return batch.loss

    with pytest.raises(UserError, match=r"rule Weighted: returns weights \(torch.float32\); packing"):
        train(make_spec(mlp(), Weighted(), packing=16))
    with pytest.raises(UserError, match="rule InfoBatch: returns weights"):
        train(make_spec(mlp(), "infobatch", packing=16))


def test_an_unknown_reduction_of_a_rule_is_refused():
    class Wrong(Rule):
        reduction = "mean"

    with pytest.raises(UserError, match="rule Wrong: reduction='mean': must be one of batch, selected, full_batch"):
        make_spec(mlp(), Wrong())


def test_a_mask_on_another_device_is_refused():
    class Elsewhere(Rule):
        def select(self, batch):
            return torch.empty(len(batch.index), dtype=torch.bool, device="meta")

    with pytest.raises(UserError, match="rule Elsewhere: select returned a tensor on meta; must be on cpu"):
        train(make_spec(mlp(), Elsewhere()))


# Optimizers


def groups(parameters, lr):
    parameters = list(parameters)
    return torch.optim.SGD([{"params": parameters[:2], "lr": 10 * lr}, {"params": parameters[2:]}], lr=lr)


def twice(parameters, lr):
    """Reads the parameters twice."""
    two = ([p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() == 1])
    return torch.optim.SGD([{"params": part} for part in two], lr=lr)


def fixed(parameters, lr):
    return torch.optim.SGD(parameters, lr=0.25)


def foreign(parameters, lr):
    return torch.optim.SGD([nn.Parameter(p.detach().clone()) for p in parameters], lr=lr)


def not_an_optimizer(parameters, lr):
    return lr


class NoRate(torch.optim.Optimizer):
    def __init__(self, parameters, lr):
        super().__init__(parameters, {})

    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.sub_(0.1 * parameter.grad)


class Counting(torch.optim.SGD):
    def step(self, closure=None):
        self.number = getattr(self, "number", 0) + 1
        super().step(closure)


class ScheduleFree(torch.optim.Optimizer):
    """Trains at y, is evaluated at x, and refuses a step in evaluation mode (after Defazio et al. 2024)."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr, "k": 0, "train_mode": False})

    def _swap(self, training):
        for group in self.param_groups:
            if group["train_mode"] != training:
                for parameter in group["params"]:
                    state = self.state[parameter]
                    if "other" in state:
                        value = parameter.data.clone()
                        parameter.data.copy_(state["other"])
                        state["other"] = value
                group["train_mode"] = training

    def train(self):
        self._swap(True)

    def eval(self):
        self._swap(False)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            if not group["train_mode"]:
                raise RuntimeError("optimizer is not in train mode")
            group["k"] += 1
            for parameter in group["params"]:
                state = self.state[parameter]
                average = state.setdefault("other", parameter.clone())
                parameter.sub_(parameter.grad, alpha=group["lr"])
                average.lerp_(parameter, 1 / group["k"])


def path(function) -> str:
    return f"{__name__}.{function.__name__}"


def custom(function, **more) -> dict:
    return {"_target_": path(function), "name": "custom", "schedule": "constant", **more}


def moved(optimizer: dict, rates=(0.1, 0.05)):
    """Weight changes of two steps of backprop at these rates."""
    model = mlp()
    spec = make_spec(model, "backprop", N, **optimizer)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    engine, steps = make_engine("auto", spec), []
    for rate in rates:
        engine.train(torch.arange(N), [rate])
        steps.append([p.detach() - q for p, q in zip(model.parameters(), before, strict=True)])
        before = [parameter.detach().clone() for parameter in model.parameters()]
    return steps


def test_groups_keep_the_ratios_of_their_learning_rates():
    model = mlp()
    spec = make_spec(model, "backprop", N)
    gradients = torch.autograd.grad(
        nn.functional.cross_entropy(model(spec.samples.batch(torch.arange(N))[0]), spec.samples.targets),
        list(model.parameters()),
    )
    first, second = moved(custom(groups))
    for change, gradient, ratio in zip(first, gradients, (10, 10, 1, 1), strict=True):
        torch.testing.assert_close(change, -0.1 * ratio * gradient)
    assert float(second[0].abs().sum()) < 0.75 * float(first[0].abs().sum())  # at half the learning rate


def test_a_learning_rate_of_its_own_scales_with_the_schedule():
    same = moved({"lr": 0.25}, rates=(0.25, 0.125))
    for one, other in zip(moved(custom(fixed)), same, strict=True):
        torch.testing.assert_close(one, other)


def test_parameters_may_be_read_twice():
    torch.testing.assert_close(moved(custom(twice)), moved({}))


def test_an_optimizer_without_lr_needs_a_constant_schedule():
    torch.testing.assert_close(moved(custom(NoRate), rates=(0.1, 0.1)), moved({}, rates=(0.1, 0.1)))
    with pytest.raises(UserError, match=r"has no lr, so no schedule can apply; set optimizer\.schedule=constant"):
        moved(custom(NoRate, schedule="linear"))


REFUSED = [
    (custom(foreign), "its parameters are not those of the model"),
    (custom(not_an_optimizer), "made a float, not a torch.optim.Optimizer"),
    (custom(groups, options={"lr": 0.5}), "optimizer.options.lr=0.5: set optimizer.lr"),
    (custom(groups, options={"momentum": 0.5}), "unexpected keyword argument 'momentum'"),
    (
        custom(torch.optim.SGD, _target_="torch.optim.SGD", options={"weight_decay": 0.5}, weight_decay=0.1),
        "optimizer.options.weight_decay=0.5: optimizer.weight_decay=0.1 is set, too",
    ),
]


@pytest.mark.parametrize("optimizer, message", REFUSED, ids=[message for _, message in REFUSED])
def test_optimizers_that_cannot_work_are_refused(optimizer, message):
    with pytest.raises(UserError, match=message):
        make_optimizer(OptimizerConfig(lr=0.1, **optimizer), mlp().parameters())


def test_an_optimizer_that_needs_a_closure_fails_with_its_name():
    with pytest.raises(TypeError, match="closure"):
        moved({"_target_": "torch.optim.LBFGS", "name": "LBFGS", "schedule": "constant"})


def test_state_of_an_optimizer_outside_state_dict_is_noted(capfd):
    run(make_spec(mlp(), **custom(Counting)))
    assert "optimizer Counting: number changes in training but is not in state_dict" in capfd.readouterr().err
    run(make_spec(mlp(), **custom(groups)))
    assert "note" not in capfd.readouterr().err


@pytest.mark.parametrize("packing", [0, 16])
def test_schedule_free_optimizers_are_switched(packing):
    """Evaluations and checkpoints see the averaged weights, steps the others; a resumed run is the same."""

    def restarted(at):
        spec = make_spec(mlp(), packing=packing, **custom(ScheduleFree))
        engine, ends = make_engine("auto", spec), []
        for chunk in range(4):
            if chunk == at:
                state, kept = engine.state(), weights(spec.model)
                spec = make_spec(mlp(), packing=packing, **custom(ScheduleFree))
                engine = make_engine("auto", spec)
                nn.utils.vector_to_parameters(kept.clone(), spec.model.parameters())
                engine.restore(state)
            engine.train(torch.arange(N), [0.1] * 6)
            ends.append(weights(spec.model))
        return ends

    whole, resumed = restarted(None), restarted(2)
    assert all(torch.equal(p, q) for p, q in zip(whole, resumed, strict=True))
    plain = make_spec(mlp(), packing=packing)
    train(plain, chunks=4)
    assert not torch.allclose(whole[-1], weights(plain.model))  # averaged


# The caller's global state and errors of memory


def callers(kind):
    if kind == "autocast":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    if kind == "device":
        return torch.device("meta")
    return {"no_grad": torch.no_grad, "inference": torch.inference_mode}[kind]()


@pytest.mark.parametrize("kind", ["autocast", "no_grad", "inference", "device"])
@pytest.mark.parametrize("make", [mlp, Net])
def test_a_run_does_not_depend_on_the_callers_modes(kind, make):
    spec = make_spec(make())
    expected = run(spec).contexts
    with callers(kind), isolated():
        found = make_spec(make())
        assert run(found).contexts == expected
    assert torch.equal(weights(found.model), weights(spec.model))


def test_a_run_does_not_depend_on_the_callers_settings():
    expected = run(make_spec(Net())).contexts
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True
    try:
        with isolated():
            assert torch.get_default_dtype() == torch.float32 and not torch.are_deterministic_algorithms_enabled()
            assert run(make_spec(Net())).contexts == expected
        assert torch.get_default_dtype() == torch.float64 and torch.backends.cudnn.benchmark
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.benchmark = False


def test_isolation_restores_after_an_error_and_hides_what_a_model_changes():
    def leaks(model, x):
        torch.set_default_dtype(torch.float64)
        return x

    with pytest.raises(ValueError, match="inside"), isolated():
        run(make_spec(Net(leaks)))
        raise ValueError("inside")
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    "error, expected",
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("required rank 4 tensor to use channels_last memory format"), False),
        (RuntimeError("unsupported operation: some elements refer to a single memory location"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


# A rule that decides before the forward pass


@pytest.mark.parametrize("rule", ["infobatch", "kakurenbo", "early_stopping", "backprop"])
def test_a_sample_is_forwarded_once_if_the_rule_decides_before(rule):
    """Equal to a loop by hand."""
    options = {"early_stopping": {"threshold": 0.5, "average": 1}, "kakurenbo": {"confidence_threshold": 0.0}}
    epochs, batch_size, rate = 6, 8, 0.05
    ends = []
    for by_hand in (False, True):
        model = make_model(ModelConfig(name="cnn", width=2, depth=1), (1, 3, 3), CLASSES, 0)
        spec = make_spec(model, {"name": rule, **options.get(rule, {})}, batch_size, lr=rate)
        spec.rule.start(RunInfo(N, batch_size, epochs, 0, CPU))
        engine = AutogradEngine(spec)
        seen = forwards = unselected = 0
        for epoch in range(epochs):
            order = spec.rule.epoch_indices(epoch)
            if by_hand:
                logits, selected = loop(spec, order, rate)
            else:
                outcome = engine.train(order, [rate] * -(-len(order) // batch_size))
                logits, selected = outcome.logits, outcome.selected
                forwards += outcome.forwards
            seen += len(order)
            unselected += int((~selected).sum())
            spec.rule.update(ScoredBatch(order, logits, spec.samples.targets[order], selected))
        if not by_hand:
            assert forwards == seen
            assert unselected > 0 or rule in ("infobatch", "backprop")
        ends.append(weights(model))
    torch.testing.assert_close(*ends)


def loop(spec: EngineSpec, order: torch.Tensor, rate: float):
    """What the engine should do, in plain PyTorch."""
    model, logits, masks = spec.model, [], []
    for index in order.split(spec.batch_size):
        weight = spec.rule.preselect(index)
        weight = torch.ones(len(index)) if weight is None else weight.float()
        inputs, targets = spec.samples.batch(index)
        out = model(inputs)
        logits.append(out.detach().clone())
        masks.append(weight != 0)
        if masks[-1].any():
            divide_by = len(index) if spec.reduction == "batch" else int(masks[-1].sum())
            loss = (nn.functional.cross_entropy(out, targets, reduction="none") * weight).sum() / divide_by
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter.sub_(rate * gradient)
    return torch.cat(logits), torch.cat(masks)
