import dataclasses
import json

import pytest
import timm
import torch

from hf_zoosel.zoo import CandidateError, Provenance, SourceStats, resolve
from hf_zoosel.zoo.atomic import replacing
from hf_zoosel.zoo.source_stats import FILE_NAME


@pytest.fixture
def candidate(save_timm):
    return resolve(str(save_timm(timm.create_model("test_resnet", num_classes=4))), "it")


@pytest.fixture
def stats(candidate):
    provenance = Provenance(
        revision=candidate.revision,
        architecture=candidate.architecture,
        preprocess=candidate.preprocess.identity,
        weights=candidate.load().weights_digest(),
        layer="features",
        dtype="float32",
        dataset="imagenet",
        split="train",
        fingerprint="abc",
        n_rows=100,
        n_unlabelled=2,
        n_unreadable=12,
        unreadable=((3, "no image (null)"), (7, "cut short")),
        empty_classes=("wolf",),
        versions={"torch": "2.0"},
    )
    generator = torch.Generator().manual_seed(0)
    means, variances = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    return SourceStats(
        means,
        torch.tensor([5, 1, 7]),
        class_names=("cat", "dog", "cat"),
        variances=variances.abs(),
        provenance=provenance,
    )


def changed(stats, **fields):
    return dataclasses.replace(stats, provenance=dataclasses.replace(stats.provenance, **fields))


def test_names_variances_and_provenance_come_back_from_the_file(stats, tmp_path):
    loaded = SourceStats.load(stats.save(tmp_path / FILE_NAME))
    assert torch.equal(loaded.means, stats.means)
    assert torch.equal(loaded.variances, stats.variances)
    assert loaded.class_names == stats.class_names
    assert loaded.provenance == stats.provenance
    assert not list(tmp_path.glob(".*"))


def test_a_file_without_provenance_still_loads_and_passes(stats, candidate, tmp_path):
    plain = SourceStats(stats.means, stats.counts)
    loaded = SourceStats.load(plain.save(tmp_path / FILE_NAME))
    assert (loaded.class_names, loaded.variances, loaded.provenance) == (None, None, None)
    loaded.check_matches(candidate)


def test_fields_of_later_versions_are_passed_over_and_missing_ones_refused(stats, tmp_path):
    fields = json.loads(stats.provenance.to_json())
    assert Provenance.from_json(json.dumps(fields | {"weather": "fine"})) == stats.provenance
    broken = dataclasses.replace(stats, provenance=None)
    for text in ("[1]", "{", json.dumps({"revision": "x"})):
        with replacing(tmp_path / FILE_NAME) as path:
            from safetensors.torch import save_file

            save_file({"means": broken.means, "counts": broken.counts}, path, {"provenance": text})
        with pytest.raises(CandidateError, match="cannot be used"):
            SourceStats.load(tmp_path / FILE_NAME)


def test_statistics_of_the_candidate_pass(stats, candidate):
    stats.check_matches(candidate)


def test_a_checkpoint_that_has_moved_is_known_by_its_weights(stats, candidate):
    moved = dataclasses.replace(candidate, revision="0123abc")  # a commit on the Hub, say
    stats.check_matches(moved)
    with pytest.raises(ValueError, match="whose weights cannot be loaded"):
        stats.check_matches(dataclasses.replace(moved, load=lambda: 1 / 0))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"revision": "sha256:other", "weights": "other"}, "are of another checkpoint, sha256:other"),
        ({"layer": "logits"}, "are of its layer 'logits', not 'features'"),
        ({"architecture": "timm resnet50"}, "are of another network, 'timm resnet50'"),
        ({"preprocess": "other"}, "were computed with another preprocessing"),
    ],
)
def test_statistics_of_something_else_are_refused(stats, candidate, fields, why):
    with pytest.raises(ValueError, match=why) as refused:
        changed(stats, **fields).check_matches(candidate)
    assert str(refused.value).startswith("`source` must be statistics of 'it' at revision sha256:")


def test_a_transform_that_cannot_be_hashed_is_not_compared(stats, candidate):
    preprocess = dataclasses.replace(candidate.preprocess, key="random", cacheable=False)
    stats.check_matches(dataclasses.replace(candidate, preprocess=preprocess))
    changed(stats, preprocess="").check_matches(candidate)


def test_the_weights_digest_sees_every_tensor_and_no_memory_layout(candidate):
    network = candidate.load()
    before = network.weights_digest()
    assert network.to(torch.device("cpu")).weights_digest() == before == candidate.load().weights_digest()
    next(network.module.buffers()).add_(1)
    assert network.weights_digest() != before


def test_notes_say_what_was_left_out(stats):
    assert stats.provenance.notes == (
        "2 of 100 source rows have no label and were left out.",
        "12 of 100 source images could not be read and were left out (row 3: no image (null)).",
        "1 source class has no image that can be read: wolf.",
    )
    many = changed(stats, n_unlabelled=0, n_unreadable=0, empty_classes=tuple("abcdefg")).provenance
    assert many.notes == ("7 source classes have no image that can be read: a, b, c, d, e, ...",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ("cat", "dog")}, "`class_names` must name each of the 3 classes, got 2 names"),
        ({"variances": torch.ones(3, 5)}, r"`variances` must be shaped like `means`, \(3, 4\), got \(3, 5\)"),
    ],
)
def test_what_does_not_fit_together_is_refused(stats, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(stats, **change)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def broken_off():
        with replacing(path) as temporary:
            temporary.write_text("aft")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert path.read_text() == "before"
    with replacing(path) as temporary:
        temporary.write_text("after")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]
