"""`orlop audit`: a container that has everything passes; one that gives everything away fails, fact by fact."""

from __future__ import annotations

import json
from collections.abc import Callable

from support.engine import Finished

Run = Callable[..., Finished]

FAILED = {
    "capabilities": "it has CAP_AUDIT_CONTROL",
    "system calls": "no seccomp filter: every system call is open",
    "new privileges": "setuid programs give their rights",
    "root": "its root is root of the machine, but for capabilities",
    "kernel files": "the kernel's files on the machine show",
    "namespaces": "it shares the machine's pid",
    "files": "it writes to the machine's /etc",
    "devices": "it has the machine's devices: all",
    "limits": "its memory is not limited",
    "health": "nothing says whether it works",
    "restarts": "nobody starts it again",
}


def test_facts_of_two_containers(orlop: Run) -> None:
    wanted = ("-m", "64m", "-u", "1000", "--restart", "unless-stopped", "--health-cmd", "true")
    for name, flags in (("good", wanted), ("bad", ("--privileged", "--pid", "host", "-v", "/etc:/h"))):
        done = orlop("run", "-d", "--name", name, *flags, "host", "sleep", "1000")
        assert done.code == 0, done
    good = orlop("audit", "good")
    assert good.code == 0, good
    assert "fail" not in good.stdout
    bad = orlop("audit", "--format", "json", "bad", check=False)
    assert bad.code == 1, bad
    told = json.loads(bad.stdout)[0]
    assert told["properties"] == {
        "secure": False,
        "isolated": False,
        "integrated": False,
        "manageable": False,
        "transparent": True,
    }
    failed = {fact["fact"]: fact for fact in told["facts"] if not fact["passed"]}
    assert failed.keys() == FAILED.keys()
    assert all(failed[name]["why"].startswith(why) for name, why in FAILED.items())
    assert all(fact["next"] for fact in failed.values())
    text = orlop("audit", "bad", check=False)
    assert "Next, for root: run it with --userns auto" in text.stdout
    # What the kernel says counts, not what was asked for: an ended one is judged by its specification.
    assert orlop("rm", "-f", "good", "bad").code == 0


def test_what_can_not_be_audited(orlop: Run) -> None:
    assert orlop("audit", "nobody", check=False).code == 1
    assert orlop("audit", check=False).code == 1
    assert "invalid --format" in orlop("audit", "--format", "xml", "nobody", check=False).stderr
