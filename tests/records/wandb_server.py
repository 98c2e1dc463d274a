"""A W&B server for tests: as much of it as `wandb.Api` needs to find a run and download an artifact of it."""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from wandb_files import offline_wandb

_VIEWER = {
    "id": "me", "username": "me", "name": "me", "email": "me@example.com", "entity": "team", "admin": False,
    "flags": "{}", "teams": {"edges": []}, "apiKeys": {"edges": []},
}  # fmt: skip
_PAGE = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}


class Server:
    """What the server knows. Artifacts are made by wandb itself, their files lie in a folder.

    Attributes:
        runs: id -> display name.
        logged: id -> artifact fields, in the order in which they were logged.
        manifests: artifact id -> manifest.
        files: md5 in hexadecimal -> content, for downloads.
        downloads: the files that were asked for.
    """

    def __init__(self) -> None:
        self.runs: dict[str, str] = {}
        self.logged: dict[str, list[dict[str, Any]]] = {}
        self.manifests: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.downloads: list[str] = []
        self.url = ""

    def log(self, run: str, artifact: Any, **changes: Any) -> None:
        """Log an artifact of wandb, as `Run.log_artifact` does; `changes` are to its fields."""
        artifact.finalize()
        manifest = artifact.manifest.to_manifest_json()
        for entry in artifact.manifest.entries.values():
            self.files[_hexadecimal(entry.digest)] = Path(entry.local_path).read_bytes()
        number = len(self.logged.setdefault(run, []))
        identity = f"QXJ0aWZhY3Q6{len(self.manifests)}"
        project = {"id": "p", "internalId": "1", "name": "project", "entity": {"name": "team"}}
        source = {"__typename": "ArtifactSequence", "name": artifact.name, "project": project}
        node = {
            "__typename": "Artifact", "id": identity, "artifactSequence": source, "versionIndex": number,
            "artifactType": {"name": artifact.type}, "description": None, "metadata": "{}", "ttlDurationSeconds": 0,
            "ttlIsInherited": False, "tags": [], "historyStep": None, "state": "COMMITTED", "size": 1,
            "digest": artifact.digest, "commitHash": "0", "fileCount": len(manifest["contents"]),
            "createdAt": f"2026-01-0{number + 1}T00:00:00", "updatedAt": None, "aliases": [],
        }  # fmt: skip
        self.logged[run].append({**node, **changes})
        self.manifests[identity] = manifest

    def answer(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The data of one GraphQL query."""
        if "query RunOutputArtifacts" in query:
            nodes = self.logged.get(variables["run"], [])
            found = {"totalCount": len(nodes), "pageInfo": _PAGE, "edges": [{"node": node} for node in nodes]}
            return {"project": {"run": {"artifacts": found}}}
        if "query FetchArtifactManifest" in query:
            address = f"{self.url}/manifest/{variables['id']}"
            return {"artifact": {"currentManifest": {"file": {"directUrl": address}}}}
        if "query Runs(" in query:
            wanted = json.loads(variables["filters"])["display_name"]
            edges = [
                {"node": _run(name, shown), "cursor": name} for name, shown in self.runs.items() if shown == wanted
            ]
            runs = {"totalCount": len(edges), "edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}
            return {"project": {"internalId": "1", "runCount": len(edges), "readOnly": False, "runs": runs}}
        if "query Run(" in query:
            name = variables["name"]
            return {"project": {"run": _run(name, self.runs[name]) if name in self.runs else None}}
        return {"viewer": _VIEWER, "serverInfo": {"features": []}}


def _run(name: str, shown: str) -> dict[str, Any]:
    nothing = ("sweepName", "group", "jobType", "commit", "heartbeatAt", "description", "notes", "historyKeys")
    return {
        "projectId": "1", "id": f"id-{name}", "tags": [], "name": name, "displayName": shown, "state": "finished",
        "config": "{}", "readOnly": False, "createdAt": "2026-01-01T00:00:00", "systemMetrics": "{}",
        "summaryMetrics": "{}", "historyLineCount": 1, "user": {"name": "me", "username": "me"},
        **dict.fromkeys(nothing),
    }  # fmt: skip


def _hexadecimal(digest: str) -> str:
    return base64.b64decode(digest).hex()


@contextmanager
def wandb_server(folder: Path) -> Iterator[Server]:
    """A server on this machine that `wandb.Api` talks to inside the block; W&B's own files go under `folder`."""
    server = Server()
    folder.mkdir(parents=True, exist_ok=True)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path != "/graphql":
                self.reply(404, b"")
                return
            asked = json.loads(body)
            answer = server.answer(asked["query"], asked.get("variables") or {})
            self.reply(200, json.dumps({"data": answer}).encode())

        def do_GET(self) -> None:
            manifest = re.fullmatch(r"/manifest/(.+)", self.path)
            file = re.fullmatch(r"/artifacts(?:V2)?/.*/([0-9a-f]{32})(?:/.*)?", self.path)
            if manifest and manifest[1] in server.manifests:
                self.reply(200, json.dumps(server.manifests[manifest[1]]).encode())
            elif file and file[1] in server.files:
                server.downloads.append(file[1])
                self.reply(200, server.files[file[1]])
            else:
                self.reply(404, b"")

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http, offline_wandb(folder):
        server.url = f"http://127.0.0.1:{http.server_port}"
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("WANDB_BASE_URL", server.url)
            environment.setenv("WANDB_API_KEY", "0" * 40)
            thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            try:
                yield server
            finally:
                http.shutdown()
                thread.join()
