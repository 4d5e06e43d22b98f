"""Hand-derived engines for MLPs: forward pass, backward pass and update without autograd.

`lazyexp.training.engines.engine_table()` prints when each of them is used. In one sentence each:

`Direct` trains batch by batch: two matrix products forward, two backward, no graph.
`DirectAdam` does the same with Adam's step, by PyTorch's fused kernel.
`Deferred` collects the updates of a block of batches and applies them to the large weight matrix once per block,
because a small batch would otherwise read and write every weight for a few samples. `LookAhead` scores a window of
samples with the weights at its start and corrects the logits behind every update. Its decisions are those of
one-by-one training. It is fast where updates are rare. `Adaptive` switches between `LookAhead` and `Deferred` (or
`Direct`) by the share of recent batches with an update. `Rounds` repeats a fixed list of calls, so that the work can
be a CUDA graph and the host need not wait for a GPU. `Packed` scores blocks of samples and queues the selected ones
until they fill a batch. Scoring may be rounded (`bf16`, `bf16_split`, `int8`). `Largest` and `Cached` change only
some synapses (`plastic`). `layers` holds what they share: weights, biases, activations and their derivatives.
"""
