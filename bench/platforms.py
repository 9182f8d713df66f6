"""Orlop and its peers, each set up so that the same thing can be asked of all: run `true`, exec `true`, sleep.

A function here prepares one platform in a workspace and returns it; it raises Failure when this machine refuses it, and
the table then says why. Peers come from Debian and work on private directories, without networks and without a user's
configuration.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from devtools import peers
from devtools.environment import ROOT
from devtools.failure import Failure
from orlop.engine.compile import seccomp_profile, security
from orlop.runtime import host as runtime_host
from support import processes

from .measure import CommandFailed, Served, Subject, once
from .workspace import CGROUP, Workspace

SLEEPER = "deck"
SLEEP_S = "3600"


class Platform:
    """What can be asked of one platform.

    run, exec: subjects, exec in the sleeping container SLEEPER; None when the platform has no such thing.
    life: create, start and delete of an OCI runtime, three processes and the shell that calls them.
    cold: as run, but with the engine stopped ahead of each.
    create, prune: make a container that does not run, remove all such; list: shows them.
    start: starts a container that runs `true` and stays when it has ended. sleep: one that sleeps, and prints its id;
    remove: before ids, ends and removes such.
    processes: {role: pids}, of what stays in memory while SLEEPER runs.
    """

    def __init__(self, name: str, version: str, run: Subject) -> None:
        self.name, self.version, self.run = name, version, run
        self.exec: Subject | None = None
        self.life: Subject | None = None
        self.cold: Subject | None = None
        self.list: Subject | None = None
        self.create: list[str] = []
        self.start: list[str] = []
        self.sleep: list[str] = []
        self.remove: list[str] = []
        self.prune: list[str] = []
        self.processes: Callable[[], dict[str, list[int]]] = dict


def docker(work: Workspace) -> Platform:
    """dockerd with its own containerd, no bridge, no firewall rules."""
    pid, home, _, env = work.dockerd("docker", program=_program("dockerd"))
    command = str(_debian_first("docker"))
    work.run([command, "import", work.archive(), "bench:latest"], env)
    work.run([command, "run", "-d", "--name", SLEEPER, "--network", "none", "bench", "/bin/sleep", SLEEP_S], env)
    work.at_end([command, "rm", "-f", SLEEPER], env)
    argv = [command, "run", "--rm", "--network", "none", "bench", "/bin/true"]
    platform = Platform("docker", work.run([command, "--version"], env), Subject("docker run", argv, env))
    platform.exec = Subject("docker exec", [command, "exec", SLEEPER, "/bin/true"], env)
    platform.list = Subject("docker ps -a", [command, "ps", "-a"], env)
    platform.create = [command, "create", "--network", "none", "bench", "/bin/true"]
    platform.start = [command, "run", "--detach", "--network", "none", "bench", "/bin/true"]
    platform.sleep = [*platform.start[:-1], "/bin/sleep", SLEEP_S]
    platform.remove = [command, "rm", "--force"]
    platform.prune = [command, "container", "prune", "-f"]
    platform.processes = lambda: {
        "dockerd": [pid],
        "containerd": _children(pid, "containerd"),
        "containerd-shim, one a container": _named("containerd-shim", str(home)),
    }
    return platform


def podman_configuration(home: Path, engine: str = "", network: str = "") -> Path:
    """Write a containers.conf for a podman whose state lies in a directory; return its path, for CONTAINERS_CONF.

    engine, network: more lines of [engine] and [network]. Its locks are files there: those in shared memory outlive it
    in /dev/shm. So are its networks: root's would lie in /etc/containers or /etc/cni, made so that no user may read it.
    """
    config = home / "containers.conf"
    # Its default ulimits are above the hard limits of a machine without CAP_SYS_RESOURCE.
    config.write_text(
        f"""
        [containers]
        default_ulimits = ["nofile=20000:20000", "nproc=10000:10000"]
        [engine]
        cgroup_manager = "cgroupfs"
        lock_type = "file"
        tmp_dir = "{home}/tmp"
        {engine}
        [network]
        network_config_dir = "{home}/networks"
        {network}
        """
    )
    return config


def podman_command(work: Workspace) -> tuple[list[str], dict[str, str]]:
    """Return podman's command line and environment, on directories of its own.

    With runc and cgroupfs: crun refuses hybrid cgroups, and nothing here runs under systemd.
    """
    home = work.path("podman")
    config = podman_configuration(
        home,
        f"""
        runtime = "runc"
        events_logger = "file"
        conmon_path = ["{_program("conmon")}"]
        helper_binaries_dir = ["{peers.DIRECTORY}/usr/lib/podman"]
        [engine.runtimes]
        runc = ["{_program("runc")}"]
        """,
    )
    env = work.environment(CONTAINERS_CONF=str(config))
    return [str(_program("podman")), f"--root={home / 'root'}", f"--runroot={home / 'run'}"], env


def podman(work: Workspace) -> Platform:
    """podman, as `podman_command` has it."""
    command, env = podman_command(work)
    home = work.directory / "podman"
    work.run([*command, "import", work.archive(), "bench:latest"], env)
    limits = [f"--cgroup-parent=/{CGROUP}", "--network=none"]
    work.run([*command, "run", "-d", "--name", SLEEPER, *limits, "bench", "/bin/sleep", SLEEP_S], env)
    work.at_end([*command, "rm", "-f", "-t", "0", SLEEPER], env)
    argv = [*command, "run", "--rm", *limits, "bench", "/bin/true"]
    platform = Platform("podman", work.run([*command, "--version"], env), Subject("podman run", argv, env))
    platform.exec = Subject("podman exec", [*command, "exec", SLEEPER, "/bin/true"], env)
    platform.list = Subject("podman ps -a", [*command, "ps", "-a"], env)
    platform.create = [*command, "create", *limits, "bench", "/bin/true"]
    platform.start = [*command, "run", "--detach", *limits, "bench", "/bin/true"]
    platform.sleep = [*platform.start[:-1], "/bin/sleep", SLEEP_S]
    platform.remove = [*command, "rm", "--force", "--time", "0"]
    platform.prune = [*command, "container", "prune", "-f"]
    platform.processes = lambda: {"conmon, one a container": _named("conmon", str(home))}
    return platform


def runc(work: Workspace, confined: bool = False) -> Platform:
    """runc with the bundle that `runc spec` writes: five namespaces, no seccomp filter, no layers."""
    return _oci_runtime(work, _program("runc"), None, confined)


def crun(work: Workspace, confined: bool = False) -> Platform:
    """crun with the same bundle; it refuses hybrid cgroups, so there it is shown the v1 hierarchies alone."""
    try:
        return _oci_runtime(work, _program("crun"), None, confined)
    except Failure as failure:
        if "hybrid" not in str(failure):
            raise
        platform = _oci_runtime(work, _program("crun"), work.thread_without_unified(), confined)
        platform.version += " (shown the cgroup v1 hierarchies only: it refuses hybrid)"
        return platform


def bubblewrap(work: Workspace) -> Platform:
    """bwrap with every namespace it has: no cgroups, no image, no state."""
    command = str(_program("bwrap"))
    env = work.environment()
    mounts = ["--bind", str(work.rootfs()), "/", "--proc", "/proc", "--dev", "/dev"]
    argv = [command, "--unshare-all", *mounts, "/bin/true"]
    work.run(argv, env)
    return Platform("bwrap", work.run([command, "--version"], env), Subject("bwrap", argv, env))


def orlop(work: Workspace) -> Platform:
    """This checkout, with its engine running."""
    home = work.path("orlop")
    env = work.environment(ORLOP_ROOT=str(home / "root"), ORLOP_RUN=str(home / "run"))
    command = str(ROOT / "orlop")
    if not Path(command).exists():
        raise Failure("./orlop does not exist yet")
    stop = [command, "engine", "stop"]
    work.at_end(stop, env)
    work.run([command, "run", "-d", "--name", SLEEPER, "--network", "none", "host", "sleep", SLEEP_S], env)
    work.at_end([command, "rm", "-f", SLEEPER], env)
    argv = [command, "run", "--rm", "--network", "none", "host", "true"]
    platform = Platform("orlop", work.run([command, "--version"], env), Subject("orlop run", argv, env))
    platform.exec = Subject("orlop exec", [command, "exec", SLEEPER, "true"], env)
    platform.list = Subject("orlop ps -a", [command, "ps", "-a"], env)
    platform.create = [command, "create", "--network", "none", "host", "true"]
    platform.start = [command, "run", "--detach", "--network", "none", "host", "true"]
    platform.sleep = [*platform.start[:-1], "sleep", SLEEP_S]
    platform.remove = [command, "rm", "--force"]
    platform.prune = [command, "container", "prune", "-f"]
    platform.cold = Subject("orlop run, no engine yet", argv, env, before=partial(_run, work, stop, env))
    platform.processes = lambda: _roles(processes.with_environment("ORLOP_RUN", str(home / "run")))
    return platform


def filled(work: Workspace, platforms: Sequence[Platform], count: int) -> list[Subject]:
    """Return the lists of those platforms that have one, each after `count` containers were made there."""
    subjects = []
    for platform in platforms:
        if platform.list is None:
            continue
        env = platform.list.env
        work.at_end(platform.prune, env)
        for _ in range(count):
            work.run(platform.create, env)
        subjects.append(platform.list)
    return subjects


@contextmanager
def asleep(work: Workspace, platforms: Sequence[Platform], count: int) -> Iterator[None]:
    """Let so many more containers sleep on each platform that keeps them."""
    with ExitStack() as undo:
        for platform in platforms:
            if platform.sleep and platform.exec:
                env = platform.exec.env
                ids = [work.run(platform.sleep, env) for _ in range(count)]
                undo.callback(work.run, [*platform.remove, *ids], env)
        yield


def parallel(work: Workspace, platforms: Sequence[Platform], count: int) -> list[Subject]:
    """Return `count` starts at once, on each platform that keeps containers."""
    subjects = []
    for platform in platforms:
        if platform.start and platform.list:
            env = platform.list.env
            work.at_end(platform.prune, env)
            name = f"{platform.name} run -d, {count} at once"
            subjects.append(
                Subject(name, platform.start, env, before=partial(_run, work, platform.prune, env), copies=count)
            )
    return subjects


def floor(work: Workspace) -> list[Subject]:
    """Return what no Python program can undercut: the interpreter, and a process that does nothing."""
    env = {"PATH": os.defpath}
    return [
        Subject("a process that does nothing", [str(work.rootfs() / "bin/true")], env),
        Subject("python3 -I -S -c pass", [os.path.realpath(sys.executable), "-I", "-S", "-c", "pass"], env),
    ]


RUNTIMES: dict[str, Callable[..., Platform]] = {"runc": runc, "crun": crun}
PEERS: dict[str, Callable[[Workspace], Platform]] = {
    "docker": docker,
    "podman": podman,
    **RUNTIMES,
    "bwrap": bubblewrap,
}


def calls(runtimes: Sequence[Platform]) -> list[list[Subject]]:
    """Return what is asked of OCI runtimes, each of all of them: run; create, start, delete; exec."""
    found = ([one.run, one.life, one.exec] for one in runtimes)
    return [[subject for subject in row if subject] for row in zip(*found, strict=True)]


def orlop_runtime(work: Workspace, confined: bool = False) -> Platform:
    """orlop-runtime with the bundle that its own `spec` writes: the same namespaces and mounts as runc's."""
    return _oci_runtime(work, ROOT / "orlop-runtime", None, confined)


def library(work: Workspace) -> Subject:
    """The runtime's library in one Python process, with the bundle of `orlop_runtime`, which was set up before."""
    path = [str(ROOT), str(ROOT / "src")]
    code = f"import sys; sys.path[:0] = {path!r}; from bench import library; library.main(sys.argv[1])"
    bundle = work.directory / "orlop-runtime-host/true"
    return Served("orlop's library, in one process", work.server([sys.executable, "-I", "-S", "-c", code, str(bundle)]))


def _oci_runtime(work: Workspace, path: Path, thread: Executor | None, confined: bool) -> Platform:
    """confined: with what engines ask for in every container, docker's capabilities and default seccomp profile."""
    program = path.name
    home = work.path(f"{program}-{'v1' if thread else 'host'}{'-confined' if confined else ''}")
    env = work.environment()
    command = [str(path), f"--root={home / 'state'}"]
    for bundle, args in (("true", ["/bin/true"]), (SLEEPER, ["/bin/sleep", SLEEP_S])):
        _write_bundle(work, home / bundle, command, args, confined)
    suffix = ", confined" if confined else ""
    run = Subject(f"{program} run{suffix}", [*command, "run", f"--bundle={home / 'true'}", "true"], env, thread=thread)
    # What a container inherits stays open: with pipes for its streams, the detached run would seem to last as long.
    detached = [*command, "run", "--detach", f"--bundle={home / SLEEPER}", SLEEPER]
    try:
        once(run)  # a refusal shows here, before anything is timed
        once(Subject("", detached, env, thread=thread))
    except CommandFailed as failed:
        raise Failure(str(failed)) from None
    work.at_end([*command, "delete", "--force", SLEEPER], env, thread)
    platform = Platform(program, work.run([command[0], "--version"], env).splitlines()[0], run)
    platform.exec = Subject(f"{program} exec{suffix}", [*command, "exec", SLEEPER, "/bin/true"], env, thread=thread)
    called = " ".join(command)
    verbs = [f"create --bundle={home / 'true'} life", "start life", "delete --force life"]
    life = ["/bin/sh", "-c", " && ".join(f"{called} {verb}" for verb in verbs)]
    platform.life = Subject(f"{program} create, start, delete{suffix}", life, env, thread=thread)
    return platform


def _write_bundle(work: Workspace, bundle: Path, command: Sequence[str], args: list[str], confined: bool) -> None:
    bundle.mkdir()
    work.run([command[0], "spec", f"--bundle={bundle}"], work.environment())
    path = bundle / "config.json"
    spec = json.loads(path.read_text())
    spec["process"].update(terminal=False, args=args, rlimits=[])
    spec["root"] = {"path": str(work.rootfs()), "readonly": True}
    spec["linux"]["cgroupsPath"] = f"/{CGROUP}/{bundle.parent.name}-{bundle.name}"
    if confined:
        capabilities = sorted(security.CAPABILITIES_DEFAULT)
        spec["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), capabilities)
        spec["linux"]["seccomp"] = seccomp_profile.default(capabilities, runtime_host.facts()).to_json()
    path.write_text(json.dumps(spec))


def _program(name: str) -> Path:
    found = peers.find(name)
    if found is None:
        raise Failure(f"{name} is not installed and could not be unpacked")
    return found


def _debian_first(name: str) -> Path:
    unpacked = peers.DIRECTORY / "usr/bin" / name
    return unpacked if unpacked.exists() else _program(name)


def _run(work: Workspace, argv: Sequence[str], env: Mapping[str, str]) -> None:
    work.run(argv, env)


def _named(name: str, word: str) -> list[int]:
    """Return the processes whose name begins so and whose command line holds the word."""
    start = name[:15].encode()  # TASK_COMM_LEN
    named = [pid for pid in processes.pids() if processes.read(pid, "comm").startswith(start)]
    return [pid for pid in named if word in processes.title(pid)]


def _children(parent: int, name: str) -> list[int]:
    return [pid for pid in _named(name, "") if processes.parent(pid) == parent]


def _roles(pids: Sequence[int]) -> dict[str, list[int]]:
    """Sort our processes by what their titles say; the engine is the one that serves."""
    words = {
        "orlop engine": " serve ",
        "orlop spawner": "orlop: spawner",
        "orlop spare monitor and launcher": "orlop: spare monitor",
        "orlop monitor, one a container": "orlop: monitor",
    }
    return {role: [pid for pid in pids if word in processes.title(pid)] for role, word in words.items()}
