"""./dev bench: which figures, how often, where to."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from devtools import peers
from devtools.environment import ROOT
from devtools.failure import Failure
from support import host

from . import api, builds, images, lazily, logs, measure, networks, platforms, registries, report
from .platforms import Platform
from .workspace import Workspace

DOCUMENT = ROOT / "docs/PERFORMANCE.md"
CONTAINERS = 200
STARTS, STARTS_ROUNDS_MAX = 100, 5
SLEEPERS = 20


class Bench:
    """The platforms that this machine lets us set up, ours first, and those that it refuses."""

    def __init__(self, work: Workspace, names: Sequence[str]) -> None:
        self.work = work
        self.platforms: list[Platform] = []
        self.refused: dict[str, str] = {}
        for name in names:
            make = platforms.PEERS.get(name, platforms.orlop)
            try:
                self.platforms.append(make(work))
            except Failure as failure:
                self.refused[name] = str(failure)

    @property
    def ours(self) -> Platform | None:
        return next((one for one in self.platforms if one.name == "orlop"), None)


def run(bench: Bench, rounds: int) -> list[str]:
    """A container that runs `true` and is removed, the engine running."""
    return _timed([one.run for one in bench.platforms], rounds)


def execute(bench: Bench, rounds: int) -> list[str]:
    """One more process in a running container."""
    return _timed([one.exec for one in bench.platforms if one.exec], rounds)


def containers(bench: Bench, rounds: int) -> list[str]:
    """A list of 200 containers."""
    return _timed(platforms.filled(bench.work, bench.platforms, CONTAINERS), rounds)


def parallel(bench: Bench, rounds: int) -> list[str]:
    """A hundred containers started at once, by a hundred clients."""
    return _timed(platforms.parallel(bench.work, bench.platforms, STARTS), min(rounds, STARTS_ROUNDS_MAX))


def log(bench: Bench, rounds: int) -> list[str]:
    """The end of a log of 2 GiB; all of a log of 256 MiB; a container that writes 128 MiB of lines to its log."""
    tables = [
        _timed(logs.tails(bench.work, bench.platforms), rounds),
        _timed(logs.wholes(bench.work, bench.platforms), min(rounds, logs.ROUNDS_MAX)),
        _timed(logs.writings(bench.work, bench.platforms), min(rounds, logs.ROUNDS_MAX)),
    ]
    return [line for table in tables for line in (*table, "")][:-1]


def cold(bench: Bench, rounds: int) -> list[str]:
    """The first command of the day: it starts the engine too."""
    return _timed([bench.ours.cold] if bench.ours and bench.ours.cold else [], rounds)


def registry(bench: Bench, rounds: int) -> list[str]:
    """Eight clients fetch one blob of 200 MiB at once from a registry on loopback."""
    with ExitStack() as stack:
        return _timed(registries.subjects(bench.work, stack), rounds)


def pull(bench: Bench, rounds: int) -> list[str]:
    """An image of 216 MiB in 10,000 files from docker-registry on loopback until it can be run."""
    with ExitStack() as stack:
        return _timed(images.pulls(bench.work, bench.platforms, stack), min(rounds, images.ROUNDS_MAX))


def push(bench: Bench, rounds: int) -> list[str]:
    """The same image into an empty docker-registry."""
    with ExitStack() as stack:
        return _timed(images.pushes(bench.work, bench.platforms, stack), min(rounds, images.ROUNDS_MAX))


def lazy(bench: Bench, rounds: int) -> list[str]:
    """A container that reads 1 of 130 MB of an image that is not here, from a registry that sends 20 MB/s."""
    with ExitStack() as stack:
        found = lazily.Lazily(bench.work, bench.platforms, stack)
        table = _timed(found.subjects, min(rounds, lazily.ROUNDS_MAX))
        if bench.ours:
            table += ["", f"The lazy one ended when {found.fetched():.1%} of the image's bytes had come."]
        return table


def listing(bench: Bench, rounds: int) -> list[str]:
    """A list of 500 images."""
    return _timed(images.listing(bench.work, bench.ours) if bench.ours else [], rounds)


def build(bench: Bench, rounds: int) -> list[str]:
    """Builds without and with the cache, by docker's classic builder, its BuildKit and buildah too.

    In this order: ten small RUN steps without the cache; thirty steps that are all cached; COPY of 50,000 files; two
    stages of two seconds each that need nothing of each other; a step of one file of a context of 1 GiB in which that
    file alone has changed; a context of 1 GiB that is new. What takes a builder tens of seconds is done once by each:
    several rounds of them took longer than anybody waits, and what they write would fill the disk's queue.
    """
    tables = [
        _timed(make(bench.work, bench.platforms), min(rounds, rounds_max), warm_up)
        for make, rounds_max, warm_up in (
            (builds.steps, builds.ROUNDS_MAX, 1),
            (builds.cached, builds.ROUNDS_MAX, 1),
            (builds.copy, 1, 0),
            (builds.stages, 2, 0),
            (builds.big, 2, 0),
            (builds.sent, 1, 0),
        )
    ]
    return [line for table in tables for line in (*table, "")][:-1]


def docker_api(bench: Bench, rounds: int) -> list[str]:
    """docker's CLI and Compose with our docker.sock and with dockerd.

    In this order: a container that runs `true` and is removed; a hundred times the list of a hundred containers, on one
    connection; a project of five services from nothing to running.
    """
    found = api.daemons(bench.work, bench.platforms)
    few = min(rounds, api.ROUNDS_MAX)
    tables = [_timed([one.run() for one in found], rounds), _timed([one.project() for one in found], few)]
    tables.insert(1, _timed([one.listing() for one in found], few))
    return [line for table in tables for line in (*table, "")][:-1]


def network(bench: Bench, rounds: int) -> list[str]:
    """What a network adds to a start, what it carries, and how many names it knows in a second."""
    try:
        return networks.tables(bench.work, rounds)
    except Failure as failure:
        return [f"not taken: {failure}"]


def floor(bench: Bench, rounds: int) -> list[str]:
    """What is in every figure above."""
    return _timed(platforms.floor(bench.work), rounds)


def runtime(bench: Bench, rounds: int) -> list[str]:
    """OCI runtimes with the same bundle, each as a process of its own but where it says otherwise.

    In this order: run; create, start and delete; exec, all with the bundle that `spec` writes, which has no seccomp
    filter; the same three with what engines ask for in every container, docker's capabilities and default seccomp
    profile; a run through our library beside crun's, with the first bundle.
    """
    plain = [platforms.orlop_runtime(bench.work), *(one for one in bench.platforms if one.name in platforms.RUNTIMES)]
    confined = [platforms.orlop_runtime(bench.work, confined=True)]
    confined += [platforms.RUNTIMES[one.name](bench.work, confined=True) for one in plain[1:]]
    tables = [_timed(calls, rounds) for rows in (plain, confined) for calls in platforms.calls(rows)]
    tables.append(_timed([platforms.library(bench.work), *(one.run for one in plain if one.name == "crun")], rounds))
    return [line for table in tables for line in (*table, "")][:-1]


def memory(bench: Bench, rounds: int) -> list[str]:
    """What stays in memory while one container sleeps, and, as a mean, while twenty more do."""
    one = report.memory({one.name: one.processes() for one in bench.platforms})
    with platforms.asleep(bench.work, bench.platforms, SLEEPERS):
        many = report.memory({one.name: one.processes() for one in bench.platforms})
    return [*one, "", *many]


FIGURES: dict[str, Callable[[Bench, int], list[str]]] = {
    "run": run,
    "exec": execute,
    "runtime": runtime,
    "memory": memory,
    "ps": containers,
    "parallel": parallel,
    "logs": log,
    "cold": cold,
    "registry": registry,
    "pull": pull,
    "push": push,
    "lazy": lazy,
    "images": listing,
    "build": build,
    "api": docker_api,
    "network": network,
    "floor": floor,
}


def main(words: Sequence[str]) -> int:
    """Take the figures and print them; with --write also into docs/PERFORMANCE.md. Returns 1 when something is left."""
    options = _options(words)
    peers.prepare(["bench"])
    os.environ[host.SESSION] = session = secrets.token_hex(8)
    watch = host.Watch(session)
    names = ["orlop", *([] if options.ours else platforms.PEERS)]
    with Workspace() as work:
        bench = Bench(work, names)
        text = _document(bench, options.figures or list(FIGURES), options.n, " ".join(["./dev bench", *words]))
    print(text)
    if options.write:
        report.write(DOCUMENT, text)
    left = watch.finish()
    for thing in left:
        print(f"bench: left behind: {thing}", file=sys.stderr)
    return int(bool(left))


def _document(bench: Bench, figures: Sequence[str], rounds: int, command: str) -> str:
    lines = report.facts([one.version for one in bench.platforms], command)
    for name in figures:
        figure = FIGURES[name]
        lines += ["", f"## {name.capitalize()}", "", figure.__doc__ or "", "", *figure(bench, rounds)]
    if bench.refused:
        lines += ["", "Not measured:", ""]
        lines += [f"- {name}: {reason}" for name, reason in bench.refused.items()]
    return "\n".join(lines)


def _timed(subjects: Sequence[measure.Subject], rounds: int, warm_up: int = measure.WARM_UP_ROUNDS) -> list[str]:
    if not subjects:
        return ["Not measured."]
    series = measure.in_turn(subjects, rounds, warm_up)
    first = series[0] if subjects[0].name.startswith("orlop") and len(series) > 1 else None
    return report.times(series, first)


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description="Whole-process times of ours and of the peers.")
    parser.add_argument("figures", nargs="*", choices=[*FIGURES, []], metavar="NAME", help=", ".join(FIGURES))
    parser.add_argument("-n", type=int, default=20, metavar="RUNS", help="rounds (20)")
    parser.add_argument("--ours", action="store_true", help="leave the peers out")
    parser.add_argument("--write", action="store_true", help=f"write the tables into {DOCUMENT.relative_to(ROOT)}")
    return parser.parse_args(words)
