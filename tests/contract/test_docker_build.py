"""`POST /build`: the docker CLI without BuildKit, docker-py, and requests that neither would send."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator

import docker
import pytest

from bench.workspace import Workspace
from support.docker_http import Api
from support.engine import Environment

# docker-py leaves the answers of failed requests to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
TEXT = 'FROM box:1\nENV A=1\nRUN echo "$A" > /a\nCOPY f /f\nCMD ["cat", "/a", "/f"]\n'


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with Workspace() as work:
        environment = Environment(work.path("o") / "root")
        environment("info")
        environment("import", str(work.archive()), "box:1")
        yield environment
        left = environment.close()
        assert not left, left


@pytest.fixture(scope="module")
def api(environment):
    return Api(environment.run / "docker.sock")


@pytest.fixture
def cli(environment, peer, tmp_path):
    env = os.environ | {"DOCKER_HOST": f"unix://{environment.run}/docker.sock", "DOCKER_CONFIG": str(tmp_path / "none")}

    def call(*argv, data=b"", check=True):
        words = [str(peer("docker")), *map(str, argv)]
        done = environment.inside(
            lambda: subprocess.run(
                words, env=env | {"DOCKER_BUILDKIT": "0"}, input=data, capture_output=True, timeout=120, check=False
            )
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return call


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            made.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def stream(answer):
    return [json.loads(line) for line in answer.body.splitlines()]


def test_the_cli_builds_and_builds_again_from_the_cache(cli, tmp_path):
    (tmp_path / "Dockerfile").write_text(TEXT)
    (tmp_path / "f").write_text("from the context\n")
    first = cli("build", "--network=none", "-t", "made", tmp_path).stdout.decode()
    steps = [line for line in first.splitlines() if line.startswith("Step ")]
    assert steps[0] == "Step 1/5 : FROM box:1" and len(steps) == 5 and "Using cache" not in first
    assert "Successfully tagged made:latest" in first
    assert cli("run", "--rm", "--network=none", "made").stdout == b"1\nfrom the context\n"
    again = cli("build", "--network=none", "-t", "made", tmp_path).stdout.decode()
    assert again.count("Using cache") == 4
    assert [line for line in again.splitlines() if "Successfully" in line] == [
        line for line in first.splitlines() if "Successfully" in line
    ]
    shown = cli("history", "--format", "{{.CreatedBy}}", "made").stdout.decode()
    assert all(word in shown for word in ("ENV A=1", "RUN ", "COPY f /f", "CMD"))


def test_the_cli_shows_output_and_the_status_of_what_fails(cli):
    failed = cli("build", "--network=none", "-", data=b"FROM box:1\nRUN echo said; exit 7\n", check=False)
    assert failed.returncode == 7 and b"said\n" in failed.stdout
    assert b" ---> Running in " in failed.stdout and b"Removed" not in failed.stdout
    assert b"The command '/bin/sh -c echo said; exit 7' returned a non-zero code: 7" in failed.stderr
    failed = cli("build", "-", data=b"FROM box:1\nNONSENSE x\n", check=False)
    assert b"dockerfile parse error on line 2: unknown instruction: NONSENSE" in failed.stderr


def test_the_stream_says_where_a_step_runs_and_what_it_says_as_an_error(api):
    """As docker 26.1's classic builder does, which clients colour their lines by."""
    text = archive(Dockerfile="FROM box:1\nENV A=1\nRUN echo out; echo err >&2\n")
    place = "/build?networkmode=none&nocache=1"
    steps = [one["stream"] for one in stream(api("POST", f"{place}&rm=1", text)) if "stream" in one]
    at = steps.index("Step 3/3 : RUN echo out; echo err >&2\n")
    runs, *said, removed, _tree = steps[at + 1 : at + 6]
    assert runs.startswith(" ---> Running in ") and sorted(said) == ["\x1b[91merr\n\x1b[0m", "out\n"]
    assert removed == f" ---> Removed intermediate container {runs.split()[-1]}\n"
    assert not any("Removed" in one.get("stream", "") for one in stream(api("POST", f"{place}&rm=0", text)))
    broken = archive(Dockerfile="FROM box:1\nRUN exit 3\n")
    told = stream(api("POST", f"{place}&forcerm=1", broken))
    assert (
        told[-2]["stream"].startswith(" ---> Removed intermediate container ") and told[-1]["errorDetail"]["code"] == 3
    )


def test_of_a_name_that_comes_twice_the_first_counts(api):
    """docker-py gives the name and the text of a Dockerfile that lies outside the context."""
    files = {"D": "FROM box:1\nLABEL a=first\n", "Dockerfile": "FROM box:1\n"}
    told = stream(api("POST", "/build?dockerfile=D&dockerfile=FROM+nosuch%0A", archive(**files)))
    assert any("LABEL a=first" in one.get("stream", "") for one in told), told


def test_a_platform_that_is_none_is_told_in_dockers_words(api):
    for platform, why in (("foobar", "unknown operating system or architecture"), ("a/b/c/d", "cannot parse platform")):
        answer = api("POST", f"/build?platform={platform}", archive(Dockerfile="FROM box:1\n"))
        assert answer.status == 400 and answer.message.startswith(f'"{platform}": {why}'), answer


def test_the_cli_passes_its_options(cli, tmp_path):
    (tmp_path / "D").write_text(
        "ARG B=none\nFROM box:1 AS one\nARG V\nRUN echo $V > /v\nFROM box:1 AS two\nLABEL a=1\nFROM one\nRUN nonsense\n"
    )
    options = ["--build-arg", "V=given", "--target=one", "--label", "l=m", "--network=none", "-f", tmp_path / "D"]
    name = cli("build", "-q", *options, tmp_path).stdout.decode().strip()
    assert cli("run", "--rm", "--network=none", name, "cat", "/v").stdout == b"given\n"
    assert json.loads(cli("inspect", name).stdout)[0]["Config"]["Labels"] == {"l": "m"}
    (tmp_path / "context").mkdir()  # the Dockerfile is outside: the archive ends within its last padding then
    cli("build", "-q", *options, tmp_path / "context")
    assert b"Total reclaimed space" in cli("builder", "prune", "-f").stdout


def test_the_sdk_builds(environment):
    client = docker.DockerClient(base_url=f"unix://{environment.run}/docker.sock", timeout=60)
    try:
        text = archive(Dockerfile=TEXT, f="of the SDK\n")
        image, logs = client.images.build(
            fileobj=io.BytesIO(text), custom_context=True, tag="sdk:1", rm=True, network_mode="none"
        )
        assert image.tags == ["sdk:1"] and any("Step 1/5" in one.get("stream", "") for one in logs)
        unset = {"Labels": None, "Entrypoint": None, "OnBuild": None, "Volumes": None, "User": ""}  # and no KeyError
        assert {name: image.attrs["Config"][name] for name in unset} == unset
        assert client.containers.run("sdk:1", remove=True, network_mode="none") == b"1\nof the SDK\n"
        with pytest.raises(docker.errors.BuildError) as failed:
            broken = archive(Dockerfile="FROM box:1\nRUN exit 3\n")
            client.images.build(fileobj=io.BytesIO(broken), custom_context=True, network_mode="none")
        assert "returned a non-zero code: 3" in str(failed.value)
        assert client.api.prune_builds()["SpaceReclaimed"] >= 0
    finally:
        client.close()
        gc.collect()


def test_the_stream_ends_with_the_image(api):
    answer = api(
        "POST", "/build?networkmode=none&t=a&t=b:2", archive(Dockerfile=TEXT, f=""), Content_Type="application/x-tar"
    )
    told = stream(answer)
    assert answer.status == 200 and told[0] == {"stream": "Step 1/5 : FROM box:1\n"}
    (aux,) = [one["aux"] for one in told if "aux" in one]
    assert aux["ID"].startswith("sha256:")
    assert [one["stream"] for one in told[-2:]] == ["Successfully tagged a:latest\n", "Successfully tagged b:2\n"]
    quiet = stream(api("POST", "/build?networkmode=none&q=1", archive(Dockerfile=TEXT, f="")))
    assert quiet == [{"stream": aux["ID"] + "\n"}]


@pytest.mark.parametrize(
    ("query", "body", "status", "words"),
    [
        ("", b"no archive" * 100, 400, "tar archive"),
        ("", b"", 400, ""),
        ("", archive(other="x"), 404, "Dockerfile"),
        ("?dockerfile=../../etc/passwd", archive(Dockerfile="FROM box:1\n"), 404, "passwd"),
        ("?dockerfile=D", archive(Dockerfile="FROM box:1\n"), 404, "D"),
        ("", archive(Dockerfile=""), 400, ""),
        ("", archive(Dockerfile="FROM box:1\nCOPY\n"), 400, "COPY"),
        ("?buildargs={", archive(Dockerfile="FROM box:1\n"), 400, ""),
        ("?labels=[]", archive(Dockerfile="FROM box:1\n"), 400, ""),
        ("?target=none", archive(Dockerfile="FROM box:1\n"), 400, "none"),
        ("?t=UPPER", archive(Dockerfile="FROM box:1\n"), 400, ""),
        ("?version=2", archive(Dockerfile="FROM box:1\n"), 400, ""),
        ("?remote=ftp://host/x", b"", 400, ""),
        ("?shmsize=x", archive(Dockerfile="FROM box:1\n"), 400, ""),
        ("?ulimits=[1]", archive(Dockerfile="FROM box:1\n"), 400, ""),
        ("?cachefrom={}", archive(Dockerfile="FROM box:1\n"), 400, "cachefrom"),
    ],
)
def test_broken_requests_are_answered(api, query, body, status, words):
    answer = api("POST", f"/build{query}", body, Content_Type="application/x-tar")
    assert answer.status == status and words in answer.message, answer


def test_a_build_is_cancelled_by_its_name(api):
    """red: without the shutdown of its connection, which is how a build sees that its client has gone."""
    body = archive(Dockerfile="FROM box:1\nRUN echo begun && sleep 1000\n")
    with api.connect() as stream, stream.makefile("rb") as lines:
        head = f"POST /build?buildid=mine HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        stream.sendall(f"{head}Content-Type: application/x-tar\r\n\r\n".encode() + body)
        while b'"begun' not in (line := lines.readline()):
            assert line, "the build ended"
        assert api("POST", "/build?buildid=mine", body, Content_Type="application/x-tar").status == 409
        assert api("POST", "/build/cancel?id=other").status == 200
        assert api("POST", "/build/cancel?id=mine").status == 200
        assert b"Successfully" not in lines.read()
    assert api("POST", "/build/cancel?id=mine").status == 200, "as docker: it is over"
    assert api("POST", "/build/cancel").message == "build ID not provided"


def test_a_squashed_build_adds_one_layer(api):
    text = "FROM box:1\nCOPY Dockerfile /a\nCOPY Dockerfile /b\n"
    for query, added in (("?t=plain:1", 2), ("?t=squashed:1&squash=1", 1)):
        stream(api("POST", f"/build{query}", archive(Dockerfile=text), Content_Type="application/x-tar"))
        name = query.partition("=")[2].partition("&")[0]
        layers, base = (api("GET", f"/images/{one}/json").json["RootFS"]["Layers"] for one in (name, "box:1"))
        assert len(layers) == len(base) + added


def test_a_link_of_the_context_leads_nowhere_else(api):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, target in {"Dockerfile": "/etc/hostname", "x": "/etc/passwd"}.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            made.addfile(member)
    assert api("POST", "/build", buffer.getvalue(), Content_Type="application/x-tar").status == 404
    buffer.seek(0)
    with tarfile.open(fileobj=buffer, mode="w") as made:
        text = b"FROM box:1\nCOPY x /x\n"
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(text)
        made.addfile(member, io.BytesIO(text))
        member = tarfile.TarInfo("x")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(member)
    told = stream(api("POST", "/build", buffer.getvalue(), Content_Type="application/x-tar"))
    assert "not found" in told[-1]["error"]
