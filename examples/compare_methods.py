"""Does it help? Ways to fine-tune, on the same images, with the same budget, several seeds, measured once on test.

    python examples/compare_methods.py --targets path/to/dtd10 path/to/aid --source path/to/tiny_imagenet32 \
        --network weak --shots 20 5 --output comparison
    python examples/compare_methods.py --output comparison --table

Targets and source are data sets with a train split (and test, for targets). The network is an embedded one with real
ImageNet weights, or a small one that is trained from scratch on the source first, in the same folder: ``weak`` on its
labels, ``self-supervised`` without. Every method tries the same learning rates and is chosen by its accuracy on
training images that are held out. Each result is a line in ``rows-1.jsonl``: started again, the command goes on after
the last; several can share a folder (``--part 2/2`` writes ``rows-2.jsonl``).
"""

import argparse
import hashlib
import json
import math
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from datasets import ClassLabel, DatasetDict, Features, Image, load_dataset
from scipy.stats import t

import hf_zoosel
from hf_zoosel import Recipe
from hf_zoosel.training import Augmentation


class Way(NamedTuple):
    """A way to fine-tune: how the source is selected, the method, changes of the recipe, and how to select."""

    select: str | None = None
    method: str | None = None
    recipe: Mapping[str, Any] = {}
    options: Mapping[str, Any] | None = None
    through: str | None = None  # the network to select through; the one that is trained if None


DIRECT = {"relationship": "direct"}
CENTRED = {"center": True, "scale": 0.03}
METHODS = {
    "plain": Way(),
    "uot mix": Way("uot"),
    "random mix": Way("random"),
    "mean-distance mix": Way("mean_distance"),
    "capacity mix": Way("capacity"),
    "all mixed": Way("all"),
    "uot mix, centred": Way("uot", options=CENTRED),
    "uot mix, centred, through lite0": Way("uot", options=CENTRED, through="embedded:tf_efficientnet_lite0"),
    "uot mix, decaying": Way("uot", recipe={"source_decay": True}),
    "all mixed, decaying": Way("all", recipe={"source_decay": True}),
    "Co-Tuning": Way(None, "co-tuning", DIRECT),
    "uot mix + Co-Tuning": Way("uot", "co-tuning", DIRECT),
    "L2-SP": Way(recipe={"regularizers": {"l2_sp": 0.01}}),
    "DELTA": Way(recipe={"regularizers": {"delta": 0.01}}),
    "BSS": Way(recipe={"regularizers": {"bss": 0.001}}),
    "plain, refit": Way(recipe={"refit": True}),
    "uot mix, refit": Way("uot", recipe={"refit": True}),
    "uot mix, weight auto": Way("uot", recipe={"source_weight": "auto"}),
}
# what a table has in common
SETTING = ("network", "source", "shots", "epochs", "image_size", "num_source_classes", "source_weight", "rates")
FROM_SCRATCH = Recipe(
    epochs=20, batch_size=128, learning_rate=0.1, head_rate=1.0, schedule="cosine", warmup=0.05, weight_decay=5e-4
)
# small networks trained from scratch on the source: on its labels, or to tell by how many quarter turns an image was
# turned (Gidaris et al. 2018), for which no label is needed
SMALL: Mapping[str, Recipe] = {
    "weak": FROM_SCRATCH,
    "self-supervised": FROM_SCRATCH.changed(epochs=10, augmentation=Augmentation(scale=(0.5, 1.0), hflip=0.0)),
}


def parse_arguments() -> argparse.Namespace:
    """Where the data are and what to compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=[], help="data sets to fine-tune on, or to show")
    parser.add_argument("--source", help="pre-training data to mix in")
    parser.add_argument(
        "--network", default="embedded:tf_efficientnet_lite0", help=f"embedded, or one of {list(SMALL)}"
    )
    parser.add_argument("--shots", type=int, nargs="+", default=[20], help="training images a class; 0 for all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.03])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--num_source_classes", type=int, default=40)
    parser.add_argument("--source_weight", type=float, default=0.3, help="1.0 for networks trained without labels")
    parser.add_argument("--part", default="1/1", help="i/n: every n-th row, beginning with the i-th")
    parser.add_argument("--output", type=Path, default=Path("comparison"))
    parser.add_argument("--over", default="plain", choices=list(METHODS), metavar="NAME", help="whom gains are over")
    parser.add_argument("--table", action="store_true", help="print the tables of what is there, and stop")
    return parser.parse_args()


def main() -> None:
    """Run what is missing, then print the table."""
    arguments = parse_arguments()
    if not arguments.table:
        network = small_network(arguments) if arguments.network in SMALL else arguments.network
        i, n = map(int, arguments.part.split("/"))
        for row in list(rows_wanted(arguments))[i - 1 :: n]:
            if key_of(row) not in {key_of(one) for one in read_rows(arguments.output)}:
                append(arguments.output / f"rows-{i}.jsonl", row | run(row, network, arguments))
    names = {Path(path).name for path in arguments.targets}
    rows = [row for row in read_rows(arguments.output) if row["target"] in names or not names]
    print(f"{overview(rows, arguments.over)}\n{table(rows, arguments.over)}" if rows else "There are no rows yet.")


def rows_wanted(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a run, those of one seed together."""
    for shots in arguments.shots:
        for seed in arguments.seeds:
            for target in arguments.targets:
                for method in arguments.methods:
                    yield {
                        "network": arguments.network,
                        "source": Path(arguments.source).name,
                        "target": Path(target).name,
                        "shots": shots,
                        "method": method,
                        "seed": seed,
                        "epochs": arguments.epochs,
                        "image_size": arguments.image_size,
                        "num_source_classes": arguments.num_source_classes,
                        "source_weight": arguments.source_weight,
                        "rates": ", ".join(map(str, arguments.rates)),
                    }


def run(row: dict[str, Any], network: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Select, train, and measure once on test."""
    way = METHODS[row["method"]]
    target = {Path(path).name: path for path in arguments.targets}[row["target"]]
    started = time.perf_counter()
    source = None
    if way.select is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a far target is what is to be measured too
            source = hf_zoosel.select_source(
                target,
                arguments.source,
                way.through or network,
                num_classes=row["num_source_classes"],
                method=way.select,
                options=way.options,
                seed=row["seed"],
                progress=False,
            )
    changes = dict(way.recipe)
    weight = changes.pop("source_weight", row["source_weight"] if source is not None else None)
    folder = arguments.output / f"run-{hashlib.sha256(repr(key_of(row)).encode()).hexdigest()[:12]}"
    result = hf_zoosel.finetune(
        network,
        target,
        source=source,
        method=way.method,
        source_weight=weight,
        learning_rate=arguments.rates,
        epochs=row["epochs"],
        image_size=row["image_size"],
        max_per_class=row["shots"] or None,
        seed=row["seed"],
        recipe=Recipe(**changes),
        output_dir=folder,
        progress=False,
    )
    shutil.rmtree(folder)
    names = ("test_accuracy", "test_balanced_accuracy", "validation_accuracy", "n_train", "n_test")
    measured = {name: result.metrics[name] for name in names}
    chosen = {"rate": result.recipe["learning_rate"], "mixed": result.source is not None}
    return measured | chosen | {"seconds": round(time.perf_counter() - started, 1)}


def small_network(arguments: argparse.Namespace) -> str:
    """A small network trained from scratch on the source; made once."""
    import timm
    import torch

    folder = arguments.output / arguments.network
    if not (folder / "all_results.json").is_file():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = timm.create_model("resnet10t")
        result = hf_zoosel.finetune(
            module,
            arguments.source if arguments.network == "weak" else turned(arguments.source),
            recipe=SMALL[arguments.network],
            image_size=32,
            validation=None,
            output_dir=folder,
        )
        print(result)
    return str(folder)


def turned(source: str) -> DatasetDict:
    """The source's images by 0 to 3 quarter turns, to be told apart."""
    splits = load_dataset(source)

    def turn(row: dict[str, Any], i: int) -> dict[str, Any]:
        return {"image": row["image"].rotate(90 * (i % 4), expand=True), "label": i % 4}

    features = Features({"image": Image(), "label": ClassLabel(names=["0", "90", "180", "270"])})
    return DatasetDict({name: rows.map(turn, with_indices=True, features=features) for name, rows in splits.items()})


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells one run from another."""
    return tuple(row[name] for name in (*SETTING, "target", "method", "seed"))


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of a folder; a line that was cut off by a kill is left out."""
    rows = []
    for file in sorted(folder.glob("rows-*.jsonl")):
        for line in file.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return rows


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Write a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{row['network']} {row['target']} {row['shots']} {row['method']} {row['seed']}: {row['test_accuracy']:.3f}")


def overview(rows: list[dict[str, Any]], over: str = "plain", *, least_seeds: int = 3) -> str:
    """Gains over a method, a table a network and a column a setting that was run with so many seeds.

    The method itself has its mean test accuracy; intervals and pairs are those of ``table``. What all columns of a
    table have in common stands above it.
    """
    parts = []
    for network, group in pd.DataFrame(rows).groupby("network", sort=False):
        settings = {
            setting: wide_of(cells)
            for setting, cells in group.groupby(list(SETTING), sort=False)
            if cells["seed"].nunique() >= least_seeds
        }
        if settings:
            shared = [words for words in describe(next(iter(settings))) if all(words in describe(s) for s in settings)]
            columns = {}
            for setting, wide in settings.items():
                title = ", ".join([*(words for words in describe(setting) if words not in shared), targets_of(wide)])
                columns[title] = overview_column(wide, over)
            frame = pd.DataFrame(columns)
            order = [method for method in METHODS if method in frame.index]
            parts.append(f"{', '.join([f'`{network}`', *shared])}:\n\n{markdown(frame.loc[order])}\n")
    return "\n".join(parts)


def overview_column(wide: pd.DataFrame, over: str) -> dict[str, str]:
    """The gain of each method of a setting, and the mean accuracy of the one that they are over."""
    means = {over: f"{100 * wide[over].groupby('target').mean().mean():.1f}"} if over in wide else {}
    return {method: gain(wide, method, over) for method in wide.columns} | means


def targets_of(wide: pd.DataFrame) -> str:
    """The names of up to two targets, or how many there are."""
    names = list(wide.index.unique("target"))
    return " and ".join(names) if len(names) < 3 else f"{len(names)} targets"


def table(rows: list[dict[str, Any]], over: str = "plain") -> str:
    """Mean test accuracy of each method on each target, and its gain over one of them with a 95 % interval.

    The interval is Student's over the pairs (target, seed) that both methods have; pairs of one target share its test
    images, so that it is of these targets and says little of others.
    """
    parts = []
    for setting, group in pd.DataFrame(rows).groupby(list(SETTING), sort=False):
        wide = wide_of(group)
        means = (100 * wide.groupby("target").mean()).T.round(1)
        gains = {method: gain(wide, method, over) for method in wide.columns}
        means["mean"] = (100 * wide.groupby("target").mean().mean(skipna=False)).round(1)
        means[f"gain over {over}"] = pd.Series(gains)
        order = [method for method in METHODS if method in means.index]
        title = ", ".join([f"`{setting[0]}`", *describe(setting)])
        parts.append(f"{title}:\n\n{markdown(means.loc[order])}\n")
    return "\n".join(parts)


def wide_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Test accuracies of one setting: pairs (target, seed) down, methods across."""
    return rows.pivot_table(index=["target", "seed"], columns="method", values="test_accuracy")


def describe(setting: tuple[Any, ...]) -> list[str]:
    """What was the same for all runs of a table, less the network."""
    _, source, shots, epochs, size, n_classes, weight, rates = setting
    images = f"{shots} images a class" if shots else "all images"
    length = "one epoch" if epochs == 1 else f"{epochs} epochs"
    return [images, f"{size} px", length, f"rates {rates}", f"{n_classes} classes of {source} at weight {weight:g}"]


def gain(wide: pd.DataFrame, method: str, over: str) -> str:
    """Points over another method, paired, with a 95 % interval."""
    if method == over or over not in wide:
        return ""
    differences = 100 * (wide[method] - wide[over]).dropna()
    n = len(differences)
    if n < 2:
        return f"{differences.mean():+.1f}" if n else ""
    half = t.ppf(0.975, n - 1) * differences.std() / math.sqrt(n)
    return f"{differences.mean():+.1f} [{differences.mean() - half:+.1f}, {differences.mean() + half:+.1f}] (n = {n})"


def markdown(frame: pd.DataFrame) -> str:
    """A table as GitHub writes it."""
    lines = [["", *map(str, frame.columns)], ["---"] * (1 + len(frame.columns))]
    cells = frame.astype(object).where(frame.notna(), "").to_numpy()
    lines += [[str(name), *map(str, row)] for name, row in zip(frame.index, cells, strict=True)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main()
