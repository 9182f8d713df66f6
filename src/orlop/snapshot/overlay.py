"""How overlayfs keeps its notes, and with which options we mount it: it depends on the user namespace of this process.

Only the initial one may read and write trusted.* (xattr(7)); elsewhere overlayfs keeps them in user.overlay.*, with the
option userxattr (since 5.11). A tree of one kind means nothing to mounts of the other.
Source: kernel, Documentation/filesystems/overlayfs.rst, "User xattr"; fs/overlayfs/params.c, ovl_fs_params_verify.
"""

_EVERY_ID = [b"0", b"0", b"4294967295"]
PREFIXES = ("trusted.overlay.", "user.overlay.")


def is_initial_namespace() -> bool:
    """Tell whether this is the initial user namespace, the only one whose root may make device nodes."""
    with open("/proc/self/uid_map", "rb") as file:
        return file.read(64).split() == _EVERY_ID


PRIVILEGED = is_initial_namespace()
OPAQUE_XATTR = (PREFIXES[0] if PRIVILEGED else PREFIXES[1]) + "opaque"

# Off, whatever the kernel's default: with them an upper directory alone does not say what a layer holds. Redirects need
# trusted.*, so that in a user namespace "off" is refused where "nofollow", which is stricter, is not.
MOUNT_OPTIONS = (
    ("redirect_dir=off", "metacopy=off") if PRIVILEGED else ("userxattr", "redirect_dir=nofollow", "metacopy=off")
)
