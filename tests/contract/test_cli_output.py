"""Tables and templates against the real docker CLI: the same data and the same --format are the same bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.fake_docker import FakeDocker
from support.fake_engine import FakeEngine

MINUTE, HOUR, DAY = 60, 3600, 86400
# Far enough from where the words change: the two commands run at different moments.
AGES_S = [
    125,
    45 * MINUTE,
    61 * MINUTE,
    89 * MINUTE,
    2 * HOUR,
    47 * HOUR,
    3 * DAY,
    15 * DAY,
    70 * DAY,
    400 * DAY,
    800 * DAY,
]

FULL = {
    "Id": "0123456789abcdef" * 4,
    "Names": ["/web"],
    "Image": "host:latest",
    "ImageID": "sha256:" + "a" * 64,
    "Command": 'sh -c "a very long command line"',
    "State": "running",
    "Status": "Up 2 hours",
    "Ports": [],
    "Labels": {"com.example.team": "x,y"},  # more than one are in no order in older CLIs
    "HostConfig": {"NetworkMode": "none"},
    "NetworkSettings": {"Networks": {"none": {}}},
    "Mounts": [
        {"Type": "bind", "Source": "/a/very/long/path/of/the/host", "Destination": "/b", "Mode": "", "RW": True},
        {
            "Type": "volume",
            "Name": "data",
            "Source": "/s",
            "Destination": "/c",
            "Driver": "local",
            "Mode": "",
            "RW": True,
        },
    ],
}
BARE: dict[str, Any] = {
    "Id": "f" * 64,
    "Names": ["/a", "/b/a"],
    "Image": "sha256:" + "b" * 64,
    "ImageID": "sha256:" + "b" * 64,
    "Command": "t\u00e4st 'x'",
    "State": "exited",
    "Status": "Exited (0) 3 minutes ago",
    "Ports": [],
    "Labels": {},
    "HostConfig": {"NetworkMode": "host"},
    "NetworkSettings": {"Networks": {}},
    "Mounts": [],
}

PS = [
    [],
    ["-a"],
    ["-q"],
    ["-aq"],
    ["-q", "--no-trunc"],
    ["--no-trunc"],
    ["-n", "1"],
    ["-l"],
    ["-lq"],
    ["--format", "table"],
    ["--format", "{{.ID}}"],
    ["--format", "{{.ID}}: {{.Command}}"],
    ["--no-trunc", "--format", "{{.ID}} {{.Command}} {{.Mounts}} {{.Image}}"],
    ["--format", "{{.Names}}\\t{{.Status}}\\t{{.State}}"],
    ["--format", "table {{.Names}}\\t{{.Status}}"],
    ["--format", "table {{.ID}}\\t{{.Image}}\\t{{.Ports}}\\t{{.Labels}}"],
    ["--format", 'table {{.Names}}\\t{{.Label "com.example.team"}}'],
    ["--format", '{{.Label "com.example.team"}}-{{.Label "nosuch"}}'],
    ["--format", "{{.Labels}}|{{.Mounts}}|{{.Networks}}|{{.LocalVolumes}}"],
    ["--format", "{{.CreatedAt}}"],
    ["--format", "{{json .ID}} {{json .Names}}"],
    ["--format", "{{upper .Names}} {{lower .Command}} {{title .State}}"],
    ["--format", '{{truncate .ID 4}}{{pad .State 1 2}}|{{join (split .Names ",") "+"}}'],
    ["--format", '{{if eq .State "running"}}up{{else}}down{{end}}'],
    ["--format", "{{with .Labels}}<{{.}}>{{else}}none{{end}}"],
    ["--format", '{{range $i, $n := split .Names ","}}{{$i}}={{$n}};{{end}}'],
    ["--format", '{{printf "%-8s|%5.2s|%q" .Names .State .Names}}'],
    ["--format", "{{len .Names}}"],
    ["--format", "{{ .Names -}}   x {{- .State }}"],
    ["--format", "{{/* nothing */}}{{.Names}}"],
    ["--format", '{{.Names | printf "%s!" | upper}}'],
    ["--format", "{{not .Labels}} {{and .Names .State}} {{or .Ports .Names}}"],
    ["--format", '{{$x := .Names}}{{$x}}{{$x = "y"}}{{$x}}'],
    ["--format", "{{print .Names 1 2 .State}} {{println .Names}}"],
    ["--format", "plain"],
]
WRONG_TEMPLATES = [
    "{{",
    "{{.ID",
    "{{end}}",
    "{{if}}",
    "{{nosuch .ID}}",
    "{{$x}}",
    '{{"a}}',
    "{{if .ID}}",
    "{{(.ID}}",
]

CONTAINER: dict[str, Any] = {
    "Id": "0" * 64,
    "Created": "2026-11-22T07:00:00.123456789Z",
    "Path": "sh",
    "Args": ["-c", "true"],
    "State": {
        "Status": "exited",
        "Running": False,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": 0,
        "ExitCode": 3,
        "Error": "",
        "StartedAt": "2026-11-22T07:00:00.2Z",
        "FinishedAt": "2026-11-22T07:00:01Z",
    },
    "Image": "sha256:" + "a" * 64,
    "Name": "/web",
    "RestartCount": 0,
    "HostConfig": {
        "Memory": 67108864,
        "NanoCpus": 500000000,
        "CapAdd": ["NET_RAW"],
        "Binds": None,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "rw"}],
        "Ulimits": [{"Name": "nofile", "Hard": 20, "Soft": 10}],
    },
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}},
    "GraphDriver": {"Data": {"UpperDir": "/u"}, "Name": "overlay2"},
    "Mounts": [
        {"Type": "bind", "Source": "/a", "Destination": "/b", "Mode": "ro", "RW": False, "Propagation": "rprivate"}
    ],
    "Config": {
        "Hostname": "deck",
        "Env": ["A=1", "B=two words"],
        "Cmd": ["sh", "-c", "true"],
        "Image": "host",
        "WorkingDir": "/",
        "Entrypoint": None,
        "Labels": {"k": "v", "com.example.x": "<&>"},
        "Tty": False,
        "ExposedPorts": {"80/tcp": {}, "81/udp": {}},
    },
}
INSPECT = [
    "{{.State}} {{.Mounts}} {{.HostConfig.RestartPolicy}} {{.HostConfig.LogConfig}}",
    "{{.HostConfig.Devices}} {{.HostConfig.Ulimits}} {{.NetworkSettings.Ports}} {{.GraphDriver}}",
    "{{.Config.ExposedPorts}}",
    '{{printf "%v %+v %q %x" .HostConfig.RestartPolicy .HostConfig.RestartPolicy .Args .Name}}',
    "{{.Name}} {{.State.ExitCode}} {{.State.Running}}",
    "{{.ID}}",
    "{{.Id}}",
    "{{json .Config.Env}} {{json .Config.Labels}} {{json .HostConfig.CapAdd}}",
    "{{.Config.Env}} {{.Args}} {{.Config.Cmd}}",
    "{{range .Config.Env}}{{println .}}{{end}}",
    "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}},{{end}}",
    '{{index .Config.Labels "com.example.x"}} {{index .Args 1}}',
    "{{len .Mounts}} {{(index .Mounts 0).Source}} {{range .Mounts}}{{.Destination}}:{{.RW}}{{end}}",
    "{{.HostConfig.Memory}} {{.HostConfig.NanoCPUs}} {{gt .HostConfig.Memory 1000}}",
    "{{if and .State.Running (eq .State.ExitCode 0)}}fine{{else if ge .State.ExitCode 3}}bad{{end}}",
    '{{join .Config.Cmd " "}} {{upper .Config.Hostname}} {{split .Config.Hostname "e"}}',
    "{{with .Config}}{{.Hostname}} {{$.Name}}{{end}}",
    '{{printf "%d %x %5d|%s|%v|%t" .State.ExitCode .HostConfig.Memory .State.Pid .Name .Args .State.Dead}}',
    "{{range $i, $a := .Args}}{{if $i}}, {{end}}{{$a}}{{end}}",
    "{{.Config.Labels}}",
    '{{.Config.Labels.nosuch}} {{index .Config.Labels "nosuch"}}',
    "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}} {{json .State.Health}} {{.State.Health}}",
    "{{.HostConfig.Binds}} {{json .HostConfig.Binds}} {{len .HostConfig.CapDrop}} {{range .HostConfig.Links}}x{{end}}",
    "{{.HostConfig.Init}} {{.HostConfig.PidsLimit}} {{json .HostConfig.Init}} {{.Config.Entrypoint}} {{.SizeRw}}",
    "{{.HostConfig.PortBindings}} {{json .Config.Volumes}} {{range .Mounts}}{{.Name}}{{.Driver}}{{json .Name}}{{end}}",
    "{{with .Config.Healthcheck}}x{{end}}{{with .HostConfig.Sysctls}}y{{end}}{{len .Config.ExposedPorts}}",
    '{{range .Args}}{{if eq . "true"}}{{break}}{{end}}[{{.}}]{{end}}',
    "json",
]


@pytest.fixture(scope="module")
def clis(peer: Any) -> Iterator[tuple[FakeDocker, FakeEngine]]:
    # In the middle of a second: two processes that start a moment apart print the same age.
    base = int(time.time()) - 5 * HOUR
    summaries = [FULL | {"Created": base}, BARE | {"Created": base - 3 * DAY}]
    docker_answers = {"/containers/json": summaries, "/containers/web/json": CONTAINER}
    engine_answers = {
        "containers.list": lambda args, _: summaries,
        "containers.inspect": CONTAINER,
    }
    with FakeDocker(peer("docker"), docker_answers) as docker, FakeEngine(engine_answers) as engine:
        yield docker, engine


@pytest.mark.parametrize("words", PS, ids=" ".join)
def test_ps_prints_what_docker_prints(clis: tuple[FakeDocker, FakeEngine], words: list[str]) -> None:
    docker, engine = clis
    summaries: Any = docker.answers["/containers/json"]
    if {"-n", "-l", "-lq"} & set(words):
        docker.answers["/containers/json"] = summaries[:1]  # in docker the engine cuts
    theirs = docker("ps", *words, env={"TZ": "UTC"})
    docker.answers["/containers/json"] = summaries
    ours = engine("ps", *words, env={"TZ": "UTC"})
    assert (ours.code, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.stderr == ""


@pytest.mark.parametrize("template", WRONG_TEMPLATES)
def test_a_template_that_docker_refuses_is_refused(clis: tuple[FakeDocker, FakeEngine], template: str) -> None:
    docker, engine = clis
    assert docker("ps", "--format", template).returncode == 1
    done = engine("ps", "--format", template)
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"orlop: cannot use the template {template}: ")
    assert "\nNext: " in done.stderr


@pytest.mark.parametrize("template", INSPECT)
def test_inspect_prints_what_docker_prints(clis: tuple[FakeDocker, FakeEngine], template: str) -> None:
    docker, engine = clis
    theirs = docker("inspect", "--type", "container", "-f", template, "web")
    ours = engine("inspect", "--type", "container", "-f", template, "web")
    if template == "json":
        assert json.loads(ours.stdout) == [CONTAINER]
        assert theirs.stdout.count("\n") == ours.stdout.count("\n") == 1
        return
    assert (ours.code, ours.stdout) == (theirs.returncode, theirs.stdout)


# What the JSON of an image, a volume and a network leaves out, or has as null: structs of Go have it.
SPARSE: dict[str, tuple[str, dict[str, Any]]] = {
    "image": (
        "{{.Config.ExposedPorts}} {{.Config.Volumes}} {{.Config.Labels}} {{.Config.OnBuild}} {{.Config.Shell}}"
        " {{.Config.Healthcheck}} {{.Config.Entrypoint}} {{.Config.User}}{{.Config.ArgsEscaped}}{{.Config.StopSignal}}"
        " {{.Parent}}{{.GraphDriver.Name}}{{.GraphDriver.Data}} {{range $port, $_ := .Config.ExposedPorts}}x{{end}}"
        " {{.RootFS}}",
        {
            "Id": "sha256:1",
            "RepoTags": ["i:1"],
            "Config": {"Cmd": ["a"], "Volumes": None},
            "RootFS": {"Type": "layers", "Layers": ["sha256:2"]},
        },
    ),
    "volume": (
        "{{.Labels}} {{.Options}} {{.Status}} {{.UsageData}}",
        {"Name": "v", "Labels": None, "Mountpoint": "/v"},
    ),
    "network": (
        "{{.Labels}} {{.Options}} {{.Peers}} {{.Services}} {{.Containers}} {{.IPAM}} {{.IPAM.Config}}",
        {
            "Name": "n",
            "Id": "n",
            "IPAM": {"Driver": "default", "Options": {}, "Config": [{"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.1"}]},
        },
    ),
}


@pytest.mark.parametrize("kind", SPARSE)
def test_what_is_not_set_is_empty_and_no_error(clis: tuple[FakeDocker, FakeEngine], kind: str) -> None:
    docker, engine = clis
    template, value = SPARSE[kind]
    place = {"image": "/images/one/json", "volume": "/volumes/one", "network": "/networks/one"}[kind]
    docker.answers[place] = engine.answers[f"{kind}s.inspect"] = value
    theirs, ours = docker(kind, "inspect", "-f", template, "one"), engine(kind, "inspect", "-f", template, "one")
    assert (ours.code, ours.stdout) == (theirs.returncode, theirs.stdout) == (0, theirs.stdout), ours
    assert json.loads(engine(kind, "inspect", "one").stdout) == [value]  # and JSON stays as it was


@pytest.mark.parametrize(
    "template",
    ["{{.Foo}}", "{{.State.Foo}}", "{{.State.Health.Status}}", "{{.State.ExitCode.x}}", "{{index .Args 7}}", "{{"],
)
def test_inspect_refuses_what_docker_refuses(clis: tuple[FakeDocker, FakeEngine], template: str) -> None:
    docker, engine = clis
    done = engine("inspect", "--type", "container", "-f", template, "web")
    assert (done.code, done.stdout) == (docker("inspect", "--type", "container", "-f", template, "web").returncode, "")
    assert template in done.stderr and "\nNext: " in done.stderr


def test_inspect_indents_as_docker_does(clis: tuple[FakeDocker, FakeEngine]) -> None:
    docker, engine = clis
    assert (
        engine("inspect", "--type", "container", "web").stdout == docker("inspect", "--type", "container", "web").stdout
    )


def test_ages_are_told_as_docker_tells_them(peer: Any) -> None:
    now = int(time.time())
    names = [f"image{at}:1" for at in range(len(AGES_S))]
    theirs = [
        {
            "Id": f"sha256:{at:064x}",
            "RepoTags": [name],
            "Created": now - age - 5,
            "Size": 10 ** (at % 11) * 7 + at,
            "Containers": -1,
        }
        for at, (name, age) in enumerate(zip(names, AGES_S, strict=True))
    ]
    ours = [
        {
            "id": image["Id"],
            "names": image["RepoTags"],
            "created": time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime(image["Created"])),  # type: ignore[arg-type]
            "size": image["Size"],
        }
        for image in theirs
    ]
    with FakeDocker(peer("docker"), {"/images/json": theirs}) as docker, FakeEngine({"images.list": ours}) as engine:
        for words in (
            [],
            ["-q"],
            ["--no-trunc"],
            ["--format", "{{.Repository}} {{.Tag}} {{.ID}} {{.CreatedSince}} {{.Size}}"],
        ):
            assert sorted(engine("images", *words).stdout.splitlines()) == sorted(
                docker("images", *words).stdout.splitlines()
            )
