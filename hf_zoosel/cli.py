"""The command line: parsing and printing only."""

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_zoosel.ranking import Ranking

_HUB_ID = "Hub id (org/name:config@revision)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``hf-zoosel``.

    Args:
        arguments: Command line without the program's name; the process's own if None.

    Returns:
        0, 1 where no candidate could be ranked, 2 for arguments that cannot be used, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.ERROR if options.quiet else logging.WARNING)
    try:
        _check_pictures(options)
        return int(options.run(options))
    except (ValueError, ImportError, OSError) as error:
        print(f"hf-zoosel: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        what = "last checkpoint" if options.run is _finetune else "features cached so far"
        kept = "" if getattr(options, "no_cache", False) else f" The same command goes on from the {what}."
        print(f"\nhf-zoosel: interrupted.{kept}", file=sys.stderr)  # noqa: T201
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hf-zoosel", description="Choose which model to fine-tune, and what to fine-tune it with."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_rank(commands.add_parser("rank", help="rank checkpoints by how well they suit a labelled data set"))
    _add_select(commands.add_parser("select", help="choose the part of the pre-training data to train with"))
    _add_finetune(commands.add_parser("finetune", help="train a checkpoint on a data set, alone or with source data"))
    _add_demo(commands.add_parser("demo", help="rank the embedded ImageNet networks on handwritten digits, offline"))
    return parser


def _add_rank(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_rank)
    parser.add_argument("--dataset", required=True, metavar="DIR_OR_ID", help=f"{_HUB_ID}, imagefolder, parquet")
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="timm names, Hub ids, folders; the embedded zoo")
    parser.add_argument("--metric", nargs="+", default=["lfc"], metavar="METRIC", help="the first one orders; or: all")
    parser.add_argument("--source", metavar="DIR_OR_ID", help="sample of the data the models were trained on")
    parser.add_argument(
        "--reference", metavar="MODEL", help="what rsa compares with; trained on the images by default"
    )
    parser.add_argument("--split", help="split to take; train by default")
    parser.add_argument("--image-column", help="found from the features by default")
    parser.add_argument("--label-column", help="found from the features by default")
    parser.add_argument("--source-split", help="split of the source; train by default")
    parser.add_argument("--source-image-column", help="of the source; found by default")
    parser.add_argument("--source-label-column", help="of the source; found by default")
    parser.add_argument(
        "--max-per-class", type=_count_or_all, default=25, metavar="N", help="images drawn a class, or: all"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw and the bootstrap")
    parser.add_argument("--n-bootstrap", type=int, default=1000, metavar="N", help="resamples behind the intervals")
    parser.add_argument("--batch-size", type=int, help="images a forward pass")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; the best there is by default")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--num-workers", type=int, metavar="N", help="threads that decode")
    parser.add_argument("--cache-dir", metavar="DIR", help="where features are kept; $HF_HOME/zoosel by default")
    parser.add_argument("--no-cache", action="store_true", help="keep no features")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the ranking as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot with intervals")
    parser.add_argument("--quiet", action="store_true", help="no progress bars, no warnings")


def _add_select(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_select)
    parser.add_argument(
        "--dataset", required=True, metavar="DIR_OR_ID", help=f"the target: {_HUB_ID}, imagefolder, parquet"
    )
    parser.add_argument("--source", required=True, metavar="DIR_OR_ID", help="pre-training data, or its .safetensors")
    parser.add_argument("--model", required=True, help="timm name, Hub id or folder to look through")
    parser.add_argument("--num-classes", type=_count_or_all, default=100, metavar="N", help="to choose, or: all")
    parser.add_argument("--num-samples", type=int, metavar="N", help="choose single images instead, of any class")
    parser.add_argument(
        "--method", default="uot", help="uot, semi_relaxed, capacity, mean_distance, nearest, random, all"
    )
    parser.add_argument("--options", nargs="+", metavar="NAME=VALUE", help="of the method: center=true scale=0.03 ...")
    parser.add_argument("--num-clusters", type=int, metavar="N", help="clusters of a source without labels")
    parser.add_argument("--num-target-clusters", type=int, metavar="N", help="clusters of a target without labels")
    parser.add_argument("--split", help="split of the target; train by default")
    parser.add_argument("--source-split", help="split of the source; train by default")
    parser.add_argument("--image-column", help="of the target; found from the features by default")
    parser.add_argument("--label-column", help="of the target; found from the features by default")
    parser.add_argument("--source-image-column", metavar="COLUMN", help="of the source; found by default")
    parser.add_argument("--source-label-column", metavar="COLUMN", help="of the source; found by default")
    parser.add_argument("--seed", type=int, default=0, help="of clusters and of the method random")
    parser.add_argument("--batch-size", type=int, help="images a forward pass")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; the best there is by default")
    parser.add_argument("--cache-dir", metavar="DIR", help="where statistics are kept; $HF_HOME/zoosel by default")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the selection as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot of the masses")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="write a contact sheet of sample images")
    parser.add_argument("--quiet", action="store_true", help="no progress bars, no warnings")


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_finetune)
    parser.add_argument("--model", required=True, help="timm name, Hub id, folder or embedded:NAME")
    parser.add_argument("--dataset", required=True, metavar="DIR_OR_ID", help=f"{_HUB_ID}, imagefolder, parquet")
    parser.add_argument("--source", metavar="DIR_OR_ID", help="pre-training data to mix in; see --selection")
    parser.add_argument("--selection", type=Path, metavar="FILE", help="what `hf-zoosel select` chose of the source")
    parser.add_argument("--method", choices=["plain", "joint", "co-tuning", "consistency"])
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--batch-size", type=int, metavar="N", help="target images a step, over all processes")
    parser.add_argument("--learning-rate", type=float, nargs="+", help="of several the best on validation is taken")
    parser.add_argument("--source-weight", type=_weight_or_auto, help="weight of the source's loss, or: auto")
    parser.add_argument("--regularizers", nargs="+", metavar="NAME[=STRENGTH]", help="l2_sp bss=0.001 ...")
    parser.add_argument("--image-size", type=int, metavar="PIXELS")
    parser.add_argument("--recipe", nargs="+", default=[], metavar="NAME=VALUE", help="any field of hf_zoosel.Recipe")
    parser.add_argument("--max-per-class", type=int, metavar="N", help="train on at most so many images of a class")
    parser.add_argument("--validation", type=_share_or_split, default=0.2, help="share to hold out, a split, or: none")
    parser.add_argument("--test", type=_split_or_none, default="test", help="split to measure on at the end, or: none")
    for whose in ("", "source-"):
        parser.add_argument(f"--{whose}split", help="train by default")
        parser.add_argument(f"--{whose}image-column", help="found from the features by default")
        parser.add_argument(f"--{whose}label-column", help="found from the features by default")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; the best there is by default")
    parser.add_argument("--num-workers", type=int, metavar="N", help="processes that load images")
    parser.add_argument("--log-with", help="tracker of Accelerate, such as tensorboard")
    parser.add_argument("--checkpointing-steps", type=int, default=1000, metavar="N", help="beside ends of epochs")
    parser.add_argument("--keep-source-head", action="store_true", help="write it to a file beside the model")
    parser.add_argument("--output-dir", metavar="DIR", help="where the model goes; in the cache by default")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot of losses and accuracy")
    parser.add_argument(
        "--push-to-hub",
        nargs="?",
        const="",
        metavar="REPO_ID",
        help="upload the model; as the output folder is called",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars, no warnings")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_demo)
    parser.add_argument("--output-dir", type=Path, default=Path("hf-zoosel-demo"), metavar="DIR")
    parser.add_argument("--quiet", action="store_true", help="no progress bars, no warnings")


def _rank(options: argparse.Namespace) -> int:
    from hf_zoosel.api import rank_models

    ranking = rank_models(
        options.dataset,
        options.models,
        "all" if options.metric == ["all"] else options.metric,
        source=options.source,
        reference=options.reference,
        image_column=options.image_column,
        label_column=options.label_column,
        split=options.split,
        source_image_column=options.source_image_column,
        source_label_column=options.source_label_column,
        source_split=options.source_split,
        max_per_class=options.max_per_class,
        seed=options.seed,
        n_bootstrap=options.n_bootstrap,
        batch_size=options.batch_size,
        device=options.device,
        dtype=options.dtype,
        num_workers=options.num_workers,
        cache=False if options.no_cache else options.cache_dir or True,
        progress=not options.quiet,
    )
    return _show(ranking, options.output, options.plot)


def _select(options: argparse.Namespace) -> int:
    from hf_zoosel.api import contact_sheet, select_source
    from hf_zoosel.features import join_team
    from hf_zoosel.selection import options_from_settings
    from hf_zoosel.zoo import CandidateError

    if options.sheet is not None and (options.num_clusters is not None or options.source.endswith(".safetensors")):
        raise ValueError("`--sheet` must be left out for clusters and for statistics, which have no images to show.")
    names = ("image_column", "label_column", "split", "source_image_column", "source_label_column", "source_split")
    columns = {name: getattr(options, name) for name in names}
    try:
        warnings.simplefilter("ignore", UserWarning)  # what they say is printed as a note
        selection = select_source(
            options.dataset,
            options.source,
            options.model,
            num_classes=options.num_classes,
            num_samples=options.num_samples,
            method=options.method,
            options=options_from_settings(options.options or (), options.method),
            num_clusters=options.num_clusters,
            num_target_clusters=options.num_target_clusters,
            **columns,
            seed=options.seed,
            batch_size=options.batch_size,
            device=options.device,
            cache=options.cache_dir,
            progress=not options.quiet,
        )
    except CandidateError as error:
        raise ValueError(f"{options.model} cannot be used: {error}") from None
    if join_team("cpu").is_main:
        print(selection)  # noqa: T201
        if options.output is not None:
            print(f"Wrote {selection.save(options.output)}")  # noqa: T201
        if options.plot is not None:
            selection.plot(options.plot)
            print(f"Wrote {options.plot}")  # noqa: T201
        if options.sheet is not None:
            contact_sheet(selection, options.dataset, options.source, **columns).save(options.sheet)
            print(f"Wrote {options.sheet}")  # noqa: T201
    return 0


def _finetune(options: argparse.Namespace) -> int:
    from hf_zoosel.api import finetune
    from hf_zoosel.features import join_team
    from hf_zoosel.hub import PushError, check_can_push
    from hf_zoosel.selection import SourceSelection
    from hf_zoosel.training import LoadingError, Recipe
    from hf_zoosel.zoo import CandidateError

    names = ("image_column", "label_column", "split", "source_image_column", "source_label_column", "source_split")
    same = ("method", "epochs", "batch_size", "learning_rate", "source_weight", "regularizers", "image_size", "seed")
    where = (
        "max_per_class",
        "validation",
        "test",
        "device",
        "num_workers",
        "log_with",
        "keep_source_head",
        "output_dir",
        "checkpointing_steps",
    )
    given = {name: getattr(options, name) for name in (*names, *same, *where)}
    if options.selection is not None and options.source is None:
        raise ValueError("`--selection` must stand beside `--source`, which it chooses from. Name the data.")
    selection = None if options.selection is None else SourceSelection.load(options.selection)
    try:
        if options.push_to_hub is not None:
            check_can_push(options.push_to_hub or Path(options.output_dir or "model").resolve().name)
        result = finetune(
            options.model,
            options.dataset,
            source=options.source if selection is None else selection,
            source_data=None if selection is None else options.source,
            recipe=Recipe.from_settings(options.recipe),
            progress=not options.quiet,
            **given,
        )
        if join_team("cpu").is_main:
            print(result)  # noqa: T201
            if options.push_to_hub is not None:
                print(f"Pushed {result.push_to_hub(options.push_to_hub or None)}")  # noqa: T201
            if options.plot is not None:
                result.plot(options.plot)
                print(f"Wrote {options.plot}")  # noqa: T201
    except CandidateError as error:
        raise ValueError(f"{options.model} cannot be used: {error}") from None
    except (LoadingError, PushError) as error:
        raise ValueError(str(error)) from None
    return 0


def _demo(options: argparse.Namespace) -> int:
    from hf_zoosel.demo import rank_on_digits

    ranking = rank_on_digits(progress=not options.quiet)
    return _show(ranking, options.output_dir / "ranking.json", options.output_dir / "ranking.png")


def _show(ranking: "Ranking", output: Path | None, plot: Path | None) -> int:
    """Print the ranking and write it where asked, on one process only."""
    from hf_zoosel.features import join_team

    ranked = bool(ranking.candidates) and ranking.candidates[0].rank is not None
    if join_team("cpu").is_main:
        print(ranking)  # noqa: T201
        if output is not None:
            print(f"Wrote {ranking.save(output)}")  # noqa: T201
        if plot is not None and ranked:
            ranking.plot(path=plot)
            print(f"Wrote {plot}")  # noqa: T201
    return 0 if ranked else 1


def _check_pictures(options: argparse.Namespace) -> None:
    """Refuse before the work what no picture can be written to."""
    plot, sheet = getattr(options, "plot", None), getattr(options, "sheet", None)
    if plot is not None:
        from matplotlib.figure import Figure

        _check_ending("plot", plot, [f".{one}" for one in Figure().canvas.get_supported_filetypes()])
    if sheet is not None:
        from PIL import Image

        _check_ending("sheet", sheet, list(Image.registered_extensions()))


def _check_ending(name: str, path: Path, known: Sequence[str]) -> None:
    if path.suffix.lower() not in known:
        raise ValueError(f"`--{name}` must end in one of {', '.join(sorted(known))}, got {path.name!r}.")


def _count_or_all(text: str) -> int | None:
    try:
        return None if text == "all" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number or all, got {text!r}") from None


def _weight_or_auto(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or auto, got {text!r}") from None


def _share_or_split(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return _split_or_none(text)


def _split_or_none(text: str) -> str | None:
    return None if text == "none" else text


if __name__ == "__main__":
    sys.exit(main())
