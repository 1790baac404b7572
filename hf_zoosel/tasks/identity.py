"""What a stream is, as far as can be told without reading it; and a digest of some rows."""

import hashlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_zoosel.tasks.storage import Images

if TYPE_CHECKING:
    from datasets import IterableDataset

logger = logging.getLogger(__name__)


def stream_identity(stream: "IterableDataset") -> str | None:
    """Digest of what a stream reads and does to it: files or generator, mapped functions, shuffling, epoch.

    Returns:
        The same in every process for streams made alike; None where a part of it cannot be pickled.
    """
    from datasets.fingerprint import Hasher

    try:
        source = _without_position(stream._ex_iterable)  # what datasets itself pickles; there is no public name
        return str(Hasher.hash([source, str(stream.features), stream.epoch, repr(stream._distributed)]))
    except Exception as error:  # dill fails in as many ways as there are objects
        logger.debug("%r cannot be pickled: %s", stream, error)
        return None


def content_identity(images: Images, labels: Sequence[object]) -> str:
    """Digest of some images, as they are encoded, and of their labels."""
    hasher = hashlib.blake2b(repr(list(labels)).encode(), digest_size=16)
    for image in images.encoded(range(len(images))):
        hasher.update(image.digest)
    return hasher.hexdigest()


def _without_position(part: Any) -> Any:
    """A stage of a stream and those it reads from, less how far they have been read."""
    if isinstance(part, list | tuple):
        return [_without_position(one) for one in part]
    if not hasattr(part, "_init_state_dict"):
        return part
    return type(part).__qualname__, {k: _without_position(v) for k, v in vars(part).items() if k != "_state_dict"}
