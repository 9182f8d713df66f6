"""USER as docker writes it -> numbers, looked up in the container's own passwd and group.

The two files are the image's: read below the root's descriptor, regular and bounded, or not at all (CVE-2024-9676).
A number is a number: it never matches a user whose *name* is that number, and nothing wraps round to 0 (SEC-27).
"""

from __future__ import annotations

from ..linux import path
from ..spec.errors import Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..spec.runtime import Process

ID_MAX = 2**31 - 1  # docker's bound; beyond it signed and unsigned readers disagree
FILE_BYTES_MAX = 10 * 1024 * 1024
PASSWD = "/etc/passwd"
GROUP = "/etc/group"


class Identity:
    """uid, gid, additional_gids as numbers; home: the passwd entry's directory, "/" without one.

    additional_gids begins with gid: a set-group-ID program must not drop the group out of every check (CVE-2022-36109).
    """

    __slots__ = ("additional_gids", "gid", "home", "uid")

    def __init__(self, uid: int, gid: int, additional_gids: tuple[int, ...], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.additional_gids = additional_gids
        self.home = home

    def __repr__(self) -> str:
        return f"Identity({self.uid}, {self.gid}, {self.additional_gids}, {self.home!r})"


def resolve(root_fd: int, user: str, groups: Sequence[str] = ()) -> Identity:
    """Return the identity that `user` ("", "uid", "name", "uid:gid", "name:group") means below root_fd.

    groups: more groups by name or number (`--group-add`). Without a group it is the passwd entry's, and the user is in
    all groups that list it; with one it is that alone. Raises NotFound with docker's texts, Invalid for a malformed or
    too large number and for an unusable passwd or group file.
    """
    name, colon, group = user.partition(":")
    if colon and (not name or not group or ":" in group):
        hint = "write uid:gid or name:group"
        raise Invalid("use", f"the user {user!r}", "it is not user or user:group", hint=hint, code="E0603")
    uid, gid, home, login = _user(root_fd, name)
    gids, own = _groups(root_fd, {group, *groups} - {""}, login)
    if group:
        gid, own = _group(group, gids), []
    more = [_group(wanted, gids) for wanted in groups]
    return Identity(uid, gid, tuple(dict.fromkeys([gid, *own, *more])), home)


def apply(process: Process, identity: Identity) -> Process:
    """Return the process with this user, and HOME where the environment has none.

    Another user than root has no capability at execve, as docker's: the kernel takes them then anyway, but until then
    CAP_DAC_OVERRIDE would find and execute programs that the user may not.
    """
    gids = tuple(dict.fromkeys((*identity.additional_gids, *process.user.additional_gids)))
    user = process.user.replace(uid=identity.uid, gid=identity.gid, additional_gids=gids)
    env = process.env
    if not any(variable.startswith("HOME=") for variable in env):
        env = (*env, f"HOME={identity.home}")
    capabilities = process.capabilities
    if identity.uid and capabilities is not None:
        capabilities = capabilities.replace(effective=(), permitted=())
    return process.replace(user=user, env=env, capabilities=capabilities)


def _user(root: int, name: str) -> tuple[int, int, str, str]:
    """Return (uid, gid, home, login name) of a name or number; "" is user 0. The first entry that matches counts."""
    number = 0 if not name else _number(name)
    for fields in lines(root, PASSWD):
        if len(fields) < 4 or (uid := _number(fields[2])) is None or (gid := _number(fields[3])) is None:
            continue
        if (fields[0] == name) if number is None else (uid == number):
            home = fields[5] if len(fields) > 5 and fields[5].startswith("/") else "/"
            return _checked(uid), _checked(gid), home, fields[0]
    if number is None:
        raise NotFound(
            "find",
            f"user {name}",
            f"unable to find user {name}: no matching entries in passwd file",
            hint="name a user of the image's /etc/passwd, or give a number",
            code="E0601",
        )
    return _checked(number), 0, "/", ""


def _groups(root: int, names: set[str], login: str) -> tuple[dict[str, int], list[int]]:
    """Return (gid of each of the names that is there, gids of the groups that list login), first entries first."""
    gids: dict[str, int] = {}
    own: dict[int, None] = {}
    for fields in lines(root, GROUP) if names or login else ():
        if len(fields) < 3 or (gid := _number(fields[2])) is None:
            continue
        if fields[0] in names:
            gids.setdefault(fields[0], gid)
        if login and len(fields) > 3 and login in fields[3].split(","):
            own[_checked(gid)] = None
    return gids, list(own)


def _group(wanted: str, gids: dict[str, int]) -> int:
    number = _number(wanted)
    if number is None:
        number = gids.get(wanted)
    if number is None:
        raise NotFound(
            "find",
            f"group {wanted}",
            f"unable to find group {wanted}: no matching entries in group file",
            hint="name a group of the image's /etc/group, or give a number",
            code="E0602",
        )
    return _checked(number)


def _number(text: str) -> int | None:
    """Return the number, None for anything that is not plain decimal digits ("-1", " 0", "0x0")."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 20 else None


def _checked(number: int) -> int:
    if number > ID_MAX:
        raise Invalid(
            "use",
            f"the id {number}",
            f"uids and gids must be in range 0-{ID_MAX}",
            hint="give a smaller number or a name",
            code="E0603",
        )
    return number


def lines(root: int, name: str) -> Iterator[list[str]]:
    """Yield the fields of each line, without holding more than one line of them."""
    try:
        data = path.read_in_root(root, name, FILE_BYTES_MAX)
    except OSError as failure:
        raise Invalid(
            "read", f"{name} of the image", failure.strerror or str(failure), hint="give the user as uid:gid"
        ) from None
    at = 0
    while data and at < len(data):
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        line = data[at:end].decode(errors="surrogateescape").strip()
        if line and not line.startswith("#"):
            yield line.split(":")
        at = end + 1
