"""Compose files: where things stand, variables, .env files, merging, what is refused and with which place."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.frontends.cli.compose import images
from orlop.frontends.compose import document, dotenv, fields, interpolation, loading, plan, project, request
from orlop.frontends.compose.document import Map
from orlop.spec.errors import Invalid, NotFound, OrlopError, Unsupported

HEAD = "services:\n  web:\n    image: busybox\n"


def load(directory: Path, text: str | bytes, /, environ: dict[str, str] | None = None, **more: str) -> project.Project:
    directory.mkdir(exist_ok=True)
    (directory / "compose.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    for name, content in more.items():
        (directory / name.replace("_", ".")).write_text(content)
    loaded = loading.load(loading.Sources([str(directory / "compose.yaml")], environ=environ or {}))
    return project.make(loaded)


def refused(directory: Path, text: str | bytes) -> str:
    with pytest.raises(OrlopError) as caught:
        load(directory, text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "where", "cause"),
    [
        (HEAD + "    imagee: x\n", ":4:5", "additional properties 'imagee' not allowed"),
        (HEAD + "    ports:\n      - 80:80:80:80\n", ":5:9", "invalid"),
        (HEAD + "    healthcheck: {interval: 5}\n", ":4:19", "missing unit"),
        (HEAD + "    mem_limit: lots\n", ":4:5", "invalid size"),
        (HEAD + "    depends_on: [db]\n", ":4:5", 'depends on undefined service "db"'),
        (HEAD + "    hostname: ${A\n", ":4:5", "a brace is not closed"),
        (HEAD + "    image: again\n", ":4:5", 'mapping key "image" already defined'),
        (HEAD + "    build: {contxt: .}\n", ":4:13", "additional properties 'contxt'"),
        ("services:\n  web: [\n", ":3:1", ""),
        ("services: {web: {image: x, privileged: maybe}}\n", ":1:28", "must be true or false"),
    ],
)
def test_what_is_wrong_has_its_place(tmp_path: Path, text: str, where: str, cause: str) -> None:
    told = refused(tmp_path, text)
    assert f"compose.yaml{where}" in told and cause in told


def test_a_misspelt_key_gets_the_next_one(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        load(tmp_path, HEAD + "    enviroment: {}\n")
    assert caught.value.hint == "did you mean environment?"


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\x00",
        b"services: {web: {image: \xc3\x28}}",
        b"- 1\n",
        b"services: 1\n",
        b"services: {1: {image: x}}\nservices: {}\n",
        b"a: &a [*a]\n",
        b"services: {web: {image: x, labels: !!python/object:os.system x}}",
        b"services: {web: {image: x, labels: !unknown {}}}",
        b"services: {? [a]: b}",
        b"[" * 5000,
        # Red: they ended the process, or took minutes: PyYAML calls itself in C, libyaml looks at all that are open.
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"- " * 200_000,
        b"a: " + b"? " * 200_000,
        b"services:\n" + b"".join(b" " * n + b"a:\n" for n in range(1, 200)),
        b"services: {'a/b': {image: x}}",
        b"x: " + b"9" * 100_000 + b"\nservices: 1",
    ],
)
def test_broken_and_hostile_files_are_refused(tmp_path: Path, text: bytes) -> None:
    assert refused(tmp_path, text)


def test_aliases_do_not_fill_the_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "use fewer aliases" in _hint(tmp_path, "\n".join(lines))


def _hint(directory: Path, text: str) -> str:
    with pytest.raises(Invalid) as caught:
        load(directory, text)
    return caught.value.hint


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        for found in document.parse(data, "f.yaml"):
            assert isinstance(found, Map)
    except OrlopError as error:
        assert error.cause


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("true", True), ("yes", "yes"), ("on", "on"), ("0440", 288), ("0x1F", 31),
        ("1_000", 1000), ("22:22", "22:22"), ("1.50", 1.5), (".5", 0.5), ("1e3", 1000.0), ("-", "-"), ("+1", 1),
        ("089", "089"), ("0o17", 15), ("1.2.3", "1.2.3"), ("2001-01-01", "2001-01-01"), ("=", "="),
    ],
)  # fmt: skip
def test_plain_scalars_mean_what_go_yaml_says(text: str, value: object) -> None:
    assert document.resolve(text) == value and type(document.resolve(text)) is type(value)


VARIABLES = {"A": "a", "EMPTY": "", "B": "b"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$A", "a"), ("${A}", "a"), ("$$A", "$A"), ("$A$B", "ab"), ("${NO:-x}", "x"), ("${NO-x}", "x"),
        ("${EMPTY:-x}", "x"), ("${EMPTY-x}", ""), ("${A:+x}", "x"), ("${NO+x}", ""), ("${EMPTY+x}", "x"),
        ("${EMPTY:+x}", ""), ("${NO:-${A}}", "a"), ("${NO:-${NO2:-${B}c}}", "bc"), ("${A:-${NO:?never}}", "a"),
        ("${NO}", ""), ("a$", None), ("${", None), ("${A", None), ("${1}", None), ("${A:}", None), ("$-", None),
        ("${NO:?must}", None), ("${EMPTY:?must}", None), ("${EMPTY?must}", ""),
    ],
)  # fmt: skip
def test_variables(text: str, result: str | None) -> None:
    if result is None:
        with pytest.raises(interpolation.BadTemplate):
            interpolation.substitute(text, VARIABLES)
    else:
        assert interpolation.substitute(text, VARIABLES) == result


@given(st.text("${}:-?+AB_ x", max_size=30))
def test_any_template_is_replaced_or_refused(text: str) -> None:
    try:
        assert isinstance(interpolation.substitute(text, VARIABLES), str)
    except interpolation.BadTemplate:
        pass


def test_a_variable_that_is_missing_is_told_once_and_only_when_used(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "compose.yaml").write_text(HEAD + "    labels: {a: $GONE, b: $GONE, c: '${A:-$NEVER}'}\n")
    sources = loading.Sources([str(tmp_path / "compose.yaml")], environ={"A": "a"}, warn=told.append)
    loading.load(sources)
    assert told == ['The "GONE" variable is not set. Defaulting to a blank string.']


def test_env_files() -> None:
    text = "A=1\n# no\n\nexport B = 'x $A'\nC=\"$A\\n\"\nD=a # b\nE=a#b\nF\nG=${OUT}\nM='two\nlines'\n"
    assert dotenv.parse(text, "f", {"OUT": "o"}) == {
        "A": "1", "B": "x $A", "C": "1\n", "D": "a", "E": "a#b", "F": None, "G": "o", "M": "two\nlines",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["1A=x", "A='open", "=x", "A B=c", "A=${", "\0=1"])
def test_wrong_env_files_say_their_line(text: str) -> None:
    with pytest.raises(Invalid, match="line 2"):
        dotenv.parse(f"OK=1\n{text}\n", "f", {})


def test_the_environment_is_stronger_than_env_files(tmp_path: Path) -> None:
    text = HEAD + "    labels: {a: $A, b: $B}\n"
    found = load(tmp_path, text, {"A": "outside"}, _env="A=file\nB=file\n")
    assert found.services["web"].labels == {"a": "outside", "b": "file"}


def test_a_file_is_searched_for_upwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker-compose.yml").write_text(HEAD)
    (tmp_path / "docker-compose.override.yml").write_text("services: {web: {hostname: over}}\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    loaded = loading.load(loading.Sources(environ={}))
    assert loaded.directory == str(tmp_path) and loaded.document["services"]["web"]["hostname"] == "over"
    assert [os.path.basename(path) for path in loaded.files] == ["docker-compose.yml", "docker-compose.override.yml"]


def test_without_a_file_the_error_says_what_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match="no configuration file provided"):
        loading.load(loading.Sources(environ={}))


def test_an_include_of_itself_is_refused(tmp_path: Path) -> None:
    assert "include cycle" in refused(tmp_path, "include: [compose.yaml]\n" + HEAD)


REMOTE = ("oci://registry.example/../../etc/shop:1", "https://example.org/shop.git", "git@example.org:shop.git")


@pytest.mark.parametrize("name", REMOTE)
@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('include: ["{}"]\n', ":1:"),
        ('include: [{{path: ["{}"]}}]\n', ":1:"),
        ('services: {{a: {{image: x, extends: {{file: "{}", service: b}}}}}}\n', ":1:"),
    ],
)
def test_no_file_is_fetched_from_elsewhere(tmp_path: Path, name: str, text: str, where: str) -> None:
    """SEC-76. A directory called oci: is no way to one either."""
    inside = tmp_path / name
    if not name.startswith("oci"):
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.write_text(HEAD)
    told = refused(tmp_path, text.format(name))
    assert f"compose.yaml{where}" in told and "not fetched from elsewhere" in told
    with pytest.raises(Invalid, match="not fetched from elsewhere"):
        loading.load(loading.Sources(files=(name,), environ={}))


def test_services_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    text = "services: {a: {extends: b, image: x}, b: {extends: a, image: x}}\n"
    assert "circular reference" in refused(tmp_path, text)


def test_order_of_dependencies(tmp_path: Path) -> None:
    text = "services: {a: {image: x, depends_on: [c]}, b: {image: x, links: [a]}, c: {image: x}, d: {image: x}}\n"
    found = load(tmp_path, text)
    assert list(found.services) == ["c", "a", "b", "d"]
    assert [one.name for one in found.chosen(["a"], with_dependencies=True)] == ["c", "a"]
    assert found.dependents(["c"]) == {"a", "b", "c"}


def test_what_orlop_has_not_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    found = load(tmp_path, HEAD + "    gpus: all\n")
    with pytest.raises(OrlopError, match=r"services\.web\.gpus"):
        request.container(found, found.services["web"], 1, {})


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (HEAD + "    use_api_socket: true\n", "services.web.use_api_socket"),
        (HEAD + "    pull_refresh_after: 1h\n", "services.web.pull_refresh_after"),
        (HEAD + "    secrets: [s]\nsecrets: {s: {environment: HOME, driver: vault}}\n", "secrets.s.driver"),
        (HEAD + "    configs: [c]\nconfigs: {c: {content: x, template_driver: golang}}\n", "configs.c.template_driver"),
    ],
)
def test_what_would_have_no_effect_is_refused(tmp_path: Path, text: str, place: str) -> None:
    found = load(tmp_path, text)
    with pytest.raises(OrlopError, match=re.escape(place)):
        request.container(found, found.services["web"], 1, {})


def test_every_key_of_a_build_is_a_flag_of_build(tmp_path: Path) -> None:
    text = """
services:
  web:
    build:
      context: .
      args: {A: b}
      ssh: [default, "k=/tmp/key"]
      ulimits: {nofile: {soft: 5, hard: 9}, nproc: 3}
      isolation: default
      provenance: mode=max
      sbom: false
      privileged: true
      entitlements: [network.host]
      no_cache_filter: [base]
"""
    found = load(tmp_path, text)
    words = " ".join(images._build_words(found, found.services["web"].config["build"]))
    for part in (
        "--build-arg A=b",
        "--ssh default --ssh k=/tmp/key",
        "--ulimit nofile=5:9 --ulimit nproc=3:3",
        "--isolation default",
        "--provenance=mode=max --sbom=false",
        "--allow security.insecure",
        "--allow network.host",
        "--no-cache-filter base",
    ):
        assert part in words


def test_what_only_a_cluster_knows_is_named(tmp_path: Path) -> None:
    text = """
    deploy:
      replicas: 2
      endpoint_mode: vip
      placement: {constraints: [node.role == manager]}
      update_config: {parallelism: 2}
      restart_policy: {condition: any, delay: 5s}
      resources: {limits: {cpus: "1"}, reservations: {generic_resources: []}}
"""
    assert request.without_effect(load(tmp_path, HEAD + text)) == [
        f"services.web.deploy.{key}"
        for key in (
            "endpoint_mode",
            "placement",
            "update_config",
            "restart_policy.delay",
            "resources.reservations.generic_resources",
        )
    ]
    assert request.without_effect(load(tmp_path, HEAD + "    deploy: {replicas: 2}\n")) == []


def test_directories_are_shown_as_the_users_whose_service_it_is(tmp_path: Path) -> None:
    """`x-map: auto`. red: without it no option is there."""
    text = """
name: shop
x-map: auto
services:
  web:
    image: busybox
    user: "1000:1001"
    volumes:
    - ./src:/src:ro
    - data:/data
    - ./as:/as:as=5
    - {type: bind, source: ./b, target: /b, bind: {recursive: disabled}}
  named: {image: busybox, user: www, volumes: ["./src:/src"]}
  number: {image: busybox, user: 7, volumes: ["./src:/src"]}
volumes: {data: {}}
"""
    found = load(tmp_path, text)
    wanted = {name: request.container(found, service, 1, {}) for name, service in found.services.items()}
    options = [(one.target, one.options) for one in wanted["web"].binds]
    assert options == [("/src", ("ro", "as=1000:1001")), ("/as", ("as=5",))]
    assert [one.target for one in wanted["web"].mounts] == ["/data", "/b"]
    assert wanted["named"].binds == () and [one.options for one in wanted["number"].binds] == [("as=7",)]
    other = load(tmp_path, text.replace("x-map: auto", "x-map: always"))
    with pytest.raises(Invalid, match="x-map: always is not known"):
        request.container(other, other.services["web"], 1, {})


def test_a_request_has_what_the_service_says(tmp_path: Path) -> None:
    text = """
name: shop
services:
  db: {image: d}
  web:
    image: busybox
    command: [a, b]
    entrypoint: []
    environment: {A: "1"}
    ports: ["127.0.0.1:8000-8001:80-81"]
    volumes: ["./src:/src:ro,rslave", "data:/data", "/anon", "./as:/as:as=5"]
    depends_on: {db: {condition: service_healthy}}
    networks: {back: {aliases: [x]}, front: {priority: 9}}
    stop_grace_period: 1500ms
    deploy: {resources: {limits: {memory: 10m, cpus: "0.5"}}}
    restart: on-failure:3
    secrets: [{source: token, uid: "7", mode: 0440}]
volumes: {data: {}}
networks: {back: {}, front: {name: outside}}
secrets: {token: {file: ./t}}
"""
    found = load(tmp_path, text)
    (tmp_path / "t").write_bytes(b"token")
    wanted = request.container(found, found.services["web"], 2, {"db": 1})
    assert (wanted.name, wanted.args, wanted.entrypoint) == ("shop-web-2", ("a", "b"), ("",))
    assert [(one.network, one.aliases) for one in wanted.endpoints] == [
        ("outside", ("shop-web-2", "web")),
        ("shop_back", ("shop-web-2", "web", "x")),
    ]
    assert wanted.depends_on == ("shop-db-1:healthy",)
    assert (wanted.memory_bytes, wanted.cpu_nanos, wanted.stop_timeout_s) == (10 << 20, 500_000_000, 2)
    assert (wanted.restart_policy, wanted.restart_retries_max) == ("on-failure", 3)
    (bind,) = wanted.binds
    assert (bind.source, bind.options) == (str(tmp_path / "as"), ("as=5",))
    assert [(one.type, one.source, one.target, one.read_only) for one in wanted.mounts] == [
        ("bind", str(tmp_path / "src"), "/src", True),
        ("volume", "shop_data", "/data", False),
        ("volume", "", "/anon", False),
    ]
    (grant,) = wanted.secrets
    assert (grant.source[:11], grant.target, grant.uid, grant.mode) == ("shop_token_", "token", 7, 0o440)
    ((name, resource),) = request.stored(found, [found.services["web"]], "secrets").items()
    assert name == grant.source and request.content(found, "secrets", resource) == b"token"
    (port,) = wanted.ports
    assert (port.host_ip, port.host_first, port.host_last, port.first, port.last) == ("127.0.0.1", 8000, 8001, 80, 81)


def test_how_many_a_dependency_has_is_no_other_configuration(tmp_path: Path) -> None:
    found = load(tmp_path, "services: {web: {image: x, depends_on: [db]}, db: {image: x}}\n")
    one, two = (request.container(found, found.services["web"], 1, {"db": number}) for number in (1, 2))
    assert one.labels == two.labels and one.depends_on != two.depends_on


def test_a_secret_of_another_content_is_another_configuration(tmp_path: Path) -> None:
    text = HEAD + "    secrets: [s]\nsecrets: {s: {environment: TOKEN}}\n"
    hashes = set()
    for token in ("sesame", "mellon"):
        found = load(tmp_path, text, {"TOKEN": token})
        hashes.add(request.container(found, found.services["web"], 1, {}).labels[request.HASH])
        assert token not in str(request.container(found, found.services["web"], 1, {}).to_json())
    assert len(hashes) == 2


def test_differences_are_told_by_field() -> None:
    before = {"image": "a", "env": ["A=1", "B=2"], "memory_bytes": 0, "labels": {"l": "1", request.HASH: "x"}}
    after = {"image": "b", "env": ["B=2", "C=3"], "memory_bytes": 5, "labels": {"l": "1", request.HASH: "y"}}
    assert plan.differences(before, after) == ["env -A=1 +C=3", "image a -> b", "memory_bytes 0 -> 5"]


@pytest.mark.parametrize(
    ("key", "place", "path"),
    [
        *((f"{key}: {value}", ":4:5", key) for key, value in {
            "gpus": "all", "credential_spec": "{file: x}", "provider": "{type: x}", "pull_refresh_after": "1d",
            "use_api_socket": "true", "cpu_count": "1", "cpu_percent": "5", "models": "[m]",
        }.items()),
        ("deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}", ":4:41",
         "deploy.resources.reservations.devices"),
    ],
)  # fmt: skip
def test_what_a_service_would_not_get_is_refused_with_its_place(
    tmp_path: Path, key: str, place: str, path: str
) -> None:
    made = load(tmp_path, f"{HEAD}    {key}\nnetworks: {{n: {{}}}}\n")
    with pytest.raises(Unsupported) as caught:
        request.container(made, made.service("web"), 1, {})
    assert f"{place}: services.web.{path}: " in str(caught.value) and caught.value.hint


def test_an_interface_is_called_and_reached_as_a_file_says(tmp_path: Path) -> None:
    wish = "{interface_name: lan0, link_local_ips: [169.254.1.1, 'fe80::7']}"
    made = load(tmp_path, f"{HEAD}    networks: {{n: {wish}}}\nnetworks: {{n: {{}}}}\n")
    (endpoint,) = request.container(made, made.service("web"), 1, {}).endpoints
    assert endpoint.options == {"com.docker.network.endpoint.ifname": "lan0"}
    assert endpoint.link_local == ("169.254.1.1", "fe80::7")


def test_what_nothing_here_drives_is_refused_with_its_place(tmp_path: Path) -> None:
    text = HEAD + "    secrets: [s]\nsecrets: {s: {file: ./x, driver: y}}\nnetworks: {n: {ipam: {driver: x}}}\n"
    made = load(tmp_path, text)
    with pytest.raises(Unsupported, match=r":5:26: secrets\.s\.driver: "):
        request.container(made, made.service("web"), 1, {})
    with pytest.raises(Unsupported, match=r":6:23: networks\.n\.ipam\.driver: "):
        request.network(made, made.networks["n"])


def test_what_only_a_cluster_reserves_is_named(tmp_path: Path) -> None:
    reserved = "resources: {reservations: {cpus: 1, pids: 5}}"
    deploy = f"{{mode: global, labels: {{a: b}}, placement: {{}}, {reserved}}}"
    made = load(tmp_path, f"{HEAD}    deploy: {deploy}\n")
    assert [one.removeprefix("services.web.deploy.") for one in request.without_effect(made)] == [
        "labels", "placement", "mode global", "resources.reservations.cpus", "resources.reservations.pids",
    ]  # fmt: skip


@given(st.text("${}:-?+aB_ 1", max_size=40))
def test_variables_of_any_text_are_found_and_change_nothing(text: str) -> None:
    found = interpolation.variables([text, {"a": [text]}])
    assert all(name.isidentifier() and f"{name}" in text for name in found)


def test_the_variables_of_a_document_with_all_that_is_said_of_them() -> None:
    found = interpolation.variables({"a": "$A ${B:-b ${C-c}}", "b": ["${D:?why}", "${E:+e}", "$$F ${bad"]})
    told = {name: (one.is_required, one.default, one.alternate) for name, one in found.items()}
    assert told == {
        "A": (False, None, None),
        "B": (False, "b ${C-c}", None),
        "C": (False, "c", None),
        "D": (True, None, None),
        "E": (False, None, "e"),
    }


# -- every key of a service changes the request, is refused with its place, or is proved elsewhere ---------------------

EFFECTS = {
    "annotations": "{a: b}", "blkio_config": "{weight: 300}", "cap_add": "[CHOWN]", "cap_drop": "[CHOWN]",
    "cgroup": "host", "cgroup_parent": "/x", "command": "x", "configs": "[c]", "container_name": "other",
    "cpu_period": "50000", "cpu_quota": "5000", "cpu_rt_period": "1ms", "cpu_rt_runtime": "1ms", "cpu_shares": "5",
    "cpus": "1", "cpuset": "'0'", "depends_on": "[db]", "deploy": "{resources: {limits: {pids: 5}}}",
    "device_cgroup_rules": "['c 1:3 r']", "devices": "[/dev/null]", "dns": "1.1.1.1", "dns_opt": "[x]",
    "dns_search": "x", "domainname": "x", "entrypoint": "x", "env_file": "./e", "environment": "{A: b}",
    "expose": "[5]", "external_links": "[a]", "extra_hosts": "['a:1.1.1.1']", "group_add": "[5]",
    "healthcheck": "{test: x}", "hostname": "x", "image": "other", "init": "true", "ipc": "host", "isolation": "x",
    "label_file": "./e", "labels": "{a: b}", "links": "[db]", "logging": "{driver: none}",
    "mac_address": "'02:00:00:00:00:01'", "mem_limit": "1g", "mem_reservation": "1g", "mem_swappiness": "5",
    "memswap_limit": "2g", "network_mode": "host", "networks": "[n]", "oom_kill_disable": "true",
    "oom_score_adj": "5", "pid": "host", "pids_limit": "5", "platform": "linux/arm64", "ports": "['80']",
    "privileged": "true", "read_only": "true", "restart": "always", "runtime": "x", "secrets": "[s]",
    "security_opt": "[no-new-privileges=true]", "shm_size": "5m", "stdin_open": "true", "stop_grace_period": "5s",
    "stop_signal": "INT", "storage_opt": "{size: 1g}", "sysctls": "{a: 1}", "tmpfs": "/x", "tty": "true",
    "ulimits": "{nofile: 5}", "user": "5", "userns_mode": "host", "uts": "host", "volumes": "[/x]",
    "volumes_from": "[db]", "working_dir": "/x",
}  # fmt: skip
REFUSED = {
    "cpu_count": "1", "cpu_percent": "5", "credential_spec": "{file: x}", "gpus": "all", "models": "[m]",
    "provider": "{type: x}", "pull_refresh_after": "1d", "use_api_socket": "true",
}  # fmt: skip
# What is no matter of a container's request, and who proves it (files below tests).
ELSEWHERE = {
    "attach": "root/test_compose.py", "build": "unit/test_compose_files.py", "develop": "root/test_compose.py",
    "extends": "contract/compose_config.yaml", "post_start": "root/test_compose.py",
    "pre_stop": "root/test_compose.py", "profiles": "contract/compose_config.yaml",
    "pull_policy": "root/test_compose.py", "scale": "unit/test_compose_files.py",
}  # fmt: skip
BESIDE = """  db: {image: b}
networks: {n: {}}
secrets: {s: {environment: S}}
configs: {c: {content: x}}
"""


def test_every_key_of_a_service_is_in_one_of_the_three_lists() -> None:
    known = set(fields.Fields("/")._service())
    assert known == {*EFFECTS, *REFUSED, *ELSEWHERE}
    assert not set(EFFECTS) & set(REFUSED) and not {*EFFECTS, *REFUSED} & set(ELSEWHERE)
    for key, name in ELSEWHERE.items():
        assert f"{key}: " in (Path(__file__).parents[1] / name).read_text(), key


@pytest.mark.parametrize("key", sorted(EFFECTS))
def test_a_key_changes_what_is_asked_of_the_engine(tmp_path: Path, key: str) -> None:
    (tmp_path / "e").write_text("FROM_FILE=x\n")

    def asked(line: str) -> dict[str, object]:
        text = f"services:\n  web:\n{line}{BESIDE}" if "image:" in line else f"{HEAD}{line}{BESIDE}"
        made = load(tmp_path, text, {"S": "secret"})
        found = request.container(made, made.service("web"), 1, {"db": 1}).to_json()
        return {name: value for name, value in found.items() if name != "labels"} | {"own": _own(found["labels"])}

    assert asked(f"    {key}: {EFFECTS[key]}\n") != asked("")


def _own(labels: object) -> dict[str, str]:
    found = labels if isinstance(labels, dict) else {}
    return {name: value for name, value in found.items() if not name.startswith(request.LABEL)}


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_a_key_that_has_no_effect_is_refused_with_its_place(tmp_path: Path, key: str) -> None:
    made = load(tmp_path, f"{HEAD}    {key}: {REFUSED[key]}\n")
    with pytest.raises(Unsupported, match=rf":4:5: services\.web\.{key}: "):
        request.container(made, made.service("web"), 1, {})


@pytest.mark.parametrize(
    ("line", "number"), [("scale: 3", 3), ("deploy: {replicas: 2}", 2), ("scale: 0", 0), ("tty: true", 1)]
)
def test_how_many_containers_a_service_has(tmp_path: Path, line: str, number: int) -> None:
    assert load(tmp_path, f"{HEAD}    {line}\n").service("web").scale == number
