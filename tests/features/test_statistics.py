import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Features, Image, IterableDataset
from hypothesis import given, settings, strategies as st
from torch import nn

from hf_zoosel.features import Runtime, Team
from hf_zoosel.features.class_sums import ClassSums, KeptSample
from hf_zoosel.features.source_features import source_features
from hf_zoosel.features.statistics import source_statistics
from hf_zoosel.tasks import load_task
from hf_zoosel.tasks.rows import open_rows
from hf_zoosel.tasks.sampling import draw_rows
from hf_zoosel.zoo import CandidateError, SourceStats, resolve

ROOT = Path(__file__).parents[2]
CPU = Runtime(torch.device("cpu"), torch.float32, batch_size=4)
ALONE = Team(0, 1, torch.device("cpu"))
N = 41


class _Elsewhere:
    """Stands for an accelerator's device, so that decoding runs ahead of the forward passes."""

    type = "elsewhere"


class Few(nn.Module):
    """Gives 16 pixels of an image, the same bits in any batch, and counts in a list shared by its copies."""

    def __init__(self, seen, fail_after=None):
        super().__init__()
        self.seen, self.fail_after = seen, fail_after
        self.head = nn.Linear(48, 3)

    def __deepcopy__(self, memo):
        copy = Few(self.seen, self.fail_after)
        copy.load_state_dict(self.state_dict())
        return copy

    def forward(self, pixels):
        if self.fail_after is not None and sum(self.seen) >= self.fail_after[0]:
            raise RuntimeError("the network gives up")
        self.seen.append(len(pixels))
        return self.head(pixels[:, :, ::12, ::12].flatten(1))


def to_tensor(image):
    return torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1) / 255


@dataclasses.dataclass(frozen=True)
class Watched:
    candidate: object
    seen: list
    fail_after: list


@pytest.fixture
def few():
    seen, fail_after = [], [10**9]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Few(seen, fail_after)
    return Watched(resolve((module, to_tensor), "few"), seen, fail_after)


@pytest.fixture
def source(pictures):
    """41 pictures of three classes and a few without, and how numpy sees their features."""

    def make(bad=()):
        labels = 7 * np.arange(N) % 4 - 1  # every fourth has none
        features = Features({"image": Image(), "label": ClassLabel(names=["ant", "bee", "cow"])})
        data = pictures(N, bad=dict.fromkeys(bad, b"no image")).remove_columns("label")
        return data.add_column("label", labels.tolist()).cast(features)

    return make


def by_numpy(data, labels=None):
    """All features at once: means and variances of each class that has any, and the classes."""
    raw = data.cast_column("image", Image(decode=False))
    given = np.array(data["label"] if labels is None else labels)
    task = load_task(raw.remove_columns("label").add_column("label", list(range(len(raw)))), max_per_class=None)
    rows = {}
    for row, encoded in enumerate(task.images.encoded(range(len(raw)))):
        if not isinstance(given[row], np.integer) or given[row] >= 0:
            try:
                rows[row] = to_tensor(encoded.decode())[:, ::12, ::12].flatten().double().numpy()
            except Exception:
                continue
    classes = sorted({given[row] for row in rows})
    members = [np.stack([x for row, x in rows.items() if given[row] == c]) for c in classes]
    return np.stack([m.mean(0) for m in members]), np.stack([m.var(0) for m in members]), classes, rows


def run(candidate, data, folder=None, **options):
    rows = options.pop("rows", None) or open_rows(data)
    options = {"runtime": CPU, "team": ALONE, "progress": False, "chunk": 8} | options
    return source_statistics(candidate, rows, folder=folder, **options)


def close(actual, expected):
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=1e-12, atol=1e-14)


def same(one, other):
    close(one.means, other.means)
    close(one.variances, other.variances)
    assert one.counts.tolist() == other.counts.tolist()
    assert one.class_names == other.class_names
    for name in ("features", "labels"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine is None and theirs is None) or torch.equal(mine, theirs)
    known = {field: getattr(one.provenance, field) for field in ("n_rows", "n_unlabelled", "n_unreadable", "weights")}
    assert known == {field: getattr(other.provenance, field) for field in known}
    assert one.provenance.unreadable == other.provenance.unreadable


class Together(Team):
    """One of several threads that stand for processes."""

    def __init__(self, rank, size, table):
        super().__init__(rank, size, torch.device("cpu"))
        object.__setattr__(self, "table", table)

    def gather(self, item):
        box, barrier = self.table
        box[self.rank] = item
        barrier.wait(60)
        everything = list(box)
        barrier.wait(60)
        return everything

    def from_main(self, item):
        return self.gather(item)[0]


def on_threads(size, work):
    """What ``work(team)`` returns, or raises, on each of several threads."""
    table, outcomes = ([None] * size, threading.Barrier(size)), [None] * size

    def one(rank):
        try:
            outcomes[rank] = work(Together(rank, size, table))
        except Exception as error:
            outcomes[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("kind", ["data set", "stream"])
def test_statistics_are_those_of_all_features_at_once(few, source, chunk, kind):
    data = source(bad=[5])
    shown = data if kind == "data set" else data.to_iterable_dataset(num_shards=4)
    stats = run(few.candidate, shown, chunk=chunk)
    means, variances, classes, rows = by_numpy(data)
    close(stats.means, means)
    close(stats.variances, variances)
    assert classes == [0, 1, 2]
    assert stats.class_names == ("ant", "bee", "cow")
    assert stats.counts.sum() == len(rows) == sum(few.seen)
    assert stats.provenance.n_unlabelled == data["label"].count(-1)
    assert stats.provenance.n_rows == N
    assert [row for row, _ in stats.provenance.unreadable] == [5]
    stats.check_matches(few.candidate)


def test_class_names_of_a_stream_are_known_at_its_end_and_in_order(few, source):
    data = source()
    names = [["zebra", "yak", "ant"][label] for label in data["label"]]
    texts = data.remove_columns("label").add_column("label", names)
    stats = run(few.candidate, texts.to_iterable_dataset())
    assert stats.class_names == ("ant", "yak", "zebra")
    means, _, classes, _ = by_numpy(texts, names)
    assert classes == ["ant", "yak", "zebra"]
    close(stats.means, means)


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("kind", ["data set", "stream"])
def test_any_number_of_processes_gives_the_same(few, source, tmp_path, size, kind):
    data = source(bad=[1, 17])
    data = data if kind == "data set" else data.to_iterable_dataset()
    alone = run(few.candidate, data, keep=2)
    few.seen.clear()
    everyone = on_threads(size, lambda team: run(few.candidate, data, tmp_path, team=team, keep=2))
    for stats in everyone:
        same(stats, alone)
    assert sum(few.seen) == alone.counts.sum()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_a_block_that_does_not_fit_into_memory_is_cut(few, source):
    data = source(bad=[3])
    tight = dataclasses.replace(CPU, memory=3 * 48 * 48 * 3 * 4)
    same(run(few.candidate, data, runtime=tight), run(few.candidate, data))


def test_decoding_runs_ahead_elsewhere_than_on_a_cpu(few, source, monkeypatch):
    monkeypatch.setattr("hf_zoosel.zoo.network.Network.to", lambda network, device: network)
    monkeypatch.setattr("hf_zoosel.features.forward._on_device", lambda preprocess, pixels, runtime: pixels.clone())
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: torch.inference_mode())
    elsewhere = dataclasses.replace(CPU, device=_Elsewhere())
    data = source(bad=[3])
    same(run(few.candidate, data, runtime=elsewhere), run(few.candidate, data))


def test_a_second_call_runs_nothing(few, source, tmp_path):
    data = source(bad=[2])
    once = run(few.candidate, data, tmp_path, keep=1)
    assert few.seen
    few.seen.clear()
    again = run(few.candidate, data, tmp_path, keep=1, chunk=3)
    assert few.seen == []
    assert again.provenance == once.provenance
    same(again, once)
    for other in ({"keep": 2}, {"rows": open_rows(data.select(range(20)))}):
        run(few.candidate, data, tmp_path, **({"keep": 1} | other))
        assert few.seen
        few.seen.clear()
    run(few.candidate, data.to_iterable_dataset(), tmp_path)
    few.seen.clear()
    run(few.candidate, data.to_iterable_dataset(), tmp_path)
    assert few.seen == []


@pytest.mark.parametrize("sizes", [(1, 1), (3, 1), (1, 2), (2, 3)])
def test_a_pass_that_a_network_broke_off_goes_on_where_it_stopped(few, source, tmp_path, sizes):
    data = source(bad=[1, 39])
    whole = run(few.candidate, data, keep=2)
    few.seen.clear()
    few.fail_after[0] = 20
    failures = on_threads(sizes[0], lambda team: run(few.candidate, data, tmp_path, team=team, keep=2, chunk=4))
    assert all(isinstance(one, CandidateError) and "gives up" in str(one) for one in failures)
    assert list(tmp_path.rglob("half-*.safetensors"))
    few.fail_after[0], before = 10**9, sum(few.seen)
    assert before >= 16
    few.seen.clear()
    for stats in on_threads(sizes[1], lambda team: run(few.candidate, data, tmp_path, team=team, keep=2, chunk=5)):
        same(stats, whole)
    assert sum(few.seen) <= whole.counts.sum() - before + 4 * sizes[0]  # of the chunks that failed
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["source_stats.safetensors"]


def shard(path, line_is_up):
    """A stream that fails while the line is down."""
    for row, image in enumerate(sorted(path.glob("*.png"))):
        if row == 25 and not line_is_up.exists():
            raise ConnectionError("the line is cut")
        yield {"image": image.read_bytes(), "label": row % 3}


def test_a_shard_that_fails_keeps_what_was_computed(few, source, tmp_path):
    pictures, line, kept = tmp_path / "pictures", tmp_path / "line", tmp_path / "kept"
    pictures.mkdir()
    for row, value in enumerate(source().cast_column("image", Image(decode=False))["image"]):
        (pictures / f"{row:03d}.png").write_bytes(value["bytes"])
    data = IterableDataset.from_generator(shard, gen_kwargs={"path": pictures, "line_is_up": line})
    with pytest.raises(
        ValueError, match=r"readable to its end, got ConnectionError after row 24: .* call again"
    ) as no:
        run(few.candidate, data, kept)
    assert "the line is cut" in str(no.value)
    assert sum(few.seen) == 24
    with pytest.raises(ValueError, match="Nothing computed is kept"):
        run(few.candidate, data)
    with pytest.raises(ValueError, match="call again"):  # still cut
        run(few.candidate, data, kept, chunk=2)
    line.touch()
    few.seen.clear()
    stats = run(few.candidate, data, kept)
    assert sum(few.seen) == N - 24
    same(stats, run(few.candidate, data))


def test_a_call_that_is_interrupted_keeps_what_was_computed(few, source, tmp_path):
    class Interrupting(list):
        def append(self, n):
            super().append(n)
            if sum(self) >= 20:
                raise KeyboardInterrupt

    data = source()
    loaded = few.candidate.load()
    loaded.module.seen = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        run(dataclasses.replace(few.candidate, load=lambda: loaded), data, tmp_path)
    same(run(few.candidate, data, tmp_path), run(few.candidate, data))
    assert sum(few.seen) == 30 + 12  # three whole chunks of 6 labelled rows were kept


def test_a_damaged_file_is_computed_again_and_said(few, source, tmp_path, caplog):
    data = source()
    whole = run(few.candidate, data, tmp_path)
    (kept,) = tmp_path.rglob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-30])
    (kept.parent / "half-1.safetensors").write_bytes(b"no")
    same(run(few.candidate, data, tmp_path), whole)
    assert len(caplog.records) == 2
    assert SourceStats.load(kept).class_names == whole.class_names
    assert not list(kept.parent.glob("half-*"))


def test_a_folder_that_cannot_be_written_is_said_and_no_reason_to_stop(few, source, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    run(few.candidate, source(), tmp_path / "file")
    assert len(caplog.records) == 2


def test_a_transform_that_cannot_be_hashed_keeps_nothing(few, source, tmp_path):
    preprocess = dataclasses.replace(few.candidate.preprocess, cacheable=False)
    run(dataclasses.replace(few.candidate, preprocess=preprocess), source(), tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_a_class_whose_images_cannot_be_read_is_left_out_and_said(few, source):
    labels = source()["label"]
    data = source(bad=[row for row, label in enumerate(labels) if label == 1])
    for kind in (data, data.to_iterable_dataset()):
        stats = run(few.candidate, kind)
        assert stats.class_names == ("ant", "cow")
        assert stats.provenance.empty_classes == ("bee",)
        assert "1 source class has no image that can be read: bee." in stats.provenance.notes
        close(stats.means, by_numpy(data)[0])
    texts = data.remove_columns("label").add_column("label", [str(label) for label in labels])
    assert run(few.candidate, texts).provenance.empty_classes == ("1",)


def test_unreadable_images_are_counted_and_the_first_listed(few, source):
    bad = list(range(0, 40, 2))
    data = source(bad=bad).remove_columns("label").add_column("label", [0, 1] * 20 + [0])
    provenance = run(few.candidate, data, chunk=3).provenance
    assert provenance.n_unreadable == 20
    assert [row for row, _ in provenance.unreadable] == bad[:10]
    assert provenance.notes[0].startswith("20 of 41 source images could not be read and were left out (row 0: ")


def test_data_without_labels_or_readable_images_is_refused(few, source):
    data = source()
    with pytest.raises(ValueError, match="`rows` must have labels"):
        run(few.candidate, data.remove_columns("label"))
    with pytest.raises(ValueError, match="got 41 rows of which 41 have no label and 0 cannot be read"):
        run(few.candidate, data.remove_columns("label").add_column("label", [None] * N))
    with pytest.raises(ValueError, match=r"cannot be read \(row \d+: unknown image format"):
        run(few.candidate, source(bad=range(N)))
    with pytest.raises(ValueError, match="`chunk` must be at least 1"):
        run(few.candidate, data, chunk=0)


def test_processes_that_look_at_different_rows_are_heard(few, source):
    data = source()
    outcomes = on_threads(2, lambda team: run(few.candidate, data.shuffle(seed=team.rank), team=team))
    assert all("same rows in the same order" in str(outcome) for outcome in outcomes)


def test_a_failure_on_one_process_is_heard_on_all(few, source, tmp_path):
    def one_fails(team):
        candidate = few.candidate
        if team.rank == 1:
            candidate = dataclasses.replace(candidate, load=lambda: int("not a network"))
        return run(candidate, source(), tmp_path, team=team)

    outcomes = on_threads(2, one_fails)
    assert [type(one) for one in outcomes] == [CandidateError] * 2
    assert all("invalid literal" in str(one) for one in outcomes)


def test_the_kept_sample_is_the_one_load_task_draws(few, source):
    data = source()
    task = load_task(data, max_per_class=3, seed=5)
    rows = by_numpy(data)[3]
    for chunk in (2, 100):
        stats = run(few.candidate, data, keep=3, seed=5, chunk=chunk)
        assert stats.labels.tolist() == task.labels.tolist()
        close(stats.features.double(), np.stack([rows[row] for row in task.rows]))
    assert run(few.candidate, data).features is None


def test_statistics_of_another_checkpoint_are_refused(few, source, network):
    stats = run(few.candidate, source())
    other = resolve((Few([]), to_tensor), "other")
    with pytest.raises(ValueError, match="are of another checkpoint"):
        stats.check_matches(other)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=40),
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.sampled_from([0.0, 1.0, 1e6]),
    st.integers(0, 2**31),
)
@settings(max_examples=60)
def test_sums_do_not_depend_on_how_rows_are_cut_or_shared(labels, sizes, offset, seed):
    generator = torch.Generator().manual_seed(seed)
    features = (torch.randn(len(labels), 3, generator=generator) + offset).float()
    codes, parts, start = torch.tensor(labels), [ClassSums(), ClassSums()], 0
    while start < len(labels):
        size = sizes[start % len(sizes)]
        parts[start % 2].add(features[start : start + size], codes[start : start + size])
        start += size
    total = ClassSums()
    total.merge(parts[0], range(5))
    total.merge(parts[1], range(5))
    for code in range(len(total.counts)):
        members = features[codes == code].double().numpy()
        assert total.counts[code] == len(members)
        if len(members):
            np.testing.assert_allclose(total.means[code], members.mean(0), rtol=1e-12, atol=1e-13)
            exact = ((members - members.mean(0)) ** 2).sum(0)
            np.testing.assert_allclose(total.squares[code], exact, rtol=1e-12, atol=1e-12 * (1 + 1e-3 * offset))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 4), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=40)
def test_a_kept_sample_is_the_same_however_rows_come(labels, per_class, size, seed):
    codes, rows = torch.tensor(labels), torch.arange(len(labels))
    features = rows[:, None].float()
    halves = [KeptSample(per_class, seed), KeptSample(per_class, seed)]
    for start in range(0, len(labels), size):
        some = slice(start, start + size)
        halves[start // size % 2].add(features[some], codes[some], rows[some])
    halves[1].merge(halves[0], range(4))
    kept = halves[1].rows.sort().values.tolist()
    assert kept == draw_rows(np.array(labels), per_class, seed).tolist()
    assert sorted(halves[1].features[:, 0].tolist()) == kept


def everything(candidate, data, folder, **options):
    rows = options.pop("rows", None) or open_rows(data, labelled=options.pop("labelled", None))
    options = {"runtime": CPU, "team": ALONE, "progress": False, "chunk": 8} | options
    return source_features(candidate, rows, folder=folder, **options)


@pytest.mark.parametrize("kind", ["data set", "stream"])
def test_features_of_all_rows_are_written_in_row_order(few, source, tmp_path, kind):
    data = source(bad=[0, 9]).remove_columns("label")
    expected = by_numpy(data.add_column("label", [0] * N))[3]
    shown = data if kind == "data set" else data.to_iterable_dataset()
    found = everything(few.candidate, shown, tmp_path)
    assert found.rows().tolist() == list(expected)
    close(torch.cat(list(found.blocks())).double(), np.stack(list(expected.values())))
    assert torch.equal(torch.cat(list(found.blocks())), torch.cat(list(found.blocks())))
    assert found.provenance.n_unreadable == 2
    few.seen.clear()
    assert everything(few.candidate, shown, tmp_path, chunk=3) == found
    assert few.seen == []


@pytest.mark.parametrize("sizes", [(1, 2), (2, 1), (3, 2)])
def test_features_go_on_where_they_stopped_and_are_shared_out(few, source, tmp_path, sizes):
    data = source(bad=[20])
    whole = everything(few.candidate, data, tmp_path / "whole")
    assert len(whole.rows()) == N - 1  # whatever their label
    few.seen.clear()
    few.fail_after[0] = 20
    failures = on_threads(sizes[0], lambda team: everything(few.candidate, data, tmp_path, team=team, chunk=4))
    assert all(isinstance(one, CandidateError) for one in failures)
    few.fail_after[0] = 10**9
    few.seen.clear()
    shares = on_threads(sizes[1], lambda team: everything(few.candidate, data, tmp_path, team=team, chunk=5))
    assert sum(few.seen) < N - 12
    rows = torch.cat([share.rows() for share in shares])
    order = rows.argsort()
    assert torch.equal(rows[order], whole.rows())
    blocks = torch.cat([block for share in shares for block in share.blocks()])
    assert torch.equal(blocks[order], torch.cat(list(whole.blocks())))
    assert all(len(share.files) for share in shares)


def test_features_that_cannot_be_found_again_are_written_all_the_same(few, source, tmp_path):
    preprocess = dataclasses.replace(few.candidate.preprocess, cacheable=False)
    candidate = dataclasses.replace(few.candidate, preprocess=preprocess)
    first, second = (everything(candidate, source(), tmp_path) for _ in range(2))
    assert first.files[0].parent.name.startswith("once-")
    assert set(first.files).isdisjoint(second.files)
    with pytest.raises(ValueError, match="must have images that can be read, got 41 of 41"):
        everything(few.candidate, source(bad=range(N)), tmp_path)


SCRIPT = """
import os, sys, time
from pathlib import Path
import numpy as np
from hf_zoosel._torchvision import mend_torchvision
mend_torchvision()
import torch
from torch import nn
from datasets import Dataset, Image, ClassLabel, Features
from hf_zoosel.features import Runtime, Team, join_team
from hf_zoosel.features.statistics import source_statistics
from hf_zoosel.tasks.rows import open_rows
from hf_zoosel.zoo import SourceStats, resolve

torch.manual_seed(0)
folder, output = map(Path, sys.argv[1:])
images = np.random.default_rng(0).integers(0, 256, (60, 24, 24, 3), dtype=np.uint8)
columns = {"image": list(images), "label": [i % 4 for i in range(60)]}
dataset = Dataset.from_dict(columns, features=Features({"image": Image(), "label": ClassLabel(num_classes=4)}))
n_seen = 0

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 3)

    def forward(self, pixels):
        global n_seen
        time.sleep(float(os.environ.get("PATIENCE", "0")))
        n_seen += len(pixels)
        return self.head(pixels[:, :, ::6, ::6].flatten(1))

def to_tensor(image):
    return torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1) / 255

team = join_team("cpu")
runtime = Runtime(team.device, torch.float32, 2)
candidate = resolve((Slow(), to_tensor), "slow")
rows = open_rows(dataset)
options = {"runtime": runtime, "progress": False, "chunk": 6, "keep": 2}
stats = source_statistics(candidate, rows, team=team, folder=folder, **options)
(output / f"{team.rank}-of-{team.size}.txt").write_text(str(n_seen))
alone = source_statistics(candidate, rows, team=Team(0, 1, team.device), folder=None, **options)
for name in ("means", "variances", "features"):
    torch.testing.assert_close(getattr(stats, name), getattr(alone, name), rtol=1e-12, atol=1e-14)
assert stats.counts.tolist() == alone.counts.tolist() == [15] * 4
assert stats.labels.tolist() == alone.labels.tolist()
"""


def environment(**more):
    variables = {k: v for k, v in os.environ.items() if k not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
    return {**variables, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **more}


def call(command):
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_real_processes_give_what_one_gives(tmp_path):
    script = tmp_path / "statistics.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29621"]
    call([sys.executable, *launcher, str(script), str(tmp_path / "kept"), str(tmp_path)])
    assert [(tmp_path / f"{rank}-of-2.txt").read_text() for rank in range(2)] == ["30", "30"]
    assert [path.name for path in (tmp_path / "kept").rglob("*.safetensors")] == ["source_stats.safetensors"]


def test_a_pass_that_is_killed_goes_on_where_it_stopped_to_the_same_result(tmp_path):
    script, kept = tmp_path / "statistics.py", tmp_path / "kept"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(kept), str(tmp_path)]
    process = subprocess.Popen(command, env=environment(PATIENCE="0.2"), cwd=ROOT)
    deadline = time.monotonic() + 120
    while rows_kept(kept) < 18:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = rows_kept(kept)
    assert before < 60
    call(command)
    assert int((tmp_path / "0-of-1.txt").read_text()) == 60 - before
    assert [path.name for path in kept.rglob("*half-*")] == []


def rows_kept(folder):
    from safetensors import safe_open

    n = 0
    for path in folder.rglob("half-*.safetensors"):
        with safe_open(path, framework="pt") as file:
            n += sum(stop - start for start, stop in json.loads(file.metadata()["tally"])["spans"])
    return n
