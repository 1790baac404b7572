import pytest
import timm
import torch
from safetensors.torch import save_file

from hf_zoosel.zoo import CandidateError, SourceStats, resolve
from hf_zoosel.zoo.published import published_accuracy
from hf_zoosel.zoo.source_stats import FILE_NAME
from tests.loopback_hub.server import Fault, serve
from tests.zoo.test_hub import ask

CARD = """---
license: mit
model-index:
- name: mine
  results:
{results}---
# A model
"""
RESULT = """  - task: {{type: image-classification}}
    dataset: {{name: {dataset}, type: {dataset}}}
    metrics:
    - {{type: {metric}, value: {value}}}
"""


def card(*results):
    shared = {"dataset": "imagenet-1k", "metric": "accuracy"}
    return CARD.format(results="".join(RESULT.format(**(shared | result)) for result in results))


@pytest.fixture
def accuracy_of(tmp_path):
    def read(text):
        path = tmp_path / "README.md"
        path.write_text(text, encoding="utf-8")
        return published_accuracy(path)

    return read


@pytest.mark.parametrize(
    ("value", "expected"), [(0.751, 0.751), (75.1, 0.751), (100, 1.0), (1, 1.0), (0, 0.0), (0.0, 0.0)]
)
def test_a_share_or_a_percentage_is_read_as_a_share(accuracy_of, value, expected):
    assert accuracy_of(card({"value": value})) == pytest.approx(expected)


@pytest.mark.parametrize("value", [-3, 101, ".nan", ".inf", "'75.1 %'", "[1, 2]", "null"])
def test_a_value_that_is_no_accuracy_is_none(accuracy_of, value):
    assert accuracy_of(card({"value": value})) is None


def test_several_data_sets_are_none_and_one_told_twice_is_one(accuracy_of):
    assert accuracy_of(card({"value": 0.7}, {"value": 0.7, "dataset": "imagenet-v2"})) is None
    assert accuracy_of(card({"value": 0.7}, {"value": 0.6})) is None  # top-1 and top-5, say
    assert accuracy_of(card({"value": 0.7}, {"value": 0.7})) == 0.7


def test_other_metrics_are_passed_over(accuracy_of):
    assert accuracy_of(card({"value": 0.7}, {"value": 0.9, "metric": "f1"})) == 0.7
    assert accuracy_of(card({"value": 0.9, "metric": "f1"})) is None
    assert accuracy_of(card({"value": 0.7, "metric": "Accuracy"})) == 0.7


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# No header at all",
        "---\na: [1\nb: }\n---\n",
        "---\n\tlicense: mit\n---\n",
        "---\na: *nowhere\n---\n",
        "---\na: !!python/object:os.system {}\n---\n",
        "---\n- 1\n- 2\n---\n",
        "---\nlicense: mit\n---\n",
        "---\nmodel-index: 3\n---\n",
        "---\nmodel-index:\n- name: mine\n---\n",
        card({"value": 0.7}).replace("dataset:", "data:"),
        card({"value": 0.7, "metric": 5}),
    ],
)
def test_a_card_without_a_sound_header_tells_no_accuracy_and_says_nothing(accuracy_of, text, caplog):
    assert accuracy_of(text) is None
    assert caplog.records == []


def test_a_card_that_cannot_be_read_tells_no_accuracy(tmp_path):
    (tmp_path / "README.md").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "README.md", tmp_path / "absent.md", tmp_path, None):
        assert published_accuracy(path) is None


def statistics(n=12, d=4, k=3):
    generator = torch.Generator().manual_seed(0)
    return SourceStats.of(torch.randn(n, d, generator=generator), 10 * (torch.arange(n) % k) - 5)


def test_statistics_are_the_means_and_counts_of_the_classes():
    features, labels = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 5.0]]), torch.tensor([40, 40, -1])
    stats = SourceStats.of(features, labels)
    assert stats.means.tolist() == [[5.0, 5.0], [2.0, 4.0]]
    assert stats.counts.tolist() == [1, 2]
    assert stats.labels.tolist() == [1, 1, 0]
    assert torch.equal(stats.features, features)


@pytest.mark.parametrize("sample", [True, False])
def test_what_is_saved_is_loaded(tmp_path, sample):
    stats = statistics()
    stats = stats if sample else SourceStats(stats.means, stats.counts)
    loaded = SourceStats.load(stats.save(tmp_path / FILE_NAME))
    for name, tensor in vars(stats).items():
        other = getattr(loaded, name)
        assert other is None if tensor is None else torch.equal(other, tensor)


def test_a_damaged_or_foreign_file_is_refused_in_one_line(tmp_path):
    path = statistics().save(tmp_path / FILE_NAME)
    whole = path.read_bytes()
    for content in (b"", b"no safetensors", whole[:-20]):
        path.write_bytes(content)
        with pytest.raises(CandidateError, match=f"its source statistics {FILE_NAME} cannot be used") as refused:
            SourceStats.load(path)
        assert "\n" not in str(refused.value)
    save_file({"weights": torch.rand(2)}, path)
    with pytest.raises(CandidateError, match="KeyError: 'means'"):
        SourceStats.load(path)
    with pytest.raises(CandidateError, match="cannot be used"):
        SourceStats.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": torch.rand(3)}, "`means` must be"),
        ({"counts": torch.ones(2)}, "with one count a class, got shapes"),
        ({"labels": None}, "must come together"),
        ({"features": torch.rand(12, 5)}, r"`features` must be \(n_samples, 4\)"),
        ({"features": torch.rand(12)}, r"`features` must be \(n_samples, 4\)"),
        ({"labels": torch.arange(11)}, "with one label a sample"),
    ],
)
def test_statistics_that_do_not_fit_together_are_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        SourceStats(**vars(statistics()) | change)
    tensors = {name: tensor for name, tensor in (vars(statistics()) | change).items() if tensor is not None}
    save_file(tensors, tmp_path / FILE_NAME)
    with pytest.raises(CandidateError, match="ValueError"):
        SourceStats.load(tmp_path / FILE_NAME)


@pytest.fixture
def published(save_timm):
    """A checkpoint with its card and the statistics of its source."""
    folder = save_timm(timm.create_model("test_resnet", num_classes=4))
    (folder / "README.md").write_text(card({"value": 75.1}))
    statistics().save(folder / FILE_NAME)
    return folder


def test_a_folder_carries_what_was_published_with_it(published):
    candidate = resolve(str(published), "it")
    assert candidate.source_accuracy == pytest.approx(0.751)
    assert torch.equal(candidate.source_stats().means, statistics().means)
    for name in ("README.md", FILE_NAME):
        (published / name).unlink()
    bare = resolve(str(published), "it")
    assert bare.source_accuracy is None
    assert bare.source_stats is None
    assert bare.revision == candidate.revision  # features cached before it was published are still its own


def test_damaged_statistics_keep_no_folder_from_being_ranked(published):
    (published / FILE_NAME).write_bytes(b"")
    (published / "README.md").write_text("---\na: [1\nb: }\n---\n")
    candidate = resolve(str(published), "it")
    assert candidate.source_accuracy is None
    assert candidate.load()(torch.zeros(1, 3, 64, 64)).features.shape == (1, 96)
    with pytest.raises(CandidateError, match="cannot be used"):
        candidate.source_stats()


ON_THE_HUB = """
import json, sys
from hf_zoosel.zoo import resolve
found = {}
for spec in sys.argv[1:]:
    candidate = resolve(spec, "it")
    candidate.load()
    found[spec] = [candidate.source_accuracy, candidate.source_stats is not None]
    if spec == "org/published":
        found["n_classes"] = len(candidate.source_stats().counts)
print(json.dumps(found))
"""


def test_a_hub_repository_carries_it_too_and_a_card_that_cannot_be_fetched_is_no_reason_to_fail(published, tmp_path):
    client = tmp_path / "client.py"
    client.write_text(ON_THE_HUB)
    specs = ["org/published", "org/withheld", "org/bare"]
    with serve() as hub:
        hub.push("org/published", published)
        hub.push("org/withheld", published)
        hub.faults["org/withheld", "README.md"] = Fault(403)
        for name in ("README.md", FILE_NAME):
            (published / name).unlink()
        hub.push("org/bare", published)
        found = ask(specs, tmp_path / "home", client=client, HF_ENDPOINT=hub.url)
        assert found == {
            "org/published": [pytest.approx(0.751), True],
            "n_classes": 3,
            "org/withheld": [None, True],
            "org/bare": [None, False],
        }
        fetched = [request for request in hub.requests if request.startswith("GET") and FILE_NAME in request]
        assert len(fetched) == 1  # where they were asked for, and no earlier
    again = ask(specs[::2], tmp_path / "home", client=client, HF_HUB_OFFLINE="1")
    assert again == {key: found[key] for key in ("org/published", "n_classes", "org/bare")}
