"""`orlop compose`: projects come up in order, change only where they must, and leave nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.engine import COMMAND, Environment, Finished
from support.terminal import Terminal

PROJECT = """
name: shop
x-sleep: &sleep
  image: host
  command: ["sh", "-c", "trap 'exit 0' TERM; echo up $$NAME; while :; do sleep 0.1; done"]
services:
  db:
    <<: *sleep
    environment: {NAME: "${DB:-db}"}
    healthcheck: {test: "test -e /data", interval: 1s, retries: 60}
    volumes: ["data:/data"]
    networks: {back: {aliases: [store]}}
  cache: {<<: *sleep, networks: [back]}
  setup:
    image: host
    command: ["sh", "-c", "getent hosts store >/dev/null && cat /run/secrets/token /etc/motto"]
    depends_on: {db: {condition: service_healthy}}
    networks: [back]
    secrets: [{source: token, uid: "7", mode: 0400}]
    configs: [{source: motto, target: /etc/motto}]
  api:
    <<: *sleep
    depends_on: {setup: {condition: service_completed_successfully}, cache: {condition: service_started}}
    networks: [back]
  web:
    <<: *sleep
    depends_on: [api]
    networks: [back]
  tool: {image: host, profiles: [tools], network_mode: none, command: echo tool}
volumes: {data: {}}
networks: {back: {}}
secrets: {token: {environment: TOKEN}}
configs: {motto: {content: "be ${MOOD:-kind}\\n"}}
"""


class Project:
    """A project's directory and its commands."""

    def __init__(self, orlop: Environment, directory: Path, text: str) -> None:
        self.orlop, self.directory = orlop, directory
        self.write(text)

    def write(self, text: str) -> None:
        (self.directory / "compose.yaml").write_text(text)

    def argv(self, *words: str) -> tuple[str, ...]:
        return ("compose", "-f", str(self.directory / "compose.yaml"), *words)

    def __call__(self, *words: str, check: bool = True, **env: str) -> Finished:
        return self.orlop(*self.argv(*words), check=check, env={"TOKEN": "sesame\n", **env})

    def services(self) -> dict[str, dict[str, object]]:
        lines = self("ps", "-a", "--format", "json").stdout.splitlines()
        return {one["Service"]: one for one in map(json.loads, lines)}

    def ids(self) -> dict[str, str]:
        return {name: str(one["ID"]) for name, one in self.services().items()}


@pytest.fixture
def shop(orlop: Environment, tmp_path: Path) -> Project:
    return Project(orlop, tmp_path, PROJECT)


def test_five_services_come_up_in_order_and_go_without_a_trace(shop: Project, orlop: Environment) -> None:
    told = shop("up", "-d").stderr.splitlines()
    started = [line.split()[1] for line in told if line.endswith("Started")]
    for before, after in (("db", "setup"), ("setup", "api"), ("cache", "api"), ("api", "web")):
        assert started.index(f"shop-{before}-1") < started.index(f"shop-{after}-1"), told
    services = shop.services()
    assert {name: one["State"] for name, one in services.items()} == {
        "db": "running", "cache": "running", "setup": "exited", "api": "running", "web": "running",
    }  # fmt: skip
    assert services["db"]["Health"] == "healthy" and services["setup"]["ExitCode"] == 0
    assert shop("logs", "--no-log-prefix", "setup").stdout == "sesame\nbe kind\n"
    assert shop("logs", "db").stdout == "db-1  | up db\n"
    assert shop("exec", "-T", "db", "sh", "-c", "echo in >/data/f; cat /data/f").stdout == "in\n"
    assert shop("exec", "-T", "db", "sh", "-c", "exit 7", check=False).code == 7
    assert shop("run", "--rm", "-T", "tool").stdout == "tool\n"
    assert shop("up", "--plan").stdout == "start container shop-setup-1: it is exited\n"
    assert shop("down", "-v").code == 0
    assert (
        orlop("ps", "-aq").stdout == "" and "shop" not in orlop("network", "ls").stdout + orlop("volume", "ls").stdout
    )


def test_only_what_changed_is_made_anew_and_the_plan_says_why(shop: Project) -> None:
    shop("up", "-d", "db", "cache")
    before = shop.ids()
    plan = shop("up", "--plan", "db", "cache", DB="other").stdout
    assert plan == "recreate container shop-db-1: env -NAME=db +NAME=other\n"
    shop("exec", "-T", "db", "sh", "-c", "echo kept >/data/f")
    shop("up", "-d", "db", "cache", DB="other")
    after = shop.ids()
    assert after["cache"] == before["cache"] and after["db"] != before["db"]
    assert shop("exec", "-T", "db", "cat", "/data/f").stdout == "kept\n"
    assert shop("up", "--plan", "db", "cache", DB="other").stdout == "nothing to do: everything is as the files say\n"
    shop("up", "-d", "--force-recreate", "cache", DB="other")
    assert shop.ids()["db"] == after["db"] and shop.ids()["cache"] != after["cache"]


def test_scale_and_orphans(shop: Project, orlop: Environment) -> None:
    shop("up", "-d", "--scale", "cache=3", "cache")
    names = [f"shop-cache-{number}" for number in (1, 2, 3)]
    assert sorted(orlop("ps", "--format", "{{.Names}}").stdout.split()) == names
    shop("scale", "cache=1")
    assert orlop("ps", "-a", "--format", "{{.Names}}").stdout.split() == names[:1]
    shop.write("name: shop\nservices: {other: {image: host, command: sleep 1000}}\n")
    assert "orphan containers (shop-cache-1)" in shop("up", "-d").stderr
    shop("up", "-d", "--remove-orphans")
    assert orlop("ps", "-a", "--format", "{{.Names}}").stdout.split() == ["shop-other-1"]


def test_a_nameless_volume_survives_a_container_made_anew(orlop: Environment, tmp_path: Path) -> None:
    text = "name: v\nservices: {a: {image: host, command: sleep 1000, volumes: [/v], environment: {N: '$N'}}}\n"
    shop = Project(orlop, tmp_path, text)
    shop("up", "-d", N="1")
    shop("exec", "-T", "a", "sh", "-c", "echo kept >/v/f")
    shop("up", "-d", N="2")
    assert shop("exec", "-T", "a", "cat", "/v/f").stdout == "kept\n"
    shop("up", "-d", "-V", N="3")
    assert shop("exec", "-T", "a", "sh", "-c", "ls /v").stdout == ""


def test_a_container_that_can_not_be_made_anew_stays(orlop: Environment, tmp_path: Path) -> None:
    text = "name: v\nservices: {a: {image: host, command: sleep 1000, user: '$U'}}\n"
    shop = Project(orlop, tmp_path, text)
    shop("up", "-d", U="0")
    before = shop.ids()
    shop.write(text.replace("user: '$U'", "volumes: ['relative:x']") + "volumes: {relative: {}}\n")
    failed = shop("up", "-d", check=False)
    assert failed.code == 1 and failed.stderr
    assert shop.ids() == before and shop.services()["a"]["State"] == "running"


def test_ctrl_c_stops_the_project(shop: Project, orlop: Environment) -> None:
    process = _foreground(shop, "up", "cache", "db")
    _wait_for_line(process, b"up")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 130 and b"Gracefully Stopping" in told
    assert {one["State"] for one in shop.services().values()} == {"exited"}


def test_the_status_of_a_service(orlop: Environment, tmp_path: Path) -> None:
    task, service = "{image: host, command: sh -c 'echo ran; exit 3'}", "{image: host, command: sleep 1000}"
    text = f"name: s\nservices: {{t: {task}, d: {service}}}\n"
    shop = Project(orlop, tmp_path, text)
    done = shop("up", "--exit-code-from", "t", check=False)
    assert done.code == 3 and "t-1  | ran\n" in done.stdout
    assert shop.services()["d"]["State"] == "exited"
    assert shop("up", "--abort-on-container-failure", check=False).code == 3


def test_wait_fails_for_what_ends_badly(orlop: Environment, tmp_path: Path) -> None:
    check = "{test: 'false', interval: 1s, retries: 1}"
    text = f"name: s\nservices: {{t: {{image: host, command: sleep 1000, healthcheck: {check}}}}}\n"
    failed = Project(orlop, tmp_path, text)("up", "-d", "--wait", check=False)
    assert failed.code == 1 and "s-t-1" in failed.stderr and "orlop why s-t-1" in failed.stderr


def test_verbs_for_what_is_there(shop: Project) -> None:
    shop("create", "cache", "db")
    assert {one["State"] for one in shop.services().values()} == {"created"}
    missing = shop("start", check=False)
    assert missing.code == 1 and 'service "setup" has no container to start' in missing.stderr
    shop("start", "cache", "db")
    shop("pause", "cache")
    assert shop.services()["cache"]["State"] == "paused"
    shop("unpause", "cache")
    shop("restart", "db")
    assert "sleep" in shop("top", "cache").stdout
    assert shop("ls", "--format", "json").stdout.startswith('[{"Name":"shop","Status":"running(2)"')
    assert shop("volumes", "-q").stdout == "shop_data\n"
    shop("kill", "cache")
    shop("stop")
    assert {one["State"] for one in shop.services().values()} == {"exited"}
    shop("rm", "-f", "cache")
    assert list(shop.services()) == ["db"]
    (shop.directory / "f").write_text("copied")
    shop("cp", str(shop.directory / "f"), "db:/f")
    shop("cp", "db:/f", str(shop.directory / "back"))
    assert (shop.directory / "back").read_text() == "copied"
    shop("commit", "db", "kept:1")
    assert shop.orlop("run", "--rm", "--network=none", "kept:1", "cat", "/f").stdout == "copied"
    shop("export", "-o", str(shop.directory / "db.tar"), "db")
    with tarfile.open(shop.directory / "db.tar") as archive:
        assert archive.getmember("f").size == len("copied")


def test_files_are_synchronised_while_one_watches(orlop: Environment, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a").write_text("one")
    watch = "develop: {watch: [{action: sync, path: ./src, target: /app, ignore: ['*.tmp'], initial_sync: true}]}"
    shop = Project(
        orlop, tmp_path, f"name: w\nservices:\n  a:\n    image: host\n    command: sleep 1000\n    {watch}\n"
    )
    shop("up", "-d")
    process = _foreground(shop, "watch", "--no-up")
    try:
        _until(lambda: shop("exec", "-T", "a", "cat", "/app/a", check=False).stdout == "one")
        (tmp_path / "src/b.tmp").write_text("no")
        (tmp_path / "src/new").mkdir()
        (tmp_path / "src/a").write_text("two")
        _until(lambda: shop("exec", "-T", "a", "cat", "/app/a").stdout == "two")
        (tmp_path / "src/new/c").write_text("three")
        (tmp_path / "src/a").unlink()
        _until(lambda: shop("exec", "-T", "a", "sh", "-c", "cd /app; echo *; echo new/*").stdout == "new\nnew/c\n")
    finally:
        process.kill()
        process.communicate()


def test_a_missing_network_of_somebody_else_is_named(orlop: Environment, tmp_path: Path) -> None:
    text = "name: n\nservices: {a: {image: host, networks: [far]}}\nnetworks: {far: {external: true, name: gone}}\n"
    failed = Project(orlop, tmp_path, text)("up", "-d", check=False)
    assert failed.code == 1 and "network gone declared as external, but could not be found" in failed.stderr


def _foreground(shop: Project, *words: str) -> subprocess.Popen[bytes]:
    argv = [str(COMMAND), *shop.argv(*words)]
    env = shop.orlop.variables | {"TOKEN": "x"}
    pipe = subprocess.PIPE
    return shop.orlop.inside(
        lambda: subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    )


def _wait_for_line(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdout is not None
    for line in iter(process.stdout.readline, b""):
        if text in line:
            return
    raise AssertionError(os.waitstatus_to_exitcode(process.wait()))


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_secrets_are_in_memory_with_their_owner_and_go_with_the_project(orlop: Environment, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame")
    grant = "{source: key, target: k, uid: '7', gid: '8', mode: 0440}"
    look = "cat /run/secrets/k; stat -c '' %u %g %a'' /run/secrets/k; stat -f -c %T /run/secrets/k; sleep 1000"
    text = f"name: s\nservices: {{a: {{image: host, command: [sh, -c, '{look}'], secrets: [{grant}]}}}}\n"
    shop = Project(orlop, tmp_path, f"{text}secrets: {{key: {{file: ./key}}}}\n")
    shop("up", "-d")
    _until(lambda: shop("logs", "--no-log-prefix", "a").stdout == "sesame 7 8 440\ntmpfs\n")
    assert "sesame" not in orlop("inspect", "s-a-1").stdout
    (tmp_path / "key").write_text("two")
    assert shop("up", "--plan").stdout.startswith("recreate container s-a-1: secrets ")
    shop("up", "-d")
    _until(lambda: shop("logs", "--no-log-prefix", "a").stdout.startswith("two 7 8 440"))
    shop("down")
    assert orlop("secret", "ls", "-q").stdout == ""


def test_a_dry_run_changes_nothing(shop: Project, orlop: Environment) -> None:
    """Every verb that acts says what it would do, or that it can't say it; docker compose's is a dry run, too."""
    assert "create container shop-db-1: it is not there" in shop("--dry-run", "create", "db").stdout
    assert orlop("ps", "-aq").stdout == "" and "shop" not in orlop("network", "ls").stdout
    shop("up", "-d", "db", "cache")
    before = (orlop("ps", "-a", "--format", "{{.ID}} {{.State}}").stdout, orlop("volume", "ls", "-q").stdout)
    for words, said in {
        ("stop", "db"): "stop container shop-db-1\n",
        ("restart", "cache"): "restart container shop-cache-1\n",
        ("kill",): "kill container shop-cache-1\nkill container shop-db-1\n",
        ("pause", "db"): "pause container shop-db-1\n",
        ("unpause", "db"): "",
        ("start", "db"): "",
        ("rm", "-sf", "db"): "remove container shop-db-1\n",
        ("scale", "cache=2"): "create container shop-cache-2: it is not there\n",
        ("down", "-v"): "remove container shop-cache-1\nremove container shop-db-1\n",
        ("pull", "db"): "pull image host\n",
    }.items():
        assert shop("--dry-run", *words).stdout == said, words
    for word in ("run db true", "exec db true", "cp x db:/x", "commit db", "export db", "attach db", "watch"):
        refused = shop("--dry-run", *word.split(), check=False)
        assert refused.code == 1 and "--dry-run can't say what compose" in refused.stderr, word
    after = (orlop("ps", "-a", "--format", "{{.ID}} {{.State}}").stdout, orlop("volume", "ls", "-q").stdout)
    assert after == before


def test_what_is_restarted_along(orlop: Environment, tmp_path: Path) -> None:
    wish = "depends_on: {a: {condition: service_started, restart: true}}"
    body = "image: host, command: sleep 1000, stop_signal: KILL"
    text = f"name: r\nservices: {{a: {{{body}}}, b: {{{body}, {wish}}}, c: {{{body}, depends_on: [a]}}}}\n"
    shop = Project(orlop, tmp_path, text)
    shop("up", "-d")

    def restarted(*words: str) -> list[str]:
        told = shop("restart", *words).stderr.splitlines()
        return [line.split()[1] for line in told if line.endswith("Started")]

    assert restarted("a") == ["r-a-1", "r-b-1"]
    assert restarted("--no-deps", "a") == ["r-a-1"]
    assert sorted(restarted()) == ["r-a-1", "r-b-1", "r-c-1"]


def test_names_and_lists_as_they_are_asked_for(orlop: Environment, tmp_path: Path) -> None:
    body = f"image: host, command: [sh, -c, 'exec sleep 1000', '{'x' * 40}'], stop_signal: KILL"
    shop = Project(orlop, tmp_path, f"name: n\nservices: {{a: {{{body}}}}}\n")
    shop("--compatibility", "up", "-d")
    assert orlop("ps", "--format", "{{.Names}}").stdout == "n_a_1\n"
    assert "x" * 40 not in shop("ps").stdout and "x" * 40 in shop("ps", "--no-trunc").stdout
    assert shop("ls", "-q", "--filter", "name=^n$").stdout == "n\n"
    assert shop("ls", "-q", "--filter", "name=other").stdout == ""
    for words in (("ls", "--filter", "no=x"), ("ps", "--filter", "no=x"), ("ls", "--filter", "name=(")):
        refused = shop(*words, check=False)
        assert refused.code == 1 and "Next: " in refused.stderr, words
    told = shop("--progress", "json", "stop").stderr.splitlines()
    assert [json.loads(line) for line in told] == [
        {"id": "Container n_a_1", "text": "Stopping"}, {"id": "Container n_a_1", "text": "Stopped"},
    ]  # fmt: skip
    assert shop("--ansi", "sometimes", "ps", check=False).code == 125
    assert shop("up", "-d").code == 0 and orlop("ps", "--format", "{{.Names}}").stdout == "n_a_1\n", (
        "it is the same one"
    )


def test_keys_while_it_runs_in_the_foreground(orlop: Environment, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/f").write_text("one")
    watch = "develop: {watch: [{action: sync, path: ./src, target: /app, initial_sync: true}]}"
    command = "command: [sh, -c, 'echo up; exec sleep 1000']"
    text = f"name: k\nservices: {{a: {{image: host, {command}, stop_signal: KILL, {watch}}}}}\n"
    shop = Project(orlop, tmp_path, text)
    argv = [str(COMMAND), *shop.argv("up", "--menu")]
    with orlop.inside(lambda: Terminal(argv, orlop.variables)) as terminal:
        terminal.expect("d: detach")
        terminal.expect("up\r\n")
        terminal.send("w")
        terminal.expect("Watch enabled")
        _until(lambda: shop("exec", "-T", "a", "cat", "/app/f", check=False).stdout == "one")
        terminal.send("d")
        assert terminal.wait() == 0
    assert shop.services()["a"]["State"] == "running"


def test_hooks_run_inside_when_it_starts_and_before_it_stops(orlop: Environment, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o777)
    (tmp_path / "out").chmod(0o777)
    started = "{command: [sh, -c, 'echo started $$WHO $$(id -u) $$PWD >>/out/f'], environment: {WHO: me}"
    hooks = f"post_start: [{started}, user: '5', working_dir: /tmp}}], pre_stop: [{{command: '$STOP'}}]"
    body = f"image: host, command: sleep 1000, stop_signal: KILL, volumes: ['./out:/out'], {hooks}"
    shop = Project(orlop, tmp_path, f"name: h\nservices: {{a: {{{body}}}}}\n")
    shop("up", "-d", STOP="sh -c 'rm /out/f; touch /out/gone'")
    assert (tmp_path / "out/f").read_text() == "started me 5 /tmp\n"
    shop("stop", STOP="sh -c 'rm /out/f; touch /out/gone'")
    assert os.listdir(tmp_path / "out") == ["gone"]
    shop("start", STOP="false")
    failed = shop("stop", check=False, STOP="false")
    assert failed.code == 1 and "pre_stop hook of service a: false ended with status 1" in failed.stderr
    assert shop.services()["a"]["State"] == "running"


def test_the_output_of_a_service_that_is_not_attached_is_not_shown(orlop: Environment, tmp_path: Path) -> None:
    tasks = "a: {image: host, command: echo from a}, b: {image: host, command: echo from b, attach: false}"
    shop = Project(orlop, tmp_path, f"name: q\nservices: {{{tasks}}}\n")
    shown = shop("up").stdout
    assert "a-1  | from a" in shown and "from b" not in shown
    assert "from b" not in shop("up", "--attach", "a", "--attach", "b", "--force-recreate").stdout
    assert "from b" in shop("logs", "b").stdout


def test_an_image_comes_as_the_policy_says(orlop: Environment, tmp_path: Path) -> None:
    shop = Project(orlop, tmp_path, "name: p\nservices: {a: {image: nosuch, pull_policy: never, network_mode: none}}\n")
    failed = shop("up", "-d", check=False)
    assert failed.code == 1 and "No such image: nosuch" in failed.stderr
    shop.write("name: p\nservices:\n  a:\n    image: nosuch\n    pull_policy: daily\n")
    failed = shop("up", "-d", check=False)
    assert ":5:5: services.a.pull_policy: invalid pull policy 'daily'" in failed.stderr
    assert "invalid pull policy 'hourly'" in shop("up", "--pull", "hourly", check=False).stderr


def test_a_network_that_is_another_is_made_anew(orlop: Environment, tmp_path: Path) -> None:
    """Red: with a network known by its name alone, the container is made anew for an address that it has no subnet for.

    A network that a service uses which is not brought up stays; so does one of docker compose's, which has no digest.
    """
    text = """
        name: moved
        services:
          a: {{image: host, command: sleep 1000, stop_signal: KILL, networks: {{net: {{ipv4_address: 10.{0}.0.9}}}}}}
          b: {{image: host, command: sleep 1000, stop_signal: KILL, networks: [net]}}
        networks: {{net: {{ipam: {{config: [{{subnet: 10.{0}.0.0/24}}]}}}}}}
    """
    project = Project(orlop, tmp_path, text.format(71))
    project("up", "-d")
    project.write(text.format(72))
    assert "make network moved_net anew" not in project("up", "--plan", "a").stdout
    plan = project("up", "--plan").stdout.splitlines()
    assert plan[0] == "make network moved_net anew: the files say otherwise than it is"
    assert "recreate container moved-b-1: network moved_net is made anew" in plan
    project("up", "-d")
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}} {{.State.Status}}"
    found = orlop("inspect", "-f", form, "moved-a-1", "moved-b-1").stdout.split("\n")
    assert found[0] == "10.72.0.9 running" and found[1].startswith("10.72.0.") and found[1].endswith("running")
    assert project("up", "--plan").stdout == "nothing to do: everything is as the files say\n"
    project("down")


def test_the_address_of_a_service_is_that_of_its_first_place(orlop: Environment, tmp_path: Path) -> None:
    """Red: with the service's address for each of its networks, both interfaces have the same."""
    text = """
        name: places
        services:
          a: {image: host, command: sleep 1000, stop_signal: KILL, mac_address: "02:00:00:00:00:77",
              networks: {front: {}, back: {}}}
        networks: {front: {}, back: {}}
    """
    project = Project(orlop, tmp_path, text)
    project("up", "-d")
    found = json.loads(orlop("inspect", "-f", "{{json .NetworkSettings.Networks}}", "places-a-1").stdout)
    assert found["places_back"]["MacAddress"] == "02:00:00:00:00:77" != found["places_front"]["MacAddress"]
    project("down")
