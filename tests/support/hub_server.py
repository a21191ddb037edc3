"""A small Hugging Face Hub in memory, on loopback, with the part of the HTTP interface that the real client needs.

The state is modelled on Git: repositories contain commits, each a mapping of paths to contents, with branches and pull
requests as references. Commits are atomic. Errors can be injected into any route.
"""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.hub_routes import ROUTES
from tests.support.hub_rules import error_list, metadata_errors
from tests.support.hub_state import (
    GITATTRIBUTES,
    Fault,
    Rejection,
    Repository,
    apply_operations,
    oid,
    sha256,
    tree_entry,
    upload_mode,
)  # fmt: skip

WRITER, READER = "hf_writer", "hf_reader"  # tokens


class MemoryHub:
    """The server and its state.

    Attributes:
        repositories: Repositories by id.
        objects: Contents of large files by SHA-256.
        faults: Errors to inject.
        requests: Method, path and number of received bytes of every request.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, int]] = []
        self.lock = threading.RLock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> MemoryHub:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def create(self, repo_id: str, private: bool = False) -> Repository:
        repository = self.repositories[repo_id] = Repository(private)
        repository.add_commit("refs/heads/main", {".gitattributes": GITATTRIBUTES}, "initial commit", None)
        return repository

    def received(self, pattern: str) -> list[str]:
        """Return the requests that match a pattern, each as "METHOD /path"."""
        return [f"{method} {path}" for method, path, _ in self.requests if re.search(pattern, f"{method} {path}")]

    def snapshot(self) -> dict[str, tuple[dict[str, str], int]]:
        """Return references and number of commits of each repository, to check that nothing changed."""
        return {name: (dict(repo.refs), len(repo.commits)) for name, repo in self.repositories.items()}

    def take_fault(self, request: str, after: bool) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.after == after and re.search(fault.where, request):
                fault.times -= 1
                return fault
        return None

    def repository(self, repo_id: str, token: str | None) -> Repository:
        repository = self.repositories.get(repo_id)
        if repository is None or (repository.private and token is None):
            status = 404 if token else 401
            raise Rejection(
                status, "Repository not found" if token else "Invalid username or password.", "RepoNotFound"
            )
        return repository


class Handler(BaseHTTPRequestHandler):
    hub: MemoryHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def handle_one(self) -> None:
        address = urlsplit(self.path)
        path, self.query = unquote(address.path), parse_qs(address.query)
        raw = address.path  # still quoted, because references such as refs%2Fpr%2F1 are one path segment
        request = f"{self.command} {path}"
        fault = self.hub.take_fault(request, after=False)
        length = int(self.headers.get("Content-Length") or 0)
        if fault is not None and fault.status is None:
            self.rfile.read(length // 2)  # drop the connection in the middle of the upload
            return self.drop()
        self.body = self.read_body(length)
        self.hub.requests.append((self.command, path, len(self.body)))
        try:
            with self.hub.lock:
                response = self.route(raw, fault)
            if self.hub.take_fault(request, after=True):
                return self.drop()
            self.respond(*response)
        except Rejection as rejection:
            self.reject(rejection)
        return None

    do_GET = do_HEAD = do_POST = do_PUT = handle_one  # noqa: N815 (names of the standard library)

    def read_body(self, length: int) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(length)
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def drop(self) -> None:
        self.close_connection = True
        self.connection.close()

    def route(self, raw: str, fault: Fault | None) -> tuple[Any, dict[str, str]]:
        if fault is not None:
            raise Rejection(fault.status or 500, fault.message)
        for method, pattern, action in ROUTES:
            match = re.fullmatch(pattern, raw)
            if match and self.command in method.split("|"):
                result = getattr(self, action)(*(unquote(group) for group in match.groups()))
                return result if isinstance(result, tuple) else (result, {})
        raise Rejection(404, f"no route {self.command} {raw}", "EntryNotFound")

    def respond(self, content: Any, headers: dict[str, str], status: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        if self.headers.get("Range") and status == 200:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            body, status = body[int(first) : int(last or len(body)) + 1], 206
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reject(self, rejection: Rejection) -> None:
        headers = {"X-Error-Message": rejection.message, **({"X-Error-Code": rejection.code} if rejection.code else {})}
        self.respond({"error": rejection.message, **(rejection.content or {})}, headers, rejection.status)

    # authentication

    @property
    def token(self) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        if token not in (None, WRITER, READER):
            raise Rejection(401, "Invalid credentials in Authorization header")
        return token

    def writable(self, repo_id: str, pull_request: bool = False) -> Repository:
        repository = self.hub.repository(repo_id, self.token)
        if self.token is None:
            raise Rejection(401, "Invalid username or password.")
        if self.token != WRITER and not pull_request:
            raise Rejection(403, f"You don't have the rights to write to {repo_id}")
        return repository

    # routes

    def whoami(self) -> Any:
        if self.token is None:
            raise Rejection(401, "Invalid username or password.")
        return {"type": "user", "name": "org", "orgs": [], "auth": {"accessToken": {"role": "write"}}}

    def create_repository(self) -> Any:
        wanted = json.loads(self.body)
        repo_id = f"{wanted.get('organization') or 'org'}/{wanted['name']}"
        if self.token is None:
            raise Rejection(401, "Invalid username or password.")
        if self.token != WRITER:
            raise Rejection(403, f"You don't have the rights to create a model under the namespace {repo_id}")
        if repo_id in self.hub.repositories:
            raise Rejection(409, "You already created this model repo", content={"url": f"{self.hub.url}/{repo_id}"})
        self.hub.create(repo_id, private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
        return {"url": f"{self.hub.url}/{repo_id}", "name": repo_id, "id": repo_id}

    def validate_yaml(self) -> Any:
        errors = metadata_errors(json.loads(self.body)["content"])
        if errors:
            raise Rejection(400, "Invalid metadata", content=error_list(errors))
        return {"errors": [], "warnings": []}

    def preupload(self, repo_id: str, revision: str) -> Any:
        files = self.writable(repo_id, "create_pr" in self.query).files(revision)
        requested = json.loads(self.body)["files"]
        return {"files": [upload_mode(file["path"], file["size"], files) for file in requested]}

    def lfs_batch(self, repo_id: str) -> Any:
        self.writable(repo_id, pull_request=True)
        answers = []
        for wanted in json.loads(self.body)["objects"]:
            links = {
                "upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"},
                "verify": {"href": f"{self.hub.url}/lfs/verify"},
            }
            answers.append({**wanted, **({} if wanted["oid"] in self.hub.objects else {"actions": links})})
        return {"transfer": "basic", "objects": answers}

    def lfs_put(self, oid: str) -> Any:
        if sha256(self.body) != oid:
            raise Rejection(400, "The hash does not match the content")
        self.hub.objects[oid] = self.body
        return b""

    def lfs_verify(self) -> Any:
        wanted = json.loads(self.body)
        if len(self.hub.objects.get(wanted["oid"], b"")) != wanted["size"]:
            raise Rejection(404, "Object not found")
        return {}

    def commit(self, repo_id: str, revision: str) -> Any:
        pull_request = "create_pr" in self.query
        repository = self.writable(repo_id, pull_request)
        parent = repository.resolve(revision)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, parent):
            raise Rejection(412, "A commit has happened since. Please refresh and try again.")
        files = apply_operations(dict(repository.files(parent)), lines, self.hub.objects)
        errors = metadata_errors(files["README.md"].decode()) if "README.md" in files else []
        if errors:
            raise Rejection(400, "Invalid metadata", content=error_list(errors))
        number = sum(ref.startswith("refs/pr/") for ref in repository.refs) + 1
        ref = f"refs/pr/{number}" if pull_request else repository.full_ref(revision)
        commit = repository.add_commit(ref, files, header["summary"], parent)
        return {
            "success": True,
            "commitOid": commit,
            "commitUrl": f"{self.hub.url}/{repo_id}/commit/{commit}",
            **({"pullRequestUrl": f"{self.hub.url}/{repo_id}/discussions/{number}"} if pull_request else {}),
        }

    def create_branch(self, repo_id: str, branch: str) -> Any:
        repository = self.writable(repo_id)
        if branch.startswith("refs/"):
            raise Rejection(400, f"Invalid reference for a branch: {branch}")
        if f"refs/heads/{branch}" in repository.refs:
            raise Rejection(409, "Reference already exists")
        repository.refs[f"refs/heads/{branch}"] = repository.resolve("main")
        return {}

    def model_info(self, repo_id: str, revision: str = "main") -> Any:
        repository = self.hub.repository(repo_id, self.token)
        commit = repository.resolve(revision)
        siblings = [{"rfilename": path} for path in sorted(repository.commits[commit])]
        return {
            "_id": repo_id, "id": repo_id, "modelId": repo_id, "sha": commit, "private": repository.private,
            "tags": [], "downloads": 0, "likes": 0, "siblings": siblings,
        }  # fmt: skip

    def tree(self, repo_id: str, revision: str, folder: str | None = None) -> Any:
        files = self.hub.repository(repo_id, self.token).files(revision)
        if folder is not None and not any(path.startswith(folder + "/") for path in files):
            raise Rejection(404, f"{folder} does not exist", "EntryNotFound")
        return [
            tree_entry(path, content)
            for path, content in sorted(files.items())
            if folder is None or path.startswith(folder + "/")
        ]

    def refs(self, repo_id: str) -> Any:
        found = self.hub.repository(repo_id, self.token).refs
        branches = {ref.removeprefix("refs/heads/"): (ref, commit) for ref, commit in found.items() if "/heads/" in ref}
        listed = [{"name": name, "ref": ref, "targetCommit": commit} for name, (ref, commit) in branches.items()]
        return {"branches": listed, "converts": [], "tags": [], "pullRequests": []}

    def resolve_file(self, repo_id: str, revision: str, path: str) -> Any:
        repository = self.hub.repository(repo_id, self.token)
        commit = repository.resolve(revision)
        content = repository.commits[commit].get(path)
        if content is None:
            raise Rejection(404, "Entry not found", "EntryNotFound")
        return content, {"X-Repo-Commit": commit, "ETag": f'"{oid(path, content)}"', "Accept-Ranges": "bytes"}
