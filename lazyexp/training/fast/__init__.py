"""Hand-derived engines for MLPs: which of them is taken when, and why.

    optimizer                       batch          rule                      engine
    any, other models               any            any                       AutogradEngine (autograd; not in this folder)
    Adam, AdamW                     any            any                       DirectAdam
    SGD with momentum or decay      any            any                       Direct
    plain SGD                       up to 128      pointwise                 Adaptive
    plain SGD                       up to 32       anything else             Deferred
    plain SGD                       larger         any                       Direct
    any                             any            with `block` > 0          Packed around the engine of backprop
    on a GPU: plain SGD             up to 32       known beforehand          Deferred, its blocks as graphs
    on a GPU: any SGD               any            anything else             Rounds

`Direct` does one batch after the other: two matrix products forward, two backward, no graph.
`DirectAdam` is the same with Adam's step, by PyTorch's fused kernel.
`Deferred` writes the updates of a block of batches down and applies them to the large matrix once a block: a small
batch would otherwise touch every weight for a handful of samples.
`LookAhead` judges a window of samples at once with the weights of its start and corrects the judgement of those that
come after a learner; what it decides is what going one by one would decide. It pays where learners are rare.
`Adaptive` switches between `LookAhead` and `Deferred` by the share of batches that learned lately.
`Rounds` does its work in steps that are the same calls whatever happens, so that a GPU need not be asked.
`Packed` lets samples wait until a full batch of learners has come together.
    Its judge may round: `bf16`, `int8`.
`layers` is the network as these engines see it: weights, biases, activations and their derivatives.
"""
