"""A Hub on the loopback interface: as much of the real protocol as models and data sets take.

    GET  /api/models/ID[/revision/REV]     commit and file names
    HEAD and GET  /ID/resolve/REV/PATH     a file; of a large one, under another host, where it is stored

and what ``uploads.py`` and ``data_sets.py`` list. Faults are given by file: ``hub.faults["org/name", "config.json"] =
Fault(403, "GatedRepo")``.
"""

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from tests.loopback_hub.data_sets import DataSets
from tests.loopback_hub.repository import LARGE, Fault as Fault, Hub, oid_of
from tests.loopback_hub.uploads import Uploads

_ID = r"([^/]+/[^/]+)"
_DATA_SET = r"(datasets/[^/]+/[^/]+)"
_ROUTES = {
    "GET": {
        rf"/api/models/{_ID}(?:/revision/(.+))?": "_info",
        rf"/{_ID}/resolve/([^/]+)/(.+)": "_file",
        rf"/api/{_DATA_SET}(?:/revision/(.+))?": "_info",
        rf"/api/{_DATA_SET}/tree/([^/]+)(?:/(.*))?": "tree",
        rf"/{_DATA_SET}/resolve/([^/]+)/(.+)": "_file",
    },
    "POST": {
        rf"/api/{_DATA_SET}/paths-info/([^/]+)": "paths_info",
        "/api/repos/create": "create",
        "/api/validate-yaml": "validate",
        rf"/api/models/{_ID}/branch/(.+)": "branch",
        rf"/api/models/{_ID}/preupload/(.+)": "preupload",
        rf"/api/models/{_ID}/commit/(.+)": "commit",
        rf"/{_ID}\.git/info/lfs/objects/batch": "batch",
        rf"/lfs/{_ID}/(\w{{64}})": "verify",
    },
    "PUT": {rf"/lfs/{_ID}/(\w{{64}})": "store"},
}


class _Handler(Uploads, DataSets, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        """Stay silent."""

    def do_GET(self):
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        for pattern, name in _ROUTES["GET" if self.command == "HEAD" else self.command].items():
            if match := re.fullmatch(pattern, path):
                return getattr(self, name)(*(part and unquote(part) for part in match.groups()))
        self.body()
        return self.refuse(Fault(404, "RepoNotFound"))

    do_HEAD = do_POST = do_PUT = do_GET

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data, size = b"", -1
        while size:
            size = int(self.rfile.readline(), 16)
            data += self.rfile.read(size)
            self.rfile.readline()
        return data

    def _info(self, repo_id, revision):
        commit = self.commit_at(repo_id, revision or "main", "")
        if commit is not None:
            siblings = [{"rfilename": name} for name in self.hub.repositories[repo_id].commits[commit]]
            self.answer({"id": repo_id.removeprefix("datasets/"), "sha": commit, "siblings": siblings})

    def _file(self, repo_id, revision, name):
        commit = self.commit_at(repo_id, revision, name)
        if commit is None:
            return
        data = self.hub.repositories[repo_id].commits[commit].get(name)
        if data is None:
            self.refuse(Fault(404, "EntryNotFound"))
            return
        etag = f'"{oid_of(name, data)}"'
        headers = {"X-Repo-Commit": commit, "ETag": etag}
        if name.endswith(LARGE) and urlsplit(self.path).query != "stored":
            stored = f"{self.hub.url.replace('127.0.0.1', 'localhost')}/{repo_id}/resolve/{commit}/{name}?stored"
            headers |= {"X-Linked-ETag": etag, "X-Linked-Size": str(len(data)), "Location": stored}
            self._send(b"", headers, 302)
        else:
            self._send_some(data, headers)

    def _send_some(self, data, headers):
        """The bytes of a file that are asked for: streams read Parquet files in parts."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self._send(data, headers)
        start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        return self._send(data[start : end + 1], headers | {"Content-Range": f"bytes {start}-{end}/{len(data)}"}, 206)

    def commit_at(self, repo_id, revision, name):
        """The commit asked for; None once a refusal has been sent."""
        repository = self.hub.repositories.get(repo_id)
        fault = self.hub.fault(repo_id, name)
        if repository is None:
            fault = Fault(401, "RepoNotFound")
        elif fault is None and repository.at(revision) is None:
            fault = Fault(404, "RevisionNotFound")
        if fault is not None:
            return self.refuse(fault)
        return repository.at(revision)

    def refuse(self, fault, message=""):
        headers = {"X-Error-Code": fault.code} if fault.code else {}
        if message or fault.code:
            headers["X-Error-Message"] = message or fault.code
        self._send(b"{}", headers, fault.status)

    def answer(self, content, status=200):
        self._send(json.dumps(content).encode(), {"Content-Type": "application/json"}, status)

    def _send(self, body, headers, status=200):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serve():
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
