"""finetune with models and folders as they come: new heads, modules that look into themselves, files in the way."""

import numpy as np
import pytest
import timm
import torch
import transformers
from torch import nn

import hf_zoosel
from hf_zoosel.training import LoadingError, loop
from hf_zoosel.zoo import CandidateError
from tests.test_finetune import NAMES, QUICK, colours, tiny, weights
from tests.training.test_loop import as_tensor, broken


def finetune(folder, model=None, data=None, **options):
    data = colours(24) if data is None else data
    return hf_zoosel.finetune(model or tiny(), data, output_dir=folder, **QUICK | {"epochs": 1} | options)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A transformers checkpoint of 10 classes, and its processor."""
    folder = tmp_path_factory.mktemp("base")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(**size, image_size=32, patch_size=16, num_labels=10)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.ViTForImageClassification(config).save_pretrained(folder)
    return folder, transformers.ViTImageProcessor(size={"height": 32, "width": 32})


def with_new_head(base):
    """As a user of transformers makes one; each time its head is drawn anew."""
    folder, processor = base
    names = dict(enumerate(NAMES))
    model = transformers.AutoModelForImageClassification.from_pretrained(
        folder, num_labels=3, id2label=names, ignore_mismatched_sizes=True
    )
    return model, processor


def test_a_head_that_is_replaced_may_be_another_one_when_a_killed_call_is_made_again(base, tmp_path, monkeypatch):
    one, other = with_new_head(base), with_new_head(base)
    assert not torch.equal(one[0].classifier.weight, other[0].classifier.weight)
    options = {"epochs": 3, "checkpointing_steps": 1, "validation": None}
    whole = finetune(tmp_path / "whole", one, **options)
    seeded, steps = loop._seed_step, []

    def killed(seed, step, team):
        if step == 5:
            raise KeyboardInterrupt
        steps.append(step)
        seeded(seed, step, team)

    monkeypatch.setattr(loop, "_seed_step", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune(tmp_path / "killed", one, **options)
    monkeypatch.undo()
    again = finetune(tmp_path / "killed", other, **options)
    assert steps == [0, 1, 2, 3, 4]
    assert all(torch.equal(tensor, weights(again)[name]) for name, tensor in weights(whole).items())
    assert finetune(tmp_path / "whole", other, **options).history == whole.history  # found finished


def test_a_body_that_is_another_one_is_another_run_and_is_called_that(tmp_path):
    finetune(tmp_path / "out", timm.create_model("test_resnet"))
    with pytest.raises(ValueError, match="of other weights of ResNet, as layers drawn at random are each time"):
        finetune(tmp_path / "out", timm.create_model("test_resnet"))


@pytest.mark.parametrize(
    ("options", "who"),
    [
        ({"method": "co-tuning"}, "Co-Tuning"),
        ({"regularizers": ["lwf"]}, "lwf"),
        ({"source": colours(24, seed=4)}, "training on the source's classes"),
    ],
    ids=["co-tuning", "lwf", "source of its classes"],
)
def test_a_new_head_that_goes_on_is_noted(base, tmp_path, options, who):
    note = f"the checkpoint's own head looks as if it had never been trained: {who} goes on with it"
    assert note in finetune(tmp_path / "new", with_new_head(base), **options).notes
    trained, processor = with_new_head(base)
    nn.init.normal_(trained.classifier.bias)
    assert note not in finetune(tmp_path / "trained", (trained, processor), **options).notes


class Looking(nn.Module):
    """Looks at its classifier, as a person's module may."""

    def __init__(self, *, reshaped=False):
        super().__init__()
        self.reshaped = reshaped
        self.conv, self.head = nn.Conv2d(3, 4, 3, 4), nn.Linear(4, 5)

    def forward(self, pixels):
        features = self.conv(pixels.to(self.head.weight.dtype)).relu().mean(dim=(2, 3))
        logits = self.head(features.view(-1, self.head.in_features))
        assert (logits.shape[1], self.head.bias.ndim) == (self.head.out_features, 1)
        return logits.view(-1, 5) if self.reshaped else logits


class WithoutGradients(Looking):
    """Was written to be used, not trained."""

    @torch.no_grad()
    def forward(self, pixels):
        return super().forward(pixels)


@pytest.mark.filterwarnings("ignore:the preprocessing of")
def test_a_module_may_look_at_its_classifier(tmp_path):
    result = finetune(tmp_path / "out", (Looking(), as_tensor), image_size=None)
    assert weights(result)["head.weight"].shape == (3, 4)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Looking(reshaped=True), r"shape '\[-1, 5\]' is invalid"),
        (WithoutGradients(), "does not require grad"),
    ],
    ids=["reshaped", "no gradients"],
)
def test_a_module_that_cannot_be_given_another_classifier_says_so(module, reason, tmp_path):
    with pytest.raises(CandidateError, match=f"cannot be trained with another classifier .*{reason}"):
        finetune(tmp_path / "out", (module, as_tensor), image_size=None)


def test_weights_that_are_not_finite_are_not_blamed_on_the_rate(tmp_path):
    model = tiny()
    with torch.no_grad():
        model.conv1[0].weight[0] = torch.nan
    with pytest.raises(CandidateError, match=r"weights that are not finite \(.*conv1\.0\.weight\)"):
        finetune(tmp_path / "out", model)


def test_a_call_where_no_gradients_are_recorded_trains_all_the_same(tmp_path):
    plain = weights(finetune(tmp_path / "plain"))
    with torch.inference_mode():
        inside = weights(finetune(tmp_path / "inside"))
    assert all(torch.equal(tensor, inside[name]) for name, tensor in plain.items())


def test_a_source_that_cannot_be_read_is_called_the_source(tmp_path):
    with pytest.raises(LoadingError, match="`source` must hold images that can be read"):
        finetune(tmp_path / "out", source=broken(colours(6, seed=3), set(range(6))))


def test_a_grey_model_says_how_its_images_are_made(tmp_path):
    result = finetune(tmp_path / "out", tiny(in_chans=1))
    assert any(note.startswith("it takes grey images") for note in result.notes)


def test_a_file_in_the_folders_place_is_named(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(ValueError, match="`output_dir` must be a folder, got the file"):
        finetune(tmp_path / "out")


def test_a_folder_is_free_again_where_a_call_was_interrupted_before_it_kept_anything(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_seed_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(tmp_path / "out")
    monkeypatch.undo()
    finetune(tmp_path / "out", learning_rate=0.02)
    (tmp_path / "out" / "model.safetensors").unlink()
    monkeypatch.setattr(loop, "_seed_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(tmp_path / "out", learning_rate=0.02)
    monkeypatch.undo()
    finetune(tmp_path / "out", learning_rate=0.02)  # it holds a result: it stays that call's


def test_a_finished_folder_without_its_weights_is_trained_again(tmp_path):
    before = weights(finetune(tmp_path / "out"))
    (tmp_path / "out" / "model.safetensors").unlink()
    after = weights(finetune(tmp_path / "out"))
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_numbers_of_numpy_and_torch_are_numbers(tmp_path):
    strengths = {"l2_sp": np.float32(0.5), "bss": torch.tensor(0.25)}
    rate = torch.tensor(0.02, dtype=torch.float64)
    result = finetune(tmp_path / "out", learning_rate=rate, regularizers=strengths, validation=np.float32(0.25))
    assert (result.recipe["learning_rate"], result.metrics["n_validation"]) == (0.02, 6)
    assert result.arguments["validation"] == 0.25  # from which the card's code is made
    assert result.recipe["regularizers"] == {"l2_sp": 0.5, "bss": 0.25}
    with pytest.raises(TypeError, match=r"`regularizers` must be names or name=strength, got \('bss', 1.0\)"):
        finetune(tmp_path / "pairs", regularizers=[("bss", 1.0)])
