"""A program that lets a created container go: `orlop-runtime start` without an interpreter, which would cost 9 ms.

Mostly `start` has one thing to do: connect to the container's gate and see that its command is executed. The script
executes this program for it where the gate's name says so (`plain.sock`). It knows nothing else: whatever it
finds that is not a success it leaves to the interpreter that its arguments name, and with it the connection, from which
only the first word has been read (`connection`). So every error, a seccomp listener and the hooks are told and done at
one place, `runtime.cli.start`.

Its source stands in `<machine>.S` beside this file, what `as` makes of it below (tests/contract/test_starter.py).
The script finds it at `.cache/starter-1`, where the first start without it puts it.
"""

import sys

from ... import assembled

_CODE = {
    "x86_64": (
        "488b04244c8d6c24104c8d74c4104883f8040f82db0000004881ec8000000066c704240100498b7500488d7c2402b96c000000acaa84c074"
        "09ffc975f6e99f000000b829000000bf01000000be0500080031d20f05483de80300000f83800000004989c4b82a0000004c89e74889e6ba"
        "6e0000000f054885c075664531d2e87c0000004883f8017558803c2445755241ba02000000e8650000004885c0750fb857000000498b7d00"
        "0f0531ffeb4ab8480000004c89e7be0200000031d20f05498b75104489e0b90a000000bf0900000031d2f7f180c23088143effcf83ff0773"
        "efb83b000000498b7d08498d75084c89f20f05bf7f000000b83c0000000f05b82d0000004c89e7488d742408ba010000004531c04531c90f"
        "05c3"
    ),
    "aarch64": (
        "e90340f9f3430091740e098b3f1100f143080054ff0302d12a008052ea0300796b0240f9ec0b00918d0d80526e1540388e1500388e000034"
        "ad05007181ffff5431000014c81880d2200080d2a10080d20101a0f2020080d2010000d41fa00ff122050054f50300aa681980d2e1030091"
        "c20d80d2010000d4600400b5030080d2290000941f0400f1e1030054ea0340395f15017181030054430080d222000094000100b5680480d2"
        "600c8092610240f9020080d2010000d4000080d218000014280380d2e00315aa410080d2020080d2010000d46b0a40f9e903152a4a018052"
        "2c0180d22d09ca1aaea50a1bcec100116e692c38e9030d2a8c0500d19f1d00f122ffff54a81b80d2600640f961220091e20314aa010000d4"
        "e00f80d2a80b80d2010000d4e81980d2e00315aae1030091220080d2040080d2050080d2010000d4c0035fd6"
    ),
}
PROGRAM = assembled.Program(_CODE, "starter-1")
_OPTION = "gate"
_NONE = "---"


def connection() -> int:
    """Return the connection to a gate that the program has come through and leaves to us, -1 for none."""
    told = sys._xoptions.get(_OPTION, _NONE)
    return -1 if told == _NONE else int(told)
