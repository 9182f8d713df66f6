"""podman's words: where docker's users mean something else, and values that only podman has."""

from __future__ import annotations

import json

import pytest

from orlop.frontends.cli import commands
from orlop.frontends.cli.flags import BadValue
from orlop.frontends.cli.mounts import parse_bind
from orlop.frontends.cli.networking import parse_network
from orlop.frontends.cli.podman import shapes, verbs, waiting
from orlop.frontends.cli.podman.main import _is_podmans, translated, without_global_flags
from orlop.frontends.cli.values import json_words
from orlop.spec.errors import Invalid


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("ps -a --format json", "ps -a --format podman-json"),
        ("container ls --format=json", "container ls --format=podman-json"),
        ("ps --format {{.ID}} -n 3", "ps --format {{.ID}} -n 3"),
        ("images -n box", "images --noheading box"),
        ("rm -f -t 0 web", "rm -f web"),
        ("container rm --time=0 web", "container rm web"),
        ("rm -f -t 5 web", "rm -f -t 5 web"),
        ("volume ls -n", "volume ls --noheading"),
        ("logs -n web", "logs --names web"),
        ("inspect --format json web", "inspect --format json web"),
        ("run -n x box ps --format json", "run -n x box ps --format json"),
        ("", ""),
    ],
)
def test_a_line_in_podmans_words(line, ours):
    assert translated(line.split()) == ours.split()


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("--remote ps -q", "ps -q"),
        ("-r --log-level debug --events-backend=file ps", "ps"),
        ("--log-level", ""),
        ("--root /x ps", "--root /x ps"),
        ("run --remote x", "run --remote x"),
        ("", ""),
    ],
)
def test_flags_ahead_that_ask_for_nothing(line: str, ours: str) -> None:
    """Red: without `at < len(words)`, of a flag that lacks its value; --root has a wish, and is refused by name."""
    assert without_global_flags(line.split()) == ours.split()


def test_every_word_of_podmans_is_somebodys() -> None:
    """Red: with a verb of the tables that orlop has by now, or without _OTHER_MEANING, where both have one."""
    for words in (*verbs.COMMANDS, *verbs.SAME, *verbs.REFUSED):
        assert _is_podmans([*words, "x"]), words
    for line in ("ps", "volume ls", "image tree x", "volume", "volume --help", "--version", "unshared"):
        group, *rest = line.split()
        known = group in commands.GROUPS or commands.find("", group)
        assert _is_podmans([group, *rest]) == (not known and not group.startswith("-")), line
    # FEATURES of podman that docker has not, each done or refused with a reason.
    everything = (
        "artifact auto-update farm generate:kube generate:systemd generate:spec healthcheck:run init kube:play mount"
        " unmount umount unshare untag container:checkpoint container:restore container:clone container:exists"
        " container:init container:mount container:unmount container:runlabel container:prune image:diff image:exists"
        " image:mount image:scp image:sign image:tree image:trust image:unmount image:untag machine:ls manifest:add"
        " manifest:annotate manifest:create manifest:exists manifest:inspect manifest:push manifest:remove manifest:rm"
        " network:exists network:reload network:update quadlet secret:create secret:exists system:check"
        " system:connection system:migrate system:prune system:renumber system:reset system:service volume:exists"
        " volume:export volume:import volume:mount volume:unmount volume:reload play:kube completion compose"
    ).split()
    for line in everything:
        words = tuple(line.split(":"))
        ours = commands.find(words[0], words[1]) if len(words) == 2 and words[0] in commands.GROUPS else None
        known = ours or commands.find("", words[0]) or words[0] in commands.GROUPS
        tables = {*verbs.COMMANDS, *verbs.SAME, *verbs.REFUSED}
        assert known or words in tables or words[:1] in tables, line


def test_a_network_with_fields():
    found = parse_network("back:alias=db,alias=store,ip=10.1.2.3,ip=fd00::3,mac=02:00:00:00:00:01")
    assert (found.name, found.fields["aliases"]) == ("back", ("db", "store"))
    assert (found.fields["ipv4"], found.fields["ipv6"]) == ("10.1.2.3", "fd00::3")
    assert found.fields["mac_address"] == "02:00:00:00:00:01"
    assert parse_network("container:db").name == "container:db"
    assert parse_network("back:interface_name=lan0").fields["options"] == {"com.docker.network.endpoint.ifname": "lan0"}
    with pytest.raises(BadValue, match="invalid field key host_interface_name"):
        parse_network("back:host_interface_name=lan0")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('["CMD", "true"]', ("CMD", "true")),
        ("[ -f /ready ]", None),
        ("[]", None),
        ("[1]", None),
        ("true", None),
        ("", None),
    ],
)
def test_a_command_as_json(text, words):
    assert json_words(text) == words


def test_a_mount_that_brings_along_what_is_below():
    assert parse_bind("/a:/b:ro,rbind").options == ("ro",)
    assert parse_bind("/a:/b:rbind").options == ()


def test_the_array_of_ps():
    one = {
        "Id": "a" * 64,
        "Names": ["/web"],
        "Image": "box:1",
        "ImageID": "sha256:" + "b" * 64,
        "Command": "sh -c x",
        "Created": 5,
        "State": "exited",
        "Status": "Exited (3) 2 minutes ago",
        "Labels": {"a": "b"},
        "Mounts": [{"Destination": "/data"}],
        "NetworkSettings": {"Networks": {"back": {}}},
        "Ports": [
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"PrivatePort": 1, "Type": ""},
        ],
    }
    (found,) = json.loads(shapes.containers([one]))
    assert (found["Names"], found["Labels"], found["Exited"], found["ExitCode"]) == (["web"], {"a": "b"}, True, 3)
    assert found["Ports"] == [
        {"host_ip": "0.0.0.0", "container_port": 80, "host_port": 8080, "range": 1, "protocol": "tcp"}
    ]
    assert json.loads(shapes.containers([])) == []


@pytest.mark.parametrize(("text", "seconds"), [("250ms", 0.25), ("2s", 2.0), ("100", 0.1), ("1m", 60.0)])
def test_the_pause_between_two_looks(text, seconds):
    assert waiting.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "0", "-1s", "nan", "3d", "2h"])
def test_a_pause_that_is_none(text):
    with pytest.raises(Invalid):
        waiting.seconds(text)
