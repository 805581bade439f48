"""The order in which samples are drawn: every item once per epoch, reshuffled each time."""

from __future__ import annotations

import numpy as np


class EpochOrder:
    """Maps a sample number to an item; a function of the seed and the number alone.

    A resumed run, and every data-loading worker, therefore draws the same samples.

    Args:
        seed: of the permutations.
        count: number of items.
    """

    def __init__(self, seed: int, count: int) -> None:
        self.seed, self.count = seed, count
        self._epoch, self._order = -1, np.empty(0, int)

    def __call__(self, number: int) -> int:
        """Index of the item, 0..count-1."""
        epoch, position = divmod(number, self.count)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return int(self._order[position])
