"""The result of comparing candidates: order, scores with intervals, failures, and ways to look at them."""

from hf_zoosel.ranking.jackknife import jackknife_influence as jackknife_influence
from hf_zoosel.ranking.order import rank_candidates as rank_candidates
from hf_zoosel.ranking.record import (
    CandidateResult as CandidateResult,
    Ranking as Ranking,
    Score as Score,
    SkippedImage as SkippedImage,
)
from hf_zoosel.ranking.resampling import Resampler as Resampler, interval as interval
