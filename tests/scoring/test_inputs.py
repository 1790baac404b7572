import pytest
import torch

from hf_zoosel.features import Features
from hf_zoosel.metrics import METRICS, Metric
from hf_zoosel.metrics.rsa import RankedReference, rsa
from hf_zoosel.scoring import Extras
from hf_zoosel.scoring.inputs import MissingNeedError, Reference, inputs_of
from hf_zoosel.zoo import CandidateError, SourceStats, resolve
from tests.test_rank_models import Colours, to_tensor

LABELS = torch.arange(6) % 2
ROWS = torch.tensor([0, 1, 2, 4, 5, 7])


def features(parts=None, absent=None, rows=ROWS):
    made = {"features": torch.rand(len(rows), 3), "source_logits": torch.randn(len(rows), 4)}
    return Features(rows, made | (parts or {}), absent or {}, n_parameters=16, unreadable={}, seconds=0.0)


@pytest.fixture
def candidate():
    return resolve((Colours(), to_tensor), "colours")


def metric(*needs):
    return Metric("mine", lambda *_: 0.0, needs, "O(1)", "this test")


def stats(sample=True):
    whole = SourceStats.of(torch.rand(8, 3), torch.arange(8) % 4)
    return whole if sample else SourceStats(whole.means, whole.counts)


def test_needs_are_passed_in_the_order_of_the_table(candidate):
    seen, source = features({"gradients": torch.rand(6, 9)}), stats()
    extras = Extras(Reference(features()), {"colours": source})
    needs = (
        "labels",
        "gradients",
        "source_labels",
        "source_counts",
        "source_features",
        "source_means",
        "n_parameters",
    )
    given = inputs_of(metric(*needs), candidate, seen, LABELS, extras)
    expected = [LABELS, seen.parts["gradients"], source.labels, source.counts, source.features, source.means, 16]
    assert all(one is other for one, other in zip(given, expected, strict=True))
    (probs,) = inputs_of(metric("source_probs"), candidate, seen, LABELS, extras)
    torch.testing.assert_close(probs, seen.parts["source_logits"].softmax(dim=1))
    (identity,) = inputs_of(metric("identity"), candidate, seen, LABELS, extras)
    assert identity == f"colours {candidate.revision}"


@pytest.mark.parametrize(
    ("need", "extras", "message"),
    [
        ("gradients", Extras(), "it has no convolution"),
        ("map_statistics", Extras(), "its map statistics were not computed"),
        ("source_accuracy", Extras(), "not published with it"),
        ("reference", Extras(), "there is no reference network. Pass `reference=`"),
        ("reference", Extras(Reference(CandidateError("it is gone."))), "the reference network failed: it is gone"),
        ("source_means", Extras(), "without statistics of its source classes. Pass its source data as `source=`"),
        ("source_counts", Extras(sources={"another": stats()}), "without statistics of its source classes"),
        ("source_means", Extras(sources={"colours": CandidateError("broken.")}), "could not be used: broken"),
        ("source_features", Extras(sources={"colours": stats(sample=False)}), "hold no sample of features"),
        ("source_labels", Extras(sources={"colours": stats(sample=False)}), "Pass its source data as `source=`"),
    ],
)
def test_a_need_that_cannot_be_met_is_a_reason_with_the_remedy(candidate, need, extras, message):
    seen = features(absent={"gradients": "it has no convolution"})
    with pytest.raises(MissingNeedError, match=message):
        inputs_of(metric(need, "labels"), candidate, seen, LABELS, extras)


@pytest.mark.parametrize(
    ("n_classes", "message"), [(0, "no source head"), (1, "single class, which predicts nothing")]
)
def test_probabilities_take_a_head_of_two_classes(candidate, n_classes, message):
    seen = features({"source_logits": torch.rand(6, 1)})
    if not n_classes:
        del seen.parts["source_logits"]
    with pytest.raises(MissingNeedError, match=message):
        inputs_of(METRICS["leep"], candidate, seen, LABELS, Extras())


def test_the_reference_gives_the_rows_that_the_candidate_could_read_in_their_order(candidate):
    reference = features(rows=torch.arange(9))
    (given,) = inputs_of(metric("reference"), candidate, features(), LABELS, Extras(Reference(reference)))
    assert torch.equal(given, reference.features[ROWS])
    fewer = Extras(Reference(features(rows=torch.arange(7))))
    with pytest.raises(MissingNeedError, match="could not read the same images"):
        inputs_of(metric("reference"), candidate, features(), LABELS, fewer)


def test_the_reference_is_ranked_once_for_all_candidates_of_the_same_rows(candidate):
    extras = Extras(Reference(features(rows=torch.arange(9))))
    one, same = (inputs_of(METRICS["rsa"], candidate, features(), LABELS, extras)[1] for _ in range(2))
    other = inputs_of(METRICS["rsa"], candidate, features(rows=ROWS[1:]), LABELS[1:], extras)[1]
    assert isinstance(one, RankedReference)
    assert one is same
    assert other.n_samples == 5
    seen = features()
    plain = rsa(seen.features, extras.reference.features.features[ROWS])
    assert rsa(*inputs_of(METRICS["rsa"], candidate, seen, LABELS, extras)) == plain


def test_a_metric_with_a_misspelt_need_is_refused_when_it_is_made():
    with pytest.raises(ValueError, match=r"`needs` must be a tuple of some of \['features', .* got \['featurs'\]"):
        metric("featurs", "labels")
    with pytest.raises(ValueError, match=r"got \['l', 'a', 'b', 'e', 'l', 's'\]"):
        metric(*"labels")
    for needs in (("scores",), ("scores", "labels")):
        with pytest.raises(ValueError, match=r"`needs` must be \('scores',\) alone, with `over_zoo` given"):
            metric(*needs)
