"""Plans: pure, printable, in the order that safety demands; options and lists parsed to the letter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.linux import capability, mount
from orlop.linux.cgroup import Layout
from orlop.runtime import enter, plan
from orlop.runtime.host import HostFacts, kernel_version
from orlop.runtime.operations import mount_options
from orlop.runtime.operations.mounts import NewFilesystem
from orlop.runtime.planning import process as planning
from orlop.spec.errors import Invalid, OrlopError
from orlop.spec.runtime import (
    Device,
    Hook,
    Hooks,
    IdMapping,
    Mount,
    Namespace,
    Process,
    Resources,
    Rlimit,
    Seccomp,
    Spec,
    User,
)
from support.container import NAMESPACES, make_spec

GOLDEN = Path(__file__).parent / "golden/plan.json"
V1 = Layout("hybrid", {name: f"/cg/{name}" for name in ("cpu", "memory", "pids", "devices")}, "/cg/unified")
V2 = Layout("unified", {}, "/cg", frozenset(("cpu", "memory", "pids")))
HOST = HostFacts(
    machine="x86_64",
    kernel=(6, 12),
    cap_last=40,
    cap_bounding=2**41 - 1,
    cap_effective=2**41 - 1,
    rlimits_hard={"RLIMIT_NOFILE": 1 << 20},
    layout=V1,
)
ALLOW = Seccomp.from_json({"defaultAction": "SCMP_ACT_ALLOW"})


def steps(spec: Spec, host: HostFacts = HOST) -> list[str]:
    return [f"{step.subject}: {step.words} | {step.call}" for step in plan.compile(spec, host).steps]


def kinds(spec: Spec, host: HostFacts = HOST) -> list[str]:
    compiled = plan.compile(spec, host)
    return [type(operation).__name__ for operation in (*compiled.operations, *compiled.last)]


def test_dockers_default_plan_is_the_golden_one() -> None:
    spec = make_spec("sh", "-c", "true", cgroups_path="/orlop/web", seccomp=ALLOW, no_new_privileges=True)
    found = {"v1": steps(spec), "v2": steps(spec, HOST.replace(layout=V2))}
    assert found == json.loads(GOLDEN.read_text()), f"if the change is meant, write this to {GOLDEN}:\n" + json.dumps(
        found, indent=1
    )


@pytest.mark.parametrize("may", [True, False])
def test_a_limit_above_our_own_is_raised_by_who_may_and_clamped_by_who_may_not(may: bool) -> None:
    """The process can't raise it any more: it has no capabilities when it sets its limits."""
    limits = (Rlimit(type="RLIMIT_NOFILE", soft=64, hard=1 << 21), Rlimit(type="RLIMIT_CORE", soft=0, hard=0))
    host = HOST if may else HOST.replace(cap_effective=0)
    compiled = plan.compile(make_spec("true", rlimits=limits), host)
    raised = [step.call for step in compiled.steps if step.call.startswith("prlimit(")]
    assert raised == (["prlimit(PID, RLIMIT_NOFILE, 2097152)"] if may else [])
    assert [step.call for step in compiled.steps if step.call.startswith("setrlimit(RLIMIT_NOFILE")] == [
        f"setrlimit(RLIMIT_NOFILE, 64, {1 << (21 if may else 20)})"
    ]
    assert bool(compiled.warnings) == (not may)


def test_a_plan_is_a_value() -> None:
    spec = make_spec("true", seccomp=ALLOW)
    assert plan.compile(spec, HOST) == plan.compile(spec, HOST)
    assert plan.compile(spec, HOST) != plan.compile(spec.replace(hostname="other"), HOST)


def test_rights_go_after_everything_that_needs_them() -> None:
    order = kinds(make_spec("true", seccomp=ALLOW, no_new_privileges=True, sysctl={"net.ipv4.ip_forward": "1"}))
    for earlier, later in (
        ("DetachFromHost", "AttachRoot"),
        ("AttachRoot", "NewFilesystem"),
        ("DeviceLinks", "MaskedPaths"),
        ("MaskedPaths", "PivotRoot"),
        ("WriteProcfs", "PivotRoot"),
        ("PivotRoot", "DropBounding"),
        ("NoNewPrivileges", "LoadFilter"),
        ("DropBounding", "SetIdentity"),
        ("SetIdentity", "CapabilitySets"),
        ("CapabilitySets", "FindCommand"),
        ("FindCommand", "LoadFilter"),
    ):
        assert order.index(earlier) < order.index(later), (earlier, later)
    assert order[-1] == "LoadFilter"


def test_without_no_new_privs_the_filter_comes_before_the_capabilities() -> None:
    order = kinds(make_spec("true", seccomp=ALLOW))
    assert order[-2:] == ["LoadFilter", "CapabilitySets"] and order.count("CapabilitySets") == 2


def test_a_user_namespace_begins_with_every_capability() -> None:
    maps = (IdMapping(container_id=0, host_id=1, size=1),)
    spaces = tuple(Namespace(type=kind) for kind in (*NAMESPACES, "user"))
    poor = HOST.replace(cap_bounding=0xFF, cap_effective=0xFF)
    compiled = plan.compile(make_spec("true", namespaces=spaces, uid_mappings=maps, gid_mappings=maps), poor)
    (drop,) = [operation for operation in compiled.operations if type(operation).__name__ == "DropBounding"]
    assert drop.drop | drop.keep == 2**41 - 1 and not drop.drop & drop.keep
    # Device nodes can't be made there, and a group that is not mapped can't own terminals.
    assert "BoundDevices" in kinds(make_spec("true", namespaces=spaces, uid_mappings=maps, gid_mappings=maps))
    assert any("group 5" in warning for warning in compiled.warnings)


def test_what_the_host_lacks_is_warned_about() -> None:
    poor = HOST.replace(cap_bounding=HOST.cap_bounding & ~capability.mask(["CAP_MKNOD"]))
    compiled = plan.compile(make_spec("true"), poor)
    assert compiled.warnings == ("the container does not get CAP_MKNOD: this host's own bounding set lacks it",)
    bare = plan.compile(make_spec("true"), HOST.replace(layout=Layout("none")))
    assert bare.warnings == ("/sys/fs/cgroup stays empty: this host has no cgroup hierarchy",)


def test_an_exec_takes_what_the_container_has() -> None:
    spec = make_spec("true", cgroups_path="/orlop/web", seccomp=ALLOW, oom_score_adj=7, resources=Resources())
    compiled = enter.compile_exec(Process(cwd="/", args=("ls",), user=User(uid=5)), spec, HOST)
    assert compiled.cgroup is not None and compiled.cgroup.exists and compiled.cgroup.path == "/orlop/web"
    assert compiled.cgroup.settings == () and compiled.clone_flags == 0
    words = [step.words for step in compiled.steps]
    assert "set the OOM score adjustment to 7" in words and "become uid 5, gid 0" in words
    assert not any(step.subject in ("mounts", "devices", "masks", "root") for step in compiled.steps)


def test_hooks_stop_init_only_where_there_are_any() -> None:
    hook = (Hook(path="/h"),)
    assert "HookPoint" not in kinds(make_spec("true", hooks=Hooks(poststart=hook, poststop=hook, start_container=hook)))
    order = kinds(make_spec("true", hooks=Hooks(prestart=hook, create_container=hook, start_container=hook)))
    assert order.index("HookPoint") + 1 == order.index("ContainerHooks") < order.index("PivotRoot")
    assert order[-1] == "ContainerHooks"


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.18.44-fc", (6, 18)), ("5.10", (5, 10)), ("6.1.0-rc1", (6, 1)), ("7", (7,)), ("x.y", (0, 0)), ("6.x", (6, 0))],
)
def test_kernel_versions(release: str, version: tuple[int, ...]) -> None:
    assert kernel_version(release) == version


# -- mount options --------------------------------------------------------------------------------------------------


def test_later_options_win() -> None:
    parsed = mount_options.parse(("ro", "nosuid", "rw", "suid", "noexec"), "f")
    assert (parsed.set, parsed.clear) == (
        mount.MOUNT_ATTR_NOEXEC,
        mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID,
    )


def test_an_empty_option_means_nothing() -> None:
    """As with runc and crun: buildah writes one for `-v /a:/b`."""
    assert mount_options.parse(("", "ro"), "f") == mount_options.parse(("ro",), "f")


def test_access_times_are_one_field() -> None:
    for option, bits in (("noatime", mount.MOUNT_ATTR_NOATIME), ("strictatime", mount.MOUNT_ATTR_STRICTATIME)):
        parsed = mount_options.parse(("noatime", "strictatime", option), "f")
        # mount_setattr(2): whoever sets an access time mode must clear the whole field.
        assert parsed.set == bits and parsed.clear & mount.MOUNT_ATTR__ATIME == mount.MOUNT_ATTR__ATIME
    assert mount_options.parse(("noatime", "relatime"), "f").set == 0


def test_every_option_of_the_specification_is_known() -> None:
    must = (
        "async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime noexec "
        "noiversion nolazytime norelatime nostrictatime nosuid private rbind relatime remount ro rprivate rshared "
        "rslave runbindable rw shared silent slave strictatime suid sync unbindable nosymfollow symfollow idmap ridmap "
        "mand nomand tmpcopyup"
    ).split()
    recursive = (
        "ro rw suid nosuid dev nodev exec noexec atime noatime diratime nodiratime relatime norelatime strictatime "
        "nostrictatime symfollow nosymfollow"
    ).split()
    for option in (*must, *(f"r{name}" for name in recursive)):
        assert mount_options.parse((option,), "f").data == (), option


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_options_parse_or_are_refused(options: list[str]) -> None:
    try:
        parsed = mount_options.parse(tuple(options), "f")
    except OrlopError as error:
        assert "f" in str(error)
    else:
        assert not parsed.set & parsed.clear & ~mount.MOUNT_ATTR__ATIME


# -- lists, ids, devices --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", (0,)), ("0-3", (0, 1, 2, 3)), ("7,1-2", (1, 2, 7)), (" 1 - 2 , 5 ", (1, 2, 5)), ("1,1", (1,))],
)
def test_number_lists(text: str, numbers: tuple[int, ...]) -> None:
    assert planning.number_list(text, "f", 8) == numbers


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "-1", "3-1", "8", "0-8", "a", "1-", "1-2-3", "٣", "0x1", "9" * 40, "0-" + "9" * 40]
)
def test_number_lists_that_are_none(text: str) -> None:
    with pytest.raises(Invalid, match="f:"):
        planning.number_list(text, "f", 8)


@given(st.builds(Device, type=st.text(max_size=2), path=st.text(max_size=20), major=st.integers(), minor=st.integers()))
def test_any_device_is_planned_or_refused(device: Device) -> None:
    try:
        plan.compile(make_spec("true", devices=(device,)), HOST)
    except OrlopError as error:
        assert "linux.devices[0]" in str(error)


@given(st.builds(Mount, destination=st.text(max_size=20), type=st.text(max_size=8), source=st.text(max_size=8)))
def test_any_mount_is_planned_or_refused(wanted: Mount) -> None:
    try:
        compiled = plan.compile(make_spec("true", mounts=(wanted,)), HOST)
    except OrlopError as error:
        assert "mounts[0]" in str(error)
    else:
        assert all(step.words and step.call for step in compiled.steps)


@given(st.dictionaries(st.text(max_size=30), st.text(max_size=20), max_size=3))
def test_no_sysctl_leaves_its_namespace(sysctl: dict[str, str]) -> None:
    try:
        compiled = plan.compile(make_spec("true", sysctl=sysctl), HOST)
    except OrlopError as error:
        assert "linux.sysctl" in str(error)
    else:
        files = [getattr(operation, "file", "") for operation in compiled.operations]
        assert all(".." not in file.split("/") for file in files)


@pytest.mark.parametrize(
    ("field", "module", "words"),
    [
        ("apparmor_profile", "apparmor", "confine the command with the apparmor label x:y"),
        ("selinux_label", "selinux", "confine the command with the selinux label x:y"),
    ],
)
def test_a_label_is_set_where_somebody_enforces_it(field: str, module: str, words: str) -> None:
    spec = make_spec()
    assert spec.process
    labelled = spec.replace(process=spec.process.replace(**{field: "x:y"}))
    told = steps(labelled, HOST.replace(lsms=("capability", module)))
    # Before the identity changes, and before no_new_privs could forbid the change of label.
    assert [line for line in told if words in line] and told.index(
        next(line for line in told if words in line)
    ) < told.index(next(line for line in told if "become uid" in line))
    with pytest.raises(OrlopError, match=f"{module} is not active"):
        steps(labelled)


def test_new_file_systems_get_the_mount_label_but_not_the_kernels_own() -> None:
    spec = make_spec()
    mounts = (Mount(destination="/tmp", type="tmpfs"), Mount(destination="/proc", type="proc"))
    labelled = spec.replace(mounts=mounts, linux=spec.linux.replace(mount_label="x:y"))
    made = plan.compile(labelled, HOST.replace(lsms=("selinux",))).operations
    assert {each.fstype: each.label for each in made if isinstance(each, NewFilesystem)} == {"tmpfs": "x:y", "proc": ""}
    with pytest.raises(OrlopError, match="mountLabel: selinux is not active"):
        plan.compile(labelled, HOST)


def test_the_agent_of_a_listener_is_named() -> None:
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}
    asks = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    spec = make_spec()

    def with_seccomp(value: dict[str, object]) -> Spec:
        return spec.replace(linux=spec.linux.replace(seccomp=Seccomp.from_json(value)))

    found = plan.compile(with_seccomp({**asks, "listenerPath": "/run/agent", "listenerMetadata": "m"}), HOST).listener
    assert found and (found.path, found.metadata) == ("/run/agent", "m")
    assert (
        plan.compile(with_seccomp({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent"}), HOST).listener
        is None
    )
    for wrong in (asks, {**asks, "listenerPath": "relative"}):
        with pytest.raises(Invalid, match="listenerPath"):
            plan.compile(with_seccomp(wrong), HOST)


def test_a_cgroup_is_delegated_where_the_specification_says_so() -> None:
    spec = make_spec()
    assert spec.process
    writable = Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup")
    user = spec.process.replace(user=User(uid=1000))
    wanted = spec.replace(process=user, mounts=(*spec.mounts, writable), linux=spec.linux.replace(cgroups_path="/x"))
    v2 = HOST.replace(layout=V2)

    def told(spec: Spec, host: HostFacts) -> list[str]:
        return [line for line in steps(spec, host) if "give the cgroup" in line]

    assert told(wanted, v2)[0].startswith("cgroup: give the cgroup /x to uid 1000")
    assert not told(wanted, HOST), "v1 is not safe to delegate"
    assert not told(wanted.replace(process=spec.process), v2), "root owns it anyway"
    readonly = wanted.replace(mounts=(writable.replace(options=("ro",)),))
    assert not told(readonly, v2)
    spaces = tuple(each for each in wanted.linux.namespaces if each.type != "cgroup")
    assert not told(wanted.replace(linux=wanted.linux.replace(namespaces=spaces)), v2)
    maps = (IdMapping(container_id=0, host_id=100000, size=65536),)
    ids = wanted.linux.replace(
        namespaces=(*wanted.linux.namespaces, Namespace(type="user")), uid_mappings=maps, gid_mappings=maps
    )
    assert "uid 101000" in told(wanted.replace(linux=ids), v2)[0]
