import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hf_zoosel.tasks import load_task

ASK = """
import json, sys
from hf_zoosel.tasks import load_task
answers = []
for name in sys.argv[1:]:
    try:
        load_task(name)
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
