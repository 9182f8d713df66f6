"""Landlock: the ruleset is made while init may open every path, and put on right before the seccomp filter.

Put on earlier, it would hinder init itself: a restricted process may not mount, nor write to a procfs of its own.
"""

import os

from ....linux import landlock, path
from ....spec.errors import NotFound
from ...landlock import DEVICES, FILES, Rules
from .. import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .. import Init


class MakeRuleset(Operation):
    """Open what the rules name, inside the container's root, and make a ruleset of it."""

    rules: Rules
    subject = "landlock"

    def describe(self) -> str:
        files = f"{len(self.rules.paths)} rules for files" if self.rules.paths else "every file"
        ports = f", {len(self.rules.ports)} for TCP ports" if self.rules.access_net else ""
        return f"allow {files}{ports}{', no signals or abstract sockets outside' if self.rules.scoped else ''}"

    def call(self) -> str:
        return "landlock_create_ruleset, landlock_add_rule"

    def act(self, init: "Init") -> None:
        rules = self.rules
        init.ruleset = landlock.create_ruleset(rules.access_fs, rules.access_net, rules.scoped)
        for name, access in rules.paths:
            try:
                _allow(init, name, access)
            except (FileNotFoundError, NotADirectoryError):
                cause = f"{name} of a rule of Landlock is not in the container"
                raise NotFound("restrict", name, cause, hint="correct the path, or leave the rule away") from None
        for name in DEVICES if rules.paths else ():
            try:
                _allow(init, name, FILES["w"])
            except (FileNotFoundError, NotADirectoryError):
                continue
        for port, access in rules.ports:
            landlock.allow_port(init.ruleset, access, port)


def _allow(init: "Init", name: str, access: int) -> None:
    fd = path.open_in_root(init.root, name, os.O_PATH)
    try:
        is_directory = os.stat(fd).st_mode & 0o170000 == 0o040000
        landlock.allow_beneath(init.ruleset, access if is_directory else access & landlock.ACCESS_FS_OF_FILES, fd)
    finally:
        os.close(fd)


class Restrict(Operation):
    """Obey the ruleset from here on."""

    subject = "landlock"

    def describe(self) -> str:
        return "deny everything else that Landlock can deny"

    def call(self) -> str:
        return "landlock_restrict_self"

    def act(self, init: "Init") -> None:
        landlock.restrict_self(init.ruleset)
