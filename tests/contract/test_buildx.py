"""`docker buildx build`, unchanged, against our BuildKit API; and Compose v2, which builds by the same."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.engine import Environment
from support.registries import debian_registry

DOCKERFILE = """\
FROM host AS base
RUN echo hello > /made; cat /made
FROM base AS full
COPY . /app/
RUN --mount=type=secret,id=tok cat /run/secrets/tok
ARG V=1
ENV X=$V
LABEL kept=yes
CMD ["cat", "/made"]
FROM base AS other
RUN echo other
"""


class Docker:
    """docker's command line with its plugins, in a context of its own."""

    def __init__(self, home: Path, environment: Environment, buildx: Path, compose: Path) -> None:
        plugins = home / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-buildx").symlink_to(buildx)
        (plugins / "docker-compose").symlink_to(compose)
        self._inside = environment.inside
        socket = f"unix://{environment.run}/docker.sock"
        own = {
            "DOCKER_HOST": socket,
            "DOCKER_CONFIG": str(home),
            "DOCKER_BUILDKIT": "1",
            "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
            "TMPDIR": str(home),  # it leaves there what it makes of a Dockerfile on standard input
        }
        self._env = {name: value for name, value in os.environ.items() if name != "BUILDX_BUILDER"} | own

    def __call__(self, *words: str | Path, check: bool = True, stdin: Path | None = None, **more: str) -> str:
        argv = ["docker", *map(str, words)]
        pipe = subprocess.PIPE
        with (stdin or Path(os.devnull)).open("rb") as source:
            process = self._inside(
                lambda: subprocess.Popen(argv, env=self._env | more, stdin=source, stdout=pipe, stderr=pipe, text=True)
            )
            out, err = process.communicate(timeout=110)
        done = subprocess.CompletedProcess(argv, process.returncode, out, err)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout + done.stderr)

    def build(self, *words: str | Path, check: bool = True, stdin: Path | None = None, **more: str) -> str:
        return self("buildx", "build", "--progress=plain", *words, check=check, stdin=stdin, **more)


@pytest.fixture
def docker(orlop: Environment, tmp_path: Path, peer: Callable[[str], Path]) -> Iterator[Docker]:
    peer("docker")
    buildx, compose = peer("docker-buildx"), peer("docker-compose")
    orlop("images")
    orlop("run", "--rm", "host", "true")
    yield Docker(tmp_path / "home", orlop, buildx, compose)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    (directory / "sub").mkdir(parents=True)
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / ".dockerignore").write_text("*.log\n")
    (directory / "a").write_text("one")
    (directory / "sub/b").write_text("two")
    (directory / "sub/link").symlink_to("../a")
    (directory / "x.log").write_text("no")
    (directory / "run.sh").write_text("#!/bin/sh\n")
    (directory / "run.sh").chmod(0o755)
    return directory


def test_a_build_is_cached_and_what_changes_is_built_anew(docker: Docker, orlop: Environment, context: Path) -> None:
    words = ("-t", "me/x:1", "--target", "full", "--build-arg", "V=7", "--label", "own=1", "--secret", "id=tok,env=TOK")
    told = docker.build(*words, context, TOK="sesame")
    assert "#" in told and "RUN echo hello" in told and "sesame" in told and "RUN echo other" not in told
    found = json.loads(docker("image", "inspect", "me/x:1"))[0]["Config"]
    assert (found["Env"][-1], found["Labels"], found["Cmd"]) == ("X=7", {"kept": "yes", "own": "1"}, ["cat", "/made"])
    assert docker("run", "--rm", "--network=none", "me/x:1") == "hello\n"
    listing = "cd /app; ls -A . sub; cat a sub/b; readlink sub/link; stat -c %a run.sh"
    assert docker("run", "--rm", "--network=none", "me/x:1", "sh", "-c", listing).split() == [
        ".:", ".dockerignore", "Dockerfile", "a", "run.sh", "sub", "sub:", "b", "link", "onetwo../a", "755",
    ]  # fmt: skip
    again = docker.build(*words, context, TOK="sesame")
    assert again.count("CACHED") == 3 and "sesame" not in again
    (context / "sub/b").unlink()
    (context / "a").write_text("ONE")
    changed = docker.build(*words, context, TOK="other")
    assert "other" in changed and changed.count("CACHED") == 1
    assert docker("run", "--rm", "--network=none", "me/x:1", "sh", "-c", "cat /app/a; ls /app/sub") == "ONElink\n"
    assert "CACHED" not in docker.build(*words, "--no-cache", context, TOK="other")


def test_a_failing_step_is_the_error(docker: Docker, tmp_path: Path, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM host\nRUN echo before; exit 3\n")
    told = docker.build(context, check=False)
    assert 'process "/bin/sh -c echo before; exit 3" did not complete successfully: exit code: 3' in told
    rule = "-" * 20
    place = f"Dockerfile:2\n{rule}\n   1 |     FROM host\n   2 | >>> RUN echo before; exit 3\n   3 |     \n{rule}\n"
    assert place in told and "failed to solve: process" in told
    (context / "Dockerfile").write_text("FORM host\n")
    told = docker.build(context, check=False)
    assert "\n   1 | >>> FORM host\n" in told
    assert "ERROR: failed to solve: dockerfile parse error on line 1: unknown instruction: FORM" in told
    (context / "Dockerfile").write_text("FROM host\nENV X=${Y:\n")
    assert """ERROR: failed to solve: failed to process "${Y:": syntax error""" in docker.build(context, check=False)
    (context / "Dockerfile").write_text("FROM 127.0.0.1:1/x\n")
    text = "ERROR: failed to solve: 127.0.0.1:1/x: failed to resolve source metadata for 127.0.0.1:1/x:latest: "
    assert text in docker.build(context, check=False)
    assert "open nowhere: no such file or directory" in docker.build("-f", context / "nowhere", context, check=False)


def test_progress_is_in_buildkits_words(docker: Docker, tmp_path: Path, context: Path) -> None:
    """What logs are searched for: names of steps, what is written and how it is called."""
    facts = tmp_path / "facts"
    told = docker.build("-t", "me/told:1", "--target", "base", "--metadata-file", facts, context)
    known = json.loads(facts.read_text())
    assert known["image.name"] == "docker.io/me/told:1"
    for line in (
        "[internal] load build definition from Dockerfile",
        f"transferring dockerfile: {len(DOCKERFILE)}B done",
        "[internal] load .dockerignore",
        "transferring context: 6B done",
        "[internal] load metadata for docker.io/library/host:latest",
        "[base 1/2] FROM docker.io/library/host:latest",
        "exporting to image",
        "exporting layers done",
        f"writing image {known['containerimage.config.digest']} done",
        "naming to docker.io/me/told:1 done",
    ):
        assert any(one.partition(" ")[2] == line for one in told.splitlines()), (line, told)
    named = docker.build("--build-context", f"more={context}", "-f", "-", context, stdin=_dockerfile(tmp_path, "more"))
    assert "[internal] load build context" not in named and "[context more] load from client" in named
    # No image is told of where only files were wanted.
    (context / "Dockerfile").write_text("FROM scratch\nCOPY a /\n")
    assert docker("buildx", "build", "-q", "-o", f"type=local,dest={tmp_path / 'q'}", context).strip() == ""
    assert "exporting to client directory" in docker.build("-o", f"type=local,dest={tmp_path / 'r'}", context)


def _dockerfile(place: Path, stage: str) -> Path:
    path = place / "of-stdin"
    path.write_text(f"FROM scratch\nCOPY --from={stage} a /a\n")
    return path


def test_outputs_come_back(docker: Docker, tmp_path: Path, context: Path, orlop: Environment) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /app/\n")
    docker.build("-o", f"type=local,dest={tmp_path / 'out'}", context)
    out = tmp_path / "out/app"
    assert (out / "a").read_text() == "one" and os.readlink(out / "sub/link") == "../a"
    assert (out / "run.sh").stat().st_mode & 0o777 == 0o755 and not (out / "x.log").exists()
    docker.build("-o", f"type=tar,dest={tmp_path / 'out.tar'}", context)
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert "app/sub/b" in {name.removeprefix("./") for name in archive.getnames()}
    docker.build("-t", "me/saved:1", "-o", f"type=docker,dest={tmp_path / 'saved.tar'}", context)
    assert "No such image" in docker("image", "inspect", "me/saved:1", check=False), "only the file was asked for"
    assert "me/saved:1" in orlop("load", "-i", tmp_path / "saved.tar").stdout


def test_named_contexts_and_a_dockerfile_from_elsewhere(docker: Docker, tmp_path: Path, context: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/far").write_text("far away")
    (tmp_path / "D").write_text("FROM base\nCOPY --from=more far /far\nCOPY a /a\n")
    contexts = ("--build-context", f"more={tmp_path / 'other'}", "--build-context", "base=docker-image://host")
    docker.build("-t", "named", "-f", tmp_path / "D", *contexts, context)
    assert docker("run", "--rm", "--network=none", "named", "cat", "/far", "/a") == "far awayone"


def test_a_client_s_folder_is_listed_and_pruned(docker: Docker, orlop: Environment, context: Path) -> None:
    docker.build("--target", "base", context)
    received = [path for path in (orlop.root / "build/synced").iterdir() if path.is_dir()]
    assert len(received) >= 2 and orlop("builder", "du").stdout.count("a folder of a client's") == len(received)
    orlop("builder", "prune", "-f", "--filter", "until=1h")
    docker("buildx", "prune", "-f", "--filter", "type=exec.cachemount")
    assert "invalid filter" in docker("buildx", "prune", "-f", "--filter", "parents=x", check=False)
    docker("builder", "prune", "-f", "--filter", "type=regular")
    assert [path for path in received if path.exists()] == received, "used a moment ago, and of another type"
    docker("buildx", "prune", "-f", "--filter", "type=source.local", "--filter", f"id={received[0].name[:20]}")
    assert [path for path in received if path.exists()] == received[1:]
    docker.build("--target", "base", context)
    with (received[0].with_name(received[0].name + ".used")).open() as used:
        fcntl.flock(used, fcntl.LOCK_SH)  # as a build does that goes on
        orlop("builder", "prune", "-f")
        assert [path for path in received if path.exists()] == received[:1]
    orlop("builder", "prune", "-f")
    assert not list((orlop.root / "build/synced").iterdir())
    assert docker.build("--target", "base", context), "they come again"


def test_an_archive_or_a_dockerfile_on_standard_input(docker: Docker, tmp_path: Path, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM host\nCOPY sub/b /b\n")
    with tarfile.open(tmp_path / "context.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(context, arcname=".")
    docker.build("-t", "piped", "-", stdin=tmp_path / "context.tar")
    assert docker("run", "--rm", "--network=none", "piped", "cat", "/b") == "two"
    (tmp_path / "D").write_text("FROM host\nRUN echo alone >/b\n")
    docker.build("-t", "piped", "-", stdin=tmp_path / "D")
    assert docker("run", "--rm", "--network=none", "piped", "cat", "/b") == "alone\n"


def test_a_step_reaches_the_clients_agent(
    docker: Docker, tmp_path: Path, orlop: Environment, peer: Callable[[str], Path]
) -> None:
    programs = [word for name in ("sh", "cat", peer("ssh-add")) for word in ("--with", name)]
    orlop("rootfs", "from-binaries", *programs, tmp_path / "root")
    with tarfile.open(tmp_path / "root.tar", "w") as archive:
        archive.add(tmp_path / "root", arcname=".")
    orlop("import", tmp_path / "root.tar", "small")
    add = (peer("ssh-add") if peer("ssh-add").is_relative_to("/usr") else Path("/usr/bin/ssh-add")).as_posix()
    lines = [
        f"RUN --mount=type=ssh{one} {add} -l; echo it ends with $? $SSH_AUTH_SOCK" for one in ("", ",id=own,target=/s")
    ]
    text = "\n".join(
        ["FROM small", 'SHELL ["/usr/bin/sh", "-c"]', *lines, "RUN --mount=type=ssh,id=none,required cat\n"]
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "D").write_text(text)
    place = tmp_path / "agent"
    agent = subprocess.Popen([peer("ssh-agent"), "-D", "-a", place], stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None and agent.stdout.readline(), "it says when it listens"
        told = docker.build(
            f"--ssh=default={place}", f"--ssh=own={place}", "-f", tmp_path / "D", tmp_path / "empty", check=False
        )
    finally:
        agent.kill()
        agent.communicate()
    assert told.count("The agent has no identities.\n") >= 2
    assert "it ends with 1 /run/buildkit/ssh_agent.0" in told and "it ends with 1 /s" in told
    assert "unset ssh forward key none" in told
    assert not list(orlop.run.glob("build-*")), "its sockets are gone"


def test_the_builder_tells_of_itself(docker: Docker, context: Path) -> None:
    docker.build("-t", "x", "--target", "base", context)
    assert "running" in docker("buildx", "ls") and "linux/" in docker("buildx", "inspect")
    assert "Total:" in docker("buildx", "du")
    assert "Total:" in docker("buildx", "prune", "-f", "--filter", "type=regular")
    docker("buildx", "prune", "-f", "--filter", "until=1h", "--keep-storage=1gb")
    docker("buildx", "prune", "-f")
    assert "#1 [internal]" in docker.build("-t", "x", "--target", "base", context)


def test_it_asks_what_a_dockerfile_takes(docker: Docker, context: Path) -> None:
    more = {"BUILDX_EXPERIMENTAL": "1"}
    assert "other (default)" in docker.build("--print=targets", context, **more)
    told = docker.build("--print=outline", "--target=full", context, **more)
    assert "BUILD ARG   VALUE   DESCRIPTION\nV           1" in told and "\ntok " in told


def test_compose_builds_by_it(docker: Docker, tmp_path: Path, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM host\nARG WORD\nRUN echo $WORD >/word\nCMD cat /word\n")
    service = "{build: {context: ./context, args: {WORD: built}}, network_mode: none}"
    (tmp_path / "compose.yaml").write_text(f"name: b\nservices: {{web: {service}}}\n")
    docker("compose", "-f", tmp_path / "compose.yaml", "build")
    assert "built" in docker("compose", "-f", tmp_path / "compose.yaml", "run", "--rm", "-T", "web")


def test_bake_builds_on_what_another_target_makes(docker: Docker, tmp_path: Path, context: Path) -> None:
    """Its client carries one build's answer into the next one's request."""
    (tmp_path / "bake.json").write_text(
        json.dumps(
            {
                "target": {
                    "below": {"context": str(context), "dockerfile-inline": "FROM host\nENV BELOW=1\nCOPY a /a"},
                    "above": {
                        "context": str(context),
                        "contexts": {"lower": "target:below"},
                        "dockerfile-inline": "FROM lower\nCOPY --from=lower /a /copied\nLABEL up=1",
                        "tags": ["me/linked:1"],
                    },
                }
            }
        )
    )
    told = docker("buildx", "bake", "--progress=plain", "-f", tmp_path / "bake.json", "above")
    assert "[below 2/2] COPY a /a" in told and "[above 2/2] COPY --from=lower /a /copied" in told
    found = json.loads(docker("image", "inspect", "me/linked:1"))[0]["Config"]
    assert "BELOW=1" in found["Env"] and found["Labels"] == {"up": "1"}
    assert docker("run", "--rm", "--network=none", "me/linked:1", "cat", "/copied") == "one"


def test_orlop_compose_builds_too(orlop: Environment, tmp_path: Path, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM host\nARG WORD\nRUN echo $WORD >/word\nCMD cat /word\n")
    service = "{build: {context: ./context, args: {WORD: built}}, network_mode: none}"
    (tmp_path / "compose.yaml").write_text(f"name: b\nservices: {{web: {service}}}\n")
    done = orlop("compose", "-f", tmp_path / "compose.yaml", "up", "--exit-code-from", "web")
    assert "web-1  | built\n" in done.stdout


@pytest.mark.parametrize(
    "data",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000, os.urandom(5000)],
    ids=["nothing", "http1", "frames", "noise"],
)
@pytest.mark.parametrize("path", ["/grpc", "/session"])
def test_noise_ends_the_connection_and_nothing_else(orlop: Environment, path: str, data: bytes) -> None:
    orlop("info")

    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(orlop.run / "docker.sock"))
            upgrade = "Connection: Upgrade\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: a"
            head = f"POST {path} HTTP/1.1\r\nHost: d\r\n{upgrade}\r\n\r\n"
            client.sendall(head.encode())
            answer = client.recv(4096)
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    continue
            except ConnectionError:
                pass  # it had ended before all was said
            return answer

    assert orlop.inside(talk).startswith(b"HTTP/1.1 101 ")
    assert orlop("info").code == 0


def test_without_an_upgrade_the_answer_is_an_error(orlop: Environment) -> None:
    orlop("info")

    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(orlop.run / "docker.sock"))
            client.sendall(b"POST /grpc HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
            return client.recv(4096)

    assert orlop.inside(talk).startswith(b"HTTP/1.1 400 ")


def test_caches_layouts_and_attestations(
    docker: Docker, orlop: Environment, context: Path, tmp_path: Path, peer: Callable[[str], Path]
) -> None:
    (context / "Dockerfile").write_text("FROM host\nRUN date +%N > /x\nCOPY a /a\n")
    with debian_registry(peer("docker-registry"), tmp_path / "registry", orlop) as registry:
        cache = f"type=registry,ref={registry}/cache:1"
        docker.build("--cache-to", f"{cache},mode=max", context)
        orlop("builder", "prune", "-af")
        assert docker.build("--cache-from", cache, context).count("CACHED") == 2
        docker.build("-t", f"{registry}/inline:1", "--push", "--cache-to", "type=inline", context)
        orlop("builder", "prune", "-af")
        assert docker.build("--cache-from", f"{registry}/inline:1", context).count("CACHED") == 2
    orlop("build", "-q", "--cache-to", f"type=local,dest={tmp_path}/cache", context)
    layout = tmp_path / "layout"
    orlop("build", "-q", "-t", "x:v1", "-o", f"type=oci,dest={layout},tar=false", context)
    orlop("builder", "prune", "-af")
    assert docker.build("--cache-from", f"type=local,src={tmp_path}/cache", context).count("CACHED") == 2
    written = f"type=local,dest={tmp_path}/other,mode=max"
    docker.build("--cache-to", written, "-t", "made", context)
    index = (tmp_path / "other/index.json").read_text()
    orlop("builder", "prune", "-af")
    words = ("--cache-from", f"type=local,src={tmp_path}/other", "--cache-to", written)
    assert docker.build(*words, context).count("CACHED") == 2
    assert (tmp_path / "other/index.json").read_text() == index, "the same cache"
    orlop("builder", "prune", "-af")
    told = orlop("build", "--progress=plain", "--cache-from", f"type=local,src={tmp_path}/other", context)
    assert told.stderr.count("CACHED") == 2, "our command reads what the client was given"
    (context / "Dockerfile").write_text("FROM given\nCOPY a /b\n")
    out = ("--attest", "type=provenance,mode=max,builder-id=me", "--sbom=true", "-o", f"type=oci,dest={tmp_path}/o.tar")
    docker.build("--build-context", f"given=oci-layout://{layout}:v1", *out, context)
    with tarfile.open(tmp_path / "o.tar") as archive:

        def blob(descriptor: dict[str, str]) -> dict[str, object]:
            file = archive.extractfile(f"blobs/{descriptor['digest'].replace(':', '/')}")
            assert file is not None
            found: dict[str, object] = json.loads(file.read())
            return found

        top = archive.extractfile("index.json")
        assert top is not None
        index = blob(json.loads(top.read())["manifests"][0])
        attestation = blob(index["manifests"][1])  # type: ignore[index]
        statements = [blob(layer) for layer in attestation["layers"]]  # type: ignore[attr-defined]
    kinds = [one["predicateType"] for one in statements]
    assert sorted(map(str, kinds)) == ["https://slsa.dev/provenance/v1", "https://spdx.dev/Document"]
    assert '"id": "me"' in json.dumps(statements)
