"""A container's record becomes an OCI spec: docker's defaults, docker's rules, docker's texts.

The whole specs lie in golden/compile-*.json. After a wanted change: ORLOP_WRITE_GOLDEN=1, then read the diff.
"""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.engine import compile
from orlop.engine.compile import config, mounts, resources, security
from orlop.engine.containers.record import ContainerRecord
from orlop.engine.host import NO_DEVICES, Host
from orlop.engine.volumes import mountpoints
from orlop.linux.capability import NAMES
from orlop.runtime.host import HostFacts
from orlop.spec.container import BindRequest, ContainerRequest, TmpfsRequest, UlimitRequest
from orlop.spec.errors import Invalid, OrlopError, Unsupported
from orlop.spec.image import ContainerConfig
from orlop.spec.runtime import Spec

GOLDEN = Path(__file__).parent / "golden"
ID = "0123456789abcdef" * 4
DIRECTORY = "/data/containers/" + ID
IMAGE = ContainerConfig(
    env=("PATH=/bin", "LANG=C"),
    cmd=("sh",),
    labels={"maker": "image", "kept": "yes"},
    stop_signal="SIGQUIT",
)
HOST = Host(
    processors=4,
    hostname="machine",
    capabilities=tuple(f"CAP_{name}" for name in NAMES if name != "SYS_RESOURCE"),
    controllers=("cpu", "cpuset", "memory", "pids", "devices", "blkio"),
    cpus=(0, 1, 2, 3),
    memory_nodes=(0,),
    swap_limit=True,
    runtime=HostFacts(
        machine="x86_64",
        kernel=(6, 18),
        cap_last=40,
        cap_bounding=0,
        cap_effective=0,
        rlimits_hard={"RLIMIT_NOFILE": 9},
    ),
)


def request(**fields: object) -> ContainerRequest:
    return ContainerRequest(**{"image": "host", "name": "web", **fields})


def merge(**fields: object):
    return config.merge(request(**fields), IMAGE, ID, HOST.hostname)


def compiled(image: ContainerConfig = IMAGE, host: Host = HOST, **fields: object) -> compile.Compiled:
    asked = request(**{"security_opt": ("seccomp=unconfined",), **fields})
    record = ContainerRecord(
        id=ID,
        name="web",
        created_at="",
        request=asked,
        config=config.merge(asked, image, ID, host.hostname),
        mounts=mountpoints.of_request(asked, "container web"),
    )
    return compile.container(record, DIRECTORY, host)


def spec(**fields: object) -> Spec:
    return compiled(**fields).spec


def process(**fields: object):
    found = spec(**fields).process
    assert found is not None
    return found


WIDE = {
    "entrypoint": ("/bin/env",),
    "args": ("-0",),
    "env": ("A=1", "LANG", "B=x=y\nz"),
    "working_dir": "/srv/../srv/app/",
    "hostname": "app.example",
    "labels": {"maker": "me"},
    "terminal": True,
    "read_only": True,
    "memory_bytes": 64 << 20,
    "cpu_nanos": 1_500_000_000,
    "pids_max": 50,
    "cap_add": ("net_admin",),
    "cap_drop": ("CAP_MKNOD", "chown"),
    "security_opt": ("seccomp=unconfined", "no-new-privileges=false"),
    "network": "host",
    "binds": (
        BindRequest(source="/a/b", target="/data/deep", options=("ro", "rslave")),
        BindRequest(source="/a//c/", target="/data"),
        BindRequest(source="/etc/hosts", target="/etc/hosts", options=("ro",)),
    ),
    "tmpfs": (TmpfsRequest(target="/run", options=("size=1m", "exec")), TmpfsRequest(target="/dev/shm")),
}


@pytest.mark.parametrize(
    ("name", "fields"),
    [("default", {}), ("wide", WIDE), ("privileged", {"privileged": True, "pids_max": 0, "network": "none"})],
)
def test_the_whole_spec(name, fields):
    text = json.dumps(spec(**fields).to_json(), indent=1, ensure_ascii=False) + "\n"
    path = GOLDEN / f"compile-{name}.json"
    if os.environ.get("ORLOP_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


# -- the command ----------------------------------------------------------------------------------------------------

ENTRY = ContainerConfig(entrypoint=("/entry",), cmd=("a", "b"))


@pytest.mark.parametrize(
    ("entrypoint", "args", "expected"),
    [
        (None, None, ("/entry", "a", "b")),
        (None, (), ("/entry", "a", "b")),
        (None, ("c",), ("/entry", "c")),
        (("/mine",), None, ("/mine",)),
        (("/mine",), ("c",), ("/mine", "c")),
        (("",), ("c",), ("c",)),
        ((), None, ("a", "b")),
    ],
)
def test_entrypoint_and_arguments_override_as_docker_says(entrypoint, args, expected):
    assert config.merge(request(entrypoint=entrypoint, args=args), ENTRY, ID, "h").args == expected


@pytest.mark.parametrize("entrypoint", [None, ("",), ()])
def test_without_a_command_there_is_no_container(entrypoint):
    with pytest.raises(Invalid, match="no command specified"):
        config.merge(request(entrypoint=entrypoint), ContainerConfig(), ID, "h")


def test_clearing_the_entrypoint_clears_the_images_arguments():
    with pytest.raises(Invalid, match="no command specified"):
        config.merge(request(entrypoint=("",)), ENTRY, ID, "h")


# -- environment, names, directories --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exposed", "cause"),
    [
        (("x/tcp",), "invalid containerPort"),
        (("99999",), "[Pp]ort"),
        (("80/p0",), "invalid proto"),
        (("1-",), "[Pp]ort"),
        (tuple(f"{first}-65535/tcp" for first in range(1, 5)), "ports are exposed"),
    ],
)
def test_an_image_exposes_ports_only(exposed, cause):
    image = ContainerConfig(cmd=("sh",), exposed_ports={text: {} for text in exposed})
    with pytest.raises(Invalid, match=cause):
        config.merge(request(), image, ID, "h")


def test_the_environment_is_the_defaults_then_the_image_then_the_user():
    assert process(env=("LANG=de", "X=1")).env == (
        "PATH=/bin",
        "HOSTNAME=0123456789ab",
        "LANG=de",
        "X=1",
    )


def test_an_image_without_path_gets_dockers_and_a_terminal_gets_term():
    found = compiled(ContainerConfig(cmd=("sh",)), terminal=True).spec.process
    assert found is not None
    assert found.env[0] == "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert "TERM=xterm" in found.env


def test_a_name_alone_unsets_the_images_variable_and_the_default():
    assert process(env=("LANG", "PATH", "HOSTNAME")).env == ()


def test_home_is_left_to_whoever_knows_the_user():
    assert not [entry for entry in process().env if entry.startswith("HOME=")]


@pytest.mark.parametrize("entry", ["", "=", "=x"])
def test_a_variable_has_a_name(entry):
    with pytest.raises(Invalid, match="invalid environment variable: "):
        merge(env=(entry,))


def test_labels_signal_and_host_name_come_from_request_then_image_then_default():
    plain, asked = merge(), merge(labels={"maker": "me"}, stop_signal="9", hostname="db", stop_timeout_s=3)
    assert (plain.labels, plain.stop_signal, plain.hostname) == (IMAGE.labels, "SIGQUIT", ID[:12])
    assert (asked.labels, asked.stop_signal, asked.hostname) == ({"maker": "me", "kept": "yes"}, "9", "db")
    assert asked.stop_timeout_s == 3
    assert config.merge(request(), ContainerConfig(cmd=("sh",)), ID, "h").stop_signal == "SIGTERM"


def test_the_hosts_network_shows_the_hosts_name():
    assert merge(network="host").hostname == "machine"


@pytest.mark.parametrize("name", ["a b", "a\nb", "a:b", "x" * 64, "ä", "a\tb", "a/b"])
def test_a_host_name_can_not_forge_a_line(name):
    with pytest.raises(Invalid, match="invalid hostname format"):
        merge(hostname=name)


def test_a_working_directory_is_absolute_and_clean():
    assert merge(working_dir="//srv/./x/../y/").working_dir == "/srv/y"
    with pytest.raises(Invalid, match="the working directory 'srv' is invalid, it needs to be an absolute path"):
        merge(working_dir="srv")


def test_a_wrong_stop_signal_is_refused_at_once():
    with pytest.raises(Invalid, match="invalid signal: FOO"):
        merge(stop_signal="FOO")


# -- limits ---------------------------------------------------------------------------------------------------------


def limits(host: Host = HOST, **fields: object):
    return resources.resources(request(**fields), host, NO_DEVICES, "container web")


def test_limits_become_resources():
    found, warnings = limits(memory_bytes=20 << 20, cpu_nanos=500_000_000, pids_max=20)
    assert found.memory is not None and (found.memory.limit, found.memory.swap) == (20 << 20, 40 << 20)
    assert found.cpu is not None and (found.cpu.quota, found.cpu.period) == (50_000, 100_000)
    assert found.pids is not None and found.pids.limit == 20
    assert warnings == ()


@pytest.mark.parametrize(("swap", "expected"), [(0, 40 << 20), (-1, -1), (20 << 20, 20 << 20), (30 << 20, 30 << 20)])
def test_swap_is_the_sum_as_docker_counts(swap, expected):
    found, _ = limits(memory_bytes=20 << 20, memory_swap_bytes=swap)
    assert found.memory is not None and found.memory.swap == expected


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"memory_bytes": 6 * 2**20 - 1}, "Minimum memory limit allowed is 6MB"),
        ({"memory_bytes": -1}, "Minimum memory limit allowed is 6MB"),
        (
            {"memory_bytes": 20 << 20, "memory_swap_bytes": 10 << 20},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            {"memory_bytes": 20 << 20, "memory_swap_bytes": -2},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            {"memory_swap_bytes": 10 << 20},
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        ({"cpu_nanos": 4_000_000_001}, "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"),
        ({"cpu_nanos": -1}, "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"),
        ({"cpu_nanos": 1}, "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"),
    ],
)
def test_a_wrong_limit_is_refused_with_dockers_text(fields, text):
    with pytest.raises(Invalid) as caught:
        limits(**fields)
    assert caught.value.cause == text


def test_the_number_of_processes_is_limited_unless_told_otherwise():
    assert [
        found.pids.limit if found.pids else None
        for found, _ in (limits(), limits(pids_max=0), limits(pids_max=-1), limits(pids_max=7))
    ] == [4096, None, None, 7]


@pytest.mark.parametrize("asked", [{"memory_bytes": 20 << 20}, {"cpu_nanos": 10**9}, {"pids_max": 5}])
def test_a_limit_asked_for_by_name_is_never_dropped(asked):
    with pytest.raises(Unsupported, match="controller is mounted"):
        limits(HOST.replace(controllers=()), **asked)


def test_what_was_not_asked_for_degrades_with_one_warning_each():
    _, warnings = limits(HOST.replace(controllers=("memory",), swap_limit=False), memory_bytes=20 << 20)
    assert len(warnings) == 3
    assert warnings[0].endswith("Memory limited without swap.")


def test_a_swap_limit_asked_for_by_name_needs_a_kernel_that_can():
    with pytest.raises(Unsupported):
        limits(HOST.replace(swap_limit=False), memory_bytes=20 << 20, memory_swap_bytes=20 << 20)


# -- capabilities and options ---------------------------------------------------------------------------------------


def capabilities(host: Host = HOST, **fields: object) -> set[str]:
    found = security.capabilities(request(**fields), host, "container web")
    assert found.bounding == found.effective == found.permitted
    assert found.inheritable == found.ambient == ()
    return {name.removeprefix("CAP_") for name in found.bounding}


DEFAULT = {name.removeprefix("CAP_") for name in security.CAPABILITIES_DEFAULT}
EVERY = {name.removeprefix("CAP_") for name in HOST.capabilities}


def test_the_default_capabilities_are_dockers_fourteen():
    bits = sum(1 << NAMES.index(name) for name in capabilities())
    assert f"{bits:016x}" == "00000000a80425fb"


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (("SYS_ADMIN",), (), DEFAULT | {"SYS_ADMIN"}),
        ((), ("cap_chown", "KILL"), DEFAULT - {"CHOWN", "KILL"}),
        ((), ("ALL",), set()),
        (("net_raw",), ("all",), {"NET_RAW"}),
        (("ALL",), (), EVERY),
        (("ALL",), ("SYS_ADMIN",), EVERY - {"SYS_ADMIN"}),
        (("CHOWN",), ("CHOWN",), DEFAULT),
    ],
)
def test_capabilities_are_added_and_dropped_as_docker_does(add, drop, expected):
    assert capabilities(cap_add=add, cap_drop=drop) == expected


def test_privileged_has_what_the_engine_has():
    assert capabilities(privileged=True) == EVERY


@pytest.mark.parametrize("field", ["cap_add", "cap_drop"])
@pytest.mark.parametrize("name", ["FOO", "", "CAP_", "SYS_ADMIN,NET_RAW", "CAP_CAP_CHOWN", "x" * 5000])
def test_an_unknown_capability_is_refused_with_dockers_text(field, name):
    with pytest.raises(Invalid, match='unknown capability: "') as caught:
        capabilities(**{field: (name,)})
    assert caught.value.cause.startswith("invalid CapAdd" if field == "cap_add" else "invalid CapDrop")
    assert len(str(caught.value)) < 300


def test_a_capability_that_the_engine_lacks_is_an_error_by_name_only():
    with pytest.raises(Unsupported, match="SYS_RESOURCE"):
        capabilities(cap_add=("SYS_RESOURCE",))
    assert "SYS_RESOURCE" not in capabilities(cap_add=("ALL",))
    assert capabilities(cap_drop=("SYS_RESOURCE",)) == DEFAULT


def test_a_default_capability_that_the_engine_lacks_is_one_warning():
    poor = HOST.replace(capabilities=tuple(name for name in HOST.capabilities if name != "CAP_MKNOD"))
    found = compiled(host=poor)
    assert found.warnings == ("This engine does not have CAP_MKNOD itself: the container runs without.",)


def options(*words: str, host: Host = HOST, **fields: object) -> security.Security:
    return security.options(request(security_opt=words, **fields), host, "container web")


def test_the_default_security():
    assert options() == security.Security(no_new_privileges=True, seccomp="default", system_paths=True)
    assert options(privileged=True) == security.Security(
        no_new_privileges=False, seccomp="unconfined", system_paths=False
    )


@pytest.mark.parametrize(
    ("word", "changes"),
    [
        ("no-new-privileges", {}),
        ("no-new-privileges=true", {}),
        ("no-new-privileges:false", {"no_new_privileges": False}),
        ("no-new-privileges=false", {"no_new_privileges": False}),
        ("seccomp=unconfined", {"seccomp": "unconfined"}),
        ("seccomp=builtin", {}),
        ("seccomp={}", {"seccomp": "{}"}),
        ("systempaths=unconfined", {"system_paths": False}),
        ("apparmor=unconfined", {}),
        ("label=disable", {}),
    ],
)
def test_security_options_are_read_as_docker_reads_them(word, changes):
    assert options(word) == security.Security().replace(**changes)


@pytest.mark.parametrize(
    "word",
    [
        "",
        "foo",
        "seccomp",
        "seccomp=",
        "no-new-privileges=maybe",
        "systempaths=masked",
        "writable-cgroups=maybe",
        "x" * 9999,
    ],
)
def test_an_unknown_security_option_is_refused_with_dockers_text(word):
    with pytest.raises(Invalid, match="invalid --security-opt") as caught:
        options(word)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["profile.json", "[]", "{", '{"a":1,"a":2}', "{" * 100_000])
def test_a_seccomp_profile_that_is_no_json_object_is_refused(text):
    with pytest.raises(Invalid, match="Decoding seccomp profile failed"):
        options("seccomp=" + text)


@pytest.mark.parametrize("word", ["apparmor=docker-default", "label=type:svirt_t"])
def test_a_label_that_nobody_would_apply_is_an_error(word):
    with pytest.raises(Unsupported, match="is not active on this machine"):
        options(word)


def test_a_module_that_we_can_not_direct_is_not_silently_left_on():
    with pytest.raises(Unsupported, match="is active on this machine"):
        options("label=disable", host=HOST.replace(security_modules=("selinux",)))


ARMORED = HOST.replace(security_modules=("apparmor",), loads_profiles=True)


def test_apparmor_confines_whoever_asks_for_nothing_else():
    found = {
        word: options(*filter(None, [word]), host=ARMORED).apparmor
        for word in ("", "apparmor=unconfined", "apparmor=mine", "nesting")
    }
    assert found == {
        "": "orlop-default",
        "apparmor=unconfined": "",
        "apparmor=mine": "mine",
        "nesting": "orlop-nesting",
    }
    assert security.options(request(privileged=True), ARMORED, "container web").apparmor == ""


def test_who_loads_no_profiles_confines_by_those_that_are_loaded():
    assert options(host=ARMORED.replace(loads_profiles=False)).apparmor == ""
    runtime = ARMORED.runtime.replace(initial_user_namespace=False)
    assert options("apparmor=mine", host=ARMORED.replace(runtime=runtime, loads_profiles=False)).apparmor == "mine"


def test_a_limit_of_a_process_that_is_clamped_is_told():
    asked = request(
        ulimits=(UlimitRequest(name="nofile", soft=5, hard=4096), UlimitRequest(name="nproc", soft=1, hard=-1))
    )
    most = {"RLIMIT_NOFILE": 1024, "RLIMIT_NPROC": 2**64 - 1}
    user = HOST.replace(runtime=HOST.runtime.replace(initial_user_namespace=False, rlimits_hard=most))
    told = ("The limit RLIMIT_NOFILE is 1024: only root may raise it to 4096.",)
    assert resources.rlimit_warnings(asked, user) == told
    root = HOST.replace(capabilities=("CAP_SYS_RESOURCE",))
    assert resources.rlimit_warnings(asked, root) == ()


def test_each_limit_says_to_a_user_that_nothing_is_delegated():
    runtime = HOST.runtime.replace(initial_user_namespace=False)
    with pytest.raises(Unsupported, match="no cgroup with the memory controller is delegated to you"):
        limits(HOST.replace(controllers=(), runtime=runtime), memory_bytes=20 << 20)


# -- mounts ---------------------------------------------------------------------------------------------------------


def bind(specification: str) -> BindRequest:
    source, target, *rest = specification.split(":")
    return BindRequest(source=source, target=target, options=tuple(rest[0].split(",")) if rest else ())


def tmpfs(specification: str) -> TmpfsRequest:
    target, *rest = specification.split(":")
    return TmpfsRequest(target=target, options=tuple(rest[0].split(",")) if rest else ())


def points(**fields: object):
    return mountpoints.of_request(request(**fields), "container web")


def destinations(**fields: object) -> list[str]:
    return [
        mount.destination for mount in mounts.mounts(request(**fields), points(**fields), DIRECTORY, "container web")
    ]


def test_parents_are_mounted_before_what_lies_below():
    found = destinations(binds=(bind("/h:/a/b/c"), bind("/h:/a"), bind("/h:/etc")), tmpfs=(tmpfs("/a/b"),))
    assert [path for path in found if path.startswith("/a")] == ["/a", "/a/b", "/a/b/c"]
    assert found.index("/etc") < found.index("/etc/hosts")


def test_a_users_mount_replaces_the_default_one():
    found = destinations(tmpfs=(tmpfs("/dev/shm"), tmpfs("/etc/hosts")))
    assert found.count("/dev/shm") == found.count("/etc/hosts") == 1
    assert [path for path in destinations(binds=(bind("/dev:/dev"),)) if path.startswith("/dev")] == ["/dev"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ("rbind", "rprivate")),
        (":rw,rshared", ("rbind", "rshared")),
        (":ro", ("rbind", "rprivate", "rro")),
        (":z,ro,cached", ("rbind", "rprivate", "rro")),
    ],
)
def test_bind_options(options, expected):
    fields = {"binds": (bind("/h:/t" + options),)}
    (found,) = [m for m in mounts.mounts(request(**fields), points(**fields), "", "c") if m.destination == "/t"]
    assert (found.type, found.source, found.options) == ("bind", "/h", expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ("noexec", "nosuid", "nodev")),
        (":exec,size=64k", ("nosuid", "nodev", "exec", "size=64k")),
        (":suid,dev,mode=1777", ("noexec", "suid", "dev", "mode=1777")),
    ],
)
def test_tmpfs_options(options, expected):
    asked = request(tmpfs=(tmpfs("/t" + options),))
    (found,) = [m for m in mounts.mounts(asked, (), "", "c") if m.destination == "/t"]
    assert (found.type, found.options) == ("tmpfs", expected)


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("binds", "/a:b", "mount path must be absolute"),
        ("binds", "/a:..", "mount path must be absolute"),
        ("binds", "/a:/", "destination can't be '/'"),
        ("binds", "/a:/x/..", "destination can't be '/'"),
        ("binds", "/a:/b:foo", "invalid mode: foo"),
        ("binds", "/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("binds", "/a:/b:shared,private", "invalid mode: shared,private"),
        ("binds", "/a:/b:U", "invalid mode: U"),
        ("binds", "/a:/proc", "cannot be mounted because it is not of type proc"),
        ("binds", "/a:/proc/sys", "cannot be mounted because it is inside /proc"),
        ("binds", "/a:/x/../proc/1", "cannot be mounted because it is inside /proc"),
        ("binds", "../a:/b", "no absolute path and no volume's name"),
        ("binds", "/a:/b:nocopy", "field VolumeOptions must not be specified"),
        ("binds", "name:/b:rshared", "field BindOptions must not be specified"),
        ("binds", "name:/proc", "cannot be mounted because it is not of type proc"),
        ("binds", "/a:/b:as=x", "invalid mode: as=x"),
        ("tmpfs", "b", "mount path must be absolute"),
        ("tmpfs", "/", "destination can't be '/'"),
        ("tmpfs", "/proc", "cannot be a tmpfs"),
        ("tmpfs", "/t:foo", 'invalid tmpfs option "foo"'),
        ("tmpfs", "/t:size", 'invalid tmpfs option "size"'),
        ("tmpfs", "/t:lowerdir=/etc", 'invalid tmpfs option "lowerdir=/etc"'),
    ],
)
def test_a_wrong_mount_is_refused(field, text, expected):
    asked = request(**{field: ((bind if field == "binds" else tmpfs)(text),)})
    with pytest.raises((Invalid, Unsupported)) as caught:
        mounts.mounts(asked, mountpoints.of_request(asked, "container web"), DIRECTORY, "container web")
    assert expected in caught.value.cause
    assert text.removeprefix("/t:") in caught.value.cause


def test_two_mounts_at_one_place_are_refused_with_dockers_text():
    with pytest.raises(Invalid, match="Duplicate mount point: /t"):
        destinations(binds=(bind("/h:/t"),), tmpfs=(tmpfs("/x/../t/"),))


def test_propagation_reaches_the_root():
    assert [spec(binds=(bind(f"/h:/t:{word}"),)).linux.rootfs_propagation for word in ("rw", "rslave", "shared")] == [
        "",
        "rslave",
        "shared",
    ]


def test_relabelling_without_selinux_is_a_warning():
    (warning,) = compiled(binds=(bind("/h:/t:Z"),)).warnings
    assert warning.startswith("/h:/t: relabelling was not done")


_hostile = st.text(max_size=40) | st.sampled_from(["/proc/../proc/self", "/../..", "//", "/\n", "ro,ro", "\u202e"])


@given(st.lists(_hostile, max_size=3), _hostile, _hostile, st.integers(-(2**63), 2**64), st.integers(-(2**63), 2**64))
def test_whatever_is_asked_the_answer_is_a_spec_or_an_error_of_ours(words, source, target, number, other):
    asked = {
        "binds": (BindRequest(source="/" + source, target=target, options=tuple(words)),),
        "tmpfs": (TmpfsRequest(target=source, options=tuple(words)),),
        "env": tuple(words),
        "cap_drop": tuple(words),
        "hostname": source,
        "working_dir": target,
        "memory_bytes": number,
        "memory_swap_bytes": other,
        "cpu_nanos": other,
        "pids_max": number,
    }
    for name, value in asked.items():
        try:
            found = spec(**{name: value})
        except OrlopError as wrong:
            assert len(str(wrong)) < 2000
        else:
            assert all(mount.destination.startswith("/") for mount in found.mounts)
            assert Spec.from_json(found.to_json()) == found
