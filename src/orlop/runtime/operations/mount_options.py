"""The option strings of mount(8) and of the OCI specification -> what the kernel's new mount calls take.

Source: config.md, "Linux mount options"; mount_setattr(2); fs/fs_context.c for the flags of a super block.
"""

from ...linux import mount
from ...spec.errors import Invalid
from ...spec.record import Record

_ATIME = mount.MOUNT_ATTR__ATIME

# name: (attributes it sets, attributes it clears). The access time modes are one field, so each clears the others.
_ATTRIBUTES = {
    "ro": (mount.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, mount.MOUNT_ATTR_RDONLY),
    "nosuid": (mount.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, mount.MOUNT_ATTR_NOSUID),
    "nodev": (mount.MOUNT_ATTR_NODEV, 0),
    "dev": (0, mount.MOUNT_ATTR_NODEV),
    "noexec": (mount.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, mount.MOUNT_ATTR_NOEXEC),
    "nosymfollow": (mount.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, mount.MOUNT_ATTR_NOSYMFOLLOW),
    "nodiratime": (mount.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, mount.MOUNT_ATTR_NODIRATIME),
    "noatime": (mount.MOUNT_ATTR_NOATIME, _ATIME),
    "strictatime": (mount.MOUNT_ATTR_STRICTATIME, _ATIME),
    "relatime": (0, _ATIME),
    "atime": (0, _ATIME),
    "norelatime": (0, _ATIME),
    "nostrictatime": (0, _ATIME),
}
_RECURSIVE = {f"r{name}": bits for name, bits in _ATTRIBUTES.items()}

_PROPAGATION = {
    "private": mount.MS_PRIVATE,
    "slave": mount.MS_SLAVE,
    "shared": mount.MS_SHARED,
    "unbindable": mount.MS_UNBINDABLE,
}
PROPAGATION_NAMES = (*_PROPAGATION, *(f"r{name}" for name in _PROPAGATION))

# Flags of a super block, set under the same name; on a bind mount they change nothing (mount(2), MS_BIND).
_SUPER_BLOCK = ("sync", "dirsync", "lazytime", "mand")
# What is the case anyway: the kernel's defaults, and messages that nobody would see. iversion too: since Linux 6.1, the
# oldest that we run on, ext4 and tmpfs count versions as btrfs and xfs do, asked or not, and who counts none never will
# (for mount(2) it is a flag that nobody looks at; fsconfig(2) has none of that name).
_NOTHING = ("defaults", "async", "nolazytime", "nomand", "iversion", "noiversion", "silent", "loud")
_SUBDIRECTORY = "X-mount.subdir="
_PLAIN = ("rw", "suid", "dev", "exec", "symfollow", "diratime", "relatime")  # what a mount is that nothing is said of
LOOP = "loop"
OWN_DESCRIPTOR = "/proc/self/fd/"
NAMES = (
    *_ATTRIBUTES,
    *_RECURSIVE,
    *PROPAGATION_NAMES,
    *_SUPER_BLOCK,
    *_NOTHING,
    "bind",
    "rbind",
    "idmap",
    "ridmap",
    "remount",
    "tmpcopyup",
)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...spec.runtime import Mount


class MountOptions(Record):
    """The parsed options of one mount.

    set, clear: MOUNT_ATTR_* of the mount; recursive_set, recursive_clear: of the mounts below it too.
    propagation: MS_PRIVATE and so on, 0 when not given. bind: "", "bind" or "rbind". idmap: "", "idmap" or "ridmap".
    loop: the source is a file that holds the file system.
    subdirectory: what of the source is mounted, "" for all of it (mount(8), X-mount.subdir).
    super_block: flags, data: (name, value) pairs, a value None for a flag: what the file system itself gets.
    """

    set: int = 0
    clear: int = 0
    recursive_set: int = 0
    recursive_clear: int = 0
    propagation: int = 0
    propagation_recursive: bool = False
    bind: str = ""
    idmap: str = ""
    remount: bool = False
    tmpcopyup: bool = False
    loop: bool = False
    subdirectory: str = ""
    super_block: tuple[str, ...] = ()
    data: tuple[tuple[str, str | None], ...] = ()

    @property
    def read_only(self) -> bool:
        """Whether writing is refused."""
        return bool((self.set | self.recursive_set) & mount.MOUNT_ATTR_RDONLY)


def of_tree(wanted: "Mount", tree: int) -> "Mount":
    """Return a mount with what is wanted of this one that shows a detached mount instead, a descriptor of ours.

    It gets the attributes that are wanted: the tree's own are those of whoever lent it.
    """
    flags = [word for word in wanted.options if word in _ATTRIBUTES or word.startswith(_SUBDIRECTORY)]
    options = ("bind", "rprivate", *_PLAIN, *flags)
    return wanted.replace(type="bind", source=f"{OWN_DESCRIPTOR}{tree}", options=options)


def propagation_flags(name: str) -> tuple[int, bool]:
    """Return (MS_ flag, recursive) of "rslave" and the like. Raises KeyError for another name."""
    if name in _PROPAGATION:
        return _PROPAGATION[name], False
    return _PROPAGATION[name.removeprefix("r")], True


def parse(options: tuple[str, ...], field: str) -> MountOptions:
    """Return the meaning of a mount's options; a later one wins over an earlier one.

    field names the place in errors ("mounts[3].options"). Raises Invalid for an option without a name. A name that is
    not mount(8)'s goes to the file system.
    """
    plain, recursive = [0, 0], [0, 0]
    values: dict[str, Any] = {}
    super_block: list[str] = []
    data: list[tuple[str, str | None]] = []
    for option in options:
        if option in _ATTRIBUTES:
            _merge(plain, _ATTRIBUTES[option])
        elif option in _RECURSIVE:
            _merge(recursive, _RECURSIVE[option])
        elif option in PROPAGATION_NAMES:
            values["propagation"], values["propagation_recursive"] = propagation_flags(option)
        elif option in ("bind", "rbind"):
            values["bind"] = option
        elif option in ("idmap", "ridmap"):
            values["idmap"] = option
        elif option in ("remount", "tmpcopyup", LOOP):
            values[option] = True
        elif option.startswith(_SUBDIRECTORY):
            values["subdirectory"] = option.removeprefix(_SUBDIRECTORY)
        elif option in _SUPER_BLOCK:
            super_block.append(option)
        elif option and option not in _NOTHING:  # buildah writes "" for a volume without options
            data.append(_pair(option, field))
    return MountOptions(
        set=plain[0],
        clear=plain[1],
        recursive_set=recursive[0],
        recursive_clear=recursive[1],
        super_block=tuple(super_block),
        data=tuple(data),
        **values,
    )


def _merge(bits: list[int], change: tuple[int, int]) -> None:
    set_, clear = change
    bits[0] = bits[0] & ~clear | set_
    bits[1] = bits[1] & ~set_ | clear


def _pair(option: str, field: str) -> tuple[str, str | None]:
    name, equals, value = option.partition("=")
    if not name:
        raise Invalid("mount", field, f"the option {option!r} has no name")
    return name, value if equals else None
