"""What these tests need of the Hugging Face Hub, on the loopback: repositories of one branch in memory."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Hub:
    """Repositories by name, each with the files of every commit, the last of which is "main"; and what was asked of them."""

    token: str = "hf_stub"
    commits: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""

    def files(self, repository: str, revision: str) -> dict[str, bytes] | None:
        commits = self.commits.get(repository, [])
        named = {sha(number): files for number, files in enumerate(commits)} | (
            {"main": commits[-1]} if commits else {}
        )
        return named.get(revision)


def sha(number: int) -> str:
    return hashlib.sha1(str(number).encode()).hexdigest()


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, code: int, content: bytes | dict[str, Any] = b"", **headers: str) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.requests.append(("POST", self.path))
            if self.path == "/api/validate-yaml":
                return self.answer(200, {"errors": [], "warnings": []})
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.answer(401, {"error": "Invalid username or password."})
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
                code = 409 if name in hub.commits else 200
                hub.commits.setdefault(name, [])
                hub.private.setdefault(name, bool(asked.get("private") or asked.get("visibility") == "private"))
                return self.answer(code, {"url": f"{hub.address}/{name}", "name": name, "id": "1"})
            _, _, _, owner, name, action, _ = self.path.split("?")[0].split("/")
            repository = f"{owner}/{name}"
            if action == "preupload":
                files = [{"path": each["path"], "uploadMode": "regular"} for each in json.loads(body)["files"]]
                return self.answer(200, {"files": [each | {"shouldIgnore": False} for each in files]})
            lines = [json.loads(line) for line in body.splitlines()]
            written = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            before = hub.commits[repository][-1] if hub.commits[repository] else {}
            hub.commits[repository].append(before | written)
            oid = sha(len(hub.commits[repository]) - 1)
            self.answer(
                200, {"commitOid": oid, "commitUrl": f"{hub.address}/{repository}/commit/{oid}", "success": True}
            )

        def do_GET(self) -> None:
            hub.requests.append((self.command, self.path))
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                repository = "/".join(parts[2:4])
                revision = parts[5] if len(parts) > 5 else "main"
                if repository not in hub.commits:
                    return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
                files = hub.files(repository, revision)
                if files is None:
                    return self.answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
                numbers = [number for number, each in enumerate(hub.commits[repository]) if each is files]
                siblings = [{"rfilename": name} for name in files]
                return self.answer(200, {"id": repository, "sha": sha(numbers[0]), "siblings": siblings})
            owner, name, _, revision, path = parts
            content = (hub.files(f"{owner}/{name}", revision) or {})[path]
            self.answer(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=revision)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
