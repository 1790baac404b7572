"""What pushing takes: make a repository, ask how each file goes, send the large ones, commit.

POST /api/repos/create
POST /api/validate-yaml                    the card, before anything is sent
POST /api/models/ID/branch/NAME
POST /api/models/ID/preupload/BRANCH       large or regular, and what is there already
POST /ID.git/info/lfs/objects/batch        where large files go that are not there
PUT  /lfs/ID/OID, POST /lfs/ID/OID         such a file; whether it arrived
POST /api/models/ID/commit/BRANCH          the commit, one JSON object a line
"""

import base64
import hashlib
import json

import yaml

from tests.loopback_hub.repository import LARGE, Fault, Repository, oid_of


class Uploads:
    """Of a request handler with ``hub``, ``body``, ``answer``, ``refuse`` and ``headers``."""

    def user(self):
        return self.hub.users.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def may_write(self, repo_id):
        """Whether this user may; else a refusal has been sent."""
        if self.user() is None:
            self.refuse(Fault(401), "Invalid credentials in Authorization header")
        elif repo_id.split("/")[0] != self.user():
            self.refuse(Fault(403), "You don't have the rights to write there")
        else:
            return True
        return False

    def create(self):
        asked = json.loads(self.body())
        repo_id = f"{asked.get('organization') or self.user()}/{asked['name']}"
        if not self.may_write(repo_id):
            return
        exists = repo_id in self.hub.repositories
        if not exists:
            self.hub.repositories[repo_id] = Repository(private=asked.get("visibility") == "private")
            self.hub.repositories[repo_id].commit({}, message="initial commit")
        self.answer({"url": f"{self.hub.url}/{repo_id}"}, 409 if exists else 200)

    def validate(self):
        problems = problems_of(json.loads(self.body())["content"])
        errors = [{"message": problem} for problem in problems]
        self.answer({"errors": errors, "warnings": []}, 400 if problems else 200)

    def branch(self, repo_id, name):
        self.body()
        repository = self.hub.repositories[repo_id]
        exists = name in repository.branches
        if self.may_write(repo_id):
            repository.branches.setdefault(name, repository.branches["main"])
            self.answer({}, 409 if exists else 200)

    def preupload(self, repo_id, branch):
        asked = json.loads(self.body())["files"]
        commit = self.commit_at(repo_id, branch, "")
        if commit is None or not self.may_write(repo_id):
            return
        there = self.hub.repositories[repo_id].commits[commit]
        files = []
        for name in (one["path"] for one in asked):
            mode = "lfs" if name.endswith(LARGE) else "regular"
            files.append({"path": name, "uploadMode": mode, "shouldIgnore": False})
            if name in there:
                files[-1]["oid"] = oid_of(name, there[name])
        self.answer({"files": files})

    def batch(self, repo_id):
        objects = [{"oid": one["oid"], "size": one["size"]} for one in json.loads(self.body())["objects"]]
        for one in objects:
            if one["oid"] not in self.hub.repositories[repo_id].objects:
                href = {"href": f"{self.hub.url}/lfs/{repo_id}/{one['oid']}"}
                one["actions"] = {"upload": href, "verify": href}
        self.answer({"transfer": "basic", "objects": objects})

    def store(self, repo_id, oid):
        fault = self.hub.fault(repo_id, "@lfs")
        if fault is not None and fault.status == 500:  # breaks down half way through the file
            self.rfile.read(int(self.headers["Content-Length"]) // 2)
            self.close_connection = True
            return self.refuse(fault)
        data = self.body()
        if fault is not None:
            return self.refuse(fault)
        if hashlib.sha256(data).hexdigest() != oid:
            return self.refuse(Fault(400))
        self.hub.repositories[repo_id].objects[oid] = data
        return self.answer({})

    def verify(self, repo_id, oid):
        self.body()
        self.answer({}, 200 if oid in self.hub.repositories[repo_id].objects else 404)

    def commit(self, repo_id, branch):
        lines = [json.loads(line) for line in self.body().splitlines()]
        fault = self.hub.fault(repo_id, "@commit")
        if fault is not None:
            return self.refuse(fault, "Not now")
        if not self.may_write(repo_id):
            return None
        repository = self.hub.repositories[repo_id]
        files, message = dict(repository.files(branch)), ""
        for key, value in ((line["key"], line["value"]) for line in lines):
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile" and value["oid"] in repository.objects:
                files[value["path"]] = repository.objects[value["oid"]]
            else:
                return self.refuse(Fault(400), f"What is {key}?")
        sha = repository.commit(files, branch, message)
        return self.answer({"commitOid": sha, "commitUrl": f"{self.hub.url}/{repo_id}/commit/{sha}"})


def problems_of(card):
    """What the Hub has against a card's header; as much of it as concerns us."""
    if not card.startswith("---\n") or "\n---\n" not in card:
        return ["there is no header"]
    try:
        header = yaml.safe_load(card[4 : card.index("\n---\n")])
    except yaml.YAMLError as error:
        return [str(error)]
    problems = [] if isinstance(header, dict) else ["the header is no mapping"]
    for model in header.get("model-index", ()) if not problems else ():
        for result in model["results"]:
            for of, needed in (("task", ("type",)), ("dataset", ("type", "name"))):
                problems += [f"model-index: {of}.{key}" for key in needed if not result[of].get(key)]
            good = [one for one in result["metrics"] if one["type"] and isinstance(one["value"], float)]
            problems += ["model-index: metrics"] if len(good) < len(result["metrics"]) else []
        problems += [] if model["name"] else ["model-index: name"]
    return problems
