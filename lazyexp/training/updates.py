"""Energy of the steps of PyTorch's optimizers, without a copy of the weights.

A copy before every step reads and writes all weights, which evicts them from the cache and slows training. The last
update can be computed again from the optimizer's state. This happens in pieces that stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Elements that are looked at together.
PIECE = 2**16


class KnownUpdates:
    """The updates of SGD, Adam and AdamW on a CPU."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.adam = optimizer, type(optimizer) is not torch.optim.SGD
        like = optimizer.param_groups[0]["params"][0]
        self.update, self.sign = (torch.empty(PIECE, dtype=like.dtype, device=like.device) for _ in range(2))

    @staticmethod
    def fit(optimizer: torch.optim.Optimizer) -> bool:
        """Whether the state of the optimizer tells its last update.

        It does not with weight decay outside the state, and is not asked on a GPU, where copies are cheap.
        """
        if type(optimizer) not in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
            return False
        adam = type(optimizer) is not torch.optim.SGD
        for group in optimizer.param_groups:
            decoupled = type(optimizer) is torch.optim.AdamW or group.get("decoupled_weight_decay", False)
            in_state = (adam and not decoupled) or (not adam and group["momentum"] and not group["nesterov"])
            if group["maximize"] or group.get("amsgrad", False) or (group["weight_decay"] and not in_state):
                return False
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        return all(p.device.type == "cpu" and p.is_contiguous() for p in parameters) and (
            len({p.dtype for p in parameters}) == 1 and parameters[0].is_floating_point()
        )

    @torch.no_grad()
    def measure(self) -> tuple[int, float]:
        """(M0, M1) of the last step: number and sum of |dw| of its changes."""
        count, size = 0, 0.0
        for parameter, update in self._updates():
            # An update that is too small to change its weight does not count.
            change = torch.add(parameter, update, out=update).sub_(parameter)
            sign = torch.sign(change, out=self.sign[: len(change)])
            count += int(torch.dot(sign, sign))
            size += float(torch.dot(change, sign))
        return count, size

    def _updates(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pieces of all parameters that were changed, and of their updates; a piece is overwritten by the next."""
        for group in self.optimizer.param_groups:
            rate = float(group["lr"])
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.optimizer.state.get(parameter, {})
                flat, gradient = parameter.detach().view(-1), parameter.grad.reshape(-1)
                if self.adam:
                    yield from self._adam(flat, state["exp_avg"], state["exp_avg_sq"], float(state["step"]), group)
                elif not group["momentum"]:
                    for here, out in self._pieces(flat):
                        yield flat[here], torch.mul(gradient[here], rate, out=out)
                else:
                    velocity, nesterov = state["momentum_buffer"].view(-1), group["nesterov"]
                    for here, out in self._pieces(flat):
                        torch.mul(velocity[here], rate * (group["momentum"] if nesterov else 1.0), out=out)
                        yield flat[here], out.add_(gradient[here], alpha=rate) if nesterov else out

    def _adam(
        self, flat: Tensor, mean: Tensor, square: Tensor, step: float, group: dict[str, object]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Kingma & Ba 2015, algorithm 1, with PyTorch's form of the bias corrections."""
        betas, rate, epsilon = group["betas"], group["lr"], group["eps"]
        assert isinstance(betas, (tuple, list)) and isinstance(rate, float) and isinstance(epsilon, float)
        factor, root = rate / (1 - betas[0] ** step), (1 - betas[1] ** step) ** 0.5
        mean, square = mean.view(-1), square.view(-1)
        for here, out in self._pieces(flat):
            torch.sqrt(square[here], out=out).div_(root).add_(epsilon)
            yield flat[here], torch.div(mean[here], out, out=out).mul_(factor)

    def _pieces(self, flat: Tensor) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(flat), PIECE):
            here = slice(start, min(start + PIECE, len(flat)))
            yield here, self.update[: here.stop - here.start]
