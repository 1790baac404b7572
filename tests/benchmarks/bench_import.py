"""What importing costs: ``import hf_zoosel`` and ``hf-zoosel --help``, beside an empty interpreter.

python tests/benchmarks/bench_import.py
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import hf_zoosel": ["-c", "import hf_zoosel"],
    "hf-zoosel --help": ["-m", "hf_zoosel.cli", "--help"],
    "import hf_zoosel.api": ["-c", "import hf_zoosel.api"],
}


def seconds(arguments):
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


for name, arguments in COMMANDS.items():
    times = [seconds(arguments) for _ in range(7)]
    print(f"{name:24s} median {statistics.median(times):.3f} s  min {min(times):.3f} s  max {max(times):.3f} s")
