"""The chores of this repository, behind `./dev`.

Runs on the system's Python with nothing installed: standard library only. What a chore needs beyond that (ruff, mypy,
pytest) lives in `.venv`, which `environment` prepares; what a test compares us with (runc, podman, dockerd) is unpacked
beside the repository's cache by `peers`, so that no chore installs a daemon on the machine.
"""
