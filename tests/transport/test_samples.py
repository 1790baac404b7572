import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.transport import cosine_cost, samples, semi_relaxed_mass, semi_relaxed_plan, unbalanced_mass
from tests.transport.test_unbalanced import by_pot


def problem(n, m, d, seed=0):
    """Source samples in clusters, some of them the target's; b."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(m + 2, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
    source = 2 * centres[torch.randint(m + 2, (n,), generator=generator)] + noise
    return source, centres[:m].clone(), 0.5 + torch.rand(m, generator=generator, dtype=torch.float64)


def shared_over(pieces, solve):
    """``solve(blocks, reduce)`` of each piece in a thread of its own, as processes that reduce one vector."""
    turn, given_to_all, results = threading.Barrier(len(pieces)), [None] * len(pieces), [None] * len(pieces)

    def process(rank):
        def reduce(log_sums):
            given_to_all[rank] = log_sums
            turn.wait(timeout=60)
            total = torch.stack(given_to_all).logsumexp(dim=0)
            turn.wait(timeout=60)
            return total

        results[rank] = solve(lambda: iter(pieces[rank]), reduce)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(len(pieces))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


sizes = (st.integers(1, 40), st.integers(1, 8), st.integers(2, 20), st.integers(0, 999))


@settings(max_examples=30)
@given(
    *sizes,
    st.sampled_from([0.05, 0.1, 1.0]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([1.0, 100.0]),
    st.integers(1, 40),
)
def test_equals_pot_run_to_the_end_whatever_the_size_of_a_block(n, m, d, seed, scale, reg_source, reg_target, size):
    source, target, b = problem(n, m, d, seed)
    cost = cosine_cost(source, target) / scale
    options = {"reg": 1.0, "reg_source": reg_source, "reg_target": reg_target}
    expected = by_pot(cost, torch.ones(n), b, **options)
    found = unbalanced_mass(lambda: source.split(size), target, b, scale=scale, **options, tolerance=1e-11)
    assert found.converged
    assert found.mass.numpy() == pytest.approx(expected.sum(axis=1), rel=1e-8, abs=1e-12)
    assert found.target.numpy() == pytest.approx(expected.sum(axis=0), rel=1e-8, abs=1e-12)
    assert found.nearest.tolist() == cost.argmin(dim=1).tolist()


@settings(max_examples=20)
@given(*sizes, st.sampled_from([0.02, 0.1, 1.0]), st.sampled_from([0.5, 1.0]))
def test_the_semi_relaxed_form_equals_its_plan_in_two_passes(n, m, d, seed, scale, reg):
    source, target, b = problem(n, m, d, seed)
    found = semi_relaxed_mass(lambda: source.split(7), target, b, scale=scale, reg=reg)
    plan = semi_relaxed_plan(cosine_cost(source, target) / scale, b, reg=reg)
    assert found.n_iterations == 2
    assert found.mass.numpy() == pytest.approx(plan.source.numpy(), rel=1e-9, abs=1e-300)
    assert found.target.numpy() == pytest.approx(b.numpy(), rel=1e-9)


@settings(max_examples=10)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 999), st.integers(0, 40))
def test_two_processes_find_what_one_finds(n, m, seed, cut):
    """A process may have no sample at all."""
    source, target, b = problem(n, m, 5, seed)
    cut = min(cut, n)
    whole = unbalanced_mass(lambda: [source], target, b, tolerance=1e-10)
    pieces = [source[:cut].split(3) if cut else [], source[cut:].split(4) if cut < n else []]
    parts = shared_over(
        pieces, lambda blocks, reduce: unbalanced_mass(blocks, target, b, tolerance=1e-10, reduce=reduce)
    )
    assert torch.cat([part.mass for part in parts]).numpy() == pytest.approx(whole.mass.numpy(), rel=1e-8)
    assert torch.cat([part.nearest for part in parts]).equal(whole.nearest)
    assert torch.equal(parts[0].target, parts[1].target)
    assert parts[0].n_iterations == parts[1].n_iterations


def test_one_vector_of_the_targets_is_reduced_in_each_pass():
    source, target, b = problem(30, 4, 5)
    reduced, passes = [], []

    def blocks():
        passes.append(1)
        return source.split(8)

    def reduce(log_sums):
        reduced.append(log_sums.shape)
        return log_sums

    found = unbalanced_mass(blocks, target, b, reduce=reduce)
    assert reduced == [(4,)] * found.n_iterations
    assert len(passes) == found.n_iterations <= 15


def test_large_blocks_are_cut_without_a_difference(monkeypatch):
    source, target, b = problem(200, 4, 5)
    whole = unbalanced_mass(lambda: [source], target, b)
    monkeypatch.setattr(samples, "_PIECE_ELEMENTS", 50)
    assert unbalanced_mass(lambda: [source], target, b).mass.numpy() == pytest.approx(whole.mass.numpy(), rel=1e-10)


@settings(max_examples=10)
@given(*sizes)
def test_order_of_samples_and_targets_only_permutes_the_masses(n, m, d, seed):
    source, target, b = problem(n, m, d, seed)
    generator = torch.Generator().manual_seed(seed)
    i, j = torch.randperm(n, generator=generator), torch.randperm(m, generator=generator)
    found = unbalanced_mass(lambda: [source], target, b, tolerance=1e-10)
    other = unbalanced_mass(lambda: [source[i]], target[j], b[j], tolerance=1e-10)
    assert other.mass.numpy() == pytest.approx(found.mass[i].numpy(), rel=1e-8)
    assert j[other.nearest].tolist() == found.nearest[i].tolist()


@pytest.mark.parametrize("scale", [1e-160, 1e-3, 1e160])
def test_the_length_of_samples_does_not_matter(scale):
    source, target, b = problem(20, 3, 5)
    lengths = scale * torch.linspace(1, 4, 20, dtype=torch.float64)[:, None]
    scaled = unbalanced_mass(lambda: (lengths * source).split(6), 7 * target, b)
    assert scaled.mass.numpy() == pytest.approx(unbalanced_mass(lambda: [source], target, b).mass.numpy(), rel=1e-9)


def test_a_far_cluster_gets_no_mass_even_where_its_kernel_underflows():
    source, target, b = problem(20, 3, 5)
    away = -target.mean(dim=0) + 0.01 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).double()
    found = unbalanced_mass(lambda: [torch.cat([source, away])], target, b, scale=0.005, reg_source=0.1)
    alone = unbalanced_mass(lambda: [source], target, b, scale=0.005, reg_source=0.1)
    assert found.mass[20:].max() < 1e-6
    assert found.mass[:20].numpy() == pytest.approx(alone.mass.numpy(), rel=1e-4)


def test_a_target_that_no_sample_is_near_to_is_served_by_the_least_far():
    """In float64 its column of exponentials is zero relative to each row's largest."""
    source = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]], dtype=torch.float64)
    target = torch.tensor([[1.0, 0.0], [-1.0, 0.3]], dtype=torch.float64)
    found = semi_relaxed_mass(lambda: [source], target, torch.ones(2), scale=0.001)
    assert found.target.tolist() == pytest.approx([1, 1])
    assert found.mass.numpy() == pytest.approx(
        semi_relaxed_plan(cosine_cost(source, target) / 0.001, torch.ones(2)).source.numpy(), rel=1e-9
    )


def test_a_planted_cluster_is_found_among_the_samples():
    generator = torch.Generator().manual_seed(0)
    centres = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q
    which = torch.arange(400) % 16
    source = 4 * centres[which] + 0.3 * torch.randn(400, 16, generator=generator)
    found = unbalanced_mass(lambda: source.split(64), centres[[3, 11]], torch.ones(2), scale=0.05)
    chosen = found.mass.topk(50).indices
    assert set(which[chosen].tolist()) == {3, 11}
    assert found.nearest[which == 3].tolist() == [0] * 25


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_blocks_of_lower_precision_are_summed_in_float64(dtype):
    source, target, b = problem(30, 4, 6)
    found = unbalanced_mass(lambda: source.to(dtype).split(8), target, b)
    expected = unbalanced_mass(lambda: [source.to(dtype).double()], target, b)
    assert found.mass.dtype == torch.float64
    assert found.mass.numpy() == pytest.approx(expected.mass.numpy(), rel=1e-10)


def test_ending_early_is_a_field_and_a_warning():
    source, target, b = problem(30, 4, 6)
    with pytest.warns(UserWarning, match=r"did not converge in 2 passes.*Raise `max_iterations`"):
        found = unbalanced_mass(lambda: [source], target, b, max_iterations=2)
    assert not found.converged
    assert len(found.mass) == 30


def test_a_stream_that_can_be_read_once_only_is_refused():
    source, target, b = problem(30, 4, 6)
    once = iter(source.split(8))
    with pytest.raises(ValueError, match=r"`blocks` must yield the same samples at each call, got 0 after 30"):
        unbalanced_mass(lambda: once, target, b)


def test_empty_blocks_are_of_no_account_and_blocks_that_are_none_are_refused():
    source, target, b = problem(30, 4, 6)
    found = unbalanced_mass(lambda: [source[:0], source, source[:0]], target, b)
    assert torch.equal(found.mass, unbalanced_mass(lambda: [source], target, b).mass)
    with pytest.raises(ValueError, match=r"`blocks` must be 2-D \(rows, n_features\), got shape \(6,\)"):
        unbalanced_mass(lambda: source, target, b)
    with pytest.raises(TypeError, match=r"`blocks` must be a floating-point torch tensor, got ndarray"):
        unbalanced_mass(lambda: [source.numpy()], target, b)


def test_an_error_of_the_stream_half_way_is_passed_on():
    source, target, b = problem(30, 4, 6)

    def blocks():
        yield source[:10]
        raise OSError("shard 2 is broken")

    with pytest.raises(OSError, match="shard 2"):
        unbalanced_mass(blocks, target, b)


def test_targets_that_no_price_can_reach_are_refused():
    source = torch.tensor([[1.0, 0.0]])
    with pytest.raises(ValueError, match=r"`reg_target` must be large enough.*Raise `reg_target` or `scale`"):
        unbalanced_mass(lambda: [source], -source, torch.ones(1), scale=0.01, reg_target=1.0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[3, 0].fill_(np.nan), "`blocks` must be finite, got 1 of 30 rows"),
        (lambda x: x[3].fill_(np.inf), "`blocks` must be finite, got 1 of 30 rows"),
        (lambda x: x[3].zero_(), "`blocks` must have rows that are not all zero, got 1 of 30 without length"),
    ],
)
def test_bad_samples_are_refused(spoil, message):
    source, target, b = problem(30, 4, 6)
    spoil(source)
    with pytest.raises(ValueError, match=message):
        unbalanced_mass(lambda: [source], target, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 0.0}, "`scale` must be finite and above 0"),
        ({"reg": -1.0}, "`reg` must be finite and greater than 0"),
        ({"reg_source": float("inf"), "reg_target": float("inf")}, "`reg_source` or `reg_target` must be finite"),
        ({"b": torch.ones(3)}, r"`b` must have shape \(4,\), one weight per target, got \(3,\)"),
        ({"b": torch.zeros(4)}, "`b` must be positive"),
        ({"target": torch.ones(4, 5)}, "`blocks` must have 5 columns as `target` has, got 6"),
        ({"target": torch.zeros(4, 6)}, "`target` must have rows that are not all zero"),
        ({"blocks": list}, "`blocks` must yield at least one sample in some process, got none"),
    ],
)
def test_bad_input_is_refused(change, message):
    source, target, b = problem(30, 4, 6)
    with pytest.raises(ValueError, match=message):
        unbalanced_mass(**({"blocks": lambda: [source], "target": target, "b": b} | change))
