import dataclasses
import shutil
import sys
import threading
import time
from contextlib import closing, nullcontext

import numpy as np
import pytest
import timm
import torch
from timm.data import create_transform, resolve_data_config
from torch import nn

from hf_zoosel.features import Runtime, Team, extract, open_store
from hf_zoosel.features.forward import pick_dtype
from hf_zoosel.features.pixels import PixelBlock
from hf_zoosel.features.store import FeatureStore
from hf_zoosel.tasks import load_task
from hf_zoosel.zoo import CandidateError, resolve

CPU = Runtime(torch.device("cpu"), torch.float32)
ALONE = Team(0, 1, torch.device("cpu"))


class _Elsewhere:
    """Stands for an accelerator's device, so that decoding and loading run ahead of the forward passes."""

    type = "elsewhere"


ON_DEVICE = Runtime(_Elsewhere(), torch.float32)


def run(candidates, task, folder, runtime=CPU, parts=()):
    return {
        c.name: outcome
        for c, outcome in extract(
            candidates, task, parts=parts, store=FeatureStore(folder), runtime=runtime, team=ALONE, progress=False
        )
    }


class Counting(nn.Module):
    """A network that counts the images it has seen, in a list shared by its copies."""

    def __init__(self, seen=None, fail_above=None):
        super().__init__()
        self.seen = [] if seen is None else seen
        self.fail_above = fail_above
        self.head = nn.Linear(3, 5)

    def __deepcopy__(self, memo):
        copy = Counting(self.seen, self.fail_above)
        copy.load_state_dict(self.state_dict())
        return copy

    def forward(self, pixels):
        if self.fail_above is not None and len(pixels) > self.fail_above:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        self.seen.append(len(pixels))
        return self.head(pixels.mean(dim=(2, 3)))


def to_tensor(image):
    return torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1) / 255


def test_features_are_those_of_a_plain_timm_pipeline(task, network, tmp_path):
    module = network()
    features = run([resolve(module, "net")], task, tmp_path)["net"]
    module.eval()
    transform = create_transform(**resolve_data_config({}, model=module))
    images = [encoded.decode() for encoded in task.images.encoded(range(len(task)))]
    with torch.inference_mode():
        pixels = torch.stack([transform(image) for image in images])
        vectors = module.forward_head(module.forward_features(pixels), pre_logits=True)
        probs = module(pixels).softmax(dim=1)
    torch.testing.assert_close(features.features, vectors, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.source_probs, probs, rtol=1e-4, atol=1e-6)
    assert features.rows.tolist() == list(range(12))
    assert features.n_parameters == sum(p.numel() for p in module.parameters())


def test_images_are_decoded_once_and_equal_preprocessing_is_computed_once(task, network, tmp_path, monkeypatch):
    from hf_zoosel.tasks import Encoded

    decoded, transformed, lock = [], [], threading.Lock()
    decode = Encoded.decode

    def counting_decode(self):
        with lock:
            decoded.append(self.digest)
        return decode(self)

    def counting_transform(image):
        with lock:
            transformed.append(image.size)
        return to_tensor(image)

    monkeypatch.setattr(Encoded, "decode", counting_decode)
    nets = [resolve((Counting(), counting_transform), f"net{i}") for i in range(3)]
    run([*nets, resolve(network(), "other")], task, tmp_path)
    probe = 1  # one image is decoded and transformed ahead, to learn how large its pixels are
    assert len(decoded) == 12 + probe
    assert len(transformed) == 12 + probe


def test_one_forward_pass_however_many_metrics_and_none_the_second_time(task, tmp_path):
    net = Counting()
    candidate = resolve((net, to_tensor), "net")
    first = run([candidate], task, tmp_path)["net"]
    assert sum(net.seen) == len(task)
    again = run([candidate], task, tmp_path)["net"]
    assert sum(net.seen) == len(task)
    assert torch.equal(first.features, again.features)
    assert torch.equal(first.source_probs, again.source_probs)


def test_a_larger_sample_runs_only_the_new_images(pictures, tmp_path):
    net = Counting()
    candidate = resolve((net, to_tensor), "net")
    run([candidate], load_task(pictures(), max_per_class=2), tmp_path)
    assert sum(net.seen) == 4
    run([candidate], load_task(pictures(), max_per_class=5), tmp_path)
    assert sum(net.seen) == 10


def test_another_transform_never_reuses_features(task, tmp_path):
    net = Counting()

    def darker(image):
        return to_tensor(image) * 0.5

    plain = run([resolve((net, to_tensor), "net")], task, tmp_path)["net"]
    dark = run([resolve((net, darker), "net")], task, tmp_path)["net"]
    assert sum(net.seen) == 2 * len(task)
    torch.testing.assert_close(dark.features, plain.features * 0.5)


def test_other_weights_never_reuse_features(task, tmp_path):
    net = Counting()
    run([resolve((net, to_tensor), "net")], task, tmp_path)
    nn.init.ones_(net.head.weight)
    run([resolve((net, to_tensor), "net")], task, tmp_path)
    assert sum(net.seen) == 2 * len(task)


def test_another_mean_and_std_share_the_pixels_but_not_the_features(task, network, tmp_path):
    one, other = network(), network()
    other.pretrained_cfg = {**other.pretrained_cfg, "mean": (0.1, 0.2, 0.3)}
    first, second = resolve(one, "one"), resolve(other, "other")
    assert first.preprocess.key == second.preprocess.key
    features = run([first, second], task, tmp_path)
    assert not torch.allclose(features["one"].features, features["other"].features)


def test_a_transform_that_cannot_be_hashed_is_not_cached(task, tmp_path):
    forever = iter(lambda: 0.5, None)
    halves = (half for half in forever)  # a generator cannot be pickled

    def guarded(image):
        return to_tensor(image) * next(halves)

    net = Counting()
    candidate = resolve((net, guarded), "net")
    assert not candidate.preprocess.cacheable
    assert len(run([candidate], task, tmp_path)["net"].rows) == len(task)
    run([candidate], task, tmp_path)
    assert sum(net.seen) == 2 * len(task)


def test_a_task_larger_than_the_memory_goes_through_in_blocks_with_the_same_result(task, network, tmp_path):
    nets = [resolve(network(seed), f"net{seed}") for seed in range(2)]
    whole = run(nets, task, tmp_path / "whole")
    few = Runtime(CPU.device, CPU.dtype, memory=3 * 160 * 160 * 3)
    blocks = run(nets, task, tmp_path / "blocks", few)
    for name in whole:
        torch.testing.assert_close(whole[name].features, blocks[name].features, rtol=1e-5, atol=1e-6)


def test_the_batch_halves_when_memory_runs_out(task, tmp_path):
    net = Counting(fail_above=3)
    features = run([resolve((net, to_tensor), "net")], task, tmp_path)["net"]
    assert len(features.rows) == len(task)
    assert max(net.seen) <= 3


def test_a_batch_that_is_run_again_in_halves_gives_the_same_features(task, tmp_path):
    class Spoiling(Counting):
        def forward(self, pixels):
            if len(pixels) > 3:
                pixels.zero_()  # before it runs out of memory
            return super().forward(pixels)

        def __deepcopy__(self, memo):
            return self

    plain, short = Counting(), Spoiling(fail_above=3)
    short.load_state_dict(plain.state_dict())
    outcomes = run([resolve((plain, to_tensor), "plain"), resolve((short, to_tensor), "short")], task, tmp_path)
    assert torch.equal(outcomes["plain"].features, outcomes["short"].features)


def test_a_network_that_does_not_fit_at_all_says_so(task, tmp_path):
    outcome = run([resolve((Counting(fail_above=0), to_tensor), "net")], task, tmp_path)["net"]
    assert isinstance(outcome, CandidateError)
    assert "memory" in str(outcome)


def test_unreadable_images_are_left_out_and_named(pictures, candidate, tmp_path):
    from tests.features.conftest import photo

    truncated = photo(5)[:200]
    task = load_task(pictures(bad={2: b"", 5: truncated, 7: b"no image at all"}))
    outcome = run([candidate()], task, tmp_path)["net"]
    assert outcome.rows.tolist() == [0, 1, 3, 4, 6, 8, 9, 10, 11]
    assert set(outcome.unreadable) == {2, 5, 7}
    again = run([candidate()], task, tmp_path)["net"]
    assert again.unreadable == outcome.unreadable


def test_features_that_are_not_finite_are_the_candidates_fault(task, tmp_path):
    net = Counting()
    with torch.no_grad():
        net.head.bias[0] = float("nan")
    outcomes = run([resolve((net, to_tensor), "bad"), resolve((Counting(), to_tensor), "good")], task, tmp_path)
    assert "not finite for 12 of 12" in str(outcomes["bad"])
    assert len(outcomes["good"].rows) == 12


def test_a_transform_that_fails_is_the_candidates_fault(task, tmp_path):
    def broken(image):
        raise KeyError("nope")

    outcomes = run([resolve((Counting(), broken), "bad"), resolve((Counting(), to_tensor), "good")], task, tmp_path)
    assert "preprocessing failed: KeyError" in str(outcomes["bad"])
    assert len(outcomes["good"].rows) == 12


def test_images_that_come_out_in_several_shapes_are_refused(pictures, tmp_path):
    from tests.features.conftest import photo

    task = load_task(pictures(bad={3: photo(3, size=20)}))
    outcome = run([resolve((Counting(), to_tensor), "net")], task, tmp_path)["net"]
    assert "alike" in str(outcome)


class Overwriting(Counting):
    """A network that changes its input in place."""

    def forward(self, pixels):
        return super().forward(pixels.mul_(0))


class Returning(nn.Module):
    """A network that returns what a function makes of the pixels."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, pixels):
        return self.function(pixels)


def test_a_network_that_changes_its_input_changes_it_for_no_other(task, tmp_path):
    net = Counting()
    alone = run([resolve((net, to_tensor), "net")], task, tmp_path / "alone")["net"]
    pair = [resolve((Overwriting(), to_tensor), "overwriting"), resolve((net, to_tensor), "net")]
    assert torch.equal(run(pair, task, tmp_path / "pair")["net"].features, alone.features)


@pytest.mark.parametrize(
    "function",
    [
        lambda pixels: pixels.mean(dim=(0, 2, 3))[None],
        lambda pixels: torch.fft.fft(pixels.mean(dim=(2, 3))),
        lambda pixels: pixels.mean(dim=(2, 3))[:, :0],
    ],
)
def test_an_output_that_is_not_one_real_vector_an_image_is_the_candidates_fault(task, tmp_path, function):
    bad = resolve((Returning(function), to_tensor), "bad")
    outcomes = run([bad, resolve((Counting(), to_tensor), "good")], task, tmp_path)
    assert "one real vector an image" in str(outcomes["bad"])
    assert len(outcomes["good"].rows) == 12


def test_features_that_change_width_between_batches_are_the_candidates_fault(task, tmp_path):
    def by_batch(pixels):
        return pixels.mean(dim=(2, 3)).repeat(1, len(pixels))

    bad = resolve((Returning(by_batch), to_tensor), "bad")
    outcome = run([bad], task, tmp_path, Runtime(CPU.device, CPU.dtype, batch_size=7))["bad"]
    assert "alike in number for all images, got 21 and 15" in str(outcome)


def test_features_do_not_keep_the_activations_they_were_cut_from(task, tmp_path):
    from hf_zoosel.features.forward import run_network

    candidate = resolve((Returning(lambda pixels: pixels.flatten(2)[:, :, 0]), to_tensor), "class token")
    rows = range(len(task))
    with closing(PixelBlock(task.images, {candidate.preprocess.key: (candidate.preprocess, rows)})) as block:
        one = Runtime(CPU.device, CPU.dtype, batch_size=len(task))
        done = run_network(
            candidate.load(), candidate.preprocess, block, rows, parts=["features"], runtime=one, seen=lambda n: None
        )
    assert done.parts["features"].untyped_storage().nbytes() == done.parts["features"].nbytes


def test_a_transform_that_leaves_by_sys_exit_is_heard_and_gives_no_features(task, tmp_path):
    def leaving(image):
        raise SystemExit("out")

    with pytest.raises(SystemExit, match="out"):
        run([resolve((Counting(), leaving), "net")], task, tmp_path)


class Failing:
    """The images of a task up to some position; reading beyond it raises."""

    def __init__(self, images, last):
        self.images, self.last, self.n_read = images, last, 0

    def __len__(self):
        return len(self.images)

    def encoded(self, positions):
        if max(positions) > self.last:
            raise OSError("the network drive is gone")
        self.n_read += len(positions)
        return self.images.encoded(positions)


def block_of(images, rows, transform=to_tensor):
    preprocess = resolve((Counting(), transform), "net").preprocess
    return preprocess.key, PixelBlock(images, {preprocess.key: (preprocess, rows)}, workers=2)


def test_a_data_set_that_fails_half_way_raises_and_does_not_hang(pictures):
    images = Failing(load_task(pictures(80), max_per_class=None).images, last=50)
    key, block = block_of(images, range(80))
    with closing(block):
        assert block.batch(key, range(4))[0] == [0, 1, 2, 3]
        with pytest.raises(OSError, match="drive is gone"):
            block.wait()


def test_no_more_than_128_encoded_images_are_held_and_closing_does_not_wait_for_the_rest(pictures):
    go = threading.Event()

    def waiting(image):
        go.wait(30)
        return to_tensor(image)

    images = Failing(load_task(pictures(300), max_per_class=None).images, last=300)
    _, block = block_of(images, range(300), waiting)
    deadline = time.monotonic() + 20
    while images.n_read < 128 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)  # were it to read further, it would have by now
    assert images.n_read == 128
    threading.Timer(0.1, go.set).start()
    block.close()
    assert images.n_read == 128


def test_an_image_that_fails_in_an_unforeseen_way_has_no_pixels(task):
    class Greedy:
        digest = b"0" * 16

        def decode(self):
            raise MemoryError("40 gigapixels")

    class OneGreedy(Failing):
        def encoded(self, positions):
            images = super().encoded(positions)
            return [Greedy() if row == 3 else image for row, image in zip(positions, images, strict=True)]

    key, block = block_of(OneGreedy(task.images, 99), range(12))
    with closing(block):
        assert 3 not in block.batch(key, range(12))[0]
        assert block.unreadable == {3: "MemoryError: 40 gigapixels"}


def test_a_consumer_that_stops_early_leaves_no_thread_behind(task, candidate, tmp_path):
    before = set(threading.enumerate())
    outcomes = extract(
        [candidate("a"), candidate("b", seed=1)],
        task,
        store=FeatureStore(tmp_path),
        runtime=ON_DEVICE,
        team=ALONE,
        progress=False,
    )
    next(outcomes)
    outcomes.close()
    assert {t for t in set(threading.enumerate()) - before if t.name.startswith("hf-zoosel")} == set()


def test_networks_that_load_ahead_of_their_turn_give_the_same_features(task, candidate, tmp_path, monkeypatch):
    nets = [candidate(f"net{seed}", seed) for seed in range(3)]
    bad = dataclasses.replace(nets[1], revision="bad", load=lambda: 1 / 0).named("bad")
    plain = run([nets[0], bad, *nets[1:]], task, tmp_path / "plain")

    def on_cpu(job, load, block, rows, **options):
        job.runtime = dataclasses.replace(job.runtime, device=CPU.device)
        return run_one(job, load, block, rows, **options)

    module = sys.modules[extract.__module__]
    run_one = module._run
    monkeypatch.setattr(module, "_run", on_cpu)
    ahead = run([nets[0], bad, *nets[1:]], task, tmp_path / "ahead", ON_DEVICE)
    assert "ZeroDivisionError" in str(ahead["bad"])
    for net in nets:
        torch.testing.assert_close(ahead[net.name].features, plain[net.name].features, rtol=1e-5, atol=1e-6)


def test_rows_that_vanish_from_the_cache_meanwhile_are_never_left_out_silently(task, tmp_path):
    first = resolve((Counting(), to_tensor), "net")
    run([first], task, tmp_path)
    outcomes = extract(
        [resolve((Returning(lambda pixels: pixels[:, :, 0, 0]), to_tensor), "other"), first],
        task,
        store=FeatureStore(tmp_path),
        runtime=CPU,
        team=ALONE,
        progress=False,
    )
    next(outcomes)
    shutil.rmtree(tmp_path)
    assert "vanished from the cache" in str(next(outcomes)[1])


def test_building_networks_leaves_the_callers_random_state_alone(task, candidate, tmp_path):
    state = torch.random.get_rng_state()
    run([candidate()], task, tmp_path)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_person_who_passes_a_module_gets_it_back_unchanged(task, network, tmp_path):
    module = network().train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    run([resolve(module, "net")], task, tmp_path)
    assert module.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert (
        module.conv1.weight.is_contiguous() if hasattr(module, "conv1") and hasattr(module.conv1, "weight") else True
    )


@pytest.mark.parametrize("architecture", ["test_vit", "test_convnext", "test_efficientnet"])
def test_every_kind_of_network_gives_finite_features_and_probabilities(task, network, tmp_path, architecture):
    outcome = run([resolve(network(architecture=architecture), "net")], task, tmp_path)["net"]
    assert outcome.features.shape == (12, timm.create_model(architecture).head_hidden_size)
    torch.testing.assert_close(outcome.source_probs.sum(dim=1), torch.ones(12))


def test_bfloat16_is_close_and_cached_apart(task, network, tmp_path):
    nets = [resolve(network(), "net")]
    full = run(nets, task, tmp_path)["net"]
    half = run(nets, task, tmp_path, Runtime(CPU.device, torch.bfloat16))["net"]
    assert half.features.dtype == torch.float32
    assert not torch.equal(full.features, half.features)
    torch.testing.assert_close(full.features, half.features, rtol=0.1, atol=0.1)


def test_without_a_cache_nothing_stays_behind(task, candidate):
    with open_store(False) as store:
        folder = store.folder
        list(extract([candidate()], task, store=store, runtime=CPU, team=ALONE, progress=False))
        assert any(folder.rglob("*.safetensors"))
    assert not folder.exists()


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_is_taken_where_a_gpu_computes_in_it_itself(native, expected, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: asked.append(device) or nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    device = torch.device("cuda", 1)
    assert pick_dtype("auto", device) == expected
    assert asked == [device]
    assert Runtime(device, torch.float32).computed_in == "float32 on cuda"
    assert Runtime(torch.device("cpu"), torch.float32).computed_in == "float32"
