import dataclasses
import subprocess
import sys

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from hf_zoosel.selection import SourceSelection, select_groups
from tests.selection.conftest import make_groups


@pytest.mark.parametrize(("n", "k"), [(1, 1), (40, 10), (300, 100)])
def test_labels_neither_overlap_nor_leave_the_picture(n, k):
    source = make_groups(n, prefix="a class with a rather long name, as ImageNet has, ")
    figure = select_groups(source, make_groups(7, seed=1), k=k).plot()
    FigureCanvasAgg(figure).draw()
    bars = figure.axes[0]
    texts = [*bars.get_yticklabels(), figure._supxlabel, *(panel.title for panel in figure.axes)]
    boxes = [text.get_window_extent(figure.canvas.get_renderer()) for text in texts]
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height


def test_masses_the_line_and_the_limit_are_drawn(selection):
    bars, curve, target = selection.plot().axes
    assert [patch.get_width() for patch in bars.patches] == [c.mass for c in selection.classes]
    assert curve.lines[0].get_ydata().tolist() == [c.mass for c in selection.ranked]
    assert [text.get_text() for text in curve.get_legend().get_texts()] == ["chosen: 10", "not chosen: 30"]
    assert target.lines[0].get_ydata().tolist() == sorted(t.distance for t in selection.coverage)
    assert target.lines[2].get_ydata()[0] == selection.near_limit


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_picture_is_written_where_asked(selection, tmp_path, suffix):
    path = tmp_path / "new" / f"selection.{suffix}"
    selection.plot(path)
    assert path.stat().st_size > 1000


def test_names_are_not_read_as_mathematics(tmp_path):
    found = select_groups(make_groups(5, prefix="$x_1^{"), make_groups(2, seed=1, prefix="$y"), k=2, method="random")
    dataclasses.replace(found, source="$a", target="b$").plot(tmp_path / "x.png")


def test_a_selection_of_rows_alone_cannot_be_drawn():
    with pytest.raises(ValueError, match="Use its `rows`"):
        SourceSelection("uot", 0, (), (), 10.0, unit="sample", rows=(1,)).plot()


def test_without_matplotlib_the_remedy_is_named():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from hf_zoosel.selection import SourceClass, SourceSelection\n"
        "SourceSelection('uot', 1, (SourceClass('a', 0, 1.0, 1.0, 5, 'b', 0.1),), (), 1.0).plot()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: `plot` needs matplotlib. Install it with `pip install hf-zoosel[plots]`." in done.stderr
