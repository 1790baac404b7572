"""A Hub on the loopback interface: as much of the real protocol as resolving and downloading a model takes.

    GET  /api/models/ID[/revision/REV]     commit and file names
    HEAD and GET  /ID/resolve/REV/PATH     a file

Faults are given by file: ``hub.faults["org/name", "config.json"] = Fault(403, "GatedRepo")``; the path ``""``
stands for the API.
"""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Fault:
    status: int
    code: str = ""


@dataclass
class Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files, branch="main"):
        content = b"".join(name.encode() + data for name, data in sorted(files.items()))
        sha = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha

    def at(self, revision):
        return self.branches.get(revision, revision if revision in self.commits else None)


@dataclass
class Hub:
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def push(self, repo_id, folder, branch="main"):
        """Commit a folder's files; returns the commit."""
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return self.repositories.setdefault(repo_id, Repository()).commit(files, branch)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        """Stay silent."""

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*match.groups())
        else:
            self._refuse(Fault(404, "RepoNotFound"))

    do_HEAD = do_GET

    def _info(self, repo_id, revision):
        commit = self._commit(repo_id, revision, "")
        if commit is not None:
            siblings = [{"rfilename": name} for name in self.hub.repositories[repo_id].commits[commit]]
            self._send(json.dumps({"id": repo_id, "sha": commit, "siblings": siblings}).encode(), {})

    def _file(self, repo_id, revision, name):
        commit = self._commit(repo_id, revision, name)
        if commit is None:
            return
        data = self.hub.repositories[repo_id].commits[commit].get(name)
        if data is None:
            self._refuse(Fault(404, "EntryNotFound"))
        else:
            etag = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            self._send(data, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})

    def _commit(self, repo_id, revision, name):
        """The commit asked for; None once a refusal has been sent."""
        repository = self.hub.repositories.get(repo_id)
        fault = self.hub.faults.get((repo_id, name))
        if repository is None:
            fault = Fault(401, "RepoNotFound")
        elif fault is None and repository.at(revision) is None:
            fault = Fault(404, "RevisionNotFound")
        if fault is not None:
            return self._refuse(fault)
        return repository.at(revision)

    def _refuse(self, fault):
        headers = {"X-Error-Code": fault.code, "X-Error-Message": fault.code} if fault.code else {}
        self._send(b"{}", headers, fault.status)

    def _send(self, body, headers, status=200):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
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
