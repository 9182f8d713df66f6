"""Process 1 of a container with `--init`: a program of ours in memory, so that nothing is asked of the image.

It starts the container's program, forwards every signal to it, reaps whatever is orphaned, and ends as the program
does: with its status, or 128 and its signal. Who sent a signal becomes its name (`sender`): after its end nothing else
of it is left to read, and nothing of ours is open in a container.

Its source stands in `<machine>.S` beside this file, what `as` makes of it below (tests/contract/test_reaper.py); it
needs no library and no page but its own and a stack.

Arguments: its own name, the path of the program, the program's own argv[0] and arguments. Exit codes of its own: 125
for fewer arguments or no memory, 126 and 127 as a shell's.
"""

from ... import assembled

ANNOTATION = "org.orlop.init"  # in the OCI spec, with the value "true"
NAME = "orlop-init"

_CODE = {
    "x86_64": (
        "4c8b24244c8d6c24084e8d74e4104983fc030f82a20100004881ec0002000048c70424ffffffffb80e000000bf020000004889e6488d5424"
        "0841ba080000000f05b838000000bf1100000031f631d24531d24531c00f054885c00f885a0100000f84cf0000004889c3b89d000000bf0f"
        "000000488d358b0100000f05b8800000004889e7488d74244031d241ba080000000f054885c078e483f81174534189c7837c2448007f3b48"
        "8d7c24200430aa8b542454b908000000e8070100008b542450c1e208b906000000e8f6000000c60700b89d000000bf0f000000488d742420"
        "0f05b83e00000089df4489fe0f05eb8cb83d00000048c7c7ffffffff488d742410ba010000004531d20f054885c00f8e68ffffff39d875d8"
        "8b44241089c783e77f740881c780000000eb030fb6fcb8e70000000f05b86d00000031ff31f60f05b8270000000f0589442418b810000000"
        "31ffbe10540000488d5424180f05b80e000000bf02000000488d74240831d241ba080000000f05b83b000000498b7d08498d75104c89f20f"
        "054889c5b801000000bf02000000488d353e000000ba2a0000000f05bf7e0000004883fdfe0f857bffffffffc7e974ffffffbf7d000000e9"
        "6affffffc1c20489d083e00f83c03083f839760383c027aae2eac36f726c6f702d696e69743a207468652070726f6772616d2063616e2774"
        "2062652065786563757465640a6f726c6f702d696e697400"
    ),
    "aarch64": (
        "f30340f9f4230091950e138bb52200917f0e00f1830d0054ff0308d100008092e00300f9e81080d2400080d2e1030091e2230091030180d2"
        "010000d4881b80d2200280d2010080d2020080d2030080d2040080d2010000d4600bf8b7000700b4f60300aae81480d2e00180d2810d0050"
        "010000d4281180d2e0030091e1030191020080d2030180d2010000d440ffffb71f4400f120030054f80300aae94b40b93f0100710c020054"
        "ea83009109c3001149150038e95740b90b01805244000094e95340b9295d1853cb008052400000945f010039e81480d2e00180d2e1830091"
        "010000d4281080d2e00316aae10318aa010000d4e0ffff17882080d200008092e1430091220080d2030080d2010000d41f0000f10dfbff54"
        "1f0016ebe1feff54e11340b9201800720000021141000054203c0853c80b80d2010000d4481380d2000080d2010080d2010000d4881580d2"
        "010000d4e01b00b9a80380d2000080d201828ad2e2630091010000d4e81080d2400080d2e1230091020080d2030180d2010000d4a81b80d2"
        "800640f981420091e20315aa010000d4f70300aa080880d2400080d281020010420580d2010000d4c00f80d2ff0a00b1e1fbff54e00f80d2"
        "ddffff17a00f80d2dbffff172c7d1c53296d1c538dc100119f250071490000548d5d01114d1500386b05007101ffff54c0035fd66f726c6f"
        "702d696e69743a207468652070726f6772616d2063616e27742062652065786563757465640a6f726c6f702d696e697400"
    ),
}
PROGRAM = assembled.Program(_CODE)
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
