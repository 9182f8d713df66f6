"""Who the process is: user, groups, capabilities, keyring, no_new_privs.

Order, and why (capabilities(7), prctl(2), seccomp(2)): the bounding set is dropped while CAP_SETPCAP is there;
groups before the user, because setresuid gives CAP_SETGID away; keepcaps lets the permitted set survive that; capset
then lowers it. A seccomp filter without no_new_privs needs CAP_SYS_ADMIN, so the
permitted set is lowered after the filter then.
"""

import errno
import os

from ...linux import capability, process
from . import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init


class CapabilitySets(Operation):
    """The five sets as masks, already limited to what this host can give."""

    bounding: int = 0
    effective: int = 0
    permitted: int = 0
    inheritable: int = 0
    ambient: int = 0
    subject = "capabilities"

    def describe(self) -> str:
        names = capability.names_of(self.effective | self.permitted)
        return "keep " + (", ".join(name.removeprefix("CAP_").lower() for name in names) if names else "no capability")

    def call(self) -> str:
        return f"capset(effective {self.effective:016x}, permitted {self.permitted:016x})"

    def act(self, init: "Init") -> None:
        """Everything else of the container is done: from here on init has the process's rights."""
        capability.set_sets(self.effective, self.permitted, self.inheritable)


class DropBounding(Operation):
    """Drop capabilities from the bounding set: no file on disk can give them back."""

    drop: int
    keep: int
    subject = "capabilities"

    def describe(self) -> str:
        kept = len(capability.names_of(self.keep))
        return f"take {len(capability.names_of(self.drop))} capabilities out of reach for good, leave {kept}"

    def call(self) -> str:
        return f"prctl(PR_CAPBSET_DROP) down to {self.keep:016x}"

    def act(self, init: "Init") -> None:
        capability.drop_bounding(self.drop)


class SetIdentity(Operation):
    """Become the user, with exactly these groups, and keep the permitted capabilities for the steps that follow."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...] = ()
    inheritable: int = 0
    ambient: int = 0
    may_set_groups: bool = True
    subject = "user"

    def describe(self) -> str:
        groups = ", groups " + ", ".join(map(str, self.additional_gids)) if self.additional_gids else ""
        return f"become uid {self.uid}, gid {self.gid}{groups}"

    def call(self) -> str:
        return f"setgroups, setresgid({self.gid}), setresuid({self.uid})"

    def act(self, init: "Init") -> None:
        process.prctl(process.PR_SET_KEEPCAPS, 1)
        if (init.may_set_groups and self.may_set_groups) or self.additional_gids:
            os.setgroups(list(self.additional_gids))
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        process.prctl(process.PR_SET_KEEPCAPS, 0)
        # A change of credentials makes a process dumpable again where suid_dumpable is set (prctl(2)).
        process.prctl(process.PR_SET_DUMPABLE, 0)
        _, permitted, _ = capability.get_sets()
        capability.set_sets(permitted, permitted, self.inheritable)
        capability.set_ambient(self.ambient)


class NoNewPrivileges(Operation):
    """No execve gives more rights, from now on and for every child."""

    subject = "capabilities"

    def describe(self) -> str:
        return "let no program gain privileges (set-user-ID, file capabilities)"

    def call(self) -> str:
        return "prctl(PR_SET_NO_NEW_PRIVS)"

    def act(self, init: "Init") -> None:
        process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)


class SessionKeyring(Operation):
    """Give the container a session keyring of its own, without the caller's keys."""

    subject = "user"

    def describe(self) -> str:
        return "start with an empty session keyring"

    def call(self) -> str:
        return "keyctl(KEYCTL_JOIN_SESSION_KEYRING)"

    def act(self, init: "Init") -> None:
        try:
            process.join_session_keyring()
        except OSError as failure:
            # ENOSYS: a kernel without keyrings has none to inherit. EDQUOT and the rest are failures.
            if failure.errno != errno.ENOSYS:
                raise
