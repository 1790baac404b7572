"""The frozen record of a fine-tuning: what was trained, on what, how well it does, and where it lies."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hf_zoosel.ranking.content import Column, Content, counted, one_line
from hf_zoosel.ranking.json_file import check_schema, load, plain, save
from hf_zoosel.ranking.mapping import FrozenMapping
from hf_zoosel.ranking.record import Setting
from hf_zoosel.ranking.shown import Shown
from hf_zoosel.selection.record import Unit

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hf_zoosel.hub.card_facts import CardFacts

SCHEMA = 1
FILE = "all_results.json"
_EMPTY: FrozenMapping[Any] = FrozenMapping()
_LABELS = {
    "test_accuracy": "test accuracy",
    "test_balanced_accuracy": "test balanced accuracy",
    "validation_accuracy": "validation accuracy",
    "validation_balanced_accuracy": "validation balanced accuracy",
}


@dataclass(frozen=True, repr=False)
class FinetuneResult(Shown):
    """A fine-tuned model and what is known of it.

    Args:
        folder: Where the model lies; timm, transformers and ``rank_models`` load it from there.
        model: The checkpoint it began from.
        dataset: The target.
        class_names: The target's classes.
        method: How it was trained.
        metrics: Name -> value: ``test_accuracy``, ``validation_accuracy``, losses, counts; accuracies in [0, 1].
        interval: 95 % interval (Wilson) of the accuracy on the test rows, or the validation rows where there is no
            test split; None where there is neither.
        history: One row an epoch.
        trials: Other runs that were tried to choose the learning rate or the source's weight, one row each.
        recipe: Every choice.
        source: The data that was mixed in.
        source_classes: Its classes.
        source_method: How they were chosen; None where all were taken.
        source_unit: What was chosen: classes, clusters or single images.
        base_model: What to cite as the base: a Hub id where there is one.
        library: The library whose architecture it is; None for a module of a person's own.
        architecture: What the network is.
        dataset_id: Hub id of the target; None if it was not given by its id.
        test_split: Split of the target that the test figures are of.
        test_dataset: Name of the data set they are of, if it is another one.
        chosen_by: How the checkpoint was chosen, if by a ranking: ``place`` and ``scores``.
        arguments: What of the call is neither model, data nor recipe: splits, columns, numbers of images.
        seed: Of everything random.
        notes: What a person should know.
        versions: Package -> version.
        revisions: What was read -> its revision.
    """

    folder: Path
    model: str
    dataset: str
    class_names: tuple[str, ...]
    method: str
    metrics: Mapping[str, float]
    interval: tuple[float, float] | None = None
    history: tuple[Mapping[str, float], ...] = ()
    trials: tuple[Mapping[str, Setting], ...] = ()
    recipe: Mapping[str, Any] = _EMPTY
    source: str | None = None
    source_classes: tuple[str, ...] = ()
    source_method: str | None = None
    source_unit: Unit | None = None
    base_model: str | None = None
    library: Literal["timm", "transformers"] | None = None
    architecture: str | None = None
    dataset_id: str | None = None
    test_split: str | None = None
    test_dataset: str | None = None
    chosen_by: Mapping[str, Any] = _EMPTY
    arguments: Mapping[str, str | int | float | None] = _EMPTY
    seed: int = 0
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = _EMPTY
    revisions: Mapping[str, str | None] = _EMPTY

    def __post_init__(self) -> None:
        for name in ("class_names", "source_classes", "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("history", "trials"):
            object.__setattr__(self, name, tuple(FrozenMapping(row) for row in getattr(self, name)))
        for name in ("metrics", "recipe", "versions", "revisions", "chosen_by", "arguments"):
            object.__setattr__(self, name, FrozenMapping(getattr(self, name)))
        object.__setattr__(self, "folder", Path(self.folder))
        if self.interval is not None:
            object.__setattr__(self, "interval", tuple(self.interval))

    def to_pandas(self) -> "pd.DataFrame":
        """Return the history, one row an epoch."""
        import pandas as pd

        return pd.DataFrame([dict(row) for row in self.history])

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draw losses and validation accuracy over the epochs.

        Args:
            path: Also write the figure there; the ending says the format.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        from hf_zoosel.training.plot import plot_history

        return plot_history(self, path=path)

    def push_to_hub(
        self,
        repo_id: str | None = None,
        *,
        private: bool | None = None,
        revision: str | None = None,
        token: str | None = None,
        license: str | None = None,
        commit_message: str = "Upload a model fine-tuned with hf_zoosel",
    ) -> str:
        """Upload model, card, results and record to a Hub repository, in one commit.

        A card that was edited in the folder is uploaded as it is; otherwise it loads the model from the Hub. Of
        several processes one alone should call it.

        Args:
            repo_id: ``owner/name``, or ``name`` for a repository of one's own; the name of the folder if None.
            private: Whether a new repository is private; the owner's default if None.
            revision: Branch to commit to; the main branch if None.
            token: Access token; the one of ``hf auth login`` or ``HF_TOKEN`` if None.
            license: Identifier of the licence, such as ``"apache-2.0"``, for the card's header.
            commit_message: First line of the commit.

        Returns:
            The address of the commit.

        Raises:
            ValueError: If the name is none, or the card is refused.
            PushError: If one is not logged in, may not write there, the Hub is out of reach, or it fails.
        """
        from hf_zoosel.hub.model_card import published_card
        from hf_zoosel.hub.push import push_folder

        def card(repository: str) -> str:
            return published_card(
                self.folder, self.card_facts(), replace(self.card_facts(repository), license=license)
            )

        return push_folder(
            self.folder,
            repo_id or self.folder.resolve().name,
            private=private,
            revision=revision,
            token=token,
            commit_message=commit_message,
            card=card,
        )

    def card_facts(self, name: str | None = None) -> "CardFacts":
        """What the model card says.

        Args:
            name: The model's Hub id; without one the card loads it from its folder.
        """
        from hf_zoosel.hub.card_facts import CardFacts

        short = self.model.rpartition("/")[2].rpartition(":")[2]
        counts = {key: int(value) for key, value in self.metrics.items() if key.startswith("n_")}
        return CardFacts(
            name=name or f"{short}-{(self.dataset_id or self.dataset).rpartition('/')[2]}",
            dataset=self.dataset,
            dataset_id=self.dataset_id,
            test_split=self.test_split,
            test_dataset=self.test_dataset,
            chosen_by=self.chosen_by,
            class_names=self.class_names,
            n_train=counts.get("n_train"),
            base_model=self.base_model or self.model,
            base_revision=self.revisions.get("model"),
            library_name=self.library,
            architecture=self.architecture,
            source=self.source,
            source_classes=self.source_classes,
            source_method=self.source_method,
            source_unit=self.source_unit,
            n_source=counts.get("n_source"),
            arguments=self.arguments,
            recipe=self.recipe,
            method=self.method,
            metrics={key: value for key, value in self.metrics.items() if key not in counts},
            n_test=counts.get("n_test"),
            interval=self.interval,
            n_unreadable=counts.get("n_unreadable", 0),
            versions=self.versions,
            seed=self.seed,
            notes=self.notes,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers, ready for JSON; without the folder."""
        values = {one.name: plain(getattr(self, one.name)) for one in fields(self) if one.name != "folder"}
        return {"schema": SCHEMA, **values}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the record as JSON, all of it or nothing."""
        return save(self.to_dict(), Path(path))

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> "FinetuneResult":
        """Read the record of a folder that ``finetune`` wrote.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is damaged, or of a newer version.
        """
        where = Path(folder)

        def read(data: Any) -> FinetuneResult:
            check_schema(data, SCHEMA, entry="metrics", what="the results of a fine-tuning")
            return FinetuneResult(folder=where, **{name: value for name, value in data.items() if name != "schema"})

        return load(where / FILE, read, "the results of a fine-tuning")

    def __repr__(self) -> str:
        return f"FinetuneResult(model={self.model!r}, dataset={self.dataset!r}, folder={str(self.folder)!r})"

    def _content(self) -> Content:
        title = f"{self.model} fine-tuned on {self.dataset}{self._mixed_in()}, {self.method}"
        measured = [(label, self.metrics[name]) for name, label in _LABELS.items() if name in self.metrics]
        shown = [(label, f"{100 * value:.1f} %") for label, value in measured]
        shown = shown or [("not measured: nothing was held out", "")]
        columns = [
            Column("", [str(i + 1) for i in range(len(shown))]),
            Column("measure", [label for label, _ in shown], left=True),
            Column("value", [value for _, value in shown]),
        ]
        sections = [("Notes", [one_line(note) for note in self.notes])] if self.notes else []
        return Content(one_line(title), columns, one_line(self._legend()), sections)

    def _mixed_in(self) -> str:
        if self.source is None:
            return ""
        if self.source_classes and self.source_unit in (None, "class"):
            return f" with {counted(len(self.source_classes), 'class', 'classes')} of {self.source}"
        n = self.metrics.get("n_source")
        return f" with {'images' if n is None else counted(int(n), 'image', 'images')} of {self.source}"

    def _legend(self) -> str:
        parts = [f"The model is in {self.folder}."]
        if self.interval is not None:
            of, n = ("test", "n_test") if "test_accuracy" in self.metrics else ("validation", "n_validation")
            low, high = self.interval
            count = f" ({int(self.metrics[n]):,} images)" if n in self.metrics else ""
            parts.insert(0, f"95 % interval of the {of} accuracy: {100 * low:.1f} to {100 * high:.1f} %{count}.")
        return " ".join(parts)
