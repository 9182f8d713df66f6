"""What the image `host` is made of: which programs of the host, and the few files that are not the host's."""

from orlop.spec.digest import Digest
from orlop.spec.record import Record


class HostRecord(Record):
    """host.json. manifest: the image that was made; watched: files and directories of the host that decided its
    content; state: the digest of what stat(2) said about them.
    """

    manifest: Digest
    watched: tuple[str, ...]
    state: Digest


_SHELLS = "bash sh dash"
_COREUTILS = """
    [ arch b2sum base32 base64 basename cat chgrp chmod chown chroot cksum comm cp csplit cut date dd df dir dirname du
    echo env expand expr factor false fmt fold groups head hostid id install join link ln logname ls md5sum mkdir mkfifo
    mknod mktemp mv nice nl nohup nproc numfmt od paste pathchk pinky pr printenv printf ptx pwd readlink realpath rm
    rmdir runcon seq sha1sum sha224sum sha256sum sha384sum sha512sum shred shuf sleep sort split stat stdbuf stty sum
    sync tac tail tee test timeout touch tr true truncate tsort tty uname unexpand uniq unlink users vdir wc who whoami
    yes
"""
_SYSTEM = """
    ps top free uptime kill pgrep pkill pidof vmstat pmap watch sysctl mount umount findmnt lsblk hostname dmesg ip
    ping getent getopt setsid unshare nsenter flock nproc taskset prlimit renice ionice lscpu lsns more
    capsh getcap setcap setpriv su chrt fallocate mountpoint tput clear reset tset
"""
_TEXT = "grep egrep fgrep sed awk find xargs tar gzip gunzip zcat bzip2 xz less diff cmp which"

PROGRAMS = tuple(dict.fromkeys(f"{_SHELLS} {_COREUTILS} {_SYSTEM} {_TEXT}".split()))

TERMINFO = ("/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo", "/usr/lib/terminfo")
TERMINALS = (
    "alacritty ansi dumb foot konsole-256color linux rxvt rxvt-unicode-256color screen screen-256color sun tmux "
    "tmux-256color vt100 vt102 vt220 vt52 xterm xterm-256color xterm-color xterm-kitty xterm-mono xterm-ghostty"
).split()

_ISOLATION = r"""#!/bin/sh
# What this process can see of the machine: one line for each thing that isolates it.

say() { printf '%-17s %s\n' "$1:" "$2"; }
first() { for file; do [ -r "$file" ] && head -n 1 "$file" 2>/dev/null && return; done; echo "not visible here"; }
status() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status 2>/dev/null; }

bytes() {
    case $1 in
    max | 9223372036854771712) echo "no limit" ;;
    *[!0-9]* | '') echo "$1" ;;
    *) echo "$1 bytes ($(($1 / 1048576)) MiB)" ;;
    esac
}

processes=0
for directory in /proc/[0-9]*; do [ -d "$directory" ] && processes=$((processes + 1)); done

case $(status Seccomp) in
0) seccomp="off" ;;
1) seccomp="strict" ;;
2) seccomp="a filter is active" ;;
*) seccomp="the kernel does not say" ;;
esac

say "process 1" "$(tr '\0' ' ' </proc/1/cmdline 2>/dev/null)"
say "processes seen" "$processes"
say "this process" "$$"
say "host name" "$(hostname 2>/dev/null || cat /proc/sys/kernel/hostname)"
say "user" "$(id -u 2>/dev/null):$(id -g 2>/dev/null)"
say "root directory" "$(ls -A / | tr '\n' ' ')"
say "mounts" "$(wc -l </proc/self/mountinfo)"
say "network devices" "$(sed -n 's/^ *\([^:|]*\):.*/\1/p' /proc/net/dev 2>/dev/null | tr '\n' ' ')"
say "memory limit" "$(bytes "$(first /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes)")"
say "processes limit" "$(first /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max)"
say "capabilities" "$(status CapEff) (all would be 000001ffffffffff)"
say "new privileges" "$([ "$(status NoNewPrivs)" = 1 ] && echo "can't be gained" || echo "can be gained")"
say "seccomp" "$seccomp"
"""

FILES = {  # name -> (mode, content)
    "/etc/passwd": (
        0o644,
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    "/etc/group": (0o644, "root:x:0:\ndaemon:x:1:\ntty:x:5:\nnogroup:x:65534:\n"),
    "/etc/nsswitch.conf": (0o644, "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"),
    "/etc/os-release": (0o644, 'NAME="Programs of the host"\nID=host\nPRETTY_NAME="Programs of the host"\n'),
    "/etc/bash.bashrc": (0o644, "PS1='\\u@\\h:\\w\\$ '\n"),  # who is where; bash of Debian reads it
    "/usr/bin/isolation": (0o755, _ISOLATION),
}
