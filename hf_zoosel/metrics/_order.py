"""An order of the samples that depends on their content only: random choices must not see any other."""

import numpy as np
import torch
from torch import Tensor

_SIGNED = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def canonical_order(rows: Tensor) -> Tensor:
    """Return the permutation ``(n,)``, on the device of ``rows``, that sorts them by column 0, then 1 and so on.

    However the samples are shuffled, ``rows[canonical_order(rows)]`` is the same matrix to the last bit. No
    change of scale or of float type that keeps the values apart changes the order.
    """
    values = (rows.detach().cpu() + 0.0).contiguous()  # -0 and 0 are one value
    bits = values.view(_SIGNED[values.element_size()]).numpy()
    ordered = bits ^ ((bits >> (8 * bits.itemsize - 1)) & np.iinfo(bits.dtype).max)  # integers in the floats' order
    ordered ^= np.iinfo(bits.dtype).min  # and unsigned, so that bytes compare as they do
    big_endian = np.ascontiguousarray(ordered.astype(ordered.dtype.newbyteorder(">")))
    keys = big_endian.view(np.dtype((np.void, big_endian.itemsize * big_endian.shape[1]))).ravel()
    return torch.from_numpy(np.argsort(keys, kind="stable")).to(rows.device)
