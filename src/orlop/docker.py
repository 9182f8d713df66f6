"""docker-py on this engine, for programs that have it: `import orlop.docker as docker`. See frontends.sdk.dockerpy."""

import sys

__import__(f"{__package__}.frontends.sdk.dockerpy", fromlist=["fill"]).fill(sys.modules[__name__])
