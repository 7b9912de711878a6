"""A stand-in for the Hub's HTTP interface on loopback, for one user."""

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

TOKEN = "hf_stand_in"
COMMIT = "1" * 40


class Hub(ThreadingHTTPServer):
    """Repositories in memory; `log` has every request that changes some.

    `failing` is a path prefix that answers 500.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = {}  # name -> {"private", "branches": {b: files}}
        self.stored, self.log, self.failing = {}, [], None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name):
        self.repositories[name] = {"private": False, "branches": {"main": {}}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, content=None, status=200, headers=(), raw=None):
        body = json.dumps(content or {}).encode() if raw is None else raw
        self.send_response(status)
        for key, value in headers:
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code="RepoNotFound"):
        self.answer({"error": code}, 404, [("X-Error-Code", code)])

    def handle_one(self):
        hub = self.server
        path, _, query = unquote(self.path).partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        if self.command not in ("GET", "HEAD"):
            hub.log.append(f"{self.command} {path}")
        if hub.failing and re.search(hub.failing, path):
            return self.answer({"error": "stand-in fails"}, 500)
        if self.command == "PUT" and path.startswith("/lfs/"):
            hub.stored[path[5:]] = body
            return self.answer()
        read = self.command in ("GET", "HEAD") and "whoami" not in path
        token = self.headers.get("Authorization")
        if token != f"Bearer {TOKEN}" and (token or not read):
            return self.answer({"error": "Invalid username or password."}, 401)
        if path == "/api/whoami-v2":
            return self.answer({"type": "user", "name": "me", "orgs": []})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/repos/delete":
            given = json.loads(body)
            del hub.repositories[f"{given['organization']}/{given['name']}"]
            return self.answer()
        return self.of_repository(path, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_one

    def create(self, given):
        hub = self.server
        name = f"{given['organization']}/{given['name']}"
        if given["organization"] != "me":
            return self.answer({"error": "no write access"}, 403)
        if name in hub.repositories:
            return self.answer({"error": "You already created this"}, 409)
        hub.add(name)
        hub.repositories[name]["private"] = given.get("visibility") == "private"
        self.answer({"url": f"{hub.address}/{name}", "id": name})

    def of_repository(self, path, body):
        hub = self.server
        found = re.match(
            r"(?:/api/models)?/([\w.-]+/[\w.-]+?)"
            r"(?:\.git/info/(lfs)/objects/batch|"
            r"/(branch|preupload|commit|resolve|revision|tree)/([^/]+)"
            r"(?:/(.*))?)?$",
            path,
        )
        if not found or found[1] not in hub.repositories:
            return self.missing()
        name, lfs, verb, branch, file = found.groups()
        branches = hub.repositories[name]["branches"]
        if verb == "branch":
            return self.branch(branches, branch)
        if lfs:
            return self.answer({"objects": self.places(json.loads(body))})
        if branch and branch not in (*branches, COMMIT):
            return self.missing("RevisionNotFound")
        files = branches.get(branch, branches["main"])
        if verb == "preupload":
            return self.answer({"files": self.modes(json.loads(body))})
        if verb == "commit":
            return self.commit(name, files, body)
        if verb == "resolve":
            return self.resolve(files, file)
        if verb == "tree":
            entries = [
                {"type": "file", "path": p, "size": len(c), "oid": "0" * 40}
                for p, c in files.items()
            ]
            return self.answer(entries)
        siblings = [{"rfilename": file} for file in files]
        self.answer({"id": name, "sha": COMMIT, "siblings": siblings})

    def branch(self, branches, branch):
        if self.command == "DELETE":
            del branches[branch]
            return self.answer()
        if branch in branches:
            return self.answer({"error": "branch exists"}, 409)
        branches[branch] = {}
        self.answer()

    def places(self, given):
        address = self.server.address
        return [
            {
                **entry,
                "actions": {
                    "upload": {"href": f"{address}/lfs/{entry['oid']}"}
                },
            }
            for entry in given["objects"]
        ]

    def modes(self, given):
        return [
            {
                "path": file["path"],
                "uploadMode": "lfs"
                if file["path"].endswith((".ckpt", ".onnx"))
                else "regular",
                "shouldIgnore": False,
            }
            for file in given["files"]
        ]

    def commit(self, name, files, body):
        for line in body.splitlines():
            given = json.loads(line)
            value = given["value"]
            if given["key"] == "file":
                content = base64.b64decode(value["content"])
                files[value["path"]] = content
            elif given["key"] == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]]
        address = f"{self.server.address}/{name}/commit/{COMMIT}"
        self.answer({"commitUrl": address, "commitOid": COMMIT})

    def resolve(self, files, file):
        if file not in files:
            return self.missing("EntryNotFound")
        headers = [("ETag", f'"{file}"'), ("X-Repo-Commit", COMMIT)]
        self.answer(raw=files[file], headers=headers)
