"""What is mounted into a container: as it is asked for (`--mount`), and as it was decided (container.json).

The names are those of docker's API (Mount, MountPoint) in snake_case. Units are in the names.
"""

from .record import Record

BIND, VOLUME, TMPFS, IMAGE = "bind", "volume", "tmpfs", "image"


class BindOptions(Record):
    """propagation: "" is rprivate. non_recursive: without the mounts below the source.

    read_only_non_recursive: read-only, but not the mounts below the source; read_only_force_recursive: those too, or an
    error. create_mountpoint: make a missing source.
    """

    strict = True
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeOptions(Record):
    """no_copy: leave a new volume empty. driver, driver_options, labels: of a volume that this makes.

    subpath: mount only what lies there in the volume.
    """

    strict = True
    no_copy: bool = False
    labels: dict[str, str] = {}
    driver: str = ""
    driver_options: dict[str, str] = {}
    subpath: str = ""


class TmpfsOptions(Record):
    """size_bytes 0 is the kernel's default, half of the memory; mode has permission bits and the sticky bit."""

    strict = True
    size_bytes: int = 0
    mode: int = 0
    options: tuple[str, ...] = ()


class ImageOptions(Record):
    """subpath: mount only what lies there in the image."""

    strict = True
    subpath: str = ""


class MountRequest(Record):
    """One `--mount`. source: a path, a volume's name ("" makes one without a name), an image; "" for tmpfs.

    map: of a path or a volume: "UID[:GID]", as whose the source's owner is shown, or "idmap", as for `-v`.
    """

    strict = True
    type: str = VOLUME
    source: str = ""
    target: str
    read_only: bool = False
    consistency: str = ""
    map: str = ""
    bind: BindOptions | None = None
    volume: VolumeOptions | None = None
    tmpfs: TmpfsOptions | None = None
    image: ImageOptions | None = None


class VolumeRequest(Record):
    """`orlop volume create`. name "" draws one; driver "" is local."""

    strict = True
    name: str = ""
    driver: str = ""
    driver_options: dict[str, str] = {}
    labels: dict[str, str] = {}


class MountPoint(Record):
    """One mount of a container, as it was decided at its creation and stands in container.json.

    source: the directory or file of the host (bind), the image's configuration digest (image), else "".
    name: of the volume, of the image as the user wrote it. anonymous: nobody named the volume, so it may go with the
    container. mode: docker's Mode, the options as they were written. device: what is mounted instead of a directory,
    with device_type and options as for mount(8): a tmpfs, or a volume of the local driver that has them.
    create_source: a missing bind source is made at the start. no_copy: the image's content is not for this volume.
    shown_as: (uid,) or (uid, gid) as whose the files of owner appear inside, and the other way round; the owner is
    known once the source exists. mapped: owners on disk are the container's ids, where it has ids of its own.
    snapshot: the key of an image's tree.
    """

    type: str
    destination: str
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    read_only: bool = False
    propagation: str = ""
    anonymous: bool = False
    recursive: bool = True
    read_only_recursive: bool = True
    create_source: bool = False
    no_copy: bool = False
    subpath: str = ""
    device_type: str = ""
    device: str = ""
    options: tuple[str, ...] = ()
    shown_as: tuple[int, ...] = ()
    mapped: bool = False
    owner: tuple[int, ...] = ()
    snapshot: str = ""
