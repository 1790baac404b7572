import pytest
import torch
from hypothesis import given, strategies as st

from hf_zoosel.objectives import bss
from tests.objectives.transcriptions.bss import bss_as_written, bss_gradient_as_written

shapes = st.sampled_from([(5, 9), (9, 5), (6, 6), (1, 4), (4, 1)])


def rows(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(shapes, st.integers(0, 2**31), st.data())
def test_equals_the_svd_of_the_paper_gradients_included(shape, seed, data):
    features = rows(shape, seed).requires_grad_()
    k = data.draw(st.integers(1, min(shape)))
    penalty = bss(features, k=k)
    plain = features.detach().numpy()
    assert penalty.item() == pytest.approx(bss_as_written(plain, k), rel=1e-10, abs=1e-12)
    (gradient,) = torch.autograd.grad(penalty, features)
    torch.testing.assert_close(gradient, torch.from_numpy(bss_gradient_as_written(plain, k)), rtol=1e-9, atol=1e-9)


@given(shapes, st.integers(0, 2**31))
def test_all_of_them_are_the_squared_norm_and_rotations_change_nothing(shape, seed):
    features = rows(shape, seed)
    torch.testing.assert_close(bss(features, k=min(shape)), features.square().sum())
    rotation, _ = torch.linalg.qr(rows((shape[1], shape[1]), seed))
    torch.testing.assert_close(bss(features @ rotation), bss(features))
    torch.testing.assert_close(
        bss(features[torch.randperm(shape[0], generator=torch.Generator().manual_seed(0))]), bss(features)
    )


@pytest.mark.parametrize(
    "features",
    [
        rows((3, 7)).repeat(2, 1),  # duplicate rows: singular values 0 three times
        rows((7, 3)).repeat(1, 2),  # duplicate columns
        torch.eye(4, 6, dtype=torch.float64),  # all the same
        torch.zeros(4, 6, dtype=torch.float64),
        torch.ones(5, 5, dtype=torch.float64),
    ],
    ids=["rows", "columns", "equal", "zero", "constant"],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_repeated_singular_values_leave_the_gradient_finite(features, dtype):
    features = features.to(dtype).requires_grad_()
    for k in (1, 2, 3):
        penalty = bss(features, k=k)
        (gradient,) = torch.autograd.grad(penalty, features)
        assert penalty >= 0
        assert gradient.dtype == dtype
        assert gradient.isfinite().all()


def test_the_gradient_shrinks_the_weakest_direction():
    features = rows((8, 5)).requires_grad_()
    (gradient,) = torch.autograd.grad(bss(features), features)
    before, after = (torch.linalg.svdvals(one.detach()) for one in (features, features - 0.5 * gradient))
    assert after[-1] < 1e-12 * before[-1]
    torch.testing.assert_close(after[:-1], before[:-1])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_features_that_are_not_finite_give_nan_instead_of_an_error(bad):
    features = rows((4, 6))
    features[1, 2] = bad
    assert bss(features).isnan()


def test_autocast_does_not_lower_its_precision():
    features = rows((6, 20)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = bss(features)
    torch.testing.assert_close(inside, bss(features), rtol=0, atol=0)


def test_what_has_no_such_singular_values_is_refused():
    for k in (0, 5):
        with pytest.raises(ValueError, match=rf"`k` must be between 1 and min\(n, d\) = 4 .* got {k}"):
            bss(rows((4, 6)), k=k)
    with pytest.raises(ValueError, match=r"must be 2-D"):
        bss(rows((4, 6, 1)))
