"""Half precision in PyTorch: parameters and computation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kdp.measure.precision import HalfPrecision, weight_bytes


class OnlySingle(nn.Linear):
    """A layer whose device has no half precision."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float16:
            raise RuntimeError("not implemented for 'Half'")
        return super().forward(x)


@pytest.mark.parametrize(("kind", "computed"), [(nn.Linear, "fp16"), (OnlySingle, "fp32")])
def test_parameters_are_rounded_even_where_compute_is_single(
    kind: type[nn.Linear], computed: str
) -> None:
    torch.manual_seed(0)
    model, x = kind(16, 4), torch.randn(8, 16)
    before, expected = model.weight.clone(), model(x)
    half = HalfPrecision(model, x)
    output = half(x)
    assert half.about == f"parameters rounded to fp16, computed in {computed}"
    assert output.dtype == torch.float32
    assert not torch.equal(output, expected)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-2)
    assert torch.equal(model.weight, before)
    assert weight_bytes(half) == weight_bytes(model) / 2 == 2 * (16 * 4 + 4)
