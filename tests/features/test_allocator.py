import subprocess
import sys

import pytest

ALLOCATE_AND_FREE = """
import resource, sys, torch
from hf_zoosel.features.allocator import freed_memory_kept

def faults_per_round():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        pieces = [torch.ones(5_000_000) for _ in range(6)]  # six of 20 MB, freed again like activations
        del pieces
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20

plain = faults_per_round()
with freed_memory_kept():
    faults_per_round()
    kept = faults_per_round()
print(plain, kept)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_not_faulted_in_again():
    done = subprocess.run([sys.executable, "-c", ALLOCATE_AND_FREE], capture_output=True, text=True, check=True)
    plain, kept = map(float, done.stdout.split())
    assert plain > 1000
    assert kept < plain / 20
