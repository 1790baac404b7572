import subprocess
import sys

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from hf_zoosel.ranking import CandidateResult, Ranking, Score


def overlaps(figure, artists):
    boxes = [artist.get_window_extent(figure.canvas.get_renderer()) for artist in artists]
    return [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]


@pytest.mark.parametrize("n", [1, 4, 30])
@pytest.mark.parametrize("metrics", [("lfc",), ("lfc", "leep", "logme", "knn", "linear")])
def test_labels_neither_overlap_nor_leave_the_picture(make_ranking, n, metrics):
    figure = make_ranking(n, metrics).plot()
    FigureCanvasAgg(figure).draw()
    panels = figure.axes
    assert [panel.get_title() for panel in panels] == list(metrics)
    texts = [*panels[0].get_yticklabels(), *(text for panel in panels for text in panel.texts)]
    texts += [figure._supxlabel, *(panel.title for panel in panels)]
    assert overlaps(figure, texts) == []
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height


def test_scores_intervals_and_failures_are_drawn(ranking):
    figure = ranking.plot()
    lfc, leep = figure.axes
    assert [label.get_text() for label in lfc.get_yticklabels()] == ["org/model_0", "org/model_1", "org/model_2"]
    assert [line.get_xdata()[0] for line in lfc.lines] == [c.scores["lfc"].value for c in ranking.top(3)]
    ends = [tuple(lines.get_segments()[0][:, 0]) for lines in lfc.collections]
    assert ends == [(c.scores["lfc"].low, c.scores["lfc"].high) for c in ranking.top(3)]
    assert "no score" in [text.get_text() for text in leep.texts]
    assert "Failed: bad/markup [bold], org/gated." in figure.get_supxlabel()


def test_one_metric_orders_and_fills_one_panel(ranking):
    figure = ranking.plot("leep")
    assert [panel.get_title() for panel in figure.axes] == ["leep"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["org/model_0", "org/model_2"]


def test_more_than_six_metrics_are_named_not_drawn(make_ranking):
    figure = make_ranking(3, tuple("abcdefgh")).plot()
    assert len(figure.axes) == 6
    assert "Not drawn: g, h." in figure.get_supxlabel()


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_picture_is_written_where_asked(ranking, tmp_path, suffix):
    path = tmp_path / "new" / f"ranking.{suffix}"
    ranking.plot(path=path)
    assert path.stat().st_size > 1000


def test_names_are_not_read_as_mathematics(tmp_path):
    name = "C:/$home$/x_1^2/" + "checkpoint-" * 12 + "9"
    results = (CandidateResult(name, 1, {"$m$": Score(0.1)}), CandidateResult("$bad_{", error="gone"))
    ranking = Ranking("a$b$c", 10, 2, ("$m$",), results)
    ranking.plot(path=tmp_path / "x.png")


def test_nothing_to_draw_is_said():
    ranking = Ranking("t", 10, 2, ("lfc",), (CandidateResult("a", error="gone"),))
    with pytest.raises(ValueError, match="See `failures`"):
        ranking.plot()
    with pytest.raises(ValueError, match="`metric` must be one of"):
        ranking.plot("leep")


def test_without_matplotlib_the_remedy_is_named():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from hf_zoosel.ranking import CandidateResult, Ranking\n"
        "Ranking('t', 1, 1, ('lfc',), (CandidateResult('a'),)).plot()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: `plot` needs matplotlib. Install it with `pip install hf-zoosel[plots]`." in done.stderr


def test_a_notebook_shows_the_figure_without_pyplot(ranking):
    assert ranking.plot()._repr_png_().startswith(b"\x89PNG")
