"""Process 1 of a container with `--init`: a program of ours in memory, so that nothing is asked of the image.

It starts the container's program, forwards every signal to it, reaps whatever is orphaned, and ends as the program
does: with its status, or 128 and its signal. Who sent a signal becomes its name (`sender`): after its end nothing else
of it is left to read, and nothing of ours is open in a container.

Its source stands in `<machine>.S` beside this file, what `as` makes of it in `program` (tests/contract/test_reaper.py);
it needs no library and no page but its own and a stack.

Arguments: its own name, the path of the program, the program's own argv[0] and arguments. Exit codes of its own: 125
for fewer arguments or no memory, 126 and 127 as a shell's.
"""

ANNOTATION = "org.orlop.init"  # in the OCI spec, with the value "true"
NAME = "orlop-init"

_SIGNALS = 64
_SENDER_CHARACTERS = 15  # the signal as a character, a uid and a pid in hexadecimal: as long as a name may be
_HEX = frozenset("0123456789abcdef")


def sender(name: str) -> tuple[int, int, int] | None:
    """Return the last signal that a process, which forwards them all, was sent, from which uid and pid; None if none.

    name: the process's (/proc/PID/comm, also of one that has ended). uid and pid are as the container counts them: 0 is
    the pid of a process that is outside.
    """
    if len(name) != _SENDER_CHARACTERS or not _HEX.issuperset(name[1:]):
        return None
    number = ord(name[0]) - ord("0")
    return (number, int(name[1:9], 16), int(name[9:], 16)) if 0 < number <= _SIGNALS else None
