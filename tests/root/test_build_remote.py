"""Builds that fetch: ADD of URLs and repositories; contexts that are repositories, archives, files on a server."""

from __future__ import annotations

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
