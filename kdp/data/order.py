"""In what order samples are drawn: all of them in every epoch, shuffled anew."""

from __future__ import annotations

import numpy as np


class EpochOrder:
    """Which of `count` members sample number i is; the same whoever asks.

    Args:
        seed: of the order.
        count: how many members there are.
    """

    def __init__(self, seed: int, count: int) -> None:
        self.seed, self.count = seed, count
        self._epoch, self._order = -1, np.empty(0, int)

    def __call__(self, number: int) -> int:
        epoch, position = divmod(number, self.count)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return int(self._order[position])
