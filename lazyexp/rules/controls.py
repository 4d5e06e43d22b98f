"""Controls: what would have happened had the choice of samples not mattered?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lazyexp.errors import UserError
from lazyexp.rules.base import Judged, Rule, Setting
from lazyexp.seeding import generator


@dataclass
class Random(Rule):
    """As many samples learn as lazy would have taken, but chosen at random.

    In a batch with k mistakes k random members learn. At batch size 1 every mistake books one random place
    among the next `window` samples, and whoever stands there learns; a booked place passes on to the next
    free one, so every mistake is answered exactly once (but for those booked beyond the run's end).
    """

    window: int = 1000

    def check(self) -> None:
        if self.window < 1:
            raise UserError(f"rule.window={self.window}: must be at least 1")

    def start(self, setting: Setting) -> None:
        super().start(setting)
        # A ring of bookings for the coming samples; twice the window leaves room for passing on.
        self.booked = torch.zeros(2 * self.window, dtype=torch.bool)
        self.place = torch.zeros((), dtype=torch.int64)

    def visit(self, epoch: int) -> Tensor:
        draws = generator(self.setting.seed, "rule", epoch)
        self.draw = torch.rand(self.setting.samples, generator=draws)
        if self.setting.batch_size > 1:
            self.draw = self.draw.to(self.setting.device)
        return super().visit(epoch)

    def weigh(self, judged: Judged) -> Tensor:
        if self.setting.batch_size == 1:
            return self._weigh_one(judged)
        rank = self.draw[judged.index].argsort().argsort()
        return rank < judged.wrong.sum()

    def _weigh_one(self, judged: Judged) -> Tensor:
        size, here = len(self.booked), int(self.place)
        learns = bool(self.booked[here])
        self.booked[here] = False
        if judged.wrong.item():
            ahead = 1 + int(self.draw[judged.index.item()] * self.window)
            while ahead < size and self.booked[(here + ahead) % size]:
                ahead += 1
            self.booked[(here + ahead) % size] = True
        self.place.fill_((here + 1) % size)
        return torch.full_like(judged.wrong, learns)

    def state(self) -> dict[str, Tensor]:
        return {"booked": self.booked, "place": self.place}
