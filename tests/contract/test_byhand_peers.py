"""Building by hand: the same script through buildah and through `orlop buildah` makes the same image."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.workspace import Workspace
from support.builds import Image
from support.engine import Environment
from support.registries import debian_registry

FIELDS = ("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "Labels", "ExposedPorts", "Volumes", "StopSignal")
CONFIG = (
    *("--cmd", "sh -c 'a b'", "--label", "a=b", "--label", "c=d e", "--env", 'X=Y "q"', "--user", "7:8"),
    *("--port", "80/tcp", "--port", "81/udp", "--volume", "/v", "--workingdir", "/w", "--stop-signal", "SIGUSR1"),
)
OUT = "echo hi > /hi && ln -s hi /link && mkdir -p -m 750 /made/dir && echo out"


@pytest.fixture
def place(tmp_path: Path, peer: Callable[[str], Path]) -> Path:
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    (tmp_path / "rootfs/bin/busybox").write_bytes(peer("busybox").read_bytes())
    (tmp_path / "rootfs/bin/busybox").chmod(0o755)
    for name in ("sh", "mkdir", "ln"):
        (tmp_path / "rootfs/bin" / name).symlink_to("busybox")
    for name in ("proc", "sys", "dev", "tmp", "etc"):
        (tmp_path / "rootfs" / name).mkdir()
    (tmp_path / "a*b").write_text("star")
    (tmp_path / "one").write_text("1")
    return tmp_path


def script(tool: Callable[..., str], place: Path, *, unmounts: bool) -> str:
    """Build an image called made:1; return what the command in it wrote."""
    name = tool("from", "scratch").strip()
    tool("add", name, place / "rootfs", "/")
    tool("copy", name, place / "a*b", place / "one", "/files/")
    tool("copy", "--chown=3:4", name, place / "one", "/owned")
    written = tool("run", name, "--", "sh", "-c", OUT)
    tool("config", *CONFIG, name)
    mounted = Path(tool("mount", name).strip())
    assert (mounted / "hi").read_text() == "hi\n"
    (mounted / "hi").write_text("by hand\n")
    (mounted / "more/below").mkdir(parents=True)
    (mounted / "more/below").chmod(0o2710)
    os.chown(mounted / "more", 5, 6)
    (mounted / "files/one").unlink()
    if unmounts:
        tool("umount", name)
    tool("commit", name, "made:1")
    return written


def config(image: Image) -> dict[str, object]:
    """Return what both should say: BuildKit gives every image a PATH, buildah labels its own."""
    found = {field: image.config.get(field) or None for field in FIELDS}
    found["Env"] = [entry for entry in image.config["Env"] if not entry.startswith("PATH=")]  # type: ignore[attr-defined]
    found["Labels"] = {**image.config["Labels"], "io.buildah.version": ""}  # type: ignore[dict-item]
    return found


def test_the_same_image_is_made(orlop: Environment, place: Path, peer: Callable[[str], Path]) -> None:
    def mine(*words: str | Path) -> str:
        return orlop("buildah", *words).stdout

    with Workspace() as workspace:
        home = workspace.path("b")
        storage = [str(peer("buildah")), "--root", f"{home}/d", "--runroot", f"{home}/r", "--storage-driver=vfs"]
        env = workspace.environment() | {"BUILDAH_ISOLATION": "chroot"}

        def theirs(*words: str | Path) -> str:
            argv = [*storage, *map(str, words)]
            done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=100, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert script(mine, place, unmounts=True) == script(theirs, place, unmounts=False) == "out\n"
        archive = home / "made.tar"
        theirs("push", "-q", "localhost/made:1", f"docker-archive:{archive}:made:1")
        other = Image(archive.read_bytes())
    ours = place / "ours.tar"
    orlop("save", "-o", ours, "made:1")
    image = Image(ours.read_bytes())
    assert config(image) == config(other)
    # The root itself, what the runtime put there while the command ran, and WORKDIR's directory, which buildah makes
    # at the first start.
    made = {".", "etc/hosts", "etc/hostname", "etc/resolv.conf", "run", "w"}
    skipped = {path for path in {*image.files, *other.files} if path in made or path.startswith(("dev/", "proc/"))}
    assert {path: what for path, what in image.files.items() if path not in skipped} == {
        path: what for path, what in other.files.items() if path not in skipped
    }


def test_working_containers_come_and_go(orlop: Environment, place: Path) -> None:
    first, second = (orlop("image", "from", "scratch").stdout.strip() for _ in range(2))
    assert (first, second) == ("scratch-working-container", "scratch-working-container-1")
    assert orlop("buildah", "from", "--name", first, "scratch", check=False).stderr.count("is in use") == 1
    orlop("image", "add", first, place / "one", "/")
    assert orlop("buildah", "containers", "-q").stdout.split() == [first, second]
    failed = orlop("image", "run", second, "--", "nothing", check=False)
    assert "nothing" in failed.stderr
    assert orlop("buildah", "containers", "-q").stdout.split() == [first, second]  # as it was before
    assert "No such working container: none" in orlop("image", "config", "--user", "x", "none", check=False).stderr
    image = orlop("image", "commit", "--rm", first, "kept:1").stdout.strip()
    assert json.loads(orlop("image", "inspect", "kept:1").stdout)[0]["Id"] == image
    orlop("buildah", "rm", "--all")
    assert orlop("images", "--format", "{{.Repository}}").stdout.split() == ["kept"]
    assert orlop("image", "config", "--env", "A=b\nRUN x", second, check=False).code != 0
    assert os.listdir(place)


def test_what_is_written_to_a_mount_is_in_the_next_step(orlop: Environment, place: Path) -> None:
    def image(*words: str | Path, **more: object) -> str:
        return orlop("buildah", *words, **more).stdout.strip()

    assert orlop("buildah", "mount", "none", check=False).stderr.startswith("orlop: No such working container")
    name = image("from", "--name", "w", "scratch")
    mounted = Path(image("mount", name))
    subprocess.run(["cp", "-a", f"{place}/rootfs/.", mounted], check=True)
    (mounted / "gone").write_text("soon")
    assert image("mount", name) == str(mounted) and image("mount").split() == [name, str(mounted)]
    assert image("run", name, "--", "sh", "-c", "echo $(echo /g*) > /seen; echo 1 > /owned") == ""
    assert (mounted / "seen").read_text() == "/gone\n", "what the step made is in the mount"
    orlop("engine", "stop")
    (mounted / "gone").unlink()
    (mounted / "owned").write_text("2")
    image("config", "--label", "a=b", name)
    image("commit", name, "made:1")
    (mounted / "after").write_text("the commit")
    with (mounted / "owned").open():
        assert "something uses it" in orlop("buildah", "umount", name, check=False).stderr
    files = Image(saved(orlop, place, "made:1")).files
    assert {"seen", "owned", "bin/busybox"} < files.keys() and not {"gone", "after"} & files.keys()
    image("rename", name, "v")
    assert image("containers", "-q") == "v" and image("mount") == "" and not list((orlop.run / "mounts").iterdir())
    found = json.loads(image("inspect", "v"))
    assert found["Config"]["Labels"] == {"a": "b"}
    image("commit", "--squash", "--rm", "v", "thin:1")
    thin = Image(saved(orlop, place, "thin:1"))
    assert "after" in thin.files and "gone" not in thin.files and len(thin.document["rootfs"]["diff_ids"]) == 1  # type: ignore[index]
    assert json.loads(orlop("inspect", "thin:1").stdout)[0]["Config"]["Labels"] == {"a": "b"}
    image("mount", image("from", "--name", "x", "thin:1"))
    image("rm", "x")
    assert not list((orlop.run / "mounts").iterdir())
    assert orlop("image", "mount").stdout.count("\n") == 1, "nothing is held"


def test_a_list_is_begun_empty_filled_and_pushed_elsewhere(
    orlop: Environment, tmp_path: Path, peer: Callable[[str], Path]
) -> None:
    """buildah's own script, word by word. Red: docker's `manifest create` wants an image, and `push` no destination."""
    for name in ("buildah", "skopeo", "docker-registry"):
        peer(name)
    with debian_registry(peer("docker-registry"), tmp_path / "registry", orlop) as host, Workspace() as workspace:
        home = workspace.path("b")
        buildah = ["buildah", "--root", home / "r", "--runroot", home / "rr", "--storage-driver=vfs"]

        def theirs(*words: str) -> str:
            done = orlop.inside(
                lambda: subprocess.run([*buildah, *words], env=workspace.environment(), capture_output=True, check=True)
            )
            return str(done.stdout.decode())

        def listed(tool: Callable[..., object], name: str, *options: str) -> list[object]:
            working = str(tool("from", "scratch")).strip()
            tool("config", "--label", "a=b", working)
            tool("commit", working, "one:1")
            tool("manifest", "create", "list")
            tool("manifest", "add", "--arch", "arm64", "--variant", "v8", "list", "one:1")
            tool("manifest", "push", *options, "--all", "list", f"docker://{host}/{name}:1")
            words = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{host}/{name}:1"]
            raw = orlop.inside(lambda: subprocess.run(words, capture_output=True, check=True)).stdout
            document = json.loads(raw)
            return [document["mediaType"], [one["platform"] for one in document["manifests"]]]

        ours = listed(lambda *words: orlop("buildah", *words).stdout, "ours")
        assert ours == listed(theirs, "theirs", "--tls-verify=false")
    assert orlop("buildah", "manifest", "inspect", "list").code == 0
    assert orlop("manifest", "create", "x", check=False).code, "docker's word is docker's"


def saved(orlop: Environment, place: Path, name: str) -> bytes:
    orlop("save", "-o", place / "saved.tar", name)
    return (place / "saved.tar").read_bytes()
