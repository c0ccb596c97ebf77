"""One maker at a time: a stage that is being made refuses a second start, on this machine or, where the disk
can, on another."""

import errno
import fcntl
import os
import platform
import sys
import time
from pathlib import Path

PATIENCE = 10  # seconds: a kernel whose parent was killed takes a moment to end
# File systems that several machines may share while a lock counts on one of them only, and the mount options
# that tell.
LOCAL = {
    "nfs": ("local_lock=all", "local_lock=posix", "nolock"),
    "nfs4": ("local_lock=all", "local_lock=posix"),
    "lustre": ("localflock",),
    **dict.fromkeys(("cifs", "smb3"), ("nobrl",)),
    **dict.fromkeys(("beegfs", "9p", "virtiofs", "fuse.sshfs", "vboxsf"), ("",)),  # whatever the options
}
held = {}  # path -> open file, of this process


class Held(Exception):
    """Another process holds the lock; the message says which."""


def local(path, mounts):
    """Type of `path`'s file system if its locks bind one machine though others may share it, else "".

    mounts: the text of Linux' /proc/self/mountinfo.
    """
    found = ("", "", "")
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point, own = before.split()[4:6]
        kind, _, shared = after.split()[:3]
        inside = f"{path}/".startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found[0]):
            found = (point, kind, f"{own},{shared}")
    _, kind, options = found
    return kind if any(not o or o in options.split(",") for o in LOCAL.get(kind, ())) else ""


def take(path):
    """Hold the lock `path` (a Path) until `release`, or until this process ends in whatever way.

    Taking it again is fine. Raises Held.

    It is a POSIX lock: the kernel gives it back at the process's end, forked children do not share it, and
    NFS and the large cluster file systems carry it between machines. Where they do not, a sentence on stderr
    says so.
    """
    if path in held:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file, until = open(path, "a+", encoding="utf-8", errors="replace"), time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                warn(f"{path.parent} cannot hold locks ({error.strerror})")
                break
            if time.monotonic() > until:
                file.seek(0)
                who = file.read().strip() or "which has not said its name"
                file.close()
                raise Held(who) from None
            time.sleep(0.2)
    mounts = Path("/proc/self/mountinfo")
    if mounts.exists() and (kind := local(path.parent.resolve(), mounts.read_text())):
        warn(f"locks on {path.parent} ({kind}) bind this machine only")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
    held[path] = file


def warn(what):
    print(f"{what}: start no stage there from two machines at once", file=sys.stderr)


def release(path):
    """Give the lock back, if this process holds it."""
    if path in held:
        held.pop(path).close()
