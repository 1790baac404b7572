"""Choose the pre-training classes worth mixing in, and look at them.

    python examples/select_source.py --dataset path/to/images --source imagenet-1k --model timm/resnet50.a1_in1k
    python examples/select_source.py --dataset path/to/images --source path/to/source --num-classes 20 --sheet out.png

Prints what every method chooses, so that you can see how much the choice depends on it. Whether training
with the chosen classes helps can only be told by training.
"""

import argparse
import sys
from pathlib import Path

from hf_zoosel import SourceSelection, contact_sheet, select_source
from hf_zoosel.selection import STRATEGIES
from hf_zoosel.zoo import CandidateError


def main() -> None:
    """Select by every method; the images are seen once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dataset", required=True, help="the target: Hub id or path")
    parser.add_argument("--source", required=True, help="pre-training data: Hub id or path")
    parser.add_argument("--model", default="embedded:tf_efficientnet_lite0", help="the checkpoint to look through")
    parser.add_argument("--num-classes", type=int, default=100)
    parser.add_argument("--cache-dir", help="where statistics are kept")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the first method's choice")
    arguments = parser.parse_args()
    chosen: dict[str, SourceSelection] = {}
    for method in STRATEGIES:
        chosen[method] = select_source(
            arguments.dataset,
            arguments.source,
            arguments.model,
            num_classes=arguments.num_classes,
            method=method,
            cache=arguments.cache_dir,
        )
    first = next(iter(chosen.values()))
    print(first)
    print(first.coverage_to_pandas().to_string())
    names = {one.name for one in first.classes}
    for method, selection in chosen.items():
        listed = [one.name for one in selection.classes]
        print(f"{method}: {len(names.intersection(listed))} of {len(listed)} as {first.method}")
        print(f"    {', '.join(listed)}")
    if arguments.sheet is not None:
        contact_sheet(first, arguments.dataset, arguments.source).save(arguments.sheet)
        print(f"Wrote {arguments.sheet}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, CandidateError) as error:
        sys.exit(f"select_source.py: {error}")
