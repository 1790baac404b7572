import math

import pytest
import torch
from hypothesis import given, strategies as st

from hf_zoosel.objectives import co_tuning_loss
from tests.objectives.transcriptions.losses import co_tuning_as_written


@st.composite
def batches(draw):
    n, k_source, k_target = draw(st.integers(1, 6)), draw(st.integers(1, 7)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = 3 * torch.randn(n, k_source, generator=generator, dtype=torch.float64)
    matrix = torch.randn(k_target, k_source, generator=generator, dtype=torch.float64).softmax(1)
    return logits, torch.randint(k_target, (n,), generator=generator), matrix


@given(batches())
def test_value_and_gradient_equal_the_sums_written_out(batch):
    logits, labels, matrix = batch
    logits.requires_grad_()
    loss = co_tuning_loss(logits, labels, matrix)
    loss.backward()
    value, gradient = co_tuning_as_written(logits.tolist(), labels.tolist(), matrix.tolist())
    assert loss.item() == pytest.approx(value, rel=1e-12)
    assert torch.allclose(logits.grad, torch.tensor(gradient, dtype=torch.float64), rtol=0, atol=1e-13)


@given(batches())
def test_is_least_where_the_head_says_the_relationship(batch):
    logits, labels, matrix = batch
    least = co_tuning_loss(matrix[labels].log(), labels, matrix)
    entropy = -(matrix[labels] * matrix[labels].log()).sum(1).mean()
    assert least.item() == pytest.approx(entropy.item(), rel=1e-10, abs=1e-12)
    assert co_tuning_loss(logits, labels, matrix) >= least - 1e-12


def test_one_source_class_each_is_cross_entropy():
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 0])
    loss = co_tuning_loss(logits, labels, torch.eye(3))
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)


def test_the_relationship_is_never_trained():
    matrix = torch.eye(2, requires_grad=True)
    assert not co_tuning_loss(torch.zeros(2, 2), torch.tensor([0, 1]), matrix).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    logits = torch.zeros(3, 1000, dtype=dtype, requires_grad=True)
    loss = co_tuning_loss(logits, torch.tensor([0, 1, 0]), torch.full((2, 1000), 1e-3, dtype=torch.float64))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(1000), rel=1e-5)
    assert logits.grad.dtype == dtype


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 5), (2,), (2, 5)),
        ((3, 5), (3,), (2, 4)),
        ((5,), (5,), (2, 5)),
        ((3, 5), (3,), (5,)),
        ((3, 5), (3, 1), (2, 5)),
    ],
)
def test_shapes_that_disagree_are_refused(shapes):
    logits, labels, matrix = shapes
    with pytest.raises(ValueError, match=r"\(n, k_source\), \(n,\) and \(k_target, k_source\), got.*Keep the head"):
        co_tuning_loss(torch.zeros(logits), torch.zeros(labels, dtype=torch.int64), torch.zeros(matrix))
