"""Fine-tune an image classifier on your images, together with the part of its pre-training data that fits them.

    accelerate launch examples/finetune.py --model timm/resnet50.a1_in1k --dataset org/my-images --output_dir out
    accelerate launch examples/finetune.py --model timm/tf_efficientnet_lite0.in1k --dataset path/to/images \
        --source imagenet-1k --select uot --num_source_classes 100 --source_weight 0.3 --method co-tuning \
        --output_dir my-model --push_to_hub
    python examples/finetune.py --model embedded:tf_efficientnet_lite0 --dataset path/to/images --epochs 5

One process or many, on CPUs or GPUs. Killed and started again, it goes on from the last checkpoint. What comes out
loads in timm and in transformers, with a model card. Every other choice of the training: --recipe refit=true.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

import hf_zoosel
from hf_zoosel import Recipe, SourceSelection
from hf_zoosel.hub import PushError, check_can_push
from hf_zoosel.selection import STRATEGIES, options_from_settings
from hf_zoosel.training import LoadingError
from hf_zoosel.zoo import CandidateError


def parse_arguments() -> argparse.Namespace:
    """The arguments; most have the defaults of ``hf_zoosel.finetune``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="timm name, Hub id, local folder or embedded:NAME")
    parser.add_argument("--dataset", required=True, help="Hub id (org/name:config@revision), folder, or parquet files")
    parser.add_argument("--source", help="pre-training data to mix in: Hub id or path")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--select", choices=list(STRATEGIES), help="choose classes of the source by this method")
    choice.add_argument("--selection", type=Path, help="a selection of --source that was saved before")
    parser.add_argument("--select_options", nargs="+", default=[], metavar="NAME=VALUE", help="center=true ...")
    parser.add_argument("--num_source_classes", type=int, default=100, help="how many to choose")
    parser.add_argument("--method", choices=["plain", "joint", "co-tuning", "consistency"])
    parser.add_argument("--source_weight", type=_number_or_auto, help="weight of the source's loss, or: auto")
    parser.add_argument("--regularizers", nargs="+", default=[], metavar="NAME[=STRENGTH]", help="l2_sp bss=0.001 ...")
    parser.add_argument(
        "--learning_rate", type=float, nargs="+", help="of several the best on validation rows is taken"
    )
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch_size", type=int, help="target images a step, over all processes")
    parser.add_argument("--image_size", type=int)
    parser.add_argument("--recipe", nargs="+", default=[], metavar="NAME=VALUE", help="any field of hf_zoosel.Recipe")
    parser.add_argument("--max_per_class", type=int, help="train on at most so many images of each class")
    parser.add_argument("--validation", type=_fraction_or_split, default=0.2, help="share to hold out, or a split")
    parser.add_argument("--test", type=_split_or_none, default="test", help="split to measure on at the end, or: none")
    for whose in ("", "source_"):
        parser.add_argument(f"--{whose}split", help="train by default")
        parser.add_argument(f"--{whose}image_column", help="found from the features by default")
        parser.add_argument(f"--{whose}label_column", help="found from the features by default")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--num_workers", type=int, help="processes that load images")
    parser.add_argument("--log_with", help="tracker of Accelerate: tensorboard, wandb, ...")
    parser.add_argument("--checkpointing_steps", type=int, default=1000, help="beside ends of epochs")
    parser.add_argument("--keep_source_head", action="store_true", help="write it to a file beside the model")
    parser.add_argument("--output_dir")
    parser.add_argument(
        "--push_to_hub",
        nargs="?",
        const="",
        metavar="REPO_ID",
        help="upload the model; as the output folder is called",
    )
    parser.add_argument("--private", action="store_true", help="make the repository private")
    arguments = parser.parse_args()
    if arguments.source is None and (arguments.select or arguments.selection):
        parser.error("--select and --selection choose from --source: name it")
    return arguments


def main() -> None:
    """Select, train, measure, push."""
    arguments = parse_arguments()
    names = [f"{whose}{what}" for whose in ("", "source_") for what in ("split", "image_column", "label_column")]
    columns = {name: getattr(arguments, name) for name in names}
    if arguments.push_to_hub is not None:
        check_can_push(arguments.push_to_hub or Path(arguments.output_dir or "model").resolve().name)

    source = choose_source(arguments, columns)
    if arguments.select is not None:
        columns["source_split"] = None  # the selection holds its rows
    result = hf_zoosel.finetune(
        arguments.model,
        arguments.dataset,
        source=source,
        source_data=arguments.source if arguments.selection is not None else None,
        method=arguments.method,
        source_weight=arguments.source_weight,
        regularizers=arguments.regularizers or None,
        learning_rate=arguments.learning_rate,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        image_size=arguments.image_size,
        seed=arguments.seed,
        recipe=Recipe.from_settings(arguments.recipe),
        max_per_class=arguments.max_per_class,
        validation=arguments.validation,
        test=arguments.test,
        keep_source_head=arguments.keep_source_head,
        num_workers=arguments.num_workers,
        log_with=arguments.log_with,
        checkpointing_steps=arguments.checkpointing_steps,
        output_dir=arguments.output_dir,
        **columns,
    )
    tell(result)

    if arguments.push_to_hub is not None and is_main_process():
        print(result.push_to_hub(arguments.push_to_hub or None, private=arguments.private or None))


def choose_source(arguments: argparse.Namespace, columns: dict[str, str | None]) -> SourceSelection | str | None:
    """What to mix in: a selection that was saved, one that is made now, the whole source, or nothing."""
    if arguments.selection is not None:
        return SourceSelection.load(arguments.selection)
    if arguments.select is None:
        return arguments.source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what they say is among its notes
        selection = hf_zoosel.select_source(
            arguments.dataset,
            arguments.source,
            arguments.model,
            num_classes=arguments.num_source_classes,
            method=arguments.select,
            options=options_from_settings(arguments.select_options, arguments.select, "select_options"),
            **columns,
        )
    tell(selection)
    return selection


def tell(record: object) -> None:
    """Print on one process only."""
    if is_main_process():
        print(record)


def is_main_process() -> bool:
    """Whether this is the process that prints and uploads."""
    return int(os.environ.get("RANK", "0")) == 0


def _number_or_auto(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or auto, got {text!r}") from None


def _fraction_or_split(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return _split_or_none(text)


def _split_or_none(text: str) -> str | None:
    return None if text == "none" else text


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, CandidateError, LoadingError, PushError) as error:
        sys.exit(f"finetune.py: {error}")
