import pytest
import torch
from hypothesis import given, strategies as st

from hf_zoosel.metrics import knn
from hf_zoosel.metrics.knn import knn_influence
from tests.metrics.transcriptions.knn import knn_as_written


@st.composite
def problems(draw):
    n, d, k = draw(st.integers(3, 20)), draw(st.integers(1, 25)), draw(st.integers(2, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    if draw(st.booleans()):
        features = torch.randint(1, 4, (n, d), generator=generator).float()  # many equal distances
    else:
        features = 100 + torch.randn(n, d, generator=generator)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:k] = torch.arange(k)
    return features, labels


@given(problems(), st.sampled_from(["euclidean", "cosine"]))
def test_equals_comparing_all_pairs(problem, distance):
    expected = knn_as_written(*problem, distance)
    assert knn(*problem, distance=distance) == pytest.approx(expected, rel=1e-12)


@given(problems(), st.randoms(use_true_random=False))
def test_ties_are_shared_so_order_never_matters(problem, random):
    features, labels = problem
    order = random.sample(range(len(labels)), len(labels))
    score, right = knn_influence(features, labels)
    shuffled_score, shuffled_right = knn_influence(features[order], labels[order])
    assert shuffled_score == pytest.approx(score, rel=1e-12)
    assert torch.equal(shuffled_right, right[order])


def test_duplicates_with_two_labels_share_the_vote():
    features, labels = torch.tensor([[1.0, 2.0]] * 3 + [[9.0, 9.0]]), torch.tensor([0, 0, 1, 1])
    assert knn_influence(features, labels)[1].tolist() == [0.5, 0.5, 0.0, pytest.approx(1 / 3)]


def test_a_large_common_mean_hides_no_neighbour():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 30, generator=generator, dtype=torch.float64)
    labels = torch.arange(60) % 3
    assert knn(features + 2.0**20, labels) == knn(features, labels)


def test_angles_ignore_length_and_distances_do_not():
    features = torch.tensor([[1.0, 0.0], [50.0, 1.0], [0.0, 1.0], [1.0, 50.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert knn(features, labels, distance="cosine") == 1
    assert knn(features, labels, distance="euclidean") == 0.5


def test_a_row_of_zeros_has_no_angle_but_a_score():
    features, labels = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.1]]), torch.tensor([0, 0, 1, 1])
    assert knn(features, labels, distance="cosine") == 1


def test_an_unknown_distance_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"'euclidean', 'cosine'.*'manhattan'"):
        knn(torch.eye(3), torch.tensor([0, 1, 1]), distance="manhattan")
