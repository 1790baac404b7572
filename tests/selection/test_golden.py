"""The authors' own class means and the classes they chose (METHODS B3)."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_zoosel.selection import Groups, select_groups

GOLDEN = Path(__file__).parents[2] / "../shared/reference/golden"


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.is_dir():
        pytest.skip(f"the authors' class means are not at hand ({GOLDEN.resolve()} absent)")
    means = np.load(GOLDEN / "uot_class_means.npz")
    picked = json.loads((GOLDEN / "uot_selected100.json").read_text())
    return means, picked, json.loads((GOLDEN / "imagenet_classes.json").read_text())


def groups_of(means, names=None):
    return Groups(
        torch.from_numpy(means), torch.ones(len(means), dtype=torch.int64), names or list(map(str, means[:, 0]))
    )


@pytest.mark.parametrize("target", ["cub", "dtd"])
def test_uot_picks_exactly_the_authors_classes(golden, target, capsys):
    means, picked, classes = golden
    found = select_groups(groups_of(means["imagenet"], classes["names"]), groups_of(means[target]), k=100)
    indices = {c.index for c in found.classes}
    n_birds = sum(classes["concepts"][i] == "bird" for i in indices)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{target}: {len(indices & set(picked[target]))} of the authors' 100, {n_birds} are birds\n"
        )
    assert indices == set(picked[target])
    assert found.details["converged"]
    assert found.notes == ()
