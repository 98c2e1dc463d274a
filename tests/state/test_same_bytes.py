"""Whether two tensors hold the same bytes, whatever their type, layout and values."""

from __future__ import annotations

import pytest
import torch

from topo_callback.state.writes import same_bytes

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.int64,
    torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn,
)  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_one_other_value_is_seen(dtype: torch.dtype, transposed: bool) -> None:
    values = torch.tensor([[0, 1, 0], [1, 1, 0]]).to(dtype)
    tensor = values.T if transposed else values
    copy = tensor.clone()
    assert same_bytes(tensor, copy)
    values[1, 2] = 1
    assert not same_bytes(tensor, copy)


def test_bytes_are_compared_and_not_values() -> None:
    odd = torch.tensor([float("nan"), 0.0])
    assert same_bytes(odd, odd.clone())
    assert not same_bytes(odd, torch.tensor([float("nan"), -0.0]))


@pytest.mark.parametrize("shape", [(), (0,), (3,)])
def test_views_that_negate_are_read(shape: tuple[int, ...]) -> None:
    negated = torch.ones(shape, dtype=torch.complex64).conj().imag
    assert negated.is_neg()
    assert same_bytes(negated, negated.clone())
    assert same_bytes(negated, torch.ones(shape)) == (shape == (0,))
