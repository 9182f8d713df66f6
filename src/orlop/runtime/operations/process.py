"""The last steps before execve: umask, working directory, the command's path."""

import os

from ...linux import abi, path
from ...spec.errors import CommandFailed, Invalid
from ...spec.record import Record
from .. import command as lookup
from . import Operation
from . import reaper as reaping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init


class Command(Record):
    """What execve gets, already encoded. name: args[0] as text; search_path: PATH of the process."""

    args: tuple[bytes, ...]
    name: str
    env: dict[bytes, bytes]
    search_path: str


class SetUmask(Operation):
    """Set the mode bits that new files don't get."""

    mask: int
    subject = "process"

    def describe(self) -> str:
        return f"set the umask {self.mask:04o}"

    def call(self) -> str:
        return f"umask({self.mask:04o})"

    def act(self, init: "Init") -> None:
        os.umask(self.mask)


class EnterDirectory(Operation):
    """Change into the working directory: as root first, because the user may not reach it, else as the user (final).

    Wherever that led, it must be below the root: a directory that is open on the host can be named through
    /proc/self/fd (CVE-2024-21626).
    """

    path: str
    final: bool = False
    subject = "process"

    def describe(self) -> str:
        return f"change into {self.path}" + (" as the user, if it was not allowed before" * self.final)

    def call(self) -> str:
        return f"chdir({self.path}), getcwd"

    def act(self, init: "Init") -> None:
        if self.final and init.in_directory:
            return
        try:
            # Refuses magic links, those of an image's own symbolic links too.
            fd = path.open_in_root(init.root, self.path, os.O_PATH | os.O_DIRECTORY)
            try:
                os.fchdir(fd)
            finally:
                os.close(fd)
        except PermissionError:
            if self.final:
                raise self._refused("permission denied") from None
            return
        except OSError as failure:
            raise self._refused(abi.strerror(failure.errno)) from None
        if not _is_inside():
            raise self._refused("it is outside the container's root")
        init.in_directory = True

    def _refused(self, cause: str) -> Invalid:
        return Invalid(
            "start",
            "the container's process",
            f'chdir to cwd ("{self.path}") set in config.json failed: {cause}',
            hint="choose another working directory",
            code="E0312",
        )


def _is_inside() -> bool:
    try:
        return os.getcwd().startswith("/")
    except FileNotFoundError:  # what glibc makes of the kernel's "(unreachable)"
        return False


class FindCommand(Operation):
    """Find the program, with the rights of the process."""

    name: str
    search_path: str
    subject = "process"

    def describe(self) -> str:
        return f"find the program {self.name}"

    def call(self) -> str:
        return "stat, faccessat2(AT_EACCESS)"

    def act(self, init: "Init") -> None:
        init.program = lookup.lookup(self.name, self.search_path)


def execute(program: str, command: Command, reaper: int = -1) -> CommandFailed:
    """Execute the program, or the reaper that starts it: returns only when the kernel refused, with the reason."""
    try:
        if reaper >= 0:
            os.execve(reaper, reaping.arguments(program, command.args), command.env)
        os.execve(program, command.args, command.env)
    except OSError as failure:
        return lookup.refused(program, command.args, failure.errno or 0)
