import copy

import pytest
import torch
from torch import nn

from hf_zoosel.linearized import ntk


def kernel_by_the_paper(module, inputs, output):
    """Eq. 2, entry by entry: two backward passes for each pair of samples."""
    parameters = list(module.parameters())

    def gradient(sample):
        return torch.autograd.grad(output(module(sample[None]))[0], parameters)

    kernel = torch.empty(len(inputs), len(inputs), dtype=torch.float64)
    for i, left in enumerate(inputs):
        for j, right in enumerate(inputs):
            kernel[i, j] = sum((a * b).sum() for a, b in zip(gradient(left), gradient(right), strict=True))
    return kernel


def small_net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16, 3)]
    net = nn.Sequential(*layers).double()
    net(torch.randn(9, 2, 4, 4, dtype=torch.float64))
    return net


def images(n=7):
    return torch.randn(n, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# one panel of all rows; panels of 2 rows; of 3, the last one smaller; a panel per row
@pytest.mark.parametrize(("batch_size", "memory"), [(32, 2**30), (2, 0), (3, 0), (1, 0), (2, 5 * 139 * 8)])
def test_equals_the_double_loop_of_the_paper_however_it_is_split(batch_size, memory):
    net, x = small_net(), images()
    kernel = ntk(net, x, output=lambda logits: logits[:, 2], batch_size=batch_size, memory=memory)
    expected = kernel_by_the_paper(copy.deepcopy(net).eval(), x, lambda logits: logits[:, 2])
    torch.testing.assert_close(kernel, expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(kernel, kernel.T)


def test_the_kernel_of_a_linear_head_is_that_of_its_features():
    features = torch.randn(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    head = nn.Linear(9, 4).double()
    kernel = ntk(head, features, parameters="weight", output=lambda logits: logits[:, 1])
    torch.testing.assert_close(kernel, features @ features.T, rtol=1e-12, atol=1e-12)  # Eq. 6
    torch.testing.assert_close(ntk(head, features, output="sum"), 4 * (kernel + 1), rtol=1e-12, atol=1e-12)


def test_kernels_of_disjoint_parameters_add_up():
    net, x = small_net(), images()
    parts = [ntk(net, x, parameters=pattern, output="sum") for pattern in ["0.*", "1.*", "5.*"]]
    torch.testing.assert_close(ntk(net, x, output="sum"), sum(parts), rtol=1e-12, atol=1e-12)


def test_half_precision_gradients_are_multiplied_in_float64():
    head = nn.Linear(300, 1).half()
    x = torch.full((2, 300), 100.0).half()  # 300 x 100^2 is beyond float16
    kernel = ntk(head, x, parameters="weight")
    assert kernel.dtype == torch.float64
    assert kernel.tolist() == [[3e6, 3e6], [3e6, 3e6]]


def test_repeated_samples_have_equal_rows():
    x = images()
    kernel = ntk(small_net(), torch.cat([x, x]), output="sum", batch_size=4)
    torch.testing.assert_close(kernel[:7], kernel[7:], rtol=1e-13, atol=1e-13)
    assert torch.linalg.matrix_rank(kernel) == 7


def test_samples_with_gradients_that_are_not_finite_are_counted():
    x = images()
    x[2, 0, 0, 0], x[4] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="got 2 of 7 samples with NaN or infinity"):
        ntk(small_net(), x, output="sum")


def test_an_output_that_does_not_depend_on_the_parameters_is_refused():
    net = small_net()
    nn.init.zeros_(net[5].weight)
    with pytest.raises(ValueError, match=r"zero for every sample.*a layer of zeros between the two"):
        ntk(net, images(), parameters="0.*", output="sum")


def test_no_samples_and_batches_of_none_are_refused():
    with pytest.raises(ValueError, match="at least 1 sample"):
        ntk(small_net(), images(0), output="sum")
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        ntk(small_net(), images(), output="sum", batch_size=0)
