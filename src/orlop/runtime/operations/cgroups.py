"""Getting into the container's cgroups. (What it sees of them: `cgroup_view`.)

On v2 a process is born in its cgroup (orlop.runtime.birth). On v1 init walks in by itself: writing 0 to `tasks` moves
the writing thread alone, which needs no lock and no RCU grace period (cgroup_procs_write_start, since 5.5), where
moving another process takes 5 to 20 ms.
"""

import os

from ...linux.cgroup import Layout
from ...linux.cgroup.directory import Directory, open_directory, split_path
from ...spec.errors import Conflict
from . import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init, Outside


class EnterCgroups(Operation):
    """Walk into the cgroup `path` in each v1 hierarchy, before anything else is done or used.

    below: hierarchy (its mount) -> the path of a cgroup below that one, which is entered instead.
    """

    layout: Layout
    path: str
    below: dict[str, str] = {}
    subject = "cgroup"

    def describe(self) -> str:
        return f"enter the cgroup {self.path}"

    def call(self) -> str:
        return f"write 0 to {self.path}/tasks in each v1 hierarchy"

    def prepare(self, outside: "Outside") -> None:
        for hierarchy in dict.fromkeys(self.layout.v1.values()):
            names = split_path(self.path + self.below.get(hierarchy, ""))
            with open_directory(hierarchy, names) as directory:
                if hierarchy == self.layout.v1.get("freezer"):
                    _refuse_frozen(directory)
                # The right to move a task is judged by who opened the file (CVE-2021-4197): not by init's, later.
                tasks = os.open("tasks", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
            outside.keep(self, tasks, hierarchy)

    def act(self, init: "Init") -> None:
        for hierarchy in dict.fromkeys(self.layout.v1.values()):
            os.write(init.source(self, hierarchy), b"0")


def _refuse_frozen(directory: Directory) -> None:
    if directory.read("freezer.state").strip() != "THAWED":
        raise Conflict("enter", "the container", "it is paused", hint="unpause it first", code="E1003")
