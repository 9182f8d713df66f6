"""docker-py on this engine, for programs that have it: `import orlop.docker as docker`. See frontends.sdk.dockerpy."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__import__(f"{__package__}.frontends.sdk.dockerpy", fromlist=["fill"]).fill(sys.modules[__name__])


def __getattr__(name: str) -> "Any":  # docker-py has no types: for a type checker everything is there
    raise AttributeError(f"docker-py has no {name!r}")
