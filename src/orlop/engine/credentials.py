"""Who the user is at a registry: docker's credential helpers, the kernel's keyring, docker's and podman's files.

Looked for in this order: the helper that ~/.docker/config.json names for the registry; what the files have for the
repository or what it lies in; what `orlop login` keeps in the user's keyring; what the files have for the registry. The
files are `auths` of config.json and podman's auth.json. Kept by `login` in the helper or the keyring, and nowhere
else: no password of ours lies on a disk (WANTED P32). A registry's identity token is kept instead of the password
where the registry gives one.

Nothing here is shown, logged or passed on a command line: a helper gets it on its standard input.
Source: docker-credential-helpers' protocol; containers-auth.json(5).
"""

from __future__ import annotations

import os

from ..linux import keyring
from ..spec import jsonio
from ..spec.errors import Invalid, Unavailable, Unsupported
from ..spec.registry import ANONYMOUS, Credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

DOCKER_HUB, DOCKER_HUB_KEY = "docker.io", "https://index.docker.io/v1/"
HELPER_S_MAX = 60.0
FILE_BYTES_MAX = 4 * 1024 * 1024
TOKEN_USER = "<token>"  # a helper's way to say that the secret is an identity token
_HELPER = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def key_of(domain: str) -> str:
    """Return under which name docker keeps a registry's credentials."""
    return DOCKER_HUB_KEY if domain == DOCKER_HUB else domain


def for_registry(domain: str, path: str = "") -> Credentials:
    """Return what the user has for a registry, ANONYMOUS for nothing. Raises Invalid, Unavailable of a helper.

    path: of the repository that is asked for there: a file may have other credentials for it, or for what it lies in.
    """
    config = _document(config_file())
    helper = _helper_of(config, domain)
    found = _ask_helper(helper, domain) if helper else None
    if found is None:
        files = _files(config)
        found = (
            _from_files(files, _narrower(domain, path))
            or _from_keyring(domain)
            or _from_files(files, _spellings(domain))
        )
    return found or ANONYMOUS


def has_own(domain: str, path: str) -> bool:
    """Tell whether a file has credentials for a repository, or for what it lies in, beside those for its registry."""
    return _from_files(_files(_document(config_file())), _narrower(domain, path)) is not None


def for_places(domain: str, others: Iterable[str], path: str = "") -> Credentials:
    """Return what the user has for a registry, and for each of the others that may be asked in its place."""
    from ..spec.registry import Elsewhere

    found = {host: for_registry(host) for host in others}
    elsewhere = [{"host": host, **one.to_json()} for host, one in found.items() if not one.is_empty]
    return for_registry(domain, path).replace(
        elsewhere=tuple(Elsewhere.from_json(one, "credentials") for one in elsewhere)
    )


def keep(domain: str, credentials: Credentials) -> str:
    """Keep what proves the user at a registry; return in words where. Raises Unsupported without a safe place."""
    helper = _helper_of(_document(config_file()), domain)
    if helper:
        user = TOKEN_USER if credentials.identity_token else credentials.username
        secret = credentials.identity_token or credentials.password
        document = {"ServerURL": key_of(domain), "Username": user, "Secret": secret}
        _run_helper(helper, "store", jsonio.dump(document))
        return f"docker-credential-{helper}"
    try:
        keyring.put(_description(domain), jsonio.dump(credentials.to_json()))
    except OSError as wrong:
        raise Unsupported(
            "keep",
            f"the credentials of {domain}",
            f"the kernel's keyring takes no key here ({wrong.strerror})",
            hint=f"install a docker-credential helper and name it in {config_file()}: "
            '{"credsStore": "pass"}; Orlop leaves no readable password on a disk',
        ) from None
    return "the kernel's keyring of your user"


def forget(domain: str) -> bool:
    """Forget what proves the user at a registry, wherever it is; tell whether there was anything."""
    config = _document(config_file())
    helper = _helper_of(config, domain)
    found = False
    if helper and _ask_helper(helper, domain) is not None:
        _run_helper(helper, "erase", key_of(domain).encode())
        found = True
    try:
        found = keyring.remove(_description(domain)) or found
    except OSError:
        pass  # no keyring, so nothing in it
    return _forget_plain(config, domain) or found


def config_file() -> str:
    """Return where docker's configuration of this user lies."""
    directory = os.environ.get("DOCKER_CONFIG") or f"{_home()}/.docker"
    return f"{directory.rstrip('/')}/config.json"


def _home() -> str:
    if home := os.environ.get("HOME"):
        return home.rstrip("/")
    import pwd  # a service of systemd has no HOME; docker and podman ask so, too

    try:
        return pwd.getpwuid(os.geteuid()).pw_dir.rstrip("/")
    except KeyError:
        return "/nonexistent"


# -- the keyring ------------------------------------------------------------------------------------------------------


def _description(domain: str) -> str:
    return f"orlop:registry:{domain}"


def _from_keyring(domain: str) -> Credentials | None:
    try:
        data = keyring.get(_description(domain))
    except OSError:
        return None
    if data is None:
        return None
    subject = f"the key {_description(domain)}"
    return Credentials.from_json(jsonio.parse(data, subject), subject)


# -- files ------------------------------------------------------------------------------------------------------------


def _document(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return jsonio.parse_object(file.read(FILE_BYTES_MAX), path, bytes_max=FILE_BYTES_MAX)
    except OSError:
        return {}


def _podman_files() -> list[str]:
    """Return where podman looks, in its order; what it is told by REGISTRY_AUTH_FILE stands for the first two."""
    run = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    named = os.environ.get("REGISTRY_AUTH_FILE")
    first = [named] if named else [f"{run}/containers/auth.json", f"/run/containers/{os.geteuid()}/auth.json"]
    given = os.environ.get("XDG_CONFIG_HOME", "")
    return [*first, f"{given if given.startswith('/') else f'{_home()}/.config'}/containers/auth.json"]


def _files(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the documents that may have `auths`, docker's config.json first."""
    return [config, *map(_document, _podman_files())]


def _from_files(files: Iterable[dict[str, Any]], keys: Iterable[str]) -> Credentials | None:
    """Return what the `auths` of the first file say that has one of the keys: base64 of user:password, or a token."""
    for file in files:
        auths = file.get("auths")
        for key in keys:
            entry = auths.get(key) if isinstance(auths, dict) else None
            if isinstance(entry, dict) and (found := _of_entry(entry)):
                return found
    return None


def _narrower(domain: str, path: str) -> list[str]:
    """Return the keys that are a repository's name or begin it, the longest first, which counts most.

    podman keeps such ones (containers-auth.json(5)); docker does not, and passes over them.
    """
    parts = path.split("/") if path else []
    return ["/".join((domain, *parts[:count])) for count in range(len(parts), 0, -1)]


def _of_entry(entry: dict[str, Any]) -> Credentials | None:
    import base64
    import binascii

    text = {key: value for key, value in entry.items() if isinstance(value, str)}
    user, password = text.get("username", ""), text.get("password", "")
    if encoded := text.get("auth", ""):
        try:
            user, _, password = base64.b64decode(encoded).decode().rstrip("\0").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Invalid("read", config_file(), "an auth in it is not base64", hint="log in again") from None
    found = Credentials(
        username=user,
        password=password,
        identity_token=text.get("identitytoken", ""),
        registry_token=text.get("registrytoken", ""),
    )
    return None if found.is_empty else found


def _spellings(domain: str) -> tuple[str, ...]:
    if domain == DOCKER_HUB:
        return (DOCKER_HUB_KEY, DOCKER_HUB, "index.docker.io", "https://index.docker.io/v1", "registry-1.docker.io")
    return domain, f"https://{domain}", f"https://{domain}/", f"https://{domain}/v1/", f"https://{domain}/v2/"


def _forget_plain(config: dict[str, Any], domain: str) -> bool:
    """Take what docker itself had written for the registry out of its file."""
    auths = config.get("auths")
    named = [key for key in _spellings(domain) if isinstance(auths, dict) and key in auths]
    if not named or not isinstance(auths, dict):
        return False
    kept = config | {"auths": {key: value for key, value in auths.items() if key not in named}}
    path = os.path.realpath(config_file())
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(jsonio.dump(kept))
    os.rename(temporary, path)
    return True


# -- helpers ----------------------------------------------------------------------------------------------------------


def _helper_of(config: dict[str, Any], domain: str) -> str:
    """Return the helper that config.json names for a registry, "" for none. Raises Invalid for a name that is none."""
    helpers = config.get("credHelpers")
    named = helpers.get(domain) if isinstance(helpers, dict) else None
    name = named if isinstance(named, str) else config.get("credsStore", "")
    if not isinstance(name, str) or not _HELPER.issuperset(name):
        raise Invalid("read", config_file(), f"{str(name)[:60]!r} is no name of a credential helper")
    return name


def _ask_helper(helper: str, domain: str) -> Credentials | None:
    output = _run_helper(helper, "get", key_of(domain).encode())
    if output is None:
        return None
    document = jsonio.parse_object(output, f"the answer of docker-credential-{helper}")
    user, secret = str(document.get("Username", "")), str(document.get("Secret", ""))
    if user == TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username=user, password=secret)


def _run_helper(helper: str, verb: str, data: bytes) -> bytes | None:
    """Run a helper; return what it printed, None when it knows nothing of the registry. Raises Unavailable."""
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, verb], input=data, capture_output=True, check=False, timeout=HELPER_S_MAX)
    except FileNotFoundError:
        hint = f"install it, or take it out of {config_file()}"
        raise Unavailable("run", program, "it is not installed", hint=hint) from None
    except (OSError, subprocess.TimeoutExpired) as wrong:
        raise Unavailable("run", program, str(getattr(wrong, "strerror", None) or "it does not end")) from None
    if done.returncode == 0:
        return done.stdout
    said = done.stdout.decode("utf-8", "replace").strip()
    if verb == "get" and "credentials not found" in said:
        return None
    raise Unavailable("run", f"{program} {verb}", said[:300] or f"it ended with status {done.returncode}")
