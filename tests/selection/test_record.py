import copy
import dataclasses
import pickle

import pytest

from hf_zoosel.selection import SourceClass, SourceSelection, TargetClass

CAT = SourceClass("cat", 1, 0.9, 0.9, 50, "lynx", 0.1)
CAR = SourceClass("car", 0, 0.1, 0.1, 50, "lynx", 0.8)
LYNX = TargetClass("lynx", 0, 20, "cat", 0.1, 0.0, 0.1)
SMALL = SourceSelection("uot", 1, (CAT, CAR), (LYNX,), 1.22)


def test_records_never_change(selection):
    with pytest.raises(dataclasses.FrozenInstanceError):
        selection.method = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        selection.classes[0].mass = 2.0
    with pytest.raises(TypeError):
        selection.options["scale"] = 1.0


def test_records_travel_between_processes_and_compare_by_value(selection):
    for other in (pickle.loads(pickle.dumps(selection)), copy.deepcopy(selection), copy.copy(selection)):
        assert other == selection
        assert hash(other) == hash(selection)
    assert dataclasses.replace(selection, target="other") != selection


def test_chosen_rejected_and_masses_in_the_sources_order():
    assert SMALL.classes == (CAT,)
    assert SMALL.rejected == (CAR,)
    assert SMALL.mass == (0.1, 0.9)
    assert len(SMALL) == 1


def test_badly_served_classes_are_those_beyond_the_limit():
    far = dataclasses.replace(LYNX, name="fern", index=1, distance=0.7)
    further = dataclasses.replace(LYNX, name="moss", index=2, distance=0.9)
    both = dataclasses.replace(SMALL, coverage=(LYNX, far, further), near_limit=0.2)
    assert both.badly_served == (further, far)
    assert dataclasses.replace(both, near_limit=None).badly_served == ()


def test_rows_alone_make_a_selection_of_samples():
    samples = SourceSelection("uot", 0, (), (), 1000.0, unit="sample", rows=[5, 3])
    assert samples.rows == (5, 3)
    assert samples.classes == ()
    assert str(samples).startswith("2 samples of source for target, by uot")


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"n_chosen": 0}, ValueError, "`n_chosen` must be from 1 to the 2 source classes, or 0 beside `rows`, got 0"),
        ({"n_chosen": 3}, ValueError, "got 3"),
        ({"ranked": (CAT, CAT)}, ValueError, "`ranked` must hold every class once"),
        ({"coverage": (LYNX, LYNX)}, ValueError, "`coverage` must hold every class once"),
        ({"n_effective": float("nan")}, ValueError, "`n_effective` must be finite, got nan"),
        ({"transport_cost": float("inf")}, ValueError, "`transport_cost` must be finite"),
        ({"ranked": (dataclasses.replace(CAT, mass=float("nan")), CAR)}, ValueError, "`mass` .* in a SourceClass"),
        ({"unit": "image"}, ValueError, r"`unit` must be one of \['class', 'cluster', 'sample'\]"),
        ({"options": {"reg": [1]}}, TypeError, r"got \[1\] for 'reg'"),
        ({"details": {"gap": float("inf")}}, ValueError, "got inf for 'gap'"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(change, kind, text):
    with pytest.raises(kind, match=text):
        dataclasses.replace(SMALL, **change)
