"""Numbers and tables as the terminal shows them."""

from __future__ import annotations

import pytest

from kdp.stages.tables import scale_for, with_unit


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4_200_000, "4.20 M"),
        (0.0042e9, "4.20 M"),
        (93_954, "94.0 k"),
        (1_571, "1.57 k"),
        (999, "999"),
        (0, "0"),
        (2.5, "2.50"),
        (0.05, "0.0500"),
        (3.1e12, "3.10 T"),
        (1e-12, "0.000000"),
        (float("nan"), "nan"),
    ],
)
def test_a_number_has_a_suitable_unit_prefix(value: float, text: str) -> None:
    assert with_unit(value) == text


def test_a_unit_follows_the_prefix() -> None:
    assert with_unit(536_000, "B") == "536 kB"


def test_a_row_has_one_prefix_that_fits_its_smallest_number() -> None:
    scale = scale_for([4.2e9, 2.1e6, 0])
    assert [scale.text(value) for value in (4.2e9, 2.1e6, 0)] == ["4,200.00", "2.10", "0.00"]
    assert scale.prefix == "M"
