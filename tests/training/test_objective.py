"""The loss of a batch against sums written out, values and gradients."""

import copy

import pytest
import timm
import torch
from torch import nn

from hf_zoosel.training.loop import _pieces
from hf_zoosel.training.model import TwoHeads
from hf_zoosel.training.norms import freeze_statistics, unmoved_statistics
from hf_zoosel.training.objective import Objective, Rows
from hf_zoosel.training.recipe import Recipe
from hf_zoosel.zoo.timm_models import watch

K_TARGET, K_SOURCE, K_KEPT = 3, 4, 6
N_TARGET, N_SOURCE = 5, 4


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = watch(timm.create_model("test_resnet", num_classes=K_KEPT))
        made = TwoHeads(network, torch.randn(2, 3, 32, 32), K_TARGET, n_source=K_SOURCE, keep_head=True, std=0.3)
    return made.double().train()


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(N_TARGET + N_SOURCE, 3, 32, 32, generator=generator, dtype=torch.float64)
    strong = torch.randn(N_SOURCE, 3, 32, 32, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1, 3, 2, 1, 0])
    return Rows(pixels, labels, N_TARGET, strong)


def literal_cross_entropy(logits, labels):
    total = 0.0
    for row, label in zip(logits, labels.tolist(), strict=True):
        total = total - (row[label] - row.exp().sum().log())
    return total / len(labels)


def gradients(loss, model):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def same(one, other, rel=1e-6):
    """Logits are brought to float32 before the losses, so that half precision is safe; hence the tolerance."""
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=rel, atol=1e-7)


def test_joint_training_is_one_pass_and_two_cross_entropies(model, rows):
    weight = 0.3
    terms = Objective(Recipe(method="joint"))(model, model, Rows(rows.pixels, rows.labels, N_TARGET), weight)
    output = copy.deepcopy(model)(rows.pixels)  # target and source through one forward, shared batch statistics
    target = literal_cross_entropy(output.target[:N_TARGET], rows.labels[:N_TARGET])
    source = literal_cross_entropy(output.source[N_TARGET:], rows.labels[N_TARGET:])
    assert terms.keys() == {"target", "source"}
    assert terms["target"].item() == pytest.approx(target.item(), rel=1e-6)
    assert terms["source"].item() == pytest.approx(weight * source.item(), rel=1e-6)


def test_gradients_of_joint_training(model, rows):
    twin = copy.deepcopy(model)
    terms = Objective(Recipe(method="joint"))(model, model, Rows(rows.pixels, rows.labels, N_TARGET), 0.3)
    ours = gradients(sum(terms.values()), model)
    output = twin(rows.pixels)
    loss = literal_cross_entropy(output.target[:N_TARGET], rows.labels[:N_TARGET])
    loss = loss + 0.3 * literal_cross_entropy(output.source[N_TARGET:], rows.labels[N_TARGET:])
    same(ours, gradients(loss, twin))


def test_separate_streams_keep_the_source_out_of_target_statistics(model, rows):
    twin = copy.deepcopy(model)
    recipe = Recipe(method="joint", batch_norm="separate")
    terms = Objective(recipe)(model, model, Rows(rows.pixels, rows.labels, N_TARGET), 1.0)
    target = twin(rows.pixels[:N_TARGET]).target
    assert terms["target"].item() == pytest.approx(
        literal_cross_entropy(target, rows.labels[:N_TARGET]).item(), rel=1e-6
    )
    for (name, ours), theirs in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(ours, theirs), name  # moved by the target alone
    source = copy.deepcopy(twin)(rows.pixels[N_TARGET:]).source  # by its own batch's statistics
    expected = literal_cross_entropy(source, rows.labels[N_TARGET:])
    assert terms["source"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_co_tuning_adds_soft_cross_entropy_on_the_kept_head(model, rows):
    relationship = torch.softmax(torch.randn(K_TARGET, K_KEPT, generator=torch.Generator().manual_seed(3)), dim=1)
    terms = Objective(Recipe(method="co-tuning"), relationship=relationship)(
        model, model, Rows(rows.pixels[:N_TARGET], rows.labels[:N_TARGET], N_TARGET), 0.0
    )
    kept = copy.deepcopy(model)(rows.pixels[:N_TARGET]).kept
    total = 0.0
    for row, label in zip(kept, rows.labels[:N_TARGET].tolist(), strict=True):
        for source in range(K_KEPT):
            total = total - relationship[label, source] * (row[source] - row.exp().sum().log())
    assert terms["co_tuning"].item() == pytest.approx(2.3 * total.item() / N_TARGET, rel=1e-5)


def test_consistency_teaches_the_strong_view_what_the_weak_one_says(model, rows):
    terms = Objective(Recipe(method="consistency"))(model, model, rows, 0.7)
    output = copy.deepcopy(model)(torch.cat([rows.pixels, rows.strong])).target
    weak, strong = output[N_TARGET : N_TARGET + N_SOURCE], output[N_TARGET + N_SOURCE :]
    expected = -(weak.softmax(dim=1) * strong.log_softmax(dim=1)).sum(dim=1).mean()
    assert terms["source"].item() == pytest.approx(0.7 * expected.item(), rel=1e-5)


def test_penalties_see_the_start_and_are_weighted(model, rows):
    recipe = Recipe(regularizers={"l2_sp": 0.2, "delta": 0.5, "lwf": 2.0, "bss": 0.1})
    objective = Objective(recipe, copy.deepcopy(model))
    with torch.no_grad():
        for parameter in model.backbone_parameters().values():
            parameter.add_(0.01)
    terms = objective(model, model, Rows(rows.pixels[:N_TARGET], rows.labels[:N_TARGET], N_TARGET), 0.0)
    count = sum(p.numel() for p in model.backbone_parameters().values())
    assert terms["l2_sp"].item() == pytest.approx(0.2 * 0.5 * count * 0.01**2, rel=1e-4)
    assert terms["delta"] > 0
    assert terms["lwf"] > 0
    assert terms["bss"] > 0


def test_pieces_of_a_batch_add_up_to_its_gradient_where_statistics_are_frozen(model, rows):
    objective = Objective(Recipe(method="joint", batch_norm="frozen"))
    freeze_statistics(model)
    for n_target, n_source, n, sizes in (
        (4, 4, 2, [(2, 4), (2, 4)]),
        (4, 3, 3, [(1, 2), (1, 2), (2, 3)]),
        (4, 2, 3, [(1, 1), (1, 2), (2, 3)]),  # a piece without source rows is not the last
        (2, 5, 4, [(1, 3), (1, 4)]),  # no source row is lost for want of target rows
    ):
        whole = Rows(rows.pixels[: n_target + n_source], rows.labels[: n_target + n_source], n_target)
        pieces = _pieces(whole, n)
        assert [(piece.n_target, len(piece.pixels)) for _, _, piece in pieces] == sizes
        model.zero_grad()
        for share, source_share, piece in pieces:
            (share * sum(objective(model, model, piece, 0.3 * source_share / share).values())).backward()
        summed = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        same(summed, gradients(sum(objective(model, model, whole, 0.3).values()), model))


def test_statistics_stay_where_they_are_and_move_again_afterwards():
    norm = nn.BatchNorm1d(3).train()
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)) + 4
    with unmoved_statistics(norm):
        inside = norm(rows)
    assert torch.equal(norm.running_mean, torch.zeros(3))
    assert norm.num_batches_tracked == 0
    assert torch.equal(norm(rows), inside)
    assert (norm.running_mean > 0.3).all()
    freeze_statistics(norm)
    assert not norm.training
