"""OCI spec -> Plan: everything that a start will do, decided and printable before anything is touched.

Pure: the same spec and the same facts give the same plan; no file is read, no privilege needed.
"""

from ..spec.record import Record
from ..spec.runtime import Spec
from .host import HostFacts


class Step(Record):
    """One line of `--dry-run` and `explain`. subject: "mounts", "cgroup"; words for people; call for the kernel."""

    subject: str
    words: str
    call: str


class Plan(Record):
    """What a start will do. warnings: what could not be honoured and was not asked for by name, one sentence each."""

    warnings: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every step in the order of its execution."""
        raise NotImplementedError


def compile(spec: Spec, host: HostFacts) -> Plan:
    """Return the plan of a container.

    Raises Invalid for a spec that contradicts itself, Unsupported naming the field that this kernel or this version
    can't honour.
    """
    raise NotImplementedError
