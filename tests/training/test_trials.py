"""How choices are made on validation rows."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_zoosel.features import Team
from hf_zoosel.training.book import Book, DivergedError
from hf_zoosel.training.evaluate import Evaluation, Outputs, evaluation_of
from hf_zoosel.training.publish import wilson
from hf_zoosel.training.trials import paired_gain

ALONE = Team(0, 1, torch.device("cpu"))


def ran(right):
    right = np.array(right, dtype=bool)
    return SimpleNamespace(validation=Evaluation(right.mean(), right.mean(), 1.0, len(right), right=right))


def test_a_gain_is_paired_row_by_row():
    before, after = ran([1, 1, 0, 0, 0, 1, 0, 1]), ran([1, 1, 1, 1, 0, 1, 0, 0])
    gain, error = paired_gain(before, after)
    differences = np.array([0, 0, 1, 1, 0, 0, 0, -1])
    assert gain == pytest.approx(1 / 8)
    assert error == pytest.approx(differences.std() / np.sqrt(8))
    assert paired_gain(before, before) == (0.0, 0.0)


def test_accuracies_count_rows_and_classes():
    logits = torch.tensor([[2.0, 0, 0], [2.0, 0, 0], [2.0, 0, 0], [0, 0, 2.0]])
    labels = torch.tensor([0, 0, 0, 1])
    seen = evaluation_of(Outputs(torch.arange(4), labels, logits, None, logits, {9: "no image"}))
    assert (seen.accuracy, seen.balanced_accuracy, seen.n, seen.n_unreadable) == (0.75, 0.5, 4, 1)
    assert seen.right.tolist() == [True, True, True, False]
    assert seen.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())


def test_rows_of_which_none_can_be_read_are_refused():
    none = Outputs(torch.empty(0), torch.empty(0), torch.empty(0, 3), None, torch.empty(0, 2), {0: "zero bytes"})
    with pytest.raises(ValueError, match="images that can be read, got none: zero bytes"):
        evaluation_of(none)


def test_the_interval_of_an_accuracy_is_wilsons():
    n, right, z = 60, 45, 1.959964
    share = right / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert wilson(right, n) == pytest.approx((centre - half, centre + half), rel=1e-6)


def test_a_book_averages_over_the_steps_of_an_epoch_and_begins_anew(tmp_path):
    with Book(4, 0, tmp_path, ALONE, shown=False) as book:
        for step, loss in enumerate((1.0, 3.0)):
            for share in (0.25, 0.75):
                book.add(step, {"loss": torch.tensor(loss), "target": torch.tensor(loss / 2)}, share)
            book.step_done(8)
        row = book.epoch_done(waited=0.5)
        assert (row["loss"], row["target"], row["waited"]) == (2.0, 1.0, 0.5)
        book.add(2, {"loss": torch.tensor(7.0)}, 1.0)
        book.step_done(8)
        assert book.epoch_done(waited=0.75)["loss"] == 7.0


def test_a_loss_that_is_not_finite_is_named_with_its_step_and_the_last_good_checkpoint(tmp_path):
    (tmp_path / "step-00000004.safetensors").touch()
    book = Book(9, 4, tmp_path, ALONE, shown=False)
    book.add(4, {"loss": torch.tensor(1.0)}, 1.0)
    book.step_done(8)
    book.add(5, {"loss": torch.tensor(float("nan"))}, 1.0)
    with pytest.raises(DivergedError, match=r"got nan at step 6 of 9. The last good checkpoint is .*step-00000004"):
        book.step_done(8)
