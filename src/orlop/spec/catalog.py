"""The table of errors: each kind of failure has a code, which `orlop explain E...` explains at length.

An error is told where its cause is known, in words (errors.py), and with its code where whoever tells it knows the row.
Else the code is found from the words, which the kernel, a registry or a peer may have said, so that a cause has one code
wherever it comes from. `code_of` is total: what no row describes has its class's own code.

Invariants, held by tests/unit/test_catalog.py: codes are unique and never reused; the words of a row occur in the
source; no two rows claim the same error; each row says what it means and what to do.

    E01xx names and references    E02xx requests         E03xx commands          E04xx file systems
    E05xx limits and cgroups      E06xx users            E07xx networks          E08xx images and registries
    E09xx volumes                 E10xx states           E11xx supervision       E12xx the engine and its disk
    E13xx the kernel              E14xx builds           E19xx everything else of a class
"""

# ruff: noqa: E501  a table of sentences

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .errors import OrlopError


class Entry:
    """One row. words: alternatives; each is parts that the cause contains in this order, separated by "..."."""

    __slots__ = ("code", "meaning", "remedy", "title", "words")

    def __init__(self, code: str, title: str, words: tuple[str, ...], meaning: str, remedy: str) -> None:
        self.code = code
        self.title = title
        self.words = words
        self.meaning = meaning
        self.remedy = remedy

    def fit(self, cause: str) -> int:
        """Return how many characters of a cause this row explains, 0 for another kind of cause: the most telling wins."""
        return max((len(words) for words in self.words if _contains(cause, words)), default=0)

    def to_json(self) -> dict[str, str]:
        """Return the row as a JSON object."""
        return {"code": self.code, "title": self.title, "meaning": self.meaning, "remedy": self.remedy}


def _contains(cause: str, words: str) -> bool:
    at = 0
    for part in words.split("..."):
        found = cause.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _rows() -> tuple[Entry, ...]:
    return tuple(
        Entry(code, title, tuple(words.split(" || ")), meaning, remedy)
        for code, title, words, meaning, remedy in _TABLE
    )


def find(code: str) -> Entry | None:
    """Return the row of a code, None when there is none."""
    return next((entry for entry in ENTRIES if entry.code == code.upper()), None)


def code_of(error: OrlopError) -> str:
    """Return the code of an error."""
    if error.code and find(error.code):
        return error.code
    found = max(ENTRIES, key=lambda entry: entry.fit(error.cause))
    return found.code if found.fit(error.cause) else GENERAL.get(error.kind, GENERAL["internal"])


# (code, title, words, what it means, what to do)
# fmt: off
_TABLE: tuple[tuple[str, str, str, str, str], ...] = (
    # -- names and references
    ("E0101", "No such container", "No such container: || No such object: ",
     "No container has this name, this id or an id that begins so. A container that was started with --rm is gone at its end.",
     "List all containers, those that have ended too: orlop ps -a"),
    ("E0102", "A container name is taken", "The container name ... is already in use by container",
     "Names are unique, also among containers that do not run.",
     "Choose another --name, or remove or rename the container that has it: orlop rm NAME"),
    ("E0103", "A name has characters that are not allowed", "), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
     "Names begin with a letter or a digit and go on with letters, digits, dots, hyphens and underscores.",
     "Choose a name such as web-1"),
    ("E0104", "An id is ambiguous", "multiple IDs found with provided prefix",
     "Several containers have ids that begin with these digits.", "Give more digits, or the name"),
    ("E0105", "A reference is malformed", "invalid reference format || must be lowercase || repository name",
     "An image reference is [REGISTRY[:PORT]/]PATH[:TAG][@DIGEST]; the path is in lower case, a tag has at most 128 characters.",
     "Write it as debian, debian:12 or registry.example.org/team/app:1.0"),
    ("E0106", "The same name", "Renaming a container with the same name || Neither old nor new names may be empty",
     "A rename needs two names, and they must differ.", "Write: orlop rename OLD NEW"),
    ("E0107", "There is no such exec", "No such exec instance: ",
     "An exec is known while its process runs and for five minutes after its end.",
     "Execute the command again, or give more of the id"),
    ("E0108", "A working container's name is taken", "is in use by a working container",
     "Working containers, which `buildah from` makes, have names of their own that are unique.",
     "Choose another --name, or remove the one that has it: orlop buildah rm NAME"),
    ("E0109", "A container ID file is there", "container ID file found",
     "The file that --cidfile names was written by an earlier run, whose container may still be there.",
     "Delete the file when that container is of no use, or name another one"),
    # -- requests
    ("E0201", "There is no command", "no command specified || it names no image",
     "Neither the request nor the image says what to execute.", "Give a command after the image, or use an image that has one"),
    ("E0202", "A host name is invalid", "invalid hostname format",
     "A host name has at most 63 letters, digits, dots and hyphens: it becomes a line of /etc/hosts.", "Choose another --hostname"),
    ("E0203", "An environment variable has no name", "invalid environment variable",
     "Each variable is NAME=value, or NAME to take the value of your shell.", "Correct -e or the line of --env-file"),
    ("E0204", "A working directory is not absolute", "the working directory ... is invalid",
     "-w names a directory from the container's root.", "Begin it with a slash"),
    ("E0205", "There is no such signal", "invalid signal:",
     "Signals have names (TERM, SIGTERM, RTMIN+3) or numbers from 1 to 64.", "See kill -l for the names"),
    ("E0206", "There is no such capability", "unknown capability",
     "Capabilities are those of capabilities(7), with or without CAP_, or ALL.", "Correct --cap-add or --cap-drop"),
    ("E0207", "A security option is not known", "invalid --security-opt",
     "Known are seccomp=, no-new-privileges, apparmor=, label=, systempaths=unconfined.", "Correct --security-opt"),
    ("E0208", "A seccomp profile can't be used", "Decoding seccomp profile failed",
     "The profile is JSON in docker's form; this one is not, or names something the kernel does not have.",
     "Correct the file, or use seccomp=unconfined to see whether the profile is the reason"),
    ("E0209", "A sysctl is not the container's", "sysctl ... not allowed || sysctl ... is not allowed || it would change the host",
     "Only sysctls that belong to a namespace of the container can be set, the others are the host's.",
     "Set it on the host with sysctl -w, or leave --sysctl away"),
    ("E0210", "A filter is not known", "invalid filter",
     "The filter or its value does not exist for this list.", "The message names those that exist"),
    ("E0211", "A document is not JSON", "it is not valid JSON || it is not a JSON object || it is nested too deeply",
     "A file or a message that must be JSON is damaged, cut or of another form.", "Check it with: python3 -m json.tool FILE"),
    ("E0212", "Something is too large", "the limit is || it has more than",
     "Every input has a bound, so that none can fill the memory or the disk.", "Split it, or pass large values in a file"),
    ("E0213", "A field is not known or has the wrong type", "there is no such field || expected a || expected an || it is required",
     "A request or document does not have the shape that is documented.", "Correct the field that the message names"),
    ("E0214", "There is no such device", "not a device node || is no device of this machine || unresolvable CDI devices",
     "--device and the rates of block devices name device nodes of the host, or devices that files below /etc/cdi and /run/cdi name.",
     "See ls -l /dev, or these files; name a block or character device, or one of theirs"),
    ("E0215", "A set of processors is not possible", "Requested ... are not available || for cpuset",
     "The list names processors or memory nodes that the machine does not have, or is no list.", "Write a list such as 0-2,4 of those that nproc and lscpu show"),
    ("E0216", "Limits of processors contradict each other", "CPU cfs period || CPU cfs quota || Nano CPUs and CPU",
     "--cpus, --cpu-period and --cpu-quota say the same in different ways, and have ranges.", "Use --cpus alone"),
    ("E0217", "A template is malformed", "template: ",
     "--format takes Go's templates: {{.Name}}, {{json .}}, {{range .Mounts}}...{{end}}.", "Begin with --format '{{json .}}', which shows all that there is"),
    ("E0218", "A time is malformed", "it is neither a time nor a duration",
     "Times are RFC 3339, seconds since 1970, or a duration back from now.", "Write 2024-05-06T07:08:09Z, 1700000000 or 10m"),
    ("E0219", "A platform is malformed", "it is not of the form os/architecture",
     "A platform is os/architecture, with a variant where there are several.", "Write linux/amd64 or linux/arm64/v8"),
    ("E0220", "There is no such runtime", "invalid runtime name",
     "Containers are run by orlop's own runtime.", "Leave --runtime away"),
    ("E0221", "A cgroup's path is malformed", "a cgroup path has || invalid cgroup parent",
     "The parent is a path below the root of the hierarchy, without . and ..", "Write --cgroup-parent /name"),
    ("E0222", "There is no such program", "is in none of || program ... does not exist",
     "The program was looked for in the directories of PATH on the host.", "Install it, or give its path"),
    ("E0223", "The processes can't be listed", "Couldn't find PID field in ps output || this machine has no ps || ps does not come to an end",
     "`top` with options of ps asks this machine's ps(1), whose lines must have a PID field.",
     "Leave the options away: a plain `top` needs no ps"),
    ("E0224", "A log driver is not known, or can't be read", "no log driver named || configured logging driver does not support reading",
     "Logs go to json-file, local, none, syslog, journald, fluentd or gelf; what none takes is nowhere.",
     "Choose another --log-driver"),
    ("E0225", "A mode of a namespace is not known", "",
     "Namespaces are private, the host's, another container's, or those of a file.",
     "Write private, host, container:NAME or ns:PATH; for --ipc also none and shareable"),
    # -- commands
    ("E0301", "The program does not exist", "executable file not found in $PATH || exec: ...: stat ...: no such file or directory",
     "Neither a directory of PATH inside the container nor the given path has it. The image may be smaller than you think: "
     "many have no shell.", "Look with: orlop run --rm --entrypoint ls IMAGE /bin; then install it or give its path"),
    ("E0302", "The program is a directory", ": is a directory", "The command names a directory.", "Name a program in it"),
    ("E0303", "The program may not be executed", ": permission denied",
     "It has no execute permission for this user, or a directory on the way may not be searched.",
     "chmod +x it, or choose another --user"),
    ("E0304", "The file system is mounted noexec", "mounted noexec",
     "Nothing can be executed from a file system that is mounted with noexec; tmpfs mounts are by default.",
     "Add exec to the mount's options, or put the program elsewhere"),
    ("E0305", "The first line ends with CR LF", 'its "#!" line ends with CR LF',
     "The script was saved with Windows line ends, so its interpreter's name ends with a carriage return.",
     "Convert it: sed -i 's/\\r$//' FILE"),
    ("E0306", "The interpreter of a script is missing", "its interpreter ... does not exist || its interpreter ... is not there",
     "The first line of the script names a program that the image does not have.",
     "Install the interpreter, or change the line, for example to #!/bin/sh"),
    ("E0307", "The interpreter can't be executed", "its interpreter ... is not executable || its interpreter ... can't be executed",
     "The program that the first line or the ELF header names exists and can't be executed.", "Check its permissions and its architecture"),
    ("E0308", "The program is for another architecture", "it is a program for",
     "Its ELF header names another processor than this machine has, and no emulator is registered (binfmt_misc).",
     "Use an image for this architecture (--platform), or install qemu-user-static"),
    ("E0309", "The dynamic loader is missing", "its loader ... does not exist",
     "The program needs a C library that the image does not have: a glibc program in an Alpine or scratch image, for instance.",
     "Use an image with that library, or link the program statically"),
    ("E0310", "The file is no program", "it is neither a program || the file is empty || names no interpreter",
     "It is neither an ELF program nor a script with a #! line.", 'Begin a script with "#!/bin/sh"'),
    ("E0311", "Too many arguments", "the arguments and the environment have",
     "The kernel limits arguments and environment together (execve(2), E2BIG).", "Pass large values in a file"),
    ("E0312", "The working directory can't be entered", "chdir to cwd",
     "It does not exist in the container, is no directory, leads out of the container, or the user may not enter it.",
     "Make it in the image, or choose another -w"),
    ("E0313", "No exec command", "no exec command specified", "exec needs a command.", "Write: orlop exec CONTAINER COMMAND"),
    ("E0314", "A directory on the way is closed", "may not be searched by this user",
     "Each directory of the path needs the execute permission for the user of the container.",
     "chmod o+x the directory that is named, or choose another --user"),
    # -- file systems
    ("E0401", "A bind source does not exist", "bind source path does not exist || error while creating mount source path",
     "--mount type=bind needs a source that exists; -v makes a missing directory, which failed here.",
     "Make it, or correct the path"),
    ("E0402", "A mount point has another type", "the image has something there || the image has something else there || the source is a file and the image has a directory",
     "A directory can only be mounted on a directory, a file on a file.", "Mount it somewhere else"),
    ("E0403", "A mount point is a symbolic link", "the image has a symbolic link there || a symbolic link there leads out || there is a symbolic link on the way",
     "What the image has at this place leads elsewhere; following it could lead out of the container.", "Mount it at the place the link leads to"),
    ("E0404", "Nothing may be mounted there", "inside /proc, where nothing may be mounted || only a procfs may be mounted at /proc || nothing can be mounted over the root",
     "Mounts over the root or inside /proc would undo the container's isolation.", "Choose another destination"),
    ("E0405", "A mount option is not known", "invalid volume specification || invalid mode || invalid tmpfs option",
     "The specification is SOURCE:TARGET[:OPTIONS]; options are docker's.", "Correct -v, --mount or --tmpfs"),
    ("E0406", "The root directory can't be used", "the root directory is not an absolute path || there is no such directory || it is not a directory || the root file system ... is not a directory",
     "--rootfs names an existing directory of the host, from /.", "Make one with: orlop rootfs from-binaries --with sh DIR"),
    ("E0407", "A file is not there", "Could not find the file || no such file or directory || No such file or directory",
     "The path does not exist, in the container or on the host.", "Check the path; orlop exec CONTAINER ls shows what is there"),
    ("E0408", "The disk is full", "No space left on device || no space left on device || Disk quota exceeded",
     "The file system that holds ORLOP_ROOT, or a limit on it, is full.",
     "Free some: orlop system df shows what we use, orlop system prune removes what is unused"),
    ("E0409", "The file system is read-only", "Read-only file system || is marked read-only",
     "Something was to be written where nothing can be written.", "Mount it without ro, or write elsewhere"),
    ("E0410", "Two trees overlap", "its overlay options do not fit || an overlay needs a lowerdir",
     "The kernel refused the overlay of the image's layers.", "See dmesg for overlayfs's reason"),
    ("E0411", "Id-mapped mounts are not possible", "has no id-mapped mounts || only bind mounts can be mapped",
     "The file system, or this kernel, can't show files under other ids.", "Change the owner of the files instead, or use another file system"),
    ("E0412", "A path of a copy does not fit", "invalid output path: || must be a directory or a regular file || cannot copy directory || too many symlinks in",
     "A directory goes into a directory or becomes a new one; its parent must be there.",
     "Make the directory first, or name the file that the copy is to be"),
    # -- limits
    ("E0501", "A memory limit is too small", "Minimum memory limit",
     "A container does not come up with less than 6 MB.", "Give more: -m 64m"),
    ("E0502", "Memory and swap contradict each other", "Minimum memoryswap limit || memoryswap",
     "--memory-swap is memory plus swap, so it is at least --memory, and needs it.", "Give both, or -1 for unlimited swap"),
    ("E0503", "More processors than there are", "range of CPUs",
     "--cpus is at most the number of processors.", "Give less"),
    ("E0504", "A limit can't be enforced", "no cgroup hierarchy ... controller || no cgroup v2 hierarchy || can't limit swap || has no limit for kernel memory",
     "The kernel has no controller for a limit that was asked for by name, and a limit that does not hold is worse than an error.",
     "Mount the controller, or leave the limit away"),
    ("E0505", "A weight is out of its range", "Range of blkio weight || valid memory swappiness range || range for oom score adj",
     "The kernel takes values of a range only.", "The message names the range"),
    ("E0506", "The container was killed while it started", "before the command",
     "Something killed the first process before it executed the command; mostly the OOM killer, for a memory limit that is too small.",
     "Give more memory and look at: dmesg | tail"),
    ("E0507", "The kernel refuses a change of limits", "the kernel refuses",
     "A limit below what is in use, or a set of processors that the parent does not have.", "Choose a value the container fits in"),
    # -- users
    ("E0601", "There is no such user", "unable to find user",
     "The name is not in /etc/passwd of the container; the host's users do not count.", "Use a number, or add the user to the image"),
    ("E0602", "There is no such group", "unable to find group",
     "The name is not in /etc/group of the container.", "Use a number, or add the group to the image"),
    ("E0603", "A user id is out of range", "uids and gids must be in range || it is not user or user:group",
     "Ids are numbers from 0 to 2147483647.", "Write UID, UID:GID or names"),
    # -- networks
    ("E0701", "There is no such network", "network ... not found",
     "No network has this name or id.", "See: orlop network ls"),
    ("E0702", "A port is in use", "failed to bind host port || port is already allocated || Bind for",
     "Another program of the host, or another container, listens there. The message names it where it can be seen.",
     "Publish another port, or end the program: ss -ltnp shows who holds it"),
    ("E0703", "No port is free", "all ports of",
     "Every port of the range is taken.", "Give a larger range"),
    ("E0704", "An address is in use", "Address already in use || no available addresses",
     "The address, or all of the network's, belong to other containers.", "Leave --ip away, or make a larger network"),
    ("E0705", "Subnets overlap", "Pool overlaps || all predefined address pools",
     "The subnet is used by another network or by an interface of the host.", "Give another --subnet"),
    ("E0706", "A network is in use", "has active endpoints",
     "Containers are still connected.", "Disconnect or stop them first"),
    ("E0707", "Network options contradict each other", "conflicting options",
     "Two options exclude each other, such as a host name in the host's own namespace.", "Leave one away"),
    ("E0708", "A predefined network can't be changed", "pre-defined network || on predefined",
     "bridge, host and none are always there.", "Make a network of your own: orlop network create NAME"),
    ("E0709", "An address is malformed", "invalid IP address: || invalid IP address in add-host || bad format for add-host || invalid MAC address",
     "Addresses are numbers, such as 192.0.2.1, 2001:db8::1 or 02:42:ac:11:00:02; names are not asked for.",
     "Correct the address"),
    ("E0710", "An address is not one of the network", "user specified IP address is supported only || user-specified IP address is supported on || no configured subnet contains IP address || does not belong to any of this network's subnets",
     "Only networks that were made with --subnet give addresses by choice, and only theirs.",
     "See the subnets: orlop network inspect NETWORK"),
    ("E0711", "A link can't be made", "could not get container for || Cannot link to || bad format for links || not attached to default bridge network",
     "Links lead between containers of the default bridge, and are made with the container.",
     "Put both into a network of your own: it has names"),
    ("E0712", "A network has that name", "network with name ... already exists || bridge name ... is in use by network || only one instance of ... network is allowed",
     "Networks are told apart by name, and their bridges, too.",
     "Choose another name, or remove the network that has it"),
    ("E0713", "An interface can't be a parent", "there is no link ... on this machine || parent interface was not found on the host || is already using parent interface || loopback interface is not a valid",
     "Networks of the drivers macvlan and ipvlan lie on a link of this machine's, each on one of its own.",
     "See the links: ip link"),
    ("E0714", "A container's place in a network", "endpoint with name ... already exists in network || is not connected to network || container cannot be disconnected from",
     "A container is in a network once, or not at all; host, none and others' networks are for good.",
     "See its networks: orlop inspect CONTAINER"),
    ("E0715", "A gateway or range is outside of the subnet", "no matching subnet for gateway || no matching subnet for range || every ip-range or gateway must have a corresponding subnet",
     "Gateways, ranges and auxiliary addresses lie in a --subnet of the same command.",
     "Give --subnet, or correct the address"),
    ("E0716", "A driver's option is not known", "is not known to the driver || invalid MTU:",
     "Drivers of networks have options of their own; what one does not know is refused, never ignored.",
     "Correct -o"),
    # -- images and registries
    ("E0801", "There is no such image", "No such image || Unable to find image || An image does not exist locally",
     "No image of this name, tag or digest is here.", "See: orlop images; fetch it with: orlop pull NAME"),
    ("E0802", "A registry wants a login", "unauthorized || authentication required || denied: || access to the resource is denied",
     "The registry knows the repository only for somebody who is logged in, or not at all.", "Log in with: orlop login REGISTRY"),
    ("E0803", "A registry limits requests", "toomanyrequests || Too Many Requests",
     "Too many requests came from this address or account.", "Wait, log in, or use a mirror"),
    ("E0804", "The registry does not have it", "manifest unknown || repository does not exist || name unknown",
     "The repository or the tag does not exist there.", "Check the name and the tag"),
    ("E0805", "Content does not fit its digest", "its content has the digest || its content has changed on disk || its content has the diff_id",
     "What arrived, or lies on the disk, is not what its digest promises.", "Pull it again; if it stays, the disk or the registry is damaged"),
    ("E0806", "No image for this platform", "no matching manifest || does not provide the specified platform",
     "The image exists for other platforms only.", "Choose one with --platform, or another image"),
    ("E0807", "An archive is damaged", "is truncated || is damaged || looks made to fill the disk || something else follows",
     "The archive is cut, damaged or no archive.", "Make or fetch it again"),
    ("E0808", "An archive is no image", "it holds neither index.json || it is no image || it is not a tar archive",
     "orlop load takes what save made; a plain root file system is imported.", "Use: orlop import FILE NAME"),
    ("E0809", "A name can't be resolved", "Name or service not known || Temporary failure in name resolution || no such host",
     "The registry's host name has no address here.", "Check the name, /etc/resolv.conf and the network"),
    ("E0810", "A certificate is not trusted", "certificate verify failed || x509",
     "The registry's TLS certificate is not signed by an authority that this machine knows.",
     "Install its authority below /etc/docker/certs.d/HOST/ca.crt, or in the system's store"),
    # -- volumes
    ("E0901", "There is no such volume", "no such volume", "No volume has this name.", "See: orlop volume ls"),
    ("E0902", "A volume is in use", "volume is in use", "Containers use the volume, also some that do not run.", "Remove these containers first"),
    ("E0903", "A size can't be kept here", "requested but no quota support",
     "The file system keeps no project quotas, and no file system in a file can be had: mkfs.ext4 or loop devices are missing.",
     "Install e2fsprogs and load the module loop, as root; or mount the file system of ORLOP_ROOT with prjquota"),
    ("E0904", "A volume's name is not valid", "volume name is too short || includes invalid characters for a local volume name",
     "Names of volumes have at least two letters, digits, dots, hyphens or underscores.",
     "Choose a name such as data-1; a directory of this machine begins with a slash"),
    ("E0905", "A volume has that name", "there is a volume",
     "Volumes are told apart by name.",
     "Choose another name, or remove the volume that has it: orlop volume rm NAME"),
    ("E0906", "Two mounts at one place", "Duplicate mount point: ",
     "Each place in the container is mounted on once.",
     "Leave one of the two away"),
    ("E0907", "There is no such volume driver", "error looking up volume plugin",
     "Volumes are local; there are no plugins.",
     "Leave the driver away"),
    ("E0908", "A volume's options do not fit", "missing required option: || invalid option: ",
     "The driver local knows type, device, o and size, as docker's does.",
     "Correct --opt"),
    ("E0909", "It is no snapshot of this volume", "is no snapshot of it",
     "A volume goes back only to what was taken of it.",
     "List them: orlop volume ls --filter label=io.orlop.snapshot-of=VOLUME"),
    ("E0910", "Running containers mount the volume", "running containers mount it: ",
     "What a volume holds is not exchanged under a process.",
     "Stop them first; the message names them"),
    # -- states
    ("E1001", "The container does not run", "is not running || it is not running",
     "The verb needs a process.", "Start it with: orlop start NAME; orlop why NAME tells why it ended"),
    ("E1002", "The container runs", "container is running: || it is running already || another start of it is under way",
     "The verb needs a container that does not run.", "Stop it with: orlop stop NAME, or force it with -f"),
    ("E1003", "The container is paused, or is not", "paused container || is paused || it is paused || container is paused and || already paused || is not paused",
     "Its processes are frozen, or the other way round.", "orlop unpause NAME lets it run on"),
    ("E1004", "The container is between two runs", "is restarting, wait until || restarting container || container is restarting:",
     "Its restart policy starts it again in a moment.", "Wait, or stop it with: orlop stop NAME"),
    ("E1005", "A stopped container can't be attached", "cannot attach to a stopped container", "There is nothing to attach to.", "Start it with: orlop start -a NAME"),
    ("E1006", "The process can't be killed", "does not end on SIGKILL",
     "It waits inside the kernel, mostly for a disk or a network file system.", "See where: cat /proc/PID/stack"),
    ("E1007", "A namespace has ended", "it has ended with its first process", "The process ended while something was to be started in it.", "Start the container again"),
    ("E1008", "Nobody's namespace can be joined", "namespace of a non running container || cannot join network of a non running container || non-shareable IPC",
     "Namespaces of a container are there while it runs, its IPC namespace for others only with --ipc shareable.",
     "Start the other container first, or make it anew with --ipc shareable"),
    # -- supervision
    ("E1101", "A restart policy is not known", "invalid restart policy || with restart policy",
     "Known are no, on-failure[:N], always and unless-stopped; --rm excludes them.", "Correct --restart"),
    ("E1102", "A dependency is not as wanted", "its dependency || it depends on container",
     "A container that this one depends on is missing, ended, or not healthy.", "See: orlop why DEPENDENCY"),
    ("E1103", "Dependencies form a cycle", "its dependencies form a cycle || it depends on itself",
     "Each would wait for the other.", "Leave one --depends-on away"),
    ("E1104", "A dependency's condition is not known", "there is no condition", "Known are started, healthy and completed.", "Correct --depends-on"),
    ("E1105", "A health check is malformed", "in the health check || is no place to connect to || in Healthcheck || needs a health check || on failure",
     "A check is a command, :PORT/PATH for HTTP or :PORT for TCP; times are at least a millisecond.", "Correct the --health options"),
    ("E1106", "The monitor does not answer", "its monitor does not || but its monitor || its monitor died || its monitor has not answered",
     "Each container has a process of ours beside it; it was killed, or the machine is very slow.", "See: orlop ps -a and the engine's log"),
    # -- the engine
    ("E1201", "The engine can't be reached", "the connection broke || none runs in || the engine closed the connection",
     "The engine ended, or does not answer.", "Try again: the next command starts one; read $ORLOP_ROOT/engine.log"),
    ("E1202", "Another engine serves this directory", "another process serves it || another process holds || another engine has",
     "One engine at a time serves one ORLOP_RUN, and has one ORLOP_ROOT.", "Use others, or end the other engine: orlop engine stop"),
    ("E1203", "A directory is not ours", "Permission denied || Operation not permitted",
     "The kernel refused access: a wrong owner, missing privileges, or a read-only or protected place.",
     "Check the owner of what the message names, and run as root where root is needed"),
    ("E1204", "Too many open files", "Too many open files",
     "The process or the machine has no descriptor left.", "Raise ulimit -n or fs.file-max"),
    ("E1205", "No process can be made", "fork: || Resource temporarily unavailable || Cannot allocate memory",
     "The machine is out of memory or processes.", "End something, or raise ulimit -u and pids.max of the parent cgroup"),
    ("E1206", "The environment names no directory", "XDG_DATA_HOME nor HOME",
     "Without root, data lie below the user's own directories.", "Set ORLOP_ROOT and ORLOP_RUN"),
    ("E1207", "The engine is busy", "the engine has ... already", "Every queue has a bound.", "Try again in a moment"),
    ("E1208", "The key of the secrets can't be used", "it is sealed with another key than || others may read their key || their key ... can't be read || their key ... is no file",
     "Secrets are sealed on the disk with a key that only their user may read.",
     "Put the key back that was in use, mode 0600; without it the secrets are lost and are to be made anew"),
    ("E1209", "The engine has ended", "the engine ended || the engine is stopping",
     "The engine ended while it was asked. Containers run on.",
     "Ask again: the next command starts an engine"),
    # -- the kernel
    ("E1301", "This version does not have it", "this version || is not supported", "It exists in docker and not here yet, or not for this purpose.", "Leave the option away"),
    ("E1302", "The kernel is too old", "this kernel is older than", "A feature was asked for by name that came with a later kernel.", "Use a newer kernel, or leave it away"),
    ("E1303", "A security module is not there", "is active on this machine || is not active on this",
     "A profile or label was asked for that this machine's security modules can't set.", "Leave --security-opt away"),
    ("E1304", "A cgroup that systemd did not make", "systemd named no job || systemd's job ended as || makes cgroups only where cgroup v2 is alone",
     "With the systemd cgroup manager it is systemd that makes a container's cgroup.",
     "See what it says: journalctl -e; or use the cgroupfs manager"),
    # -- builds
    ("E1401", "There is no such instruction", "unknown instruction: ",
     "A line of the Dockerfile begins with a word that is no instruction; a line that should go on one before needs a backslash at the end of that.",
     "Correct the word, or end the line before with a backslash"),
    ("E1402", "An instruction has no such flag", "unknown flag: || missing a value on flag: || duplicate flag specified: || expecting boolean value for flag",
     "Flags stand directly after the instruction, each once, most as --name=value.", "See docker's Dockerfile reference for the instruction's flags"),
    ("E1403", "An instruction's arguments do not fit", "requires at least one argument || requires exactly one argument || requires at least two arguments || FROM requires either || Must be of the form: name=value || names can not be blank",
     "The instruction needs more, fewer or other words than the line has.", "Correct the line that the message names"),
    ("E1404", "There is no FROM", "no build stage in current context || file with no instructions",
     "A Dockerfile begins with FROM; only comments and ARG may stand before it.", "Begin with FROM"),
    ("E1405", "A here-document does not end", "unterminated heredoc",
     "The text of a here-document ends at a line that is the word after << and nothing else; only <<- allows tabs before it.", "Add the line, without spaces around it"),
    ("E1406", "A variable can't be replaced", "failed to process",
     "The word has a ${...} or a quote that is not closed, a form that is not known, or a variable that ${name:?} demands.",
     "Close it, or escape a dollar that is meant as it is"),
    ("E1407", "A stage is not there", "invalid stage index || it needs to be defined before current stage || circular dependency detected on stage || could not be found",
     "--from, a mount's from= and --target name stages by name or number; a stage uses only those before it.", "See the stages with: orlop build --call=targets"),
    ("E1408", "The name of a base image is not valid", "failed to parse stage name || base name (",
     "What FROM or --from names, after its variables were replaced, is neither a stage nor an image's name.",
     "Give the build arguments that it needs, or correct the name"),
    ("E1409", "A mount of RUN is malformed", "unsupported mount type || invalid mount target || unexpected key || must be a key=value pair || failed to parse csv mounts",
     "--mount is a list of key=value with type= bind, cache, tmpfs, secret or ssh.", "Write it like --mount=type=cache,target=/var/cache/apt"),
    ("E1410", "A permission of --chmod is malformed", "invalid chmod parameter",
     "--chmod takes octal digits up to 07777, or what chmod(1) takes.", "Write 755, or u=rwX,go=rX"),
    ("E1411", "Checks of the Dockerfile fail", "lint violation found for rules",
     "The Dockerfile, or a build argument, asks that warnings end the build (check=error=true).", "See them with: orlop build --check"),
    ("E1412", "A bake file can't be read", "there is no variable named || there is no function named || variable cycle not allowed || expected an attribute or a block || expected a value",
     "The HCL or JSON of the bake file is malformed, or an expression of it has no value.", "Correct the line that the message names; see what is understood with: orlop bake --print"),
    ("E1413", "There is no such target", "failed to find target", "No target and no group of the bake files is called so.", "See them with: orlop bake --list=targets"),
    ("E1414", "A build wants more than it was granted", "additional privileges requested",
     "The Dockerfile or the bake file asks for the host's network or for a step without confinement; files come from others, so it is granted by name.",
     "Grant it where you trust the file: --allow"),
    ("E1415", "A command of a build failed", "did not complete successfully: exit code",
     "A RUN ended with another status than 0; its last lines stand above, all of them in the build's log.",
     "orlop build logs BUILD shows all of it, orlop build shell BUILD enters the step as it was"),
    ("E1416", "There is nothing to copy", "failed to compute cache key",
     "The path is not in the context or the stage, .dockerignore leaves it out, or a link there leads out.",
     "Look at the path from the context's root, and at .dockerignore"),
    # -- classes: what no other row describes
    ("E1901", "Something does not exist", "", "The named object is not there.", "Check its name"),
    ("E1902", "A state or a name is in the way", "", "The object exists, and its state or name forbids the verb.", "The message says which"),
    ("E1903", "The input is not right", "", "What was given is malformed or contradicts itself.", "The message says which part"),
    ("E1904", "It is not allowed", "", "The caller may not do this.", "Ask somebody who may, or use another account"),
    ("E1905", "Something is missing, busy or gone", "", "Something outside the request did not do its part.", "Try again, or repair what the message names"),
    ("E1906", "This machine can't do it", "", "The kernel, the machine or this version does not have what was asked for by name.", "Leave it away"),
    ("E1907", "The command can't be executed", "", "The container was made, its command could not be started.", "The message says why"),
    ("E1908", "A defect of ours", "", "Something happened that should not be able to happen.", "Please report it with the lines that were printed"),
)
# fmt: on

ENTRIES = _rows()
GENERAL = {
    "not-found": "E1901",
    "conflict": "E1902",
    "invalid": "E1903",
    "denied": "E1904",
    "unavailable": "E1905",
    "unsupported": "E1906",
    "command": "E1907",
    "internal": "E1908",
    "error": "E1908",
}
