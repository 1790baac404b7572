import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hf_zoosel.training.evaluate import Outputs
from hf_zoosel.training.refit import STRENGTHS, refit_head


def outputs(n, k=3, d=6, seed=0, signal=2.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % k
    means = signal * torch.randn(k, d, generator=torch.Generator().manual_seed(9))
    features = 5 + 3 * (means[labels] + torch.randn(n, d, generator=generator))
    return Outputs(torch.arange(n), labels, torch.zeros(n, k), None, features)


def expected(train, strength):
    """Standardise by hand, fit, and predict."""
    features = train.features.double().numpy()
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    model = LogisticRegression(C=strength, max_iter=2000).fit((features - mean) / deviation, train.labels.numpy())
    return lambda rows: model.decision_function((rows.double().numpy() - mean) / deviation)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_folded_head_says_what_regression_on_standardised_features_says(k):
    train, validation = outputs(60, k), outputs(40, k, seed=1)
    head = refit_head(train, validation, k)
    logits = (validation.features @ head.weight.T + head.bias).double().numpy()
    said = expected(train, head.strength)(validation.features)
    if k == 2:  # one row of differences
        np.testing.assert_allclose(logits[:, 1] - logits[:, 0], said, rtol=1e-4, atol=1e-4)
    else:
        np.testing.assert_allclose(logits, said, rtol=1e-4, atol=1e-4)


def test_the_strength_is_the_best_on_validation_and_the_strongest_penalty_among_equals():
    train, validation = outputs(30, signal=0.4), outputs(60, seed=1, signal=0.4)
    right = {
        strength: (expected(train, strength)(validation.features).argmax(axis=1) == validation.labels.numpy()).sum()
        for strength in STRENGTHS
    }
    assert refit_head(train, validation, 3).strength == min(s for s in STRENGTHS if right[s] == max(right.values()))


def test_a_class_without_training_rows_is_never_said():
    head = refit_head(outputs(60), None, 4)
    logits = outputs(60).features @ head.weight.T + head.bias
    assert head.weight.shape == (4, 6)
    assert (logits.argmax(dim=1) != 3).all()
