"""What loading a data set takes besides its files: what lies in it, and of what kind each path is.

GET  /api/datasets/ID[/revision/REV]       commit and file names
GET  /api/datasets/ID/tree/REV[/PATH]      files and folders below a path
POST /api/datasets/ID/paths-info/REV       what certain paths are
HEAD and GET  /datasets/ID/resolve/REV/PATH    a file

A data set's repository is kept under ``datasets/ID``, as the Hub's own addresses have it.
"""

import json
from urllib.parse import parse_qs, urlsplit

from tests.loopback_hub.repository import oid_of


class DataSets:
    """Of a request handler with ``hub``, ``body``, ``answer``, ``commit_at``, ``headers`` and ``path``."""

    def tree(self, repo_id, revision, folder):
        entries = self._entries(repo_id, revision)
        if entries is None:
            return
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
        start = f"{folder}/" if folder else ""
        below = [one for path, one in entries.items() if path.startswith(start) and path != folder]
        self.answer([one for one in below if recursive or "/" not in one["path"].removeprefix(start)])

    def paths_info(self, repo_id, revision):
        asked = self.body()
        entries = self._entries(repo_id, revision)
        if entries is not None:
            is_json = "json" in self.headers.get("Content-Type", "")
            paths = json.loads(asked)["paths"] if is_json else parse_qs(asked.decode())["paths"]
            self.answer([entries[path] for path in paths if path in entries])

    def _entries(self, repo_id, revision):
        """Path -> what the Hub says of it; None once a refusal has been sent."""
        commit = self.commit_at(repo_id, revision, "")
        if commit is None:
            return None
        entries = {}
        for path, data in self.hub.repositories[repo_id].commits[commit].items():
            for at in (i for i, letter in enumerate(path) if letter == "/"):
                entries[path[:at]] = {"type": "directory", "path": path[:at], "oid": "0" * 40, "size": 0}
            entries[path] = {"type": "file", "path": path, "oid": oid_of(path, data), "size": len(data)}
        return entries
