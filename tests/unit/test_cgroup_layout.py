"""Which hierarchies a mountinfo shows, which paths name a cgroup. Directories of the test stand for the mounts."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.linux.cgroup import Cgroup, Layout, detect, split_path
from orlop.linux.cgroup.directory import NAME_BYTES_MAX, PATH_BYTES_MAX, open_directory
from orlop.linux.cgroup.layout import paths_of

Machine = Callable[..., Layout]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """`machine((where, fstype, super options), ...)` detects these mounts; where is made below tmp_path."""

    def look(*mounts: tuple[str, str, str], controllers: str = "", root: str = "/", more: str = "") -> Layout:
        lines = ["22 1 0:21 / /proc rw,nosuid - proc proc rw", "23 1 0:22 / /sys rw - sysfs sysfs rw", more]
        for number, (where, fstype, options) in enumerate(mounts, 31):
            place = tmp_path / where
            place.mkdir(parents=True, exist_ok=True)
            if fstype == "cgroup2":
                (place / "cgroup.controllers").write_text(f"{controllers}\n")
            device = os.stat(place).st_dev
            escaped = str(place).replace("\\", "\\134").replace(" ", "\\040")
            where = f"{number} 23 {os.major(device)}:{os.minor(device)} {root} {escaped}"
            lines.append(f"{where} rw,relatime shared:9 - {fstype} {fstype} {options}")
        mountinfo = tmp_path / "mountinfo"
        mountinfo.write_text("\n".join(lines))
        return detect(str(mountinfo))

    return look


def test_pure_v2(machine: Machine, tmp_path: Path) -> None:
    layout = machine(("cg", "cgroup2", "rw,nsdelegate"), controllers="cpu io memory pids")
    assert (layout.mode, layout.v1, layout.v2) == ("unified", {}, f"{tmp_path}/cg")
    assert layout.v2_controllers == {"cpu", "io", "memory", "pids"}
    assert layout.hierarchies() == (f"{tmp_path}/cg",)
    assert [layout.version(name) for name in ("memory", "devices", "cgroup", "hugetlb")] == [2, 2, 2, 0]


def test_v1_with_controllers_mounted_together(machine: Machine, tmp_path: Path) -> None:
    layout = machine(("cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"), ("memory", "cgroup", "rw,memory"))
    assert layout.mode == "v1"
    assert layout.v1["cpu"] == layout.v1["cpuacct"] == f"{tmp_path}/cpu,cpuacct"
    assert layout.hierarchies() == (f"{tmp_path}/cpu,cpuacct", f"{tmp_path}/memory")
    assert [layout.version(name) for name in ("memory", "devices", "cgroup")] == [1, 0, 0]
    assert layout.directory("devices") == ""


def test_hybrid_with_a_controller_on_v2(machine: Machine, tmp_path: Path) -> None:
    layout = machine(
        ("memory", "cgroup", "rw,memory"),
        ("systemd", "cgroup", "rw,xattr,release_agent=/lib/systemd/systemd-cgroups-agent,name=systemd"),
        ("unified", "cgroup2", "rw"),
        controllers="hugetlb",
    )
    assert layout.mode == "hybrid"
    assert layout.v1 == {"memory": f"{tmp_path}/memory", "name=systemd": f"{tmp_path}/systemd"}
    assert [layout.version(name) for name in ("memory", "hugetlb", "devices", "pids")] == [1, 2, 2, 0]
    assert layout.hierarchies()[-1] == layout.directory("hugetlb") == f"{tmp_path}/unified"


def test_a_named_hierarchy_alone_does_not_make_it_hybrid(machine: Machine) -> None:
    layout = machine(("cg", "cgroup2", "rw"), ("systemd", "cgroup", "rw,name=systemd"), controllers="memory")
    assert (layout.mode, layout.v1) == ("unified", {})


def test_nothing_mounted(machine: Machine) -> None:
    layout = machine()
    assert (layout.mode, layout.hierarchies(), layout.version("memory")) == ("none", (), 0)


def test_a_mount_below_another_is_not_seen(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    layout = machine(more=f"40 23 0:9999 / {tmp_path}/hidden rw - cgroup cgroup rw,memory")
    assert layout.mode == "none"


def test_a_mount_of_the_whole_hierarchy_is_preferred(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    device = os.stat(tmp_path).st_dev
    part = f"40 23 {os.major(device)}:{os.minor(device)} /docker/x {tmp_path}/part rw - cgroup cgroup rw,memory"
    assert machine(more=part).v1 == {"memory": f"{tmp_path}/part"}
    assert machine(("memory", "cgroup", "rw,memory"), more=part).v1 == {"memory": f"{tmp_path}/memory"}


def test_a_mount_point_with_blanks(machine: Machine, tmp_path: Path) -> None:
    assert machine(("a b\\c", "cgroup2", "rw")).v2 == f"{tmp_path}/a b\\c"


@given(st.text(max_size=300))
def test_any_text_is_read_without_a_crash(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    mountinfo = tmp_path_factory.getbasetemp() / "mountinfo"
    mountinfo.write_bytes(text.encode("utf-8", "surrogatepass") + b"\n41 - cgroup cgroup rw\n - cgroup\n\xff\n")
    assert detect(str(mountinfo)).mode == "none"


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        detect(str(tmp_path / "nothing"))


# -- where a task is ------------------------------------------------------------------------------------------------


def located(tmp_path: Path, layout: Layout, text: str) -> dict[str, tuple[str, ...]]:
    (tmp_path / "cgroup").write_text(text)
    return paths_of(layout, str(tmp_path / "cgroup"))


def test_where_a_task_is_in_every_hierarchy(tmp_path: Path) -> None:
    layout = Layout("hybrid", {"cpu": "/c", "cpuacct": "/c", "name=systemd": "/s"}, "/u")
    text = "3:name=systemd:/a/b\n2:cpu,cpuacct:/\n1:pids:/not/mounted\n0::/x:y\n"
    assert located(tmp_path, layout, text) == {"/s": ("a", "b"), "/c": (), "/u": ("x:y",)}


def test_where_a_task_is_below_what_is_mounted(tmp_path: Path) -> None:
    layout = Layout("v1", {"cpu": "/c"}, roots={"/c": "/docker/x"})
    assert located(tmp_path, layout, "2:cpu:/docker/x/y\n") == {"/c": ("y",)}
    for outside in ("/docker/other", "/", "/../z"):
        with pytest.raises(OSError) as caught:
            located(tmp_path, layout, f"2:cpu:{outside}\n")
        assert caught.value.errno == errno.ENOENT


# -- paths (SEC-23) -------------------------------------------------------------------------------------------------

HOSTILE = [
    "",
    "/",
    "//",
    "orlop/x",
    "/orlop/../x",
    "/../x",
    "/..",
    "/orlop/./x",
    "/orlop//x",
    "/orlop/x/",
    "//orlop/x",
    "../x",
    "/orlop/x\0",
    "/orlop/x\n0::/",
    "/orlop/x\x7f",
    "/orlop/\u2024\u2024",
    "/orlop/\u2025/x",
    "/orlop/\uff0e\uff0e/x",
    "/orlop/\ud800",
    "/orlop/\u202egnp",
    "/" + "a" * 4096,
    "/" + "a/" * 2048 + "a",
    "/" + "a" * (NAME_BYTES_MAX + 1),
]


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: ascii(path[:24]))
def test_a_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(OSError) as caught:
        Cgroup(Layout("none"), path)
    assert caught.value.errno in (errno.EINVAL, errno.ENAMETOOLONG)
    assert str(caught.value).isascii()


@pytest.mark.parametrize(
    "path", ["/orlop/" + "0" * 64, "/system.slice/docker-ab.scope", "/a b/c:d@1.service", "/..a/b.."]
)
def test_a_usual_path_is_taken_apart(path: str) -> None:
    assert split_path(path) == tuple(path.split("/")[1:])


@given(st.text(max_size=40))
def test_what_is_accepted_is_what_it_shows(text: str) -> None:
    try:
        names = split_path(text)
    except OSError:
        return
    assert "/" + "/".join(names) == text == os.path.normpath(text)
    assert len(text) <= PATH_BYTES_MAX


def test_a_symbolic_link_in_a_hierarchy_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("untouched")
    hierarchy = tmp_path / "hierarchy"
    hierarchy.mkdir()
    (hierarchy / "link").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        open_directory(str(hierarchy), ("link",))
    (hierarchy / "file").symlink_to(outside / "file")
    with open_directory(str(hierarchy)) as directory:
        with pytest.raises(OSError) as caught:
            directory.write("file", "touched")
        assert caught.value.errno == errno.ELOOP
        with pytest.raises(OSError):
            directory.read("file")
        with pytest.raises(FileNotFoundError):
            directory.write("new", "made")
        for path in ("../outside/file", str(outside / "file")):
            with pytest.raises(OSError, match="slash"):
                directory.write(path, "touched")
            with pytest.raises(OSError, match="slash"):
                directory.read(path)
    assert (outside / "file").read_text() == "untouched"
    assert not (hierarchy / "new").exists()


# -- without any hierarchy ------------------------------------------------------------------------------------------


def test_without_hierarchies_nothing_is_pretended() -> None:
    cgroup = Cgroup(Layout("none"), "/orlop/x")
    cgroup.create()
    cgroup.remove()
    assert cgroup.fd() is None
    for look in (cgroup.procs, cgroup.freeze, cgroup.thaw, cgroup.events, cgroup.kill):
        with pytest.raises(OSError) as caught:
            look()
        assert caught.value.errno == errno.ENODEV
