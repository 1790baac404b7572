import html.parser
import io
import re

import pandas as pd
import pytest
from rich.console import Console

from hf_zoosel.ranking import CandidateResult, Ranking, Score, rank_candidates
from hf_zoosel.ranking.content import short_count


def one(name="a", score=None, error=None):
    result = CandidateResult(name, 1 if error is None else None, {"lfc": score or Score(0.5)}, error=error)
    return Ranking("t", 10, 2, ("lfc",), (result,))


def test_text_says_everything_on_plain_lines(ranking):
    text = str(ranking)
    assert text.splitlines()[0] == "trash & co: 5 candidates by lfc, 100 images of 4 classes"
    row = next(line for line in text.splitlines() if "org/model_0" in line)
    assert re.fullmatch(
        r" +1  org/model_0  0\.500 \[0\.\d{3}, 0\.\d{3}\] +[01]\.\d\d  0\.500 \[\S+ \S+\] +5\.3 M +1280 +1\.5", row
    )
    for words in (
        "95% bootstrap interval",
        "- org/gated: 401: access is restricted",
        "- bad/markup [bold]: a | pipe, <b>tags</b>, `ticks`, $x^2$ and a second line",
        "- org/model_1: leep: the model has no head",
        "Skipped: 8 images",
        "- row 28: zero bytes\n- and 3 more, see `skipped_images`",
        "- 2 rows without a label were left out.",
    ):
        assert words in text
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 200


@pytest.mark.parametrize("width", [40, 80, 120, 400])
def test_nothing_is_cut_off_in_a_narrow_console(make_ranking, width):
    ranking = make_ranking(n=3, metrics=("lfc", "leep", "logme", "knn", "linear"))
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(ranking)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for column in (*ranking.metrics, "p(best)", "parameters", "width", "seconds"):
        assert len(re.findall(rf"(?<!\S){re.escape(column)}(?!\S)", text)) >= 1
    n_intervals = sum(len(candidate.scores) for candidate in ranking)
    assert len(re.findall(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", text)) == n_intervals


def test_long_names_and_reasons_are_folded():
    name, reason = "org/" + "very_" * 40 + "long", "because of this " * 200
    lines = str(one(name)).splitlines()
    assert name in "".join(line[6:66].strip() for line in lines[4:])
    text = str(one(name, error=reason))
    assert " ..." in text
    assert len(text.splitlines()) < 12
    assert max(map(len, text.splitlines())) <= 200


def test_control_characters_never_reach_the_terminal():
    text = str(one("\x1b[31mred\x1b[0m", error="line\r\nbreak\x07\x00"))
    assert text.replace("\n", "").isprintable()


def test_digits_follow_the_interval():
    assert "0.500 [0.400, 0.600]" in str(one(score=Score(0.5, 0.4, 0.6)))
    assert "0.50000 [0.49980, 0.50020]" in str(one(score=Score(0.5, 0.4998, 0.5002)))
    assert "-1234.5 [-1300.0, -1100.0]" in str(one(score=Score(-1234.5, -1300, -1100)))
    assert "2.00e-07 [1.00e-07, 3.00e-07]" in str(one(score=Score(2e-7, 1e-7, 3e-7)))
    assert "0.500 " in str(one(score=Score(0.5)))


def test_counts_are_short():
    assert [short_count(n) for n in (0, 999, 1000, 999_949, 5_288_548, 86_567_656, 2_539_567_608)] == [
        "0", "999", "1.0 k", "999.9 k", "5.3 M", "86.6 M", "2.5 B",
    ]  # fmt: skip


def test_markdown_is_a_table_whatever_the_names(ranking):
    markdown = one("a|b*c <i> __d__").to_markdown()
    assert r"| 1 | a\|b\*c \<i\> \_\_d\_\_ | 0.500 |" in markdown
    lines = ranking.to_markdown().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 3
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert table[1].startswith("| ---: | :--- |")
    assert r"- bad/markup \[bold]: a \| pipe, \<b\>tags\</b\>, \`ticks\`, \$x^2\$ and a second line" in lines


def test_html_is_escaped_and_balanced(ranking):
    open_tags = []

    class Checker(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    fragment = ranking._repr_html_()
    Checker().feed(fragment)
    assert open_tags == []
    assert "&lt;b&gt;tags&lt;/b&gt;" in fragment
    assert "trash &amp; co" in fragment
    assert "<script" not in one("<script>alert(1)</script>")._repr_html_()


def test_pandas_has_a_row_per_candidate_and_typed_columns(ranking):
    table = ranking.to_pandas()
    assert table["candidate"].tolist() == [c.name for c in ranking]
    assert table["rank"].tolist()[:3] == [1, 2, 3]
    assert table["rank"].isna().tolist() == [False] * 3 + [True] * 2
    assert table["leep"].isna().tolist() == [False, True, False, True, True]
    assert table.loc[0, "lfc_low"] == ranking.best.scores["lfc"].low
    assert table.loc[1, "skipped"] == "leep: the model has no head"
    assert {str(t) for t in table[["lfc", "lfc_p_best", "seconds"]].dtypes} == {"float64"}
    assert isinstance(table["n_parameters"].dtype, pd.Int64Dtype)


def test_a_ranking_where_all_failed_still_prints():
    results = [CandidateResult("a", error="gone"), CandidateResult("b", error="gated")]
    ranking = Ranking("t", 10, 2, ("lfc",), rank_candidates(results, metrics=["lfc"]))
    assert "Failed: 2 candidates\n- a: gone\n- b: gated" in str(ranking)
    assert "**Failed: 2 candidates**" in ranking.to_markdown()
    assert len(ranking.to_pandas()) == 2
