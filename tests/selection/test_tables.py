import dataclasses
import html.parser
import io
import re

import pytest
from rich.console import Console

from hf_zoosel.selection import select_groups
from tests.selection.conftest import make_groups


@pytest.fixture(scope="module")
def poor():
    """A selection that serves a target badly, under names that markup could trip over."""
    target = make_groups(9, means=-make_groups(9, seed=1).means.numpy(), prefix="bad [b]|<i>`$t_")
    with pytest.warns(UserWarning, match="Nothing in the source"):
        found = select_groups(make_groups(40, prefix="<s> | [x] "), target, k=30, method="capacity")
    return dataclasses.replace(found, source="image|net", target="birds & <co>")


def test_text_says_what_how_much_and_for_which_class(selection):
    lines = str(selection).splitlines()
    assert lines[0] == "10 of 40 classes of source for target, by uot"
    first = selection.classes[0]
    row = next(line for line in lines if re.match(r" +1  ", line))
    assert re.fullmatch(
        rf" +1  {first.name} +{first.mass:#.4g} +\d+\.\d\d % +{first.nearest} +{first.distance:.3f} +{first.count}",
        row,
    )
    text = str(selection)
    assert f"Effective number of source classes: {selection.n_effective:.1f} of 40." in text
    assert f"95 % of source classes have another within {selection.near_limit:.3f}." in text
    assert text.isascii()
    assert max(map(len, lines)) <= 200


def test_only_the_first_classes_are_listed_and_that_is_said(poor):
    text = str(poor)
    assert len(re.findall(r"^ *\d+  <s> ", text, re.MULTILINE)) == 20
    assert "The first 20 of 30; all are in `classes`." in text
    assert "Served badly: 9 of 9 target classes" in text
    assert "- and 4 more, see `badly_served`" in text
    assert "Mixing may hurt" in text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_nothing_is_cut_off_in_a_narrow_console(poor, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(poor)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for word in ("mass", "share", "distance", "samples"):
        assert re.search(rf"(?<!\S){word}(?!\S)", text)


def test_html_and_markdown_escape_names(poor):
    page = poor._repr_html_()
    assert "<s>" not in page
    assert "&lt;s&gt; | [x] 0" in page
    assert "birds &amp; &lt;co&gt;" in page
    html.parser.HTMLParser().feed(page)
    table = [line for line in poor.to_markdown().splitlines() if line.startswith("| ")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_clusters_are_called_clusters(selection):
    clusters = dataclasses.replace(selection, unit="cluster")
    assert str(clusters).splitlines()[0] == "10 of 40 clusters of source for target, by uot"
    assert "  cluster  " in str(clusters)


def test_the_frame_has_every_source_class_in_order(selection):
    frame = selection.to_pandas()
    assert frame["rank"].tolist() == list(range(1, 41))
    assert frame["class"].tolist() == [c.name for c in selection.ranked]
    assert frame["chosen"].sum() == 10
    assert frame["chosen"].dtype == bool
    assert frame["mass"].is_monotonic_decreasing
    assert frame["share"].sum() == pytest.approx(1)
    assert frame["index"].dtype == "int64"


def test_the_coverage_frame_has_every_target_class(selection):
    frame = selection.coverage_to_pandas()
    assert frame["class"].tolist() == [t.name for t in selection.coverage]
    assert (~frame["well_served"]).sum() == len(selection.badly_served)
    assert frame["served_by"].str.split("; ").str.len().eq(5).all()
    unknown = dataclasses.replace(selection, near_limit=None).coverage_to_pandas()
    assert unknown["well_served"].isna().all()
