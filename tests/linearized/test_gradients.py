import copy

import pytest
import torch
from torch import nn

from hf_zoosel.linearized import per_sample_gradients


def gradients_one_by_one(module, inputs, output, names):
    """Plain autograd: one backward pass per sample through the module itself."""
    parameters = dict(module.named_parameters())
    rows = []
    for sample in inputs:
        module.zero_grad()
        output(module(sample[None])).sum().backward()
        rows.append(torch.cat([(parameters[name].grad * 1.0).flatten() for name in names]))
    return torch.stack(rows)


def conv_net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 5, 3)]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)).double()
    net(torch.randn(16, 3, 6, 6, dtype=torch.float64))  # running statistics of their own
    return net


def images(n=5):
    return torch.randn(n, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Tied(nn.Module):
    """Decodes with the weight that it encodes with."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Linear(4, 4, bias=False).double(), nn.Linear(4, 4).double()
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(self.encoder(x).tanh())


class Branching(nn.Module):
    """Does what vmap cannot take: looks at values."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = nn.Linear(4, 1).double(), nn.Linear(4, 1).double()

    def forward(self, x):
        return torch.stack([(self.left if row.sum().item() > 0 else self.right)(row).tanh() for row in x])


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


class OldStyle(nn.Module):
    """Holds an autograd function without rules for vmap."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(4, 1).double()

    def forward(self, x):
        return _Cube.apply(self.line(x))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double()

    def forward(self, x):
        return self.layer(x.reshape(len(x), -1, 2).repeat(1, 1, 4)).mean(dim=(1, 2))


VECTORS = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
CASES = {
    "conv": (conv_net(), images(), "sum"),
    "tied weights": (Tied(), VECTORS, "sum"),
    "control flow on values": (Branching(), VECTORS, None),
    "autograd function": (OldStyle(), VECTORS, None),
    "attention": (Attention(), VECTORS, None),
}


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("case", CASES)
def test_equals_one_backward_pass_per_sample(case, batch_size):
    module, inputs, output = CASES[case]
    blocks = list(per_sample_gradients(module, inputs, output=output, batch_size=batch_size))
    reference = copy.deepcopy(module).eval()
    for p in reference.parameters():
        p.grad = torch.zeros_like(p)
    names = [name for name, _ in module.named_parameters()]
    reference.zero_grad = lambda: [p.grad.zero_() for p in reference.parameters()]  # unused parameters keep zeros
    expected = gradients_one_by_one(reference, inputs, torch.Tensor.sum, names)
    assert [len(block) for block in blocks] == [len(rows) for rows in inputs.split(batch_size)]
    torch.testing.assert_close(torch.cat(blocks), expected, rtol=1e-10, atol=1e-13)


def test_a_module_that_vmap_cannot_take_really_is_taken_one_by_one(monkeypatch):
    from hf_zoosel.linearized import gradients

    calls, one = [], gradients._one
    monkeypatch.setattr(gradients, "_one", lambda *arguments: calls.append(1) or one(*arguments))
    list(per_sample_gradients(Branching(), VECTORS, batch_size=4))
    assert len(calls) == len(VECTORS)
    list(per_sample_gradients(conv_net(), images(), output="sum"))
    assert len(calls) == len(VECTORS)


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ("7.weight", ["7.weight"]),
        (["7.*", "0.bias"], ["0.bias", "7.weight", "7.bias"]),
        (("*.weight",), ["0.weight", "1.weight", "4.weight", "7.weight"]),
        (lambda name, p: p.ndim == 4, ["0.weight", "4.weight"]),
    ],
)
def test_parameters_are_chosen_by_name_pattern_or_predicate(parameters, names):
    net = conv_net().eval()
    [rows] = per_sample_gradients(net, images(), parameters=parameters, output=lambda logits: logits[:, 1])
    expected = gradients_one_by_one(net, images(), lambda logits: logits[:, 1], names)
    torch.testing.assert_close(rows, expected, rtol=1e-10, atol=1e-13)


def test_frozen_parameters_count_unless_left_out():
    net = nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    [every] = per_sample_gradients(net, torch.ones(1, 2))
    [trained] = per_sample_gradients(net, torch.ones(1, 2), parameters=lambda name, p: p.requires_grad)
    assert (every.shape[1], trained.shape[1]) == (3, 2)
    assert not net.bias.requires_grad


@pytest.mark.parametrize("net", [conv_net(), Branching().train()], ids=["vmap", "one by one"])
def test_the_module_and_the_random_state_are_as_before_even_between_batches(net):
    net.requires_grad_(True)
    parts = list(net.modules())
    parts[1].eval()  # a frozen part of a module in training
    before, modes, state = copy.deepcopy(net.state_dict()), [p.training for p in parts], torch.get_rng_state()
    inputs = images() if isinstance(net, nn.Sequential) else VECTORS
    for rows in per_sample_gradients(net, inputs, output="sum", batch_size=2):
        assert not rows.requires_grad
        assert [part.training for part in parts] == modes
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_failing_module_is_back_in_its_mode():
    net = conv_net().train()
    with pytest.raises(RuntimeError, match="channels"):
        list(per_sample_gradients(net, images()[:, :2], output="sum"))
    assert all(part.training for part in net.modules())


def test_a_buffer_written_in_the_forward_pass_is_as_before():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(2, 1)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls.add_(1)
            return self.line(x)

    net = Counting()
    list(per_sample_gradients(net, torch.ones(3, 2)))
    assert net.calls == 0


def test_works_where_the_caller_records_no_gradients():
    for net, inputs in [(conv_net(), images()), (Branching(), VECTORS)]:
        [expected] = per_sample_gradients(net, inputs, output="sum")
        with torch.no_grad():
            [rows] = per_sample_gradients(net, inputs, output="sum")
        assert torch.equal(rows, expected)


def test_an_output_that_no_parameter_reaches_has_gradient_zero():
    for net, inputs in [(conv_net(), images()), (Branching(), VECTORS)]:
        [rows] = per_sample_gradients(net, inputs, output=lambda out: torch.ones(1, dtype=torch.float64))
        assert not rows.any()


def test_a_record_of_outputs_needs_a_callable():
    class Recorded(nn.Linear):
        def forward(self, x):
            return {"logits": super().forward(x)}

    net = Recorded(2, 3)
    [rows] = per_sample_gradients(net, torch.ones(1, 2), output=lambda out: out["logits"][:, 0])
    assert rows.tolist() == [[1, 1, 0, 0, 0, 0, 1, 0, 0]]
    with pytest.raises(TypeError, match=r"must return a tensor .* got dict\. Pass a callable"):
        list(per_sample_gradients(net, torch.ones(1, 2), output="sum"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": "head.*"}, r"got 'head\.\*', which matches none\. There are: 0\.weight, .* 7\.bias"),
        ({"parameters": ["7.*", "layer4"]}, "got 'layer4'"),
        ({"parameters": []}, "got none of the 8"),
        ({"parameters": lambda name, p: False}, "got none of the 8"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"inputs": images(0)}, "at least 1 sample"),
    ],
)
def test_bad_arguments_are_refused_before_the_first_batch(options, message):
    with pytest.raises(ValueError, match=message):
        per_sample_gradients(conv_net(), **({"inputs": images(), "output": "sum"} | options))


def test_inputs_that_are_no_tensor_are_refused():
    with pytest.raises(TypeError, match="`inputs` must be a tensor"):
        per_sample_gradients(conv_net(), [images()])


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (None, r"one number per sample, shape \(1,\) for one sample, got \(3,\)\. Pass `output='sum'`"),
        (lambda logits: logits, r"got \(1, 3\)"),
        (lambda logits: logits.sum(), r"got \(\)"),
        ("mean", "callable, 'sum' or None, got 'mean'"),
    ],
)
def test_an_output_that_is_not_one_number_per_sample_is_refused(output, message):
    with pytest.raises(ValueError, match=message):
        list(per_sample_gradients(conv_net(), images(), output=output))
