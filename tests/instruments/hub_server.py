"""A small imitation of the Hugging Face hub: model info, file tree, and files by HEAD and GET."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves repositories (id -> directory) on a free port of 127.0.0.1 and keeps the requests.

    >>> with HubServer({"gpt2": directory}) as hub: ...  # doctest: +SKIP
    """

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.repositories = repositories
        self.requests: list[tuple[str, str]] = []  # method, path
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self)

            def do_HEAD(self) -> None:
                hub._answer(self)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def files_asked_for(self) -> set[str]:
        """Names of all files that were asked for, by HEAD or GET."""
        paths = [path for _, path in self.requests if "/resolve/" in path]
        return {path.split("/resolve/")[1].split("/", 1)[1] for path in paths}

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path).lstrip("/")
        self.requests.append((request.command, path))
        for repository, directory in self.repositories.items():
            api = f"api/models/{repository}/"
            if path.startswith((f"{api}revision/", f"{api}tree/")):
                if path.split("/")[-1] not in ("main", COMMIT):
                    return _send(request, 404, headers={"X-Error-Code": "RevisionNotFound"})
                files = sorted(p for p in directory.rglob("*") if p.is_file())
                describe = _tree if path.startswith(f"{api}tree/") else _info
                return _send(request, 200, describe(repository, directory, files))
            if path.startswith(f"{repository}/resolve/"):
                file = directory / path.split("/resolve/")[1].split("/", 1)[1]
                if not file.is_file():
                    return _send(request, 404, headers={"X-Error-Code": "EntryNotFound"})
                etag = {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": COMMIT}
                return _send(request, 200, file.read_bytes(), etag)
        return _send(request, 404, headers={"X-Error-Code": "RepoNotFound"})


def _info(repository: str, directory: Path, files: list[Path]) -> bytes:
    siblings = [{"rfilename": str(file.relative_to(directory))} for file in files]
    return json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()


def _tree(repository: str, directory: Path, files: list[Path]) -> bytes:
    entries = [
        {
            "type": "file",
            "path": str(file.relative_to(directory)),
            "size": file.stat().st_size,
            "oid": _etag(file),
        }
        for file in files
    ]
    return json.dumps(entries).encode()


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


def _send(
    request: BaseHTTPRequestHandler, status: int, body: bytes = b"", headers: dict | None = None
) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)
