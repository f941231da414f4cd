"""A small Hugging Face hub on this machine: as much of its protocol as its own client, timm and transformers speak.

Repositories with branches, private ones, tokens, commits with large files sent apart, and what can go wrong.
"""

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".onnx", ".bin")  # files that are sent apart, as .gitattributes says


@dataclass
class Repository:
    """Files by path for each commit, and the commits that branches point to."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, files: dict[str, bytes]) -> str:
        told = json.dumps([len(self.commits), sorted(hashlib.sha256(each).hexdigest() for each in files.values())])
        sha = hashlib.sha1(told.encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    @property
    def files(self) -> dict[str, bytes]:
        """Of the main branch."""
        return self.commits[self.branches["main"]]


@dataclass
class Hub:
    """The state of the server, which a test may look at and change."""

    users: dict[str, str] = field(default_factory=lambda: {"hf_ada": "ada", "hf_reader": "reader"})  # by token
    writers: tuple[str, ...] = ("ada",)
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)  # by SHA-256
    seen: list[str] = field(default_factory=list)  # "METHOD /path" of each request
    fault: str = ""  # part of a "METHOD /path" whose connection is cut
    refused: dict[str, int] = field(default_factory=dict)  # statuses by part of a "METHOD /path"
    address: str = ""

    def environment(self, cache: Path, token: str = "hf_ada") -> dict[str, str]:
        """Variables with which the hub's client speaks to this server alone."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(cache),
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_XET": "1",  # another protocol, of whose server there is no small one
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "HYBRIDVIT_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }


class Refused(Exception):
    """An answer that is an error: status, the hub's own code, text."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A server on a free port of this machine, until the end of the block."""
    hub = Hub()
    handler = type("Handler", (Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path).strip("/")
        asked = f"{self.command} /{path}"
        self.hub.seen.append(asked)
        if self.hub.fault and self.hub.fault in asked:
            self.close_connection = True
            return
        try:
            for part, status in self.hub.refused.items():
                if part in asked:
                    raise Refused(status, "", "as the test says")
            self._route(path.split("/"))
        except Refused as refused:
            status, code, text = refused.args
            self._send(status, json.dumps({"error": text}).encode(), {"X-Error-Code": code, "X-Error-Message": text})

    def _route(self, parts: list[str]) -> None:
        match parts:
            case ["api", "whoami-v2"]:
                self._json({"name": self._user(), "type": "user", "orgs": []})
            case ["api", "validate-yaml"]:
                assert json.loads(self.body)["content"].startswith("---\n")
                self._json({})
            case ["api", "repos", "create"]:
                self._create(json.loads(self.body))
            case ["api", "models", owner, name, "branch", *branch]:
                repository = self._writable(f"{owner}/{name}")
                repository.branches["/".join(branch)] = repository.branches["main"]
                self._json({})
            case ["api", "models", owner, name, "preupload", *_]:
                self._writable(f"{owner}/{name}")
                paths = [each["path"] for each in json.loads(self.body)["files"]]
                modes = {path: "lfs" if path.endswith(LARGE) else "regular" for path in paths}
                self._json({"files": [{"path": p, "uploadMode": modes[p], "shouldIgnore": False} for p in paths]})
            case ["api", "models", owner, name, "commit", *branch]:
                self._commit(f"{owner}/{name}", "/".join(branch))
            case ["api", "models", owner, name, "tree", *_]:
                self._readable(f"{owner}/{name}")
                raise Refused(404, "EntryNotFound", "there is no such folder")
            case ["api", "models", owner, name, *rest]:
                self._info(f"{owner}/{name}", "/".join(rest[1:]) or "main")
            case ["large", digest]:
                assert hashlib.sha256(self.body).hexdigest() == digest
                self.hub.large[digest] = self.body
                self._send(200, b"")
            case [_, _, "info", "lfs", "objects", "batch"]:
                self._large(json.loads(self.body)["objects"])
            case [owner, name, "resolve", revision, *file]:
                self._file(f"{owner}/{name}", revision, "/".join(file))
            case _:
                raise Refused(404, "", "no such address")

    def _user(self) -> str:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        return self.hub.users.get(token, "")

    def _readable(self, name: str) -> Repository:
        repository = self.hub.repositories.get(name)
        user = self._user()
        if repository is None or (repository.private and user != name.partition("/")[0]):
            raise Refused(404 if user else 401, "RepoNotFound", "Repository not found")
        return repository

    def _writable(self, name: str) -> Repository:
        repository = self._readable(name)
        if self._user() not in self.hub.writers:
            raise Refused(403, "", "You may not write here")
        return repository

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if self._user() not in self.hub.writers or asked["organization"] != self._user():
            raise Refused(403, "", f"You don't have the rights to create a model under {asked['organization']}")
        if name in self.hub.repositories:
            raise Refused(409, "", "You already created this model repo")
        is_private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private=bool(is_private))
        self.hub.repositories[name].add("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self._json({"url": f"{self.hub.address}/{name}"})

    def _revision(self, name: str, revision: str) -> str:
        repository = self._readable(name)
        sha = repository.branches.get(revision, revision)
        if sha not in repository.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def _info(self, name: str, revision: str) -> None:
        repository, sha = self._readable(name), self._revision(name, revision)
        siblings = [{"rfilename": path} for path in repository.commits[sha]]
        told = {"_id": "0", "id": name, "modelId": name, "sha": sha, "private": repository.private, "tags": []}
        self._json(told | {"siblings": siblings, "downloads": 0, "likes": 0})

    def _large(self, objects: list[dict[str, Any]]) -> None:
        answers = []
        for each in objects:
            upload = {"actions": {"upload": {"href": f"{self.hub.address}/large/{each['oid']}"}}}
            answers.append({**each, **({} if each["oid"] in self.hub.large else upload)})
        self._json({"transfer": "basic", "objects": answers})

    def _commit(self, name: str, branch: str) -> None:
        repository = self._writable(name)
        head = repository.branches[branch]
        files = dict(repository.commits[head])
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "header":
                    if value.get("parentCommit", head) != head:
                        raise Refused(412, "", "A commit has happened since. Please refresh and try again.")
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.large[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        sha = repository.add(branch, files)
        self._json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.address}/{name}/commit/{sha}"})

    def _file(self, name: str, revision: str, file: str) -> None:
        sha = self._revision(name, revision)
        content = self._readable(name).commits[sha].get(file)
        if content is None:
            raise Refused(404, "EntryNotFound", "Entry not found")
        self._send(200, content, {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
