"""The tree of commands: which word leads to which row, and where it lies. Nothing is imported before it is used."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .command import Command

# word: (package and module below this one, its Command, what it does)
Row = tuple[str, str, str]

_ADOPT = ("containers.adopt", "ADOPT", "Make a container here as docker or podman has it, without touching theirs")
_ATTACH = (
    "containers.attach",
    "ATTACH",
    "Attach local standard input, output, and error streams to a running container",
)
_BAKE = ("build.bake", "BAKE", "Build the targets of a bake file")
_BUILD = ("build.build", "BUILD", "Build an image from a Dockerfile")
_CP = ("containers.cp", "CP", "Copy files/folders between a container and the local filesystem")
_COMMIT = ("containers.layer", "COMMIT", "Create a new image from a container's changes")
_CREATE = ("containers.run", "CREATE", "Create a new container")
_EVENTS = ("verbs.events", "EVENTS", "Get real time events from the server")
_DIFF = ("containers.layer", "DIFF", "Inspect changes to files or directories on a container's filesystem")
_EXEC = ("containers.exec", "EXEC", "Execute a command in a running container")
_EXPORT = ("containers.layer", "EXPORT", "Export a container's filesystem as a tar archive")
_IMAGES = ("images.images", "IMAGES", "List images")
_IMPORT = ("images.images", "IMPORT", "Import the contents from a tarball to create a filesystem image")
_INFO = ("verbs.info", "INFO", "Display system-wide information")
_KILL = ("containers.lifecycle", "KILL", "Kill one or more running containers")
_LOGIN = ("images.login", "LOGIN", "Authenticate to a registry")
_LOGOUT = ("images.login", "LOGOUT", "Log out from a registry")
_LOGS = ("containers.logs", "LOGS", "Fetch the logs of a container")
_PAUSE = ("containers.lifecycle", "PAUSE", "Pause all processes within one or more containers")
_PORT = ("containers.top", "PORT", "List port mappings or a specific mapping for the container")
_HISTORY = ("images.history", "HISTORY", "Show the history of an image")
_LOAD = ("images.archive", "LOAD", "Load an image from a tar archive or STDIN")
_SAVE = ("images.archive", "SAVE", "Save one or more images to a tar archive (streamed to STDOUT by default)")
_RMI = ("images.names", "RMI", "Remove one or more images")
_TAG = ("images.names", "TAG", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE")
_PUSH = ("images.push", "PUSH", "Upload an image to a registry")
_PULL = ("images.pull", "PULL", "Download an image from a registry")
_PS = ("containers.ps", "PS", "List containers")
_REBASE = ("build.rebase", "REBASE", "Put an image's own layers on another base image, without building")
_RENAME = ("containers.lifecycle", "RENAME", "Rename a container")
_RESTART = ("containers.lifecycle", "RESTART", "Restart one or more containers")
_RM = ("containers.lifecycle", "RM", "Remove one or more containers")
_RUN = ("containers.run", "RUN", "Create and run a new container from an image")
_SHOW_RUN = ("containers.showrun", "SHOW_RUN", "Print the command line that made a container")
_WHY = ("containers.why", "WHY", "Tell why a container ended, or why it does not run")
_START = ("containers.attach", "START", "Start one or more stopped containers")
_STATS = ("containers.stats", "STATS", "Display a live stream of container(s) resource usage statistics")
_STOP = ("containers.lifecycle", "STOP", "Stop one or more running containers")
_TOP = ("containers.top", "TOP", "Display the running processes of a container")
_UNPAUSE = ("containers.lifecycle", "UNPAUSE", "Unpause all processes within one or more containers")
_UPDATE = ("containers.update", "UPDATE", "Update configuration of one or more containers")
_UPGRADE = (
    "containers.upgrade",
    "UPGRADE",
    "Put another image below a container, and the old one back if the new one fails",
)
_VERSION = ("verbs.info", "VERSION", "Show the Orlop version information")
_WAIT = ("containers.lifecycle", "WAIT", "Block until one or more containers stop, then print their exit codes")

COMMON: dict[str, Row] = {
    "run": _RUN,
    "exec": _EXEC,
    "ps": _PS,
    "build": _BUILD,
    "pull": _PULL,
    "push": _PUSH,
    "images": _IMAGES,
    "version": _VERSION,
    "info": _INFO,
}

COMMANDS: dict[str, Row] = {
    "adopt": _ADOPT,
    "attach": _ATTACH,
    "audit": ("verbs.audit", "AUDIT", "Say whether a container is secure and isolated, with the facts"),
    "bake": _BAKE,
    "bootstrap": ("images.bootstrap", "BOOTSTRAP", "Fill a registry with images that stand for docker.io's"),
    "commit": _COMMIT,
    "compose": ("compose.entry", "COMPOSE", "Define and run applications of several containers"),
    "cp": _CP,
    "create": _CREATE,
    "dashboard": (
        "verbs.dashboard",
        "DASHBOARD",
        "Show containers, images, volumes, networks and events in a browser on this machine, read only",
    ),
    "diff": _DIFF,
    "doctor": ("verbs.doctor", "DOCTOR", "Say what this machine can do, and what to do about the rest"),
    "export": _EXPORT,
    "events": _EVENTS,
    "explain": ("verbs.explain", "EXPLAIN", "Say in words how a container is isolated, and by which kernel calls"),
    "import": _IMPORT,
    "inspect": ("verbs.inspect", "INSPECT", "Return low-level information on containers and images"),
    "kill": _KILL,
    "logs": _LOGS,
    "nsenter": (
        "namespaces.nsenter",
        "NSENTER",
        "Run a program in the namespaces of a process or a container, as nsenter(1) does",
    ),
    "pause": _PAUSE,
    "port": _PORT,
    "rebase": _REBASE,
    "rename": _RENAME,
    "restart": _RESTART,
    "rm": _RM,
    "history": _HISTORY,
    "load": _LOAD,
    "login": _LOGIN,
    "logout": _LOGOUT,
    "rmi": _RMI,
    "search": ("images.login", "SEARCH", "Search registries for images"),
    "save": _SAVE,
    "tag": _TAG,
    "serve": ("verbs.engine", "SERVE", "Run the engine in the foreground"),
    "show-run": _SHOW_RUN,
    "start": _START,
    "stats": _STATS,
    "stop": _STOP,
    "top": _TOP,
    "unpause": _UNPAUSE,
    "unshare": ("namespaces.unshare", "UNSHARE", "Run a program in new namespaces, as unshare(1) does"),
    "update": _UPDATE,
    "upgrade": _UPGRADE,
    "wait": _WAIT,
    "why": _WHY,
}

GROUPS: dict[str, tuple[str, dict[str, Row]]] = {
    "buildah": (
        "Build images by hand, in buildah's words",
        {
            "add": ("build.byhand", "ADD", "Add files, folders, unpacked archives or URLs to a working container"),
            "bud": _BUILD,
            "build": _BUILD,
            "commit": ("build.byhand", "COMMIT", "Give the image of a working container a name"),
            "config": ("build.byhand", "CONFIG", "Change the configuration of a working container"),
            "containers": ("build.byhand", "CONTAINERS", "List working containers"),
            "copy": ("build.byhand", "COPY", "Copy files and folders into a working container"),
            "from": ("build.byhand", "FROM", "Make a working container from an image, or from scratch"),
            "images": _IMAGES,
            "info": _INFO,
            "inspect": ("build.workmount", "INSPECT", "Display information on a working container or an image"),
            "login": _LOGIN,
            "logout": _LOGOUT,
            "manifest": ("build.buildah", "MANIFEST", "Make lists of images: manifest create|add|inspect|push|..."),
            "mount": ("build.workmount", "MOUNT", "Mount working containers, or list what is mounted"),
            "pull": _PULL,
            "push": _PUSH,
            "rename": ("build.workmount", "RENAME", "Rename a working container"),
            "rm": ("build.byhand", "RM", "Remove working containers"),
            "rmi": _RMI,
            "run": ("build.byhand", "RUN", "Run a command in a working container"),
            "tag": _TAG,
            "umount": ("build.workmount", "UMOUNT", "Unmount working containers, and keep what was written"),
            "unshare": ("build.buildah", "UNSHARE", "Run a program as root among your own ids"),
            "version": _VERSION,
        },
    ),
    "builder": (
        "Manage builds",
        {
            "build": _BUILD,
            "cache": ("build.cachemounts", "CACHE", "Manage cache mounts: builder cache ls|export|import|pin|unpin"),
            "du": ("build.builder", "DU", "Show what the build cache holds"),
            "logs": ("build.builder", "LOGS", "Print the whole output of a step"),
            "ls": ("build.builder", "LIST", "List builds, or the steps of one"),
            "pin": ("build.builder", "PIN", "Have pruning leave cache mounts alone"),
            "prune": ("build.builder", "PRUNE", "Remove build cache"),
            "shell": ("build.builder", "SHELL", "Enter a step of a build"),
            "unpin": ("build.builder", "UNPIN", "Let pruning remove cache mounts again"),
        },
    ),
    "buildx": ("Build images, in docker buildx's words", {"bake": _BAKE, "build": _BUILD}),
    "config": (
        "Manage configs, which containers get as files, and the engine's settings",
        {
            "create": ("verbs.secret", "CREATE_CONFIG", "Create a config from a file or STDIN"),
            "get": ("verbs.setting", "GET", "Print the engine's settings"),
            "inspect": ("verbs.secret", "INSPECT_CONFIG", "Display detailed information on one or more configs"),
            "ls": ("verbs.secret", "LS_CONFIGS", "List configs"),
            "rm": ("verbs.secret", "RM_CONFIG", "Remove one or more configs"),
            "set": ("verbs.setting", "SET", "Change one of the engine's settings (config security=strict)"),
        },
    ),
    "container": (
        "Manage containers",
        {
            "adopt": _ADOPT,
            "attach": _ATTACH,
            "commit": _COMMIT,
            "clone": ("containers.showrun", "CLONE", "Create a container with the configuration of another"),
            "cp": _CP,
            "create": _CREATE,
            "diff": _DIFF,
            "export": _EXPORT,
            "exec": _EXEC,
            "exists": ("verbs.inspect", "EXISTS_CONTAINER", "Tell by the exit status whether a container exists"),
            "explain": COMMANDS["explain"],
            "inspect": ("verbs.inspect", "INSPECT_CONTAINER", "Display detailed information on one or more containers"),
            "kill": _KILL,
            "logs": _LOGS,
            "ls": _PS,
            "pause": _PAUSE,
            "port": _PORT,
            "prune": ("containers.lifecycle", "PRUNE", "Remove all stopped containers"),
            "rename": _RENAME,
            "restart": _RESTART,
            "rm": _RM,
            "run": _RUN,
            "show-run": _SHOW_RUN,
            "start": _START,
            "stats": _STATS,
            "stop": _STOP,
            "top": _TOP,
            "unpause": _UNPAUSE,
            "update": _UPDATE,
            "upgrade": _UPGRADE,
            "wait": _WAIT,
            "why": _WHY,
        },
    ),
    "engine": (
        "Manage the engine that keeps your containers",
        {
            "status": ("verbs.engine", "STATUS", "Tell whether the engine runs, without starting it"),
            "stop": ("verbs.engine", "ENGINE_STOP", "Stop the engine; its containers run on"),
        },
    ),
    "image": (
        "Manage images",
        {
            "add": ("build.byhand", "ADD", "Add files, folders, unpacked archives or URLs to a working container"),
            "build": _BUILD,
            "commit": ("build.byhand", "COMMIT", "Give the image of a working container a name"),
            "config": ("build.byhand", "CONFIG", "Change the configuration of a working container"),
            "copy": ("images.copy", "COPY", "Copy an image between registries, archives, directories and the store"),
            "diff": ("images.tree", "DIFF", "Show how the files of two images differ"),
            "from": ("build.byhand", "FROM", "Make a working container from an image, or from scratch"),
            "import": _IMPORT,
            "exists": ("verbs.inspect", "EXISTS_IMAGE", "Tell by the exit status whether an image exists"),
            "inspect": ("verbs.inspect", "INSPECT_IMAGE", "Display detailed information on one or more images"),
            "ls": _IMAGES,
            "mount": ("images.mount", "MOUNT", "Mount an image read-only at a directory, or list what is mounted"),
            "prune": ("images.names", "PRUNE", "Remove unused images"),
            "pull": _PULL,
            "push": _PUSH,
            "history": _HISTORY,
            "load": _LOAD,
            "rebase": _REBASE,
            "rm": _RMI,
            "run": ("build.byhand", "RUN", "Run a command in a working container"),
            "save": _SAVE,
            "sync": ("images.copy", "SYNC", "Copy all tags of a registry's repository"),
            "tag": _TAG,
            "tree": ("images.tree", "TREE", "Print the layers of an image, and which images end with each"),
            "unmount": ("images.mount", "UNMOUNT", "Unmount images"),
        },
    ),
    "machine": (
        "Manage virtual machines that run an engine",
        {
            "init": ("verbs.machine", "INIT", "Make a virtual machine of this machine's programs"),
            "inspect": ("verbs.machine", "INSPECT", "Display what a virtual machine is"),
            "ls": ("verbs.machine", "LS", "List virtual machines"),
            "rm": ("verbs.machine", "RM", "Remove a virtual machine with its disk"),
            "ssh": (
                "verbs.machine",
                "SSH",
                "Open a shell in a virtual machine, or run a command there (no sshd is needed)",
            ),
            "start": ("verbs.machine", "START", "Start a virtual machine, and wait until its engine answers"),
            "stop": ("verbs.machine", "STOP", "Switch a virtual machine off"),
        },
    ),
    "manifest": (
        "Manage Docker image manifests and manifest lists",
        {
            "annotate": ("images.manifest", "ANNOTATE", "Add additional information to a local image manifest"),
            "create": (
                "images.manifest",
                "CREATE",
                "Create a local manifest list for annotating and pushing to a registry",
            ),
            "inspect": ("images.manifest", "INSPECT", "Display an image manifest, or manifest list"),
            "push": ("images.manifest", "PUSH", "Push a manifest list to a repository"),
            "rm": ("images.manifest", "RM", "Delete one or more manifest lists from local storage"),
        },
    ),
    "network": (
        "Manage networks",
        {
            "cni": ("verbs.network", "CNI", "Ask the plugins of a CNI network: network cni status|check|gc NETWORK"),
            "connect": ("verbs.network", "CONNECT", "Connect a container to a network"),
            "create": ("verbs.network", "CREATE", "Create a network"),
            "disconnect": ("verbs.network", "DISCONNECT", "Disconnect a container from a network"),
            "dns": (
                "verbs.network",
                "DNS",
                "Say how a name is resolved for a container: network dns trace CONTAINER NAME",
            ),
            "egress": ("verbs.network", "EGRESS", "Show what a container has reached outside, or was denied"),
            "explain": ("verbs.network", "EXPLAIN", "Say who can reach a container's port, and which rule decides"),
            "exists": ("verbs.inspect", "EXISTS_NETWORK", "Tell by the exit status whether a network exists"),
            "inspect": ("verbs.inspect", "INSPECT_NETWORK", "Display detailed information on one or more networks"),
            "ls": ("verbs.network", "LS", "List networks"),
            "prune": ("verbs.network", "PRUNE", "Remove all unused networks"),
            "rm": ("verbs.network", "RM", "Remove one or more networks"),
        },
    ),
    "registry": (
        "Serve images to others",
        {
            "serve": ("verbs.registry", "SERVE", "Serve a registry"),
            "user": ("verbs.registry", "USER", "Manage a registry's users: registry user add|rm|ls"),
        },
    ),
    "rootfs": (
        "Make root file systems",
        {"from-binaries": ("verbs.rootfs", "FROM_BINARIES", "Copy programs and all that they need into a directory")},
    ),
    "secret": (
        "Manage secrets, which containers get as files in memory",
        {
            "create": ("verbs.secret", "CREATE", "Create a secret from a file or STDIN as content"),
            "inspect": ("verbs.secret", "INSPECT", "Display detailed information on one or more secrets"),
            "ls": ("verbs.secret", "LS", "List secrets"),
            "rekey": ("verbs.secret", "REKEY", "Renew the key that secrets are sealed with"),
            "rm": ("verbs.secret", "RM", "Remove one or more secrets"),
        },
    ),
    "skopeo": (
        "Work with images wherever they are, in skopeo's words",
        {
            "copy": ("images.skopeo", "COPY", "Copy an image from one place to another"),
            "delete": ("images.skopeo", "DELETE", "Delete an image of a registry"),
            "inspect": ("images.skopeo", "INSPECT", "Describe an image without bringing it here"),
            "list-tags": ("images.skopeo", "LIST_TAGS", "List the tags of a registry's repository"),
            "login": COMMANDS["login"],
            "logout": COMMANDS["logout"],
            "manifest-digest": ("images.skopeo", "MANIFEST_DIGEST", "Compute the digest of a manifest's file"),
            "sync": ("images.skopeo", "SYNC", "Copy all tags of a repository: --src docker --dest dir|docker"),
        },
    ),
    "socket": (
        "Manage sockets that speak docker's API with less power",
        {
            "audit": ("verbs.socket", "AUDIT", "Print what was asked of a scoped socket"),
            "create": ("verbs.socket", "CREATE", "Open a socket that speaks docker's API with less power"),
            "ls": ("verbs.socket", "LS", "List scoped sockets"),
            "rm": ("verbs.socket", "RM", "Close and remove scoped sockets"),
        },
    ),
    "system": (
        "Manage Orlop",
        {
            "events": _EVENTS,
            "df": ("verbs.system", "DF", "Show disk usage"),
            "fsck": ("verbs.system", "FSCK", "Look for damage and leftovers in the data directory"),
            "info": _INFO,
            "prune": ("verbs.system", "PRUNE", "Remove unused data"),
        },
    ),
    "volume": (
        "Manage volumes",
        {
            "clone": ("verbs.volume_data", "CLONE", "Make a volume with the content of another"),
            "create": ("verbs.volume", "CREATE", "Create a volume"),
            "diff": ("verbs.volume_data", "DIFF", "Show what changed in a volume since a snapshot of it"),
            "du": ("verbs.volume_data", "DU", "Show how much volumes occupy"),
            "export": ("verbs.volume_data", "EXPORT", "Export the contents of a volume as a tar archive"),
            "import": ("verbs.volume_data", "IMPORT", "Make a volume of a tar archive"),
            "exists": ("verbs.inspect", "EXISTS_VOLUME", "Tell by the exit status whether a volume exists"),
            "inspect": ("verbs.inspect", "INSPECT_VOLUME", "Display detailed information on one or more volumes"),
            "ls": ("verbs.volume", "LS", "List volumes"),
            "mv": ("verbs.volume_data", "MV", "Rename a volume, also while containers use it"),
            "prune": ("verbs.volume", "PRUNE", "Remove unused local volumes"),
            "rm": ("verbs.volume", "RM", "Remove one or more volumes"),
            "rollback": ("verbs.volume_data", "ROLLBACK", "Give a volume what a snapshot of it holds"),
            "snapshot": ("verbs.volume_data", "SNAPSHOT", "Keep what a volume holds now"),
            "who": ("verbs.volume_data", "WHO", "Show which containers mount volumes"),
        },
    ),
}

# Second names of groups.
GROUP_ALIASES = {"net": "network"}

# Second names of words in a group.
ALIASES = {
    ("config", "list"): "ls",
    ("config", "remove"): "rm",
    ("container", "list"): "ls",
    ("container", "ps"): "ls",
    ("container", "remove"): "rm",
    ("image", "list"): "ls",
    ("image", "remove"): "rm",
    ("machine", "list"): "ls",
    ("network", "list"): "ls",
    ("network", "remove"): "rm",
    ("secret", "list"): "ls",
    ("secret", "remove"): "rm",
    ("volume", "list"): "ls",
    ("volume", "remove"): "rm",
    ("volume", "rename"): "mv",
}

# docker's commands that are not there yet: told apart from typing errors.
NOT_YET = frozenset("checkpoint compose context node plugin service stack swarm trust volume.update".split())


def find(group: str, word: str) -> Row | None:
    """Return the row of a word at the top (group "") or in a group, None when there is none."""
    word = ALIASES.get((group, word), word)
    if group:
        return GROUPS[group][1].get(word)
    return COMMON.get(word) or COMMANDS.get(word)


def load(row: Row) -> Command:
    """Import the module of a row and return its Command."""
    name = f"{__package__}.{row[0]}"
    module = __import__(name, fromlist=[row[1]])
    command: Command = getattr(module, row[1])
    return command
