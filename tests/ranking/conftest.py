import numpy as np
import pytest

from hf_zoosel.ranking import CandidateResult, Ranking, Resampler, Score, SkippedImage, rank_candidates


@pytest.fixture(scope="session")
def make_ranking():
    """Build a ranking of real bootstrap replicates: `n` good candidates, one without a head, two that failed."""

    def make(n=3, metrics=("lfc", "leep")):
        labels = np.repeat(np.arange(4), 25)
        resampler = Resampler(labels, n_bootstrap=200, seed=0)
        rng = np.random.default_rng(1)
        shared = rng.normal(size=100)
        results, replicates = [], {}
        for i in range(n):
            name = f"org/model_{i}"
            scored = metrics if i != 1 else metrics[:1]
            scores = {metric: Score(0.5 - 0.02 * i) for metric in scored}
            replicates |= {
                (name, metric): resampler.replicates(scores[metric].value, 0.3 * shared + 0.1 * rng.normal(size=100))
                for metric in scored
            }
            skipped = {metric: "the model has no head" for metric in metrics if metric not in scored}
            results.append(CandidateResult(name, None, scores, skipped, None, 5_288_548 * (i + 1), 1280, 100, 1.5))
        results += [
            CandidateResult("org/gated", error="401: access is restricted"),
            CandidateResult("bad/markup [bold]", error="a | pipe, <b>tags</b>, `ticks`, $x^2$\nand a second line"),
        ]
        return Ranking(
            task="trash & co",
            n_samples=100,
            n_classes=4,
            metrics=metrics,
            candidates=rank_candidates(results, replicates, metrics=metrics),
            settings={"seed": 0, "level": 0.95, "max_per_class": None, "device": "cpu"},
            skipped_images=tuple(SkippedImage(7 * i, "zero bytes") for i in range(8)),
            notes=("2 rows without a label were left out.",),
            versions={"torch": "2.6.0"},
        )

    return make


@pytest.fixture(scope="session")
def ranking(make_ranking):
    return make_ranking()
