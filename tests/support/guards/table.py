"""What is said of rows that no test can say: at which doors a row has no meaning, and which rows have none here."""

from __future__ import annotations

from .model import DOORS, Guard

# What stands in a test's file name -> the doors that the test uses.
_BY_FILE = {
    "security/test_doors.py": DOORS,
    "security/test_doors_deep.py": ("nested",),
    "security/test_hostile_builds.py": ("build",),
    "root/test_build": ("build",),
    "root/test_rootless": ("rootless",),
    "root/test_nesting.py": ("nested",),
    "contract/test_docker_": ("api",),
    "contract/test_scoped_sockets.py": ("api",),
    "contract/test_serve.py": ("api",),
    "root/test_disk.py": ("root",),
}
# Of test_doors.py: a Dockerfile has no words for it.
_CREATED = (
    "test_sec_05_and_20_nothing_of_an_image_is_executed",
    "test_sec_22_the_machines_directories_are_not_relabelled",
    "test_sec_23_no_name_is_a_path",
    "test_sec_24_a_sysctl_is_the_containers",
    "test_sec_26_what_is_too_long_is_refused",
)

_RUNTIME = (
    "the runtime's own steps hold it, by the same code and the same plan whoever asked: tried between all of a start's "
    "steps at the runtime itself"
)
_READER = "the engine reads what came from outside before any container is made, by the same function at every door"
_BUILDER = "only a Dockerfile has words for it"
_SERVICE = "it is an attack on the service that answers, not on a container"
_NETWORK = "rules of the machine's own namespace, where only root's engine has bridges; nothing in a container differs"
_RELAYS = "an ordinary user's engine has relays instead of rules (docs/rootless.md)"
_STATE = "it is about files and sockets of one engine, which every door of that engine shares"

# row -> why it has no test of its own at the doors that its tests do not use
ELSEWHERE: dict[str, str] = {
    **{f"SEC-{number:02}": _RUNTIME for number in (6, 7, 8, 10, 12, 15, 18, 19)},
    **{f"SEC-{number}": _READER for number in (*range(40, 51), 52, 66, 76, 77)},
    **{f"SEC-{number}": _BUILDER for number in (60, 61, 62, 63, 64, 67)},
    **{f"SEC-{number}": _SERVICE for number in (70, 71, 72, 73, 74, 75, 78, 79)},
    **{f"SEC-{number}": f"{_NETWORK}; {_RELAYS}" for number in (90, 91, 92, 93, 94)},
    **dict.fromkeys(("SEC-05", "SEC-20"), "a step is not copied from, listed or exported while it runs"),
    "SEC-22": "a Dockerfile's mounts have no labels",
    "SEC-23": "a Dockerfile names no container and no cgroup",
    "SEC-24": "a Dockerfile has no words for sysctls",
    "SEC-26": "a Dockerfile has no words for a host name or a mount of the machine's",
    "SEC-35": _STATE,
    "SEC-48": "checkpoints are the runtime's command alone: no door of the engine takes one",
}

# Rows for which nothing is taken out, and why. Where what holds an attack off is how the thing is made, the weakened
# copy makes it otherwise: by name instead of by descriptor, cut instead of refused, shared instead of one's own.
NEVER_RED: dict[str, str] = {}

NOT_APPLICABLE: dict[str, str] = {
    "SEC-53": "there is no such row",
    "SEC-95": "there is no `orlop sandbox`",
    "SEC-96": "no virtual machines are run for users",
    "SEC-97": "no WASM is run",
    "SEC-98": "no file system of an image is mounted by the kernel: layers are unpacked",
}


def doors_of(tests: list[str]) -> list[str]:
    """Return the doors that tests use; what names no other is root's command line, or its runtime."""
    found: set[str] = set()
    for test in tests:
        doors = next((doors for part, doors in _BY_FILE.items() if test.startswith(part)), ("root",))
        found |= set(doors) - ({"build"} if "test_doors" in test and test.endswith(_CREATED) else set())
    return [door for door in DOORS if door in found]


def missing(rows: dict[str, tuple[str, list[str]]], guards: tuple[Guard, ...]) -> list[str]:
    """Return a line for each thing that the tables do not say."""
    found = []
    for row, (_, tests) in rows.items():
        if set(doors_of(tests)) != set(DOORS) and row not in ELSEWHERE:
            found.append(f"{row}: neither a test nor a reason at {sorted(set(DOORS) - set(doors_of(tests)))}")
        if not any(row in guard.rows for guard in guards) and row not in NEVER_RED:
            found.append(f"{row}: no guard is taken out for it, and nothing says why")
    known = {row for guard in guards for row in guard.rows}
    found += [f"{row}: a guard is for it, so it is not never red" for row in sorted(known & set(NEVER_RED))]
    found += [f"{row}: it has no tests" for row in sorted((known | set(ELSEWHERE) | set(NEVER_RED)) - set(rows))]
    return found
