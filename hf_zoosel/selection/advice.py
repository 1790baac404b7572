"""Whether mixing the source in is likely to help, as far as that can be told before training."""

from hf_zoosel.selection.record import SourceSelection

_RACE = 'let a short race on held-out images decide (`source_weight="auto"` of `finetune`)'
_WEIGHT = "a weight of 0.3, or of 1 where the checkpoint was trained without labels"


def advice_of(selection: SourceSelection) -> str:
    """Put into a sentence what the distances say of mixing the chosen part in.

    A target class is near where some source class, or sample, is no further from it than 95 % of the source's own
    are from their nearest neighbour. Distances alone foretell little: in README's comparison of methods targets
    without a near class gained and lost. The weights are those of the scripts published with arXiv:2111.12292.
    """
    m, limit = len(selection.coverage), selection.near_limit
    if limit is None or not m:
        return f"Whether the source is near the target cannot be told: {_RACE}."
    n_near = sum(one.least_distance <= limit for one in selection.coverage)
    what = "class" if selection.ranked else "sample"
    if n_near == 0:
        why = f"no target class has a near source {what}"
        return f"Mixing may help or hurt, for {why}: train on the target alone, or {_RACE}."
    likely = "may help" if 2 * n_near >= m else "may help some classes and hurt others"
    why = f"{n_near:,} of {m:,} target classes have a near source {what}"
    return f"Mixing {likely}, for {why}. The authors take {_WEIGHT}; better, {_RACE}."
