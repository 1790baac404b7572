import sys

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, strategies as st
from torch.nn.functional import unfold

from hf_zoosel.features.gradients import GradientSketch
from hf_zoosel.metrics.lgc import gradient_gram, lgc, lgc_exact, lgc_influence
from hf_zoosel.zoo import Network
from tests.metrics.transcriptions.lgc import gradients_as_written, lgc_as_written


@st.composite
def layers(draw):
    """What a layer sees and what comes back to it, and labels."""
    n, k = draw(st.integers(3, 12)), draw(st.integers(2, 3))
    positions, n_in, n_out = draw(st.integers(1, 9)), draw(st.integers(1, 6)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)
    inputs = torch.rand(n, positions, n_in, generator=generator, dtype=torch.float64)
    return inputs, torch.randn(n, positions, n_out, generator=generator, dtype=torch.float64), labels


@given(layers())
def test_equals_the_formula_of_the_paper_on_explicit_gradients(layer):
    gradients, labels = gradients_as_written(*layer[:2]), layer[2]
    expected = lgc_as_written(gradients, labels)
    assert lgc(torch.from_numpy(gradients), labels) == pytest.approx(expected, rel=1e-9, abs=1e-10)
    assert lgc_influence(torch.from_numpy(gradients), labels)[0] == pytest.approx(expected, rel=1e-9, abs=1e-10)
    assert lgc_exact(*layer) == pytest.approx(expected, rel=1e-10, abs=1e-10)


@given(layers())
def test_the_gram_is_that_of_the_gradients_which_are_never_formed(layer):
    gradients = gradients_as_written(*layer[:2])
    np.testing.assert_allclose(gradient_gram(*layer[:2]).numpy(), gradients @ gradients.T, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("at_once", [1, 50, 700])
def test_the_gram_is_the_same_in_blocks_of_any_size(monkeypatch, at_once):
    inputs, signals = torch.rand(11, 4, 3), torch.randn(11, 4, 2)
    whole = gradient_gram(inputs, signals)
    monkeypatch.setattr(sys.modules[lgc.__module__], "_PAIRS_AT_ONCE", at_once)
    torch.testing.assert_close(gradient_gram(inputs, signals), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("of", ["features", "logits", "random"])
@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_vit", "test_resnet", "test_convnext"])
def test_the_sketch_gives_what_the_exact_path_gives_on_a_real_network(architecture, of):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(timm.create_model(architecture))
    labels = torch.arange(24) % 3
    pixels = torch.randn(24, 3, 64, 64, generator=torch.Generator().manual_seed(1)) + labels[:, None, None, None]
    sketch = GradientSketch(of)
    with torch.no_grad():
        for batch in (pixels[:1], pixels):  # the first finds the layer
            with sketch.watching(network.module):
                output = network(batch)
            rows = sketch.rows(output)
            inputs, signals = sketch.activations_and_signals(output)
    exact = lgc_exact(*_by_position(sketch._layer, inputs, signals), labels)
    assert lgc(rows, labels) == pytest.approx(exact, abs=1e-5 if _weights(sketch) <= 10_000 else 0.03)


def _weights(sketch):
    return sketch._layer.weight.numel()


def _by_position(layer, inputs, signals):
    """Patches and signals, position by position, for a layer without groups."""
    if isinstance(layer, torch.nn.Linear):
        return inputs.flatten(1, -2), signals.flatten(1, -2)
    assert layer.groups == 1
    patches = unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return patches.transpose(1, 2), signals.flatten(2).transpose(1, 2)


@given(layers(), st.sampled_from([1e-12, 1e12]))
def test_ignores_the_scale_of_the_gradients(layer, scale):
    inputs, signals, labels = layer
    assert lgc_exact(inputs, scale * signals, labels) == pytest.approx(lgc_exact(*layer), rel=1e-9, abs=1e-10)


def test_gradients_that_follow_the_classes_score_one():
    sign = torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0]).view(5, 1, 1)
    inputs, labels = torch.rand(1, 4, 3).expand(5, 4, 3), (sign.flatten() > 0).long()
    assert lgc_exact(inputs, sign.expand(5, 4, 2), labels) == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e7])
def test_the_same_gradient_for_all_samples_is_refused(value):
    inputs = value * torch.rand(1, 5, 3, generator=torch.Generator().manual_seed(0)).expand(7, 5, 3)
    signals = torch.rand(1, 5, 2, generator=torch.Generator().manual_seed(1)).expand(7, 5, 2)
    with pytest.raises(ValueError, match="got the same gradient for all"):
        lgc_exact(inputs, signals, torch.arange(7) % 2)
    with pytest.raises(ValueError, match="the same row for all"):
        lgc(torch.from_numpy(gradients_as_written(inputs, signals)), torch.arange(7) % 2)


@pytest.mark.parametrize(
    ("inputs", "signals", "message"),
    [
        (torch.rand(4, 3, 2), torch.rand(4, 2, 2), "same samples and positions"),
        (torch.rand(4, 3), torch.rand(4, 3), "same samples and positions"),
        (torch.rand(4, 3, 2), torch.full((4, 3, 2), torch.nan), "`signals` must be finite"),
    ],
)
def test_inputs_and_signals_that_do_not_fit_are_refused(inputs, signals, message):
    with pytest.raises(ValueError, match=message):
        lgc_exact(inputs, signals, torch.arange(4) % 2)


def test_an_error_names_the_gradients():
    with pytest.raises(ValueError, match="`gradients` must be finite"):
        lgc(torch.full((4, 3), torch.inf), torch.arange(4) % 2)
    with pytest.raises(TypeError, match="`gradients` must be a floating-point"):
        lgc_influence(torch.ones(4, 3, dtype=torch.int64), torch.arange(4) % 2)
