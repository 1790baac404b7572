import pytest
import timm
import torch
from datasets import ClassLabel, Dataset, Features, Image
from torch import nn

from hf_zoosel import Metric
from hf_zoosel.features import Runtime, Team
from hf_zoosel.features.store import FeatureStore
from hf_zoosel.scoring import gather_extras
from hf_zoosel.tasks import load_task
from hf_zoosel.zoo import SourceStats, resolve
from hf_zoosel.zoo.source_stats import FILE_NAME
from tests.scoring.networks import convolving
from tests.test_rank_models import Colours, pictures, rank, spoiled, tiny, to_tensor


def nearness(features, labels, means, counts):
    """Minus the mean distance of the samples to the nearest source class of two samples or more."""
    return -torch.cdist(features.double(), means[counts > 1].double()).amin(dim=1).mean().item()


NEAREST = Metric("near", nearness, ("features", "labels", "source_means", "source_counts"), "O(n z d)", "this test")


def colours(n_out=4):
    return Colours(n_out), to_tensor


def renamed(dataset, names):
    """The same images under other classes."""
    labels = [row % len(names) for row in range(len(dataset))]
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"image": dataset["image"], "label": labels}, features=features)


def test_source_data_gives_each_candidate_the_means_of_its_own_features():
    source = pictures(18, seed=1)
    seen = {}

    def remember(features, labels, means, counts):
        seen[features.shape[1]] = means, counts
        return 0.0

    recording = Metric("recording", remember, NEAREST.needs, "O(1)", "this test")
    rank(pictures(), {"colours": colours(), "net": convolving(0)}, recording, source=source, n_bootstrap=0)
    means, counts = seen[3]
    images = [to_tensor(image).mean(dim=(1, 2)) for image in source["image"]]
    classes = torch.tensor(source["label"])
    expected = torch.stack([torch.stack(images)[classes == k].double().mean(dim=0) for k in range(3)])
    torch.testing.assert_close(means, expected, rtol=1e-5, atol=1e-6)
    assert counts.tolist() == [6, 6, 6]
    assert seen[8][0].shape == (3, 8)


def test_source_classes_need_not_be_those_of_the_target():
    far = rank(pictures(), {"a": colours()}, NEAREST, source=renamed(pictures(18, seed=1), ["x", "y"]))
    near = rank(pictures(), {"a": colours()}, NEAREST, source=pictures())
    assert near.best.scores["near"].value > far.best.scores["near"].value
    assert near.best.scores["near"].low < near.best.scores["near"].value < near.best.scores["near"].high


def test_source_images_that_cannot_be_read_are_left_out():
    bad = spoiled(pictures(18, seed=1), [0, 1, 2, 6])
    seen = []

    def remember(features, labels, means, counts):
        seen.append(counts.tolist())
        return 0.0

    ranking = rank(
        pictures(), {"a": colours()}, Metric("m", remember, NEAREST.needs, "O(1)", "-"), source=bad, n_bootstrap=0
    )
    assert seen == [[4, 5, 5]]
    assert ranking.skipped_images == ()  # these are the target's
    unreadable = rank(pictures(), {"a": colours()}, [NEAREST, "lfc"], source=spoiled(pictures(6), range(6)))
    assert unreadable["a"].skipped == {"near": "its source data could not be used: none of its images could be read."}
    assert "lfc" in unreadable["a"].scores


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: pictures().filter(lambda row: row["label"] == 0), "`source` must have at least 2 classes"),
        (lambda: "/no/such/folder", "`source` must be an existing path"),
    ],
)
def test_source_data_that_is_no_task_is_refused_by_its_name(source, message):
    with pytest.raises(ValueError, match=message):
        rank(pictures(), {"a": colours()}, NEAREST, source=source())


def test_source_data_of_a_wrong_kind_is_refused_by_its_name():
    with pytest.raises(TypeError, match="`source` must be a datasets"):
        rank(pictures(), {"a": colours()}, NEAREST, source=3)


@pytest.fixture
def published(tmp_path):
    timm.models.save_for_hf(tiny(), tmp_path / "published", safe_serialization=True)
    generator = torch.Generator().manual_seed(0)
    stats = SourceStats.of(torch.rand(12, 96, generator=generator), torch.arange(12) % 3)
    stats.save(tmp_path / "published" / FILE_NAME)
    return tmp_path / "published"


def test_published_statistics_serve_where_no_source_is_given(published):
    ranking = rank(pictures(), {"published": published, "bare": colours()}, [NEAREST, "lfc"])
    assert ranking.best.name == "published"
    assert ranking["bare"].skipped == {
        "near": "it was published without statistics of its source classes. Pass its source data as `source=`."
    }
    assert "lfc" in ranking["bare"].scores


def test_damaged_statistics_are_a_reason_for_their_candidate_only(published):
    (published / FILE_NAME).write_bytes(b"damaged")
    ranking = rank(pictures(), {"published": published, "bare": colours()}, [NEAREST, "lfc"])
    assert f"could not be used: its source statistics {FILE_NAME}" in ranking["published"].skipped["near"]
    assert {"lfc"} == set(ranking["published"].scores)


def test_a_candidate_that_fails_on_the_source_data_is_still_scored_on_the_target():
    class Fussy(Colours):
        def forward(self, pixels):
            if (pixels == 0).all(dim=(1, 2, 3)).any():
                raise RuntimeError("all black")
            return super().forward(pixels)

    black = pictures(6).map(lambda row: {"image": row["image"].point(lambda _: 0)}).cast_column("image", Image())
    models = {"fussy": (Fussy(), to_tensor), "other": colours()}
    ranking = rank(pictures(), models, ["lfc", NEAREST], source=black)
    assert ranking["fussy"].skipped == {"near": "its source data could not be used: RuntimeError: all black"}
    assert {"lfc", "near"} == set(ranking["other"].scores)


def extras_for(metric, tmp_path, **options):
    given = {"reference": None, "source": None} | options
    return gather_extras(
        [metric],
        [resolve(colours(), "a")],
        load_task(pictures()),
        **given,
        store=FeatureStore(tmp_path),
        runtime=Runtime(torch.device("cpu"), torch.float32),
        team=Team(0, 1, torch.device("cpu")),
        seed=0,
        progress=False,
    )


def test_the_source_sample_is_kept_only_where_a_metric_asks_for_it(tmp_path):
    source = load_task(pictures(18, seed=1))
    without = extras_for(NEAREST, tmp_path, source=source).sources["a"]
    assert without.features is None
    assert without.labels is None
    asking = Metric("asking", lambda f, y: 0.0, ("source_features", "source_labels"), "O(1)", "this test")
    sample = extras_for(asking, tmp_path, source=source).sources["a"]
    assert sample.features.shape == (18, 3)
    assert sorted(sample.labels.tolist()) == [0] * 6 + [1] * 6 + [2] * 6


def test_nothing_is_run_that_no_metric_asks_for(tmp_path):
    class Never(nn.Module):
        def forward(self, pixels):
            raise AssertionError("it ran")

    metric = Metric("plain", lambda f, y: 0.0, ("features", "labels"), "O(1)", "this test")
    extras = extras_for(metric, tmp_path, reference=(Never(), to_tensor), source=load_task(pictures()))
    assert (extras.reference, extras.sources) == (None, {})


SAME = Metric("same", lambda f, r: -(f - r).abs().max().item(), ("features", "reference"), "O(n d)", "this test")


def test_a_reference_network_sees_the_same_samples_and_a_third_party_gets_its_features():
    module = Colours()
    ranking = rank(pictures(), {"a": (module, to_tensor)}, [SAME, "rsa"], reference=(module, to_tensor))
    assert ranking.best.scores["same"].value == 0
    assert ranking.best.scores["same"].low == 0
    assert ranking.best.scores["rsa"].value == pytest.approx(1)


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("/no/such/folder", "the reference network failed: there is no folder /no/such/folder"),
        (nn.Linear(3, 2), "the reference network failed: Linear does not say how images are prepared"),
        ((nn.Linear(7, 2), to_tensor), "the reference network failed: RuntimeError"),
    ],
)
def test_a_reference_that_fails_is_a_reason_and_takes_no_other_score_with_it(reference, reason):
    ranking = rank(pictures(), {"a": colours()}, ["lfc", SAME, "rsa"], reference=reference)
    assert set(ranking["a"].scores) == {"lfc"}
    for metric in ("same", "rsa"):
        assert reason in ranking["a"].skipped[metric]


def test_a_static_metric_has_no_interval_and_looks_at_no_sample():
    ranking = rank(pictures(), {"a": convolving(0), "b": colours()}, ["size", "random", "source_accuracy", "lfc"])
    assert ranking.best.name == "a"
    for candidate in ranking:
        for name in ("size", "random"):
            score = candidate.scores[name]
            assert (score.low, score.high, score.p_best) == (None, None, None)
        assert "not published" in candidate.skipped["source_accuracy"]
    other = rank(pictures(30, n_classes=2, seed=5), {"a": convolving(0)}, ["size", "random"])
    assert other["a"].scores == {name: ranking["a"].scores[name] for name in ("size", "random")}


def test_a_third_partys_metric_may_ask_for_gradients():
    def alignment(gradients, labels):
        unit = nn.functional.normalize(gradients.double(), dim=1)
        same = labels[:, None] == labels
        return ((unit @ unit.T)[same].mean() - (unit @ unit.T)[~same].mean()).item()

    own = Metric("alignment", alignment, ("gradients", "labels"), "O(n^2 p)", "this test")
    ranking = rank(pictures(), {"net": convolving(0), "flat": colours()}, [own, "lfc"])
    score = ranking["net"].scores["alignment"]
    assert score.low < score.value < score.high
    assert ranking["flat"].skipped == {"alignment": "it has no convolution or linear layer that sees positions"}
    assert "lfc" in ranking["flat"].scores
