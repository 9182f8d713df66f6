"""What the UTS namespace and the own procfs are told: host name, domain name, sysctls, security labels."""

import errno
import os
from _socket import sethostname

from ...linux import path, process
from . import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Init


class SetHostname(Operation):
    """Set the host name, and the NIS domain name when one is given."""

    hostname: str
    domainname: str = ""
    subject = "names"

    def describe(self) -> str:
        words = [f"call the host {self.hostname}"] if self.hostname else []
        return " and ".join([*words, *([f"its domain {self.domainname}"] if self.domainname else [])])

    def call(self) -> str:
        return f'sethostname("{self.hostname}")' + (f', setdomainname("{self.domainname}")' if self.domainname else "")

    def act(self, init: "Init") -> None:
        if self.hostname:
            sethostname(self.hostname)
        if self.domainname:
            process.set_domain_name(self.domainname)


class SetExecLabel(Operation):
    """Give the security label that the next execve takes on. module: "apparmor" or "selinux"."""

    module: str
    label: str
    subject = "security"

    def describe(self) -> str:
        return f"confine the command with the {self.module} label {self.label}"

    def call(self) -> str:
        return f"write to thread-self/attr/{'apparmor/' * (self.module == 'apparmor')}exec of a private procfs"

    def act(self, init: "Init") -> None:
        if self.module == "selinux":
            _write(init, "thread-self/attr/exec", self.label)
            return
        try:
            _write(init, "thread-self/attr/apparmor/exec", f"exec {self.label}")
        except FileNotFoundError:  # before 5.8 there was one file for whichever module came first
            _write(init, "thread-self/attr/exec", f"exec {self.label}")


class WriteProcfs(Operation):
    """Write one file of the private procfs, where no link or mount can lead the write elsewhere (CVE-2025-52881)."""

    file: str
    value: str
    words: str
    subject = "kernel settings"
    mistakes = frozenset((errno.ENOENT, errno.EINVAL, errno.ERANGE))

    def describe(self) -> str:
        return self.words

    def call(self) -> str:
        return f"write {self.value!r} to {self.file} of a private procfs"

    def act(self, init: "Init") -> None:
        _write(init, self.file, self.value)


def _write(init: "Init", file: str, value: str) -> None:
    resolve = path.RESOLVE_BENEATH | path.RESOLVE_NO_XDEV | path.RESOLVE_NO_MAGICLINKS
    fd = path.openat2(init.procfs(), file, os.O_WRONLY, 0, resolve)
    try:
        os.write(fd, value.encode())
    except OSError as failure:
        raise OSError(failure.errno, f"{failure.strerror} (writing {value!r})", file) from None
    finally:
        os.close(fd)
