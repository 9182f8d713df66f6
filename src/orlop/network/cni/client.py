"""The verbs of CNI over a list of plugins. CNI specification 1.1.0, section 3.

ADD hands each plugin what the one before it returned, DEL goes the other way round; what was added is kept by the
caller (`Added`), because a plugin is told at its end what it did at the beginning, with the configuration of then.
"""

from __future__ import annotations

from ...spec import jsonio
from ...spec.errors import Internal, OrlopError, Unsupported
from . import versions
from .conflist import VERSIONS, Conflist, has_capability
from .plugin import Plugins, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

RESULT_BYTES_MAX = 1 << 16  # it is kept, with those of other networks, in a file that has its limit
MARKS = ("cni.dev/valid-attachments", "cni.dev/attachments")  # the second is what the specification said at first


class Place:
    """A container's place in a network of plugins. netns: a path, "" once it is gone.

    capabilities: what the runtime has to say, by the capability's name: portMappings, ips, mac, aliases.
    needed: those of them that a plugin has to take.
    """

    __slots__ = ("args", "capabilities", "container", "interface", "needed", "netns")

    def __init__(
        self,
        container: str,
        interface: str,
        netns: str = "",
        capabilities: Mapping[str, object] | None = None,
        args: str = "",
        needed: Collection[str] = ("portMappings",),
    ) -> None:
        self.container = container
        self.interface = interface
        self.netns = netns
        self.capabilities = dict(capabilities or {})
        self.args = args
        self.needed = needed

    def request(self, command: str) -> Request:
        return Request(command, self.container, self.netns, self.interface, self.args)


def add(
    plugins: Plugins, network: Conflist, place: Place, keep: Callable[[dict[str, object]], None] | None = None
) -> dict[str, object]:
    """Connect a container; return the last plugin's result. Raises OrlopError; everything is deleted again then.

    keep: is told of each result, for whoever has to delete when we can't.
    """
    for capability in place.capabilities:
        if capability in place.needed and not network.can(capability):
            cause = f"no plugin of the network has the capability {capability}"
            kind = "portmap" if capability == "portMappings" else "NAME"
            hint = f'add a plugin such as {{"type": "{kind}", "capabilities": {{"{capability}": true}}}}'
            raise Unsupported("connect", f"CNI network {network.name}", cause, hint=hint)
    result: dict[str, object] = {}
    try:
        for plugin in network.plugins:
            config = _config(network, plugin, place, result)
            said = plugins.run(_type(plugin), place.request("ADD"), config)
            if said:
                result = _spoken(said, network, _type(plugin))
                if keep is not None:
                    keep(result)
    except OrlopError:
        try:
            delete(plugins, network, place, result)
        except OrlopError:
            pass  # what was wrong first is what is told
        raise
    return result


def _spoken(said: dict[str, object], network: Conflist, kind: str) -> dict[str, object]:
    """Return a result in the form of the network's version; one that names none has it. Raises Internal."""
    version = said.get("cniVersion") or network.version
    subject, cause = f"CNI plugin {kind}", "its answer to ADD can't be understood"
    if version not in VERSIONS:
        cause += f": its cniVersion ({str(version)[:40]!r}) is not spoken here"
        raise Internal("connect", subject, cause, hint=f"known are {', '.join(VERSIONS)}")
    if len(jsonio.dump(said)) > RESULT_BYTES_MAX:
        raise Internal("connect", subject, f"{cause}: it has more than {RESULT_BYTES_MAX} bytes", hint="")
    if version == network.version:
        return {**said, "cniVersion": version}
    try:
        return versions.told(said, network.version)
    except ValueError as wrong:
        raise Internal("connect", subject, f"{cause}: {wrong}", hint="report it to whoever made it") from None


def delete(plugins: Plugins, network: Conflist, place: Place, result: Mapping[str, object]) -> None:
    """Disconnect a container. Every plugin is asked, whatever the others say. Raises OrlopError: the first trouble."""
    wrong: OrlopError | None = None
    for plugin in reversed(network.plugins):
        try:
            delete_of(plugins, network, plugin, (place, result))
        except OrlopError as failure:
            wrong = wrong or failure
    if wrong is not None:
        raise wrong


def delete_of(
    plugins: Plugins, network: Conflist, plugin: Mapping[str, object], attachment: tuple[Place, Mapping[str, object]]
) -> None:
    """Have one plugin of a network disconnect a container. Raises OrlopError."""
    place, result = attachment
    known = result if network.at_least("0.4.0") else {}
    plugins.run(_type(plugin), place.request("DEL"), _config(network, plugin, place, known))


def check(plugins: Plugins, network: Conflist, place: Place, result: Mapping[str, object]) -> None:
    """Have each plugin see whether a container's network is still as it made it. Raises OrlopError when it is not."""
    if network.disable_check or not network.at_least("0.4.0"):
        return
    for plugin in network.plugins:
        plugins.run(_type(plugin), place.request("CHECK"), _config(network, plugin, place, result))


def status(plugins: Plugins, network: Conflist) -> None:
    """Tell whether the network is ready for ADD. Raises OrlopError: why it is not.

    Before 1.1.0 there is no such verb: the plugins are there and speak the list's version, or not.
    """
    for plugin in network.plugins:
        if network.at_least("1.1.0"):
            plugins.run(_type(plugin), Request("STATUS"), _config(network, plugin, None, {}))
            continue
        told = plugins.run(_type(plugin), Request("VERSION"), {"cniVersion": network.version})
        supported = told.get("supportedVersions")
        if not isinstance(supported, list) or network.version not in supported:
            cause = f"it does not speak {network.version}, which the network {network.name} has"
            raise Unsupported("use", f"CNI plugin {_type(plugin)}", cause, hint="install a newer one")


def collect(plugins: Plugins, network: Conflist, valid: Iterable[tuple[str, str]]) -> None:
    """Have plugins let go of everything but these (container, interface). Nothing is done before 1.1.0.

    Raises OrlopError: the first trouble, after all were asked.
    """
    if network.disable_gc or not network.at_least("1.1.0"):
        return
    wrong: OrlopError | None = None
    attachments = [{"containerID": container, "ifname": interface} for container, interface in valid]
    for plugin in network.plugins:
        try:
            config = {**_config(network, plugin, None, {}), **dict.fromkeys(MARKS, attachments)}
            plugins.run(_type(plugin), Request("GC"), config)
        except OrlopError as failure:
            wrong = wrong or failure
    if wrong is not None:
        raise wrong


def _type(plugin: Mapping[str, object]) -> str:
    return str(plugin["type"])


def _config(
    network: Conflist, plugin: Mapping[str, object], place: Place | None, result: Mapping[str, object]
) -> dict[str, object]:
    """Return a plugin's configuration for one request. Section 3, "deriving request configuration"."""
    config = {key: value for key, value in plugin.items() if key != "capabilities"}
    config |= {"cniVersion": network.version, "name": network.name}
    told = {
        name: value for name, value in (place.capabilities if place else {}).items() if has_capability(plugin, name)
    }
    if told:
        config["runtimeConfig"] = told
    if result:
        config["prevResult"] = _of_now(result, place.netns if place else "")
    return config


def _of_now(result: Mapping[str, object], netns: str) -> dict[str, object]:
    """Return a result with the namespace's path of now: ours are descriptors, and plugins compare the path."""
    listed = result.get("interfaces")
    if not netns or not isinstance(listed, list):
        return dict(result)
    return {
        **result,
        "interfaces": [
            {**one, "sandbox": netns} if isinstance(one, dict) and one.get("sandbox") else one for one in listed
        ],
    }
