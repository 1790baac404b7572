import copy
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from hf_zoosel.objectives import Relationship

MATRIX = torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]])


def make_record(n_target, n_source, prefix="a class with a rather long name, "):
    matrix = torch.randn(n_target, n_source, generator=torch.Generator().manual_seed(0)).mul(3).softmax(1)
    names = [
        tuple(f"{prefix}{kind} {i}" for i in range(n)) for kind, n in (("target", n_target), ("source", n_source))
    ]
    return Relationship(matrix, *names, "reverse", 30.0, 1.25, 0.875)


@pytest.fixture
def record():
    return Relationship(MATRIX, ["lynx", "lorry"], ["cat", "dog", "car"], "direct")


def test_is_frozen_compares_by_value_and_survives_copying(record):
    with pytest.raises(FrozenInstanceError):
        record.method = "reverse"
    assert record.matrix.dtype == torch.float64
    assert record.target_names == ("lynx", "lorry")
    again = Relationship(MATRIX, ("lynx", "lorry"), ("cat", "dog", "car"), "direct")
    for other in (copy.deepcopy(record), pickle.loads(pickle.dumps(record)), again):
        assert other == record
        assert hash(other) == hash(record)
    assert record != Relationship(MATRIX, ("lynx", "truck"), ("cat", "dog", "car"), "direct")
    assert record != Relationship(MATRIX.flip(0), ("lynx", "lorry"), ("cat", "dog", "car"), "direct")
    assert record != "a relationship"


def test_does_not_change_with_the_tensor_it_was_made_of():
    matrix = MATRIX.double()
    record = Relationship(matrix, ("lynx", "lorry"), ("cat", "dog", "car"), "direct")
    matrix[0] = torch.tensor([0.0, 1.0, 0.0])
    assert record.matrix[0].tolist() == [0.75, 0.25, 0.0]


def test_top_is_in_order_and_leaves_out_what_has_no_part(record):
    assert record.top() == {"lynx": [("cat", 0.75), ("dog", 0.25)], "lorry": [("car", 1.0)]}
    assert record.top(1)["lynx"] == [("cat", 0.75)]
    with pytest.raises(ValueError, match="`n` must be at least 1, got 0"):
        record.top(0)


def test_frame_has_a_row_per_target_class(record):
    frame = record.to_pandas()
    assert frame.loc["lynx"].to_dict() == {"cat": 0.75, "dog": 0.25, "car": 0.0}
    assert (frame.index.name, frame.columns.name) == ("target", "source")
    frame.loc["lynx", "cat"] = 0.0  # a copy
    assert record.matrix[0, 0] == 0.75


def test_source_names_may_come_twice_as_two_of_imagenet_do():
    record = Relationship(MATRIX, ("lynx", "lorry"), ("crane", "crane", "car"), "direct")
    assert record.top()["lynx"] == [("crane", 0.75), ("crane", 0.25)]
    assert record.to_pandas().shape == (2, 3)


def test_text_shows_the_choice_and_thirty_rows():
    text = str(make_record(40, 5, prefix="")).splitlines()
    title = (
        "p(source class | target class) of 40 x 5 classes, reverse, strength 30, scale 1.25, validation accuracy 0.875"
    )
    assert text[0] == title
    assert len(text) == 2 + 30 + 1
    assert text[2].startswith("target 0   source ")
    assert text[-1] == "and 10 more: see `top()`"
    assert repr(make_record(2, 3)).startswith("Relationship(method='reverse', n_target=2, n_source=3, strength=30.0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MATRIX * 2, ("a", "b"), ("c", "d", "e")), r"`matrix` rows must be probabilities summing to 1.*\[2, 2\]"),
        ((MATRIX, ("a",), ("c", "d", "e")), "`target_names` must be 2 names, one per class of `matrix`, got 1 names"),
        ((MATRIX, ("a", "b"), "cde"), "`source_names` must be 3 names, one per class of `matrix`, got 'cde'"),
        ((MATRIX, ("a", "a"), ("c", "d", "e")), "`target_names` must name each class once, got 'a' again"),
        ((MATRIX, ("a", "b"), ("c", "d", "e"), "forward"), "`method` must be one of 'reverse', 'direct'"),
    ],
)
def test_what_is_no_relationship_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Relationship(*arguments, *([] if len(arguments) == 4 else ["direct"]))


@pytest.mark.parametrize(("n_target", "n_source"), [(1, 1), (2, 300), (10, 40), (100, 1000)])
def test_labels_of_the_picture_neither_overlap_nor_leave_it(n_target, n_source):
    figure = make_record(n_target, n_source).plot()
    FigureCanvasAgg(figure).draw()
    panel = figure.axes[0]
    renderer = figure.canvas.get_renderer()
    for labels in (panel.get_xticklabels(), panel.get_yticklabels()):
        boxes = [label.get_window_extent(renderer) for label in labels]
        assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]
        assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= figure.bbox.width and b.y1 <= figure.bbox.height for b in boxes)
    title = figure._suptitle.get_window_extent(renderer)
    assert title.x1 <= figure.bbox.width


def test_the_first_source_class_of_every_row_is_drawn():
    record = make_record(12, 500, prefix="")
    panel = record.plot().axes[0]
    drawn = {label.get_text() for label in panel.get_xticklabels()}
    assert {related[0][0] for related in record.top(1).values()} <= drawn
    assert panel.images[0].get_array().shape == (12, 60)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture_is_written_where_asked(tmp_path, suffix):
    path = tmp_path / "new" / f"relationship.{suffix}"
    make_record(3, 4, prefix="$x_1^{").plot(path)
    assert path.stat().st_size > 1000


def test_without_matplotlib_the_remedy_is_named():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import torch; from hf_zoosel.objectives import Relationship\n"
        "Relationship(torch.eye(2), ('a', 'b'), ('c', 'd'), 'direct').plot()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: `plot` needs matplotlib. Install it with `pip install hf-zoosel[plots]`." in done.stderr


def test_the_room_needs_torch_alone_until_used():
    late = {"matplotlib", "pandas", "scipy", "sklearn", "timm", "transformers", "datasets", "accelerate"}
    code = "import sys, hf_zoosel.objectives; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not late & set(done.stdout.split())
