"""What a checkpoint's model card says of it."""

import logging
from pathlib import Path

logger = logging.getLogger(__name__)


def published_accuracy(card: Path | None) -> float | None:
    """Top-1 accuracy a model card reports on its one data set, in [0, 1]; None where it reports none, or several.

    Args:
        card: The README.md of a checkpoint, with a ``model-index`` in its header.
    """
    if card is None:
        return None
    from huggingface_hub.repocard import metadata_load
    from huggingface_hub.repocard_data import model_index_to_eval_results

    try:
        index = (metadata_load(card) or {}).get("model-index") or []
        results = model_index_to_eval_results(index)[1] if index else []
        accuracies = [r for r in results if r.metric_type.lower() in {"accuracy", "top_1_accuracy", "top1", "acc@1"}]
        values = {float(result.metric_value) for result in accuracies}
    except Exception as error:  # a header that is no card's, or no YAML
        logger.debug("%s tells no accuracy: %s", card, error)
        return None
    if len(values) != 1 or len({result.dataset_name for result in accuracies}) != 1:
        return None
    value = values.pop()
    share = value / 100 if value > 1 else value
    return share if 0 <= share <= 1 else None
