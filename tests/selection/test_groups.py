import numpy as np
import pytest
import torch

from hf_zoosel.selection import Groups, group


def groups(means=((1.0, 0.0), (0.0, 1.0)), counts=(3, 4), names=("a", "b")):
    return Groups(torch.tensor(means), torch.tensor(counts), names)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"counts": (3, 0)}, r"hold at least 1 sample each, got 1 that do not: \['b'\]\. Leave empty classes out"),
        ({"means": ((1.0, 0.0), (float("nan"), 1.0))}, r"finite means, got 1 that do not: \['b'\]"),
        ({"means": ((1.0, 0.0), (float("inf"), 1.0))}, r"finite means, got 1 that do not: \['b'\]"),
        ({"means": ((0.0, 0.0), (0.0, 1.0))}, r"means with a length, got 1 that do not: \['a'\]\. .*another layer"),
        ({"names": ("a",)}, "2, 2.* and 1 names"),
        ({"counts": (3, 4, 5)}, "k counts"),
        ({"means": (1.0, 2.0)}, r"must be \(k, d\)"),
    ],
)
def test_groups_that_make_no_sense_are_refused(change, text):
    with pytest.raises(ValueError, match=text):
        groups(**change)


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match="`means` must be a torch tensor of floats, got torch"):
        groups(means=((1, 0), (0, 1)))
    with pytest.raises(TypeError, match="`counts` must be a torch tensor of integers, got torch"):
        groups(counts=(1.0, 2.0))
    with pytest.raises(TypeError, match="`names` must be strings, got 3"):
        groups(names=("a", 3))
    with pytest.raises(TypeError, match="got list"):
        Groups([[1.0]], torch.tensor([1]), ("a",))


def test_weights_are_ones_or_sum_to_one():
    for kind, wanted in (("ones", [1, 1]), ("uniform", [0.5, 0.5]), ("counts", [3 / 7, 4 / 7])):
        assert groups().weights(kind).tolist() == pytest.approx(wanted, rel=1e-15)


def test_the_canonical_order_goes_by_name_and_then_by_mean():
    cranes = groups(means=((0.0, 2.0), (1.0, 1.0), (0.0, 1.0)), counts=(1, 1, 1), names=("crane", "bee", "crane"))
    assert cranes.canonical_order() == [1, 2, 0]
    assert cranes.take([1, 2, 0]).canonical_order() == [0, 1, 2]
    assert cranes.take([2, 0]).counts.tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_means_are_those_of_each_class(dtype):
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(50, 6))).to(dtype)
    labels = torch.from_numpy(np.arange(50) % 3)
    found = group(features, labels, ["x", "y", "z"])
    wanted = np.stack([features.double().numpy()[np.arange(50) % 3 == c].mean(axis=0) for c in range(3)])
    np.testing.assert_allclose(found.means.numpy(), wanted, rtol=1e-12)
    assert found.counts.tolist() == [17, 17, 16]


def test_a_class_without_samples_is_named():
    with pytest.raises(ValueError, match=r"at least 1 sample each, got 1 that do not: \['b'\]"):
        group(torch.ones(2, 3), torch.tensor([0, 2]), ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"in 0\.\.1, as there are 2 names, got 0\.\.2"):
        group(torch.ones(2, 3), torch.tensor([0, 2]), ["a", "b"])
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        group(torch.ones(2, 3), torch.tensor([0]), ["a"])
