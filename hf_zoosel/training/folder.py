"""The folder of a call: whose it is, and whether the call has finished."""

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hf_zoosel.ranking.json_file import load, save
from hf_zoosel.training.export import WEIGHTS
from hf_zoosel.training.launch import write_on_main
from hf_zoosel.training.materials import Materials
from hf_zoosel.training.result import FILE
from hf_zoosel.training.run import Options

_CLAIM = "run.json"
_PATIENCE = 10.0  # seconds
_LOGS = "logs"  # of trackers, which may be there from a run that failed


def call_identity(materials: Materials, rates: Sequence[float], *, auto: bool, keep_source_head: bool) -> str:
    """Digest of all that decides what a call ends in."""
    text = json.dumps([materials.identity, list(rates), auto, *(["source head"] if keep_source_head else [])])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def claim(options: Options, materials: Materials, identity: str, choices: Mapping[str, Any]) -> bool:
    """Take a folder for a call, or find that the call has finished there.

    Args:
        options: Name the folder.
        materials: What the call works with.
        identity: Of the call.
        choices: Of the call, beside those of its recipe, to say in what another run differs.

    Returns:
        Whether its result lies there already.

    Raises:
        ValueError: If the folder holds another call's run, or other files, or not all processes see it.
        OSError: If it cannot be written to.
    """
    identities = options.team.gather(identity)
    if len(set(identities)) > 1:
        raise ValueError("`dataset` must hold the same rows on every process, got different ones. Do not shard it.")
    why_not: list[str | None] = []
    write_on_main(options.team, lambda: why_not.append(_take(options, identity, materials, choices)))
    failure = options.team.from_main(why_not[0] if why_not else None)
    if failure is not None:
        raise ValueError(failure)
    _check_shared(options)
    there = all((options.folder / name).is_file() for name in (FILE, WEIGHTS))
    finished = bool(options.team.from_main(there))
    if finished and options.team.is_main:
        shutil.rmtree(options.folder / "runs", ignore_errors=True)  # of a call that was killed while it did this
    return finished


def _check_shared(options: Options) -> None:
    """Every process reads the checkpoints that the main one writes; a network's disk may need a moment to show them.

    Raises:
        ValueError: If one does not see what the main one has written.
    """
    team = options.team
    if team.size == 1:
        return
    sign = options.folder / f".{team.from_main(uuid.uuid4().hex)}"
    write_on_main(team, sign.touch)
    until = time.monotonic() + _PATIENCE
    while not sign.is_file() and time.monotonic() < until:
        time.sleep(0.1)
    blind = [rank for rank, sees in enumerate(team.gather(sign.is_file())) if not sees]
    if team.is_main:
        sign.unlink(missing_ok=True)
    if blind:
        _release(options)
        raise ValueError(
            f"`output_dir` must be one folder for all processes, on a disk that their machines share, got "
            f"{options.folder}, which processes {blind} do not see. Name a folder on a shared disk."
        )


@contextmanager
def released_unless_trained(options: Options) -> Iterator[None]:
    """Give the folder back where an error comes before anything worth keeping: it is free for another try."""
    try:
        yield
    except BaseException:  # Ctrl-C too
        _release(options)
        raise


def _release(options: Options) -> None:
    folder = options.folder
    if options.team.is_main and not any(folder.rglob("*.safetensors")) and not (folder / FILE).is_file():
        shutil.rmtree(folder / "runs", ignore_errors=True)
        (folder / _CLAIM).unlink(missing_ok=True)


def _take(options: Options, identity: str, materials: Materials, choices: Mapping[str, Any]) -> str | None:
    """Write whose folder it is; or say why it cannot be taken."""
    folder, path = options.folder, options.folder / _CLAIM
    chosen = {**materials.recipe.to_dict(), **choices, "keep_source_head": options.keep_source_head}
    candidate = materials.candidate
    about = {"identity": identity, "model": candidate.name, "weights": candidate.body_revision or candidate.revision}
    now = json.loads(json.dumps({**about, "choices": chosen}))
    if folder.exists() and not folder.is_dir():
        return f"`output_dir` must be a folder, got the file {folder}. Choose another name."
    if path.is_file():
        owner = load(path, dict, "the description of a run")
        if owner.get("identity") == identity:
            return None
        return (
            f"`output_dir` must be empty or hold this run, got another one in {folder}{_difference(owner, now)}. "
            "Choose another folder, or remove that one."
        )
    if folder.is_dir() and any(one.name != _LOGS and not one.name.startswith(".") for one in folder.iterdir()):
        return f"`output_dir` must be empty or hold this run, got other files in {folder}. Choose another folder."
    save(now, path)
    return None


def _difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first choice in which two runs differ, in words."""
    if was.get("model") != now["model"]:
        return f" (of {was.get('model')})"
    before, after = was.get("choices") or {}, now["choices"]
    for name in {**after, **before}:
        if before.get(name) != after.get(name):
            return f" ({name} was {before.get(name)!r} and is {after.get(name)!r})"
    if was.get("weights", now["weights"]) != now["weights"]:
        return f" (of other weights of {now['model']}, as layers drawn at random are each time)"
    return " (of other data)"
