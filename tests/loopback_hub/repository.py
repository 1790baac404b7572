"""What the Hub on the loopback holds: repositories, large files, and the faults it was told to have."""

import hashlib
import threading
from dataclasses import dataclass, field

LARGE = (".safetensors",)  # kept beside the repository, as git-lfs does


@dataclass
class Fault:
    """An answer in the place of the right one, ``times`` times or always."""

    status: int
    code: str = ""
    times: int | None = None


@dataclass
class Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    private: bool = False
    objects: dict[str, bytes] = field(default_factory=dict)  # large files by SHA-256

    def commit(self, files, branch="main", message=""):
        """Make these files a branch's newest commit."""
        content = b"".join(name.encode() + data for name, data in sorted(files.items()))
        sha = hashlib.sha1(content + str(len(self.commits)).encode(), usedforsecurity=False).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        self.messages.append(message)
        return sha

    def at(self, revision):
        return self.branches.get(revision, revision if revision in self.commits else None)

    def files(self, revision="main"):
        return self.commits[self.at(revision)]


@dataclass
class Hub:
    """Faults are by repository and file; the path ``""`` stands for the API, ``"@lfs"`` for uploads of large files and
    ``"@commit"`` for commits.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    users: dict[str, str] = field(default_factory=lambda: {"hf_me": "me"})  # by token
    lock: threading.Lock = field(default_factory=threading.Lock)

    def push(self, repo_id, folder, branch="main"):
        """Commit a folder's files; returns the commit."""
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return self.repositories.setdefault(repo_id, Repository()).commit(files, branch)

    def fault(self, repo_id, what):
        """The fault to have now, if any."""
        with self.lock:
            fault = self.faults.get((repo_id, what))
            if fault is None or fault.times == 0:
                return None
            if fault.times is not None:
                fault.times -= 1
            return fault

    def uploads(self):
        """Large files that were sent, whether or not they were taken."""
        return [request for request in self.requests if request.startswith("PUT ")]


def oid_of(name, data):
    """What the Hub knows a file by: SHA-256 of a large one, git's hash of another."""
    if name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
