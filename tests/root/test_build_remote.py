"""Builds that fetch: ADD of URLs and repositories; contexts that are repositories, archives, files on a server."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import socket
import subprocess
import threading
import time

import pytest


@pytest.fixture
def server(orlop, tmp_path):
    """A web server in the engine's network; its files lie in tmp_path/web."""
    place = tmp_path / "web"
    place.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(place))

        def log_message(self, *_):
            pass

    made = orlop.inside(lambda: http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield place, f"http://127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def repository(orlop, tmp_path):
    """A repository that git's own daemon serves; its URL."""
    place = tmp_path / "git/one.git"
    work = tmp_path / "work"
    environment = os.environ | {
        "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }  # fmt: skip

    def git(*words):
        done = subprocess.run(["git", *map(str, words)], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q", "-b", "main", work)
    (work / "sub").mkdir()
    (work / "Dockerfile").write_text("FROM host\nCOPY f /f\n")
    (work / "sub/Dockerfile").write_text("FROM host\nRUN echo of sub > /f\n")
    (work / "f").write_text("first\n")
    git("-C", work, "add", ".")
    git("-C", work, "commit", "-qm", "1")
    git("-C", work, "tag", "v1")
    (work / "f").write_text("second\n")
    git("-C", work, "commit", "-qam", "2")
    commit = git("-C", work, "rev-parse", "v1")
    git("clone", "-q", "--bare", work, place)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["git", "daemon", "--export-all", f"--base-path={place.parent}", "--listen=127.0.0.1", f"--port={port}"]
    daemon = orlop.inside(lambda: subprocess.Popen(words, stderr=subprocess.DEVNULL, env=environment))

    def answers():
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    deadline = time.monotonic() + 60
    while not orlop.inside(answers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield f"git://127.0.0.1:{port}/one.git", commit
    daemon.terminate()
    daemon.wait()


def run(orlop, image, *command):
    return orlop("run", "--rm", "--network=none", image, *command).stdout


def test_add_of_a_url(orlop, server, tmp_path):
    place, url = server
    (place / "file.txt").write_text("of the server\n")
    os.utime(place / "file.txt", (1_000_000_000, 1_000_000_000))
    digest = hashlib.sha256(b"of the server\n").hexdigest()
    text = f"FROM host\nADD {url}/file.txt /d/\nADD --checksum=sha256:{digest} {url}/file.txt /named\n"
    orlop("build", "-q", "-t", "x", "-", input=text)
    assert run(orlop, "x", "stat", "-c", "%a %u %n", "/d/file.txt", "/named") == "600 0 /d/file.txt\n600 0 /named\n"
    assert run(orlop, "x", "cat", "/named") == "of the server\n"
    first = json.loads(orlop("inspect", "x").stdout)[0]["Id"]
    orlop("build", "-q", "-t", "x", "-", input=text)
    assert json.loads(orlop("inspect", "x").stdout)[0]["Id"] == first
    (place / "file.txt").write_text("another\n")
    failed = orlop("build", "-q", "-", input=text, check=False)
    assert failed.code == 1 and "digest mismatch" in failed.stderr
    failed = orlop("build", "-q", "-", input=f"FROM host\nADD {url}/none /x\n", check=False)
    assert failed.code == 1 and "404" in failed.stderr


@pytest.fixture
def guarded(orlop, tmp_path, repository):
    """A server of files and of a repository for who says the right Authorization; /away leads to another address."""
    heard = []
    place = tmp_path / "guarded"
    place.mkdir()
    (place / "f").write_text("behind a door\n")
    subprocess.run(["git", "clone", "-q", "--mirror", tmp_path / "git/one.git", place / "one.git"], check=True)
    basic = f"basic {base64.b64encode(b'x-access-token:t0ken-of-git').decode()}"

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(place))

        def do_GET(self):
            heard.append((self.headers["Host"].partition(":")[0], self.headers.get("Authorization")))
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", f"http://10.77.0.2:{self.server.server_address[1]}/f")
                self.end_headers()
            elif heard[-1][1] in ("Bearer t0ken-of-http", "Own header-of-http", basic):
                self.answer() if self.path.startswith("/one.git/") else super().do_GET()
            else:
                self.send_error(401)

        def do_POST(self):
            self.answer()

        def answer(self):
            path, _, query = self.path.partition("?")
            length = self.headers.get("Content-Length", "0")
            variables = {
                "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command, "CONTENT_LENGTH": length,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""), "GIT_PROJECT_ROOT": str(place),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "GIT_HTTP_EXPORT_ALL": "1",
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            }  # fmt: skip
            data = self.rfile.read(int(length))
            words = ["git", "http-backend"]
            done = subprocess.run(words, input=data, env=os.environ | variables, capture_output=True, check=True)
            self.wfile.write(b"HTTP/1.0 200 OK\r\n" + done.stdout)

        def log_message(self, *_):
            pass

    def serve():
        subprocess.run(["ip", "address", "add", "10.77.0.2/32", "dev", "lo"], check=True)
        return http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)

    made = orlop.inside(serve)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_address[1]}", heard
    made.shutdown()
    made.server_close()
    thread.join()


def test_a_secret_opens_a_server_and_no_other_one_hears_it(orlop, guarded, tmp_path):
    url, heard = guarded

    def build(text, **secrets):
        words = []
        for name, value in secrets.items():
            (tmp_path / name).write_text(value + "\n")
            words.append(f"--secret=id={name.replace('__', '.')},src={tmp_path / name}")
        return orlop("build", "-q", "-t", "x", *words, "-", input=text, check=False)

    text = f"FROM host\nADD {url}/f /f\n"
    assert "401" in build(text).stderr
    assert not build(text, **{"HTTP_AUTH_TOKEN_127.0.0.1": "t0ken-of-http"}).code
    assert run(orlop, "x", "cat", "/f") == "behind a door\n"
    assert not build(text, **{"HTTP_AUTH_HEADER_127.0.0.1": "Own header-of-http"}).code
    assert "no value of a header" in build(text, **{"HTTP_AUTH_TOKEN_127.0.0.1": "two\nlines"}).stderr
    heard.clear()
    assert "401" in build(f"FROM host\nADD {url}/away /f\n", **{"HTTP_AUTH_TOKEN_127.0.0.1": "t0ken-of-http"}).stderr
    assert heard == [("127.0.0.1", "Bearer t0ken-of-http"), ("10.77.0.2", None)]
    text = f"FROM host\nADD {url}/one.git#v1 /repo\n"
    assert build(text).code
    for name in ("GIT_AUTH_TOKEN", "GIT_AUTH_TOKEN__127.0.0.1"):
        done = build(text.replace("/repo", f"/repo-{name[-1]}"), **{name: "t0ken-of-git"})
        assert not done.code, done.stderr
        assert run(orlop, "x", "cat", f"/repo-{name[-1]}/f") == "first\n"


def test_contexts_on_a_server(orlop, server, tmp_path):
    place, url = server
    (place / "D").write_text("FROM host\nRUN echo by a Dockerfile > /f\n")
    orlop("build", "-q", "-t", "x", f"{url}/D")
    assert run(orlop, "x", "cat", "/f") == "by a Dockerfile\n"
    (tmp_path / "c").mkdir()
    (tmp_path / "c/Dockerfile").write_text("FROM host\nCOPY f /f\n")
    (tmp_path / "c/f").write_text("in the archive\n")
    subprocess.run(["tar", "czf", place / "c.tar.gz", "-C", tmp_path / "c", "."], check=True)
    orlop("build", "-q", "-t", "y", f"{url}/c.tar.gz")
    assert run(orlop, "y", "cat", "/f") == "in the archive\n"


def test_repositories(orlop, repository):
    url, commit = repository
    for context, wanted in {
        url: "second\n",
        f"{url}#v1": "first\n",
        f"{url}#main:sub": "of sub\n",
        f"{url}#{commit}": "first\n",
    }.items():
        orlop("build", "-q", "-t", "x", context)
        assert run(orlop, "x", "cat", "/f") == wanted, context
    text = (
        f"FROM host\nADD {url}#v1 /src\nADD --keep-git-dir=true {url} /kept\nADD --checksum={commit} {url}#v1 /sure\n"
    )
    orlop("build", "-q", "-t", "y", "-", input=text)
    assert run(orlop, "y", "sh", "-c", "cat /src/f /kept/f /sure/f; ls -d /src/.git /kept/.git 2>&1 | wc -l") == (
        "first\nsecond\nfirst\n2\n"
    )
    assert run(orlop, "y", "sh", "-c", "test -d /kept/.git && test ! -e /src/.git && echo yes") == "yes\n"
    failed = orlop("build", "-q", f"{url}#none", check=False)
    assert failed.code == 1 and "none" in failed.stderr
    failed = orlop("build", "-q", f"{url}#main:../..", check=False)
    assert failed.code == 1
    failed = orlop("build", "-q", "-", input=f"FROM host\nADD --checksum={'0' * 40} {url} /x\n", check=False)
    assert failed.code == 1 and "expected checksum" in failed.stderr
