import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hf_zoosel.tasks import load_task
from tests.loopback_hub.repository import Repository
from tests.loopback_hub.server import serve

ASK = """
import json, sys
from datasets import load_dataset
from hf_zoosel.tasks import load_task
answers = []
for name in sys.argv[1:]:
    streamed = name.startswith("stream of ")
    try:
        dataset = load_dataset(name.removeprefix("stream of "), streaming=True) if streamed else name
        answers.append(len(load_task(dataset).labels))
    except ValueError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


class HubOfRefusals(BaseHTTPRequestHandler):
    """Answers as the Hub does for a gated data set, and for one that does not exist."""

    def do_GET(self):
        gated = "locked" in self.path
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_POST = do_GET

    def log_message(self, *args):
        pass


def answers(tmp_path, *names, **environment):
    """Ask in a fresh process: the address of the Hub is read at import."""
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    asked = subprocess.run(
        [sys.executable, "-c", ASK, *names], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(asked.stdout)


def test_data_sets_that_do_not_exist_or_are_gated_are_refused_with_the_remedy(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubOfRefusals)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        missing, gated = answers(
            tmp_path,
            "org/gated-or-missing",
            "org/locked",
            HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
            HF_HUB_OFFLINE="0",
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert missing.startswith(
        "`dataset` 'org/gated-or-missing' does not exist on the Hub, or is private. Check the spelling"
    )
    assert gated == "`dataset` 'org/locked' is gated. Accept its terms on its page, then log in with `hf auth login`."


def test_offline_is_told_from_missing(tmp_path):
    (answer,) = answers(tmp_path, "org/any", HF_HUB_OFFLINE="1")
    assert answer.startswith("`dataset` 'org/any' cannot be reached and is not in the cache")


@pytest.mark.parametrize("name", ["two words", "org/na?me", "", "imagefolder"])
def test_what_is_neither_path_nor_id_is_refused(name):
    with pytest.raises(ValueError, match=r"`dataset` must be"):
        load_task(name)


CONFIGS = b"""---
configs:
- config_name: small
  data_files: small/*
- config_name: large
  data_files: large/*
---
"""


@pytest.fixture
def hub(toy, tmp_path):
    """Cells in one configuration and two commits, leaves in two configurations, and tools with a test split alone."""

    def parquet(n):
        toy(["a", "b"] * (n // 2)).to_parquet(tmp_path / "rows.parquet")
        return (tmp_path / "rows.parquet").read_bytes()

    with serve() as hub:
        cells, leaves, tools = (hub.repositories.setdefault(f"datasets/org/{name}", Repository()) for name in NAMES)
        cells.commit({"data/train-00000-of-00001.parquet": parquet(4)}, branch="refs/pr/1")
        cells.branches["v1"] = cells.branches["refs/pr/1"]
        cells.commit({"data/train-00000-of-00001.parquet": parquet(6)})
        leaves.commit({"README.md": CONFIGS, "small/train.parquet": parquet(2), "large/train.parquet": parquet(8)})
        tools.commit({"data/test.parquet": parquet(2)})
        yield hub


NAMES = ("cells", "leaves", "tools")


def test_an_id_names_a_configuration_and_a_revision(hub, tmp_path):
    old = hub.repositories["datasets/org/cells"].branches["v1"]
    ids = ["org/cells", "org/cells@v1", "org/cells@refs/pr/1", f"org/cells@{old}", "org/leaves:small"]
    online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    assert answers(tmp_path, *ids, "org/leaves:large@main", "stream of org/cells", **online) == [6, 4, 4, 4, 2, 8, 6]

    config, other, revision, split = answers(
        tmp_path, "org/leaves", "org/leaves:huge", "org/cells@v2", "org/tools", **online
    )
    assert config.startswith("`dataset` 'org/leaves' must be named with one of its configurations, org/leaves:NAME.")
    assert "'small', 'large'" in config
    assert "org/leaves:NAME" in other
    assert revision == "`dataset` 'org/cells@v2' has no revision 'v2'. Name a branch, a tag or a commit of it."
    assert split.startswith("`dataset` 'org/tools' lacks the split")
