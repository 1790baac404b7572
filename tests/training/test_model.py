import copy

import pytest
import timm
import torch
import transformers as hf
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hf_zoosel.training.model import TwoHeads
from hf_zoosel.zoo import Network, resolve
from hf_zoosel.zoo.timm_models import watch
from tests.training.networks import NAMES, SMALL_VIT, TIMM, TRANSFORMERS, Probabilities, home_made, network, shaken

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(autouse=True, scope="module")
def _few_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def two_heads(name, **options):
    made, pixels = network(name)
    return TwoHeads(made, pixels[:2], 7, **options).eval(), pixels


@pytest.mark.parametrize("name", NAMES)
def test_one_pass_gives_every_head_and_the_checkpoint_stays_what_it_was(name):
    before, pixels = network(name)
    model, _ = two_heads(name, n_source=6, keep_head=True)
    passes = []
    first = next(layer for layer in model.body.modules() if isinstance(layer, nn.Conv2d))
    first.register_forward_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        expected, output = before(pixels), model(pixels)
    assert len(passes) == 1
    assert output.target.shape == (3, 7)
    assert output.source.shape == (3, 6)
    assert output.features.shape == (3, model.n_features)
    assert model.has_kept_head
    torch.testing.assert_close(output.features, expected.features, **CLOSE)
    torch.testing.assert_close(output.kept, expected.logits, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_the_plain_module_gives_the_targets_logits(name):
    model, pixels = two_heads(name, n_source=6, keep_head=True)
    plain = model.plain()
    with torch.no_grad():
        output, target = plain(pixels), model(pixels).target
    output = getattr(output, "logits", output)
    torch.testing.assert_close(output, target.softmax(dim=1) if name == "probabilities" else target, **CLOSE)
    assert not any(layer._forward_hooks for layer in plain.modules())
    assert not plain.training


@pytest.mark.parametrize("name", TIMM)
def test_the_plain_module_is_timms_own_architecture(name):
    model, pixels = two_heads(name, keep_head=True)
    own, plain = timm.create_model(name, num_classes=7, **TIMM[name][1]), model.plain()
    assert repr(plain) == repr(own)
    assert plain.num_classes == own.num_classes == plain.pretrained_cfg["num_classes"] == 7
    own.load_state_dict(plain.state_dict(), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(own.eval()(pixels), plain(pixels), **CLOSE)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_plain_module_is_transformers_own_architecture(name):
    model, _ = two_heads(name, keep_head=True)
    plain = model.plain()
    assert plain.config.num_labels == plain.num_labels == 7
    own = type(plain)(plain.config)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in own.state_dict().items()}


@pytest.mark.parametrize("name", ["test_resnet", "deit", "home-made", "crossvit_tiny_240"])
def test_parameters_are_the_checkpoints_or_new(name):
    model, pixels = two_heads(name, n_source=6, keep_head=True)
    backbone, head = model.backbone_parameters(), model.head_parameters()
    assert {**backbone, **head}.keys() == dict(model.named_parameters()).keys()
    assert not backbone.keys() & head.keys()
    assert all(".target." in key or ".source." in key for key in head)
    output = model.train()(pixels)
    (output.target.sum() + output.source.sum() + output.kept.sum()).backward()
    assert all(p.grad is not None for p in head.values())
    model.eval()
    before = {key: p.detach().clone() for key, p in backbone.items()}
    weight, bias = torch.randn(7, model.n_features), torch.randn(7)
    model.set_target_head(weight, bias)
    with torch.no_grad():
        output = model(pixels)
    torch.testing.assert_close(output.target, output.features @ weight.T + bias, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(p, before[key]) for key, p in model.backbone_parameters().items())


def test_a_head_without_bias_takes_none():
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4, bias=False))
    model = TwoHeads(Network(body), torch.randn(2, 3, 16, 16), 7)
    with pytest.raises(ValueError, match="Fit without intercept"):
        model.set_target_head(torch.zeros(7, 8), torch.ones(7))


@pytest.mark.parametrize("name", ["test_resnet", "levit_128s", "deit"])
def test_state_and_copies_are_complete(name):
    model, pixels = two_heads(name, n_source=6, keep_head=True)
    other, _ = two_heads(name, n_source=6, keep_head=True, generator=torch.Generator().manual_seed(5))
    output = model(pixels)  # with a graph, which some attention layers cache
    copied = copy.deepcopy(model)
    other.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad(), copied.watching_maps() as maps:
        for again in (copied(pixels), other(pixels)):
            for one, expected in zip(again, output, strict=True):
                torch.testing.assert_close(one, expected.detach(), **CLOSE)
    assert len(maps) == len(model._watch.stages)  # the copy's own


@pytest.mark.parametrize("name", ["home-made", "vit", "probabilities"])
@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")  # torch.compile's own
def test_a_compiled_model_gives_the_same_in_one_graph(name):
    torch.compiler.reset()
    model, pixels = two_heads(name, n_source=6, keep_head=True)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for _ in range(3):
        with model.watching_maps() as expected_maps:
            expected = model(pixels)
        with model.watching_maps() as maps:
            output = compiled(pixels)
        for one, other in zip((*output, *maps), (*expected, *expected_maps), strict=True):
            torch.testing.assert_close(one, other, **CLOSE)
    torch.testing.assert_close(compiled(pixels).target, expected.target, **CLOSE)
    copy.deepcopy(model)  # nothing with a graph is left in it


def test_a_model_distributed_over_one_process_trains(tmp_path):
    model, pixels = two_heads("home-made", n_source=6, keep_head=True)
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model.train())
        output = wrapped(pixels)
        (output.target.sum() + output.source.sum() + output.kept.sum()).backward()
    finally:
        torch.distributed.destroy_process_group()
    assert all(p.grad is not None for p in model.parameters())


def test_autocast_reaches_the_heads():
    model, pixels = two_heads("test_resnet", n_source=6)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(pixels)
    assert output.target.dtype == output.source.dtype == torch.bfloat16


@pytest.mark.parametrize("options", [{}, {"global_pool": ""}], ids=["pooled", "not pooled"])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_a_timm_model_without_head_gets_timms(name, options):
    module = shaken(timm.create_model(name, num_classes=0, **options))
    pixels = torch.randn(2, 3, 160, 160)
    state = torch.get_rng_state()
    model = TwoHeads(watch(module), pixels, 7, keep_head=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.has_kept_head
    plain, own = model.plain(), timm.create_model(name, num_classes=7)
    assert repr(plain) == repr(own)
    with torch.no_grad():
        assert model(pixels).kept is None
        torch.testing.assert_close(plain(pixels), model(pixels).target, **CLOSE)
    assert next(iter(model.head_parameters().values())).std() < 0.02  # not timm's own first weights


def test_a_transformers_checkpoint_without_head_keeps_none(tmp_path):
    hf.ViTModel(hf.ViTConfig(**SMALL_VIT)).save_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 32, 32)
    model = TwoHeads(resolve(tmp_path, "it").load(), pixels, 7, n_source=6, keep_head=True)
    assert not model.has_kept_head
    assert type(model.plain()).__name__ == "ViTForImageClassification"


def test_a_backbone_without_classifier_class_gets_a_head_on_its_pooled_output(tmp_path):
    small = {key: value for key, value in SMALL_VIT.items() if key != "num_labels"}
    decoder = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
    hf.ViTMAEModel(hf.ViTMAEConfig(**small, **decoder, decoder_intermediate_size=32)).save_pretrained(tmp_path)
    loaded, pixels = resolve(tmp_path, "it").load(), torch.randn(2, 3, 32, 32)
    model = TwoHeads(loaded, pixels, 7, n_source=6).eval()
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for one in (model, copied):
            torch.testing.assert_close(one(pixels).features, loaded(pixels).features)
        torch.testing.assert_close(model.plain()(pixels), model(pixels).target)
    assert [key for key in model.plain().state_dict() if key.startswith("head")] == ["head.weight", "head.bias"]


def test_a_head_of_several_layers_is_kept_whole_and_gets_a_head_beside_it():
    module = shaken(timm.create_model("efficientvim_m1"))
    pixels = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = module(pixels)
        model = TwoHeads(watch(module), pixels, 7, keep_head=True).eval()
        output = model(pixels)
        torch.testing.assert_close(output.kept, expected, **CLOSE)
        torch.testing.assert_close(model.plain()(pixels), output.target, **CLOSE)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("test_resnet", [(32, 8, 8), (48, 4, 4), (192, 2, 2), (96, 1, 1)]),
        ("test_efficientnet", [(24, 8, 8), (32, 4, 4), (48, 2, 2), (64, 1, 1)]),
        ("swin_tiny_patch4_window7_224", [(8, 56, 56), (16, 28, 28), (32, 14, 14), (64, 7, 7)]),
        ("test_vit", [(64, 101, 1)]),
        ("resnet", [(16, 4, 4)]),
        ("vit", [(32, 17, 1)]),
        ("home-made", [(8, 15, 15)]),
    ],
)
def test_maps_are_those_of_the_last_layer_of_each_stage_while_somebody_looks(name, shapes):
    model, pixels = two_heads(name)
    with torch.no_grad():
        with model.watching_maps() as maps:
            model(pixels)
            assert [tuple(one.shape[1:]) for one in maps] == shapes
            model(pixels)
            assert len(maps) == 2 * len(shapes)
        model(pixels)
    assert len(maps) == 2 * len(shapes)


def test_maps_carry_gradients_and_are_the_layers_own():
    model, pixels = two_heads("test_resnet")
    seen = []
    model.body.layer3.register_forward_hook(lambda _layer, _inputs, output: seen.append(output))
    with model.watching_maps() as maps:
        model(pixels)
    assert maps[2] is seen[0]
    maps[2].square().sum().backward()
    assert model.body.conv1[0].weight.grad.abs().sum() > 0


def test_a_network_without_maps_and_tokens_says_so():
    body = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 4))
    model = TwoHeads(Network(body), torch.randn(2, 3, 4, 4), 7)
    with pytest.raises(ValueError, match="feature maps or tokens"):
        model.watching_maps()


def test_head_names_are_paths_in_the_module():
    for name, names in (("test_resnet", ("fc",)), ("deit", ("cls_classifier", "distillation_classifier"))):
        made, pixels = network(name)
        assert made.head_names(pixels) == names
    assert Network(home_made(), classifier="none").head_names(torch.randn(2, 3, 32, 32)) == ()


@pytest.mark.parametrize("options", [{"n_target": 0}, {"n_target": 3, "n_source": 0}], ids=str)
def test_a_head_without_classes_is_refused(options):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        TwoHeads(Network(Probabilities()), torch.randn(2, 3, 32, 32), **options)
