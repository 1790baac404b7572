"""Resolves and loads the models named on the command line, and prints what came of each as JSON."""

import json
import sys
import time

import torch

from hf_zoosel.zoo import CandidateError, resolve

torch.set_num_threads(1)


def look(spec):
    started = time.perf_counter()
    try:
        candidate = resolve(spec, "it")
        output = candidate.load()(torch.zeros(1, 3, 64, 64))
    except CandidateError as error:
        return {"reason": str(error), "seconds": time.perf_counter() - started}
    return {"revision": candidate.revision, "n_features": output.features.shape[1]}


if __name__ == "__main__":
    print(json.dumps({spec: look(spec) for spec in sys.argv[1:]}))  # noqa: T201
