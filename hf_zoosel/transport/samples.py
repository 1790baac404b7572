"""Transport from single source samples, streamed: the memory of the target and one block, however many samples."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_zoosel.transport._checks import check_features, check_matrix, check_weights
from hf_zoosel.transport._scaling import FixedPoint, Scaling, solve_scaling
from hf_zoosel.transport.cost import has_lengths, normalised

Blocks = Callable[[], Iterable[Tensor]]
Reduce = Callable[[Tensor], Tensor]

_PIECE_ELEMENTS = 2**21  # 16 MB in float64
_LEAST_SUM = 1e-280  # below, a sum of exponentials may have lost terms to underflow
_LEAST_MASS = 1e-9  # of the mass wanted


@dataclass(frozen=True)
class SampleMass:
    """How much each source sample of this process gives.

    Attributes:
        mass: Mass of each sample in the order of the blocks, shape ``(n_local,)`` float64, on the CPU.
        nearest: Index of the nearest target row of each, shape ``(n_local,)`` int64, on the CPU.
        target: Mass that each target row receives from the samples of all processes, shape ``(m,)`` float64.
        log_scaling: Logarithm of the target's scalings v, shape ``(m,)`` float64: a sample's mass goes to the target
            rows in proportion to v exp(-cost / reg).
        n_iterations: Passes over the blocks.
        converged: Whether the tolerance was met.
        gap: Largest change that one more iteration makes to the logarithm of a target's scaling.
    """

    mass: Tensor
    nearest: Tensor
    target: Tensor
    log_scaling: Tensor
    n_iterations: int
    converged: bool
    gap: float


def unbalanced_mass(
    blocks: Blocks,
    target: Tensor,
    b: Tensor,
    *,
    scale: float = 0.1,
    reg: float = 1.0,
    reg_source: float = 1.0,
    reg_target: float = 100.0,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
    reduce: Reduce | None = None,
) -> SampleMass:
    """Row sums of ``unbalanced_plan`` for the cosine cost over ``scale``, without the plan.

    Each iteration is one pass over the blocks that carries m numbers, the logarithms of the target's scalings. The
    iterations are extrapolated: some 4 to 12 passes instead of the 20 to 30 of plain ones at the default options.
    Every sample has a mass of 1 to offer.

    Args:
        blocks: Called once per iteration; yields this process's source samples, each time the same in the same order,
            in blocks ``(any, d)`` of any float type. A process may have none.
        target: Features of target classes, clusters or samples, shape ``(m, d)``; the computation takes place on its
            device.
        b: Mass wanted by each target row, shape ``(m,)``, positive; ones as at the level of classes.
        scale: What the cosine distance is divided by, above 0.
        reg: Entropic regularisation in the unit of the scaled cost, above 0.
        reg_source: Price of leaving a mass of 1 per sample, at least 0.
        reg_target: Price of leaving ``b``, at least 0; infinite for an exact marginal.
        max_iterations: Most passes.
        tolerance: Largest change of the logarithm of a scaling in an iteration at which to stop. The solution's are
            then within ``tolerance`` (1 + ``reg_source`` / ``reg``) of those found.
        reduce: Called once per iteration with a float64 vector ``(m,)`` of this process; must return, in every
            process, the logarithm of the sum over processes of the vectors' exponentials. With ``accelerate``:
            ``lambda x: accelerator.gather(x[None]).logsumexp(dim=0)``. One process needs none.

    Returns:
        Masses and nearest targets of this process's samples. Where the iterations have not converged, ``converged``
        is false and a warning says so.

    Raises:
        ValueError: If a row is not finite or has no length, shapes or the blocks of two passes disagree, there is no
            sample at all, ``b`` or an option is out of range, both marginals are to be exact, or the samples give
            next to nothing of what is wanted.
        TypeError: If an argument is not a float tensor.

    Warns:
        UserWarning: If the iterations end before the tolerance is met.

    Reference:
        Liu et al. 2022, https://arxiv.org/abs/2111.12292, applied to samples; iterations of Chizat et al. 2018,
        https://arxiv.org/abs/1607.05816, on the target's scalings alone, with Anderson's extrapolation (ours).

    Example:
        >>> import torch
        >>> samples, target = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]]), torch.tensor([[2.0, 0.0]])
        >>> found = unbalanced_mass(lambda: samples.split(2), target, torch.ones(1))
        >>> [round(mass, 4) for mass in found.mass.tolist()]
        [0.883, 0.1195, 0.0]
    """
    scaling = Scaling(reg, reg_source, reg_target, max_iterations, tolerance)
    if scaling.contraction == 1:
        raise ValueError(
            "`reg_source` or `reg_target` must be finite, got infinity for both. With exact marginals on both sides "
            "every sample would have the same mass."
        )
    target = check_features(target, "target")
    if not 0 < scale < float("inf"):
        raise ValueError(f"`scale` must be finite and above 0, got {scale}.")
    b = check_weights(b, "b", target)
    stream = _Stream(
        blocks, normalised(target, "target").T / (scale * reg), 1 / (scale * reg), scaling.source_power, reduce
    )
    found = solve_scaling(
        lambda log_v: scaling.target_power * (b.log() - stream.log_sums(log_v)), torch.zeros_like(b), scaling
    )
    if not found.converged:
        warnings.warn(
            f"Unbalanced transport did not converge in {max_iterations} passes: the scalings still change by "
            f"{found.gap:.2g}. Raise `max_iterations`, `reg` or `scale`.",
            stacklevel=2,
        )
    return stream.result(found, b)


def semi_relaxed_mass(
    blocks: Blocks,
    target: Tensor,
    b: Tensor,
    *,
    scale: float = 0.1,
    reg: float = 1.0,
    reduce: Reduce | None = None,
) -> SampleMass:
    """Row sums of ``semi_relaxed_plan`` for the cosine cost over ``scale``, without the plan, in two passes.

    Args:
        blocks: As in ``unbalanced_mass``.
        target: As in ``unbalanced_mass``.
        b: Mass given to each target row, shape ``(m,)``, positive.
        scale: What the cosine distance is divided by, above 0.
        reg: Entropic regularisation in the unit of the scaled cost, above 0.
        reduce: As in ``unbalanced_mass``; called twice.

    Returns:
        Masses, which sum to ``b.sum()`` over all processes, and nearest targets of this process's samples.

    Raises:
        ValueError: As ``unbalanced_mass``.
        TypeError: If an argument is not a float tensor.

    Example:
        >>> import torch
        >>> samples, target = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]]), torch.tensor([[2.0, 0.0]])
        >>> [round(mass, 4) for mass in semi_relaxed_mass(lambda: [samples], target, torch.ones(1)).mass.tolist()]
        [0.982, 0.018, 0.0]
    """
    return unbalanced_mass(
        blocks, target, b, scale=scale, reg=reg, reg_source=0.0, reg_target=float("inf"), reduce=reduce
    )


class _Stream:
    """Passes over the samples x, whose log kernel is x . directions / |x| - offset, and what the last one found."""

    def __init__(self, blocks: Blocks, directions: Tensor, offset: float, power: float, reduce: Reduce | None) -> None:
        self.blocks, self.directions, self.offset, self.power = blocks, directions, offset, power
        self.reduce = reduce or (lambda log_sums: log_sums)
        self.log_received = directions.new_zeros(0)  # (m,)  log K^T u of all processes
        self.masses, self.nearest = bytearray(), bytearray()  # small tensors kept between large ones scatter the heap
        rows = max(1, _PIECE_ELEMENTS // max(directions.shape))
        self.x = directions.new_empty(rows, directions.shape[0])
        self.similarity, self.weighted = (directions.new_empty(rows, directions.shape[1]) for _ in range(2))

    def log_sums(self, log_v: Tensor) -> Tensor:
        """Return log K^T u ``(m,)`` over all processes, for u = (1 / K v)^power: one pass over the blocks."""
        log_sums, masses, first = torch.full_like(log_v, -torch.inf), bytearray(), not self.masses
        for similarity, inverse_length in self._pieces():
            if first:
                self.nearest += similarity.argmax(dim=1).cpu().numpy().tobytes()
            log_kv, of_piece = self._of_piece(similarity, inverse_length, log_v)
            masses += log_kv.mul_(1 - self.power).exp_().cpu().numpy().tobytes()  # u K v
            log_sums = torch.logaddexp(log_sums, of_piece)
        if not first and len(masses) != len(self.masses):
            raise ValueError(
                f"`blocks` must yield the same samples at each call, got {len(masses) // 8} after "
                f"{len(self.masses) // 8}. Return a new iterator over all of them each time."
            )
        self.masses, self.log_received = masses, self.reduce(log_sums)
        if not self.log_received.isfinite().all():
            raise ValueError("`blocks` must yield at least one sample in some process, got none.")
        return self.log_received

    def _pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield similarities ``(p, m)`` and what to multiply them by ``(p, 1)``, to be read before the next ones."""
        for block in self.blocks():
            check_matrix(block, "blocks", like=self.directions.T)
            for piece in block.detach().split(len(self.x)) if len(block) else ():
                x = self.x[: len(piece)].copy_(piece)
                length = x.norm(dim=1, keepdim=True)
                if not has_lengths(length):
                    x = normalised(check_features(x, "blocks"), "blocks")
                    length = torch.ones_like(length)
                yield torch.mm(x, self.directions, out=self.similarity[: len(x)]), 1 / length

    def _of_piece(self, similarity: Tensor, inverse_length: Tensor, log_v: Tensor) -> tuple[Tensor, Tensor]:
        """Return log Kv of each sample ``(p,)`` and their log K^T u for each target ``(m,)``."""
        weighted = torch.addcmul(log_v, similarity, inverse_length, out=self.weighted[: len(similarity)])
        top = weighted.amax(dim=1, keepdim=True)
        weighted.sub_(top).exp_()
        top = top[:, 0] - self.offset
        log_kv = weighted.sum(dim=1).log_().add_(top)
        log_weights = top - self.power * log_kv
        highest = log_weights.max()
        sums = weighted.T @ (log_weights - highest).exp_()  # one exponential per entry serves both marginals
        log_sums = sums.log() + highest - log_v
        lost = sums < _LEAST_SUM
        if lost.any():
            log_kernel = similarity[:, lost] * inverse_length - self.offset
            log_sums[lost] = (log_kernel - self.power * log_kv[:, None]).logsumexp(dim=0)
        return log_kv, log_sums

    def result(self, found: FixedPoint, b: Tensor) -> SampleMass:
        """Return what the last pass found, once known to carry mass."""
        target = (found.log_v + self.log_received).exp()
        if not target.sum() > _LEAST_MASS * b.sum():
            raise ValueError(
                f"`reg_target` must be large enough for the samples to give mass, got mass {target.sum():.3g} of "
                f"{b.sum():.3g} wanted. Raise `reg_target` or `scale`."
            )
        mass, nearest = (
            torch.frombuffer(found_there, dtype=dtype) if found_there else torch.zeros(0, dtype=dtype)
            for found_there, dtype in ((self.masses, torch.float64), (self.nearest, torch.int64))
        )
        return SampleMass(mass, nearest, target, found.log_v, found.n_iterations, found.converged, found.gap)
