from dataclasses import replace

import pytest

from hf_zoosel.selection import SourceSelection
from hf_zoosel.selection.record import SourceClass, TargetClass


def selection(*distances, limit=0.2, samples=False):
    """Target classes whose nearest source class lies at these distances."""
    coverage = tuple(TargetClass(f"t{i}", i, 20, "s", d, None, d) for i, d in enumerate(distances))
    ranked = () if samples else (SourceClass("s", 0, 1.0, 1.0, 50, "t0", 0.1),)
    return SourceSelection(
        "uot", len(ranked), ranked, coverage, n_effective=1.0, near_limit=limit, rows=(0, 1) if samples else None
    )


@pytest.mark.parametrize(
    ("distances", "words"),
    [
        ((0.3, 0.4, 0.21), ["may help or hurt", "no target class", "target alone"]),
        ((0.3, 0.4, 0.2), ["may help some classes", "1 of 3"]),
        ((0.1, 0.4, 0.2), ["may help,", "2 of 3", "0.3"]),
    ],
)
def test_it_counts_the_target_classes_that_are_near(distances, words):
    advice = selection(*distances).advice
    assert all(word in advice for word in [*words, 'source_weight="auto"'])


def test_where_nothing_can_be_told_it_says_so():
    assert "cannot be told" in selection(0.1, limit=None).advice


def test_it_speaks_of_samples_where_samples_were_chosen():
    assert "near source sample" in selection(0.1, samples=True).advice


def test_it_is_printed_and_follows_the_record():
    one = selection(0.1)
    assert "Before training" in str(one)
    assert "may help" in one.to_markdown()
    assert "may help or hurt" in str(replace(one, near_limit=0.05))
