"""The walls around a program, put up by the process that is about to become it. Each says whether it stands.

    namespaces      no network, no mounts, no shared memory of others: once, for the helper and all its children
    private folder  a file system in memory, of bounded size and number of files, that dies with the process
    limits          memory, CPU, open files, size of files
    capabilities    none, and no way to gain any
    Landlock        read what Python itself needs, write in the private folder, nothing else
    seccomp         (seccomp.py) no network, no processes, no signals to others, nothing of the kernel's back rooms

None needs root. The order matters: mounting needs the rights that a namespace gave, Landlock and seccomp take away the
means to put up anything more. What a system lacks is left out and reported.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
import sys

from . import seccomp

MB = 1 << 20
LINUX = sys.platform == "linux"
PYTHON = [*sys.path, "/lib", "/lib64", "/usr/lib", "/usr/lib64", os.path.join(sys.base_prefix, "lib"),
          "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo"]        # what it may read
FOLDERS = ("/tmp", "/mnt", "/srv", "/media")            # places to mount the private folder on

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x40000000)
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 1 << 14, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
CAPABILITY_VERSION = 0x20080522

LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
MAKE_CHAR, MAKE_SOCK, MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
TRUNCATE = 1 << 14


def libc():
    functions = ctypes.CDLL(None, use_errno=True)
    functions.syscall.restype = ctypes.c_long
    return functions


def namespaces() -> bool:
    """Leave the network, the mounts, the hostname and the IPC of the machine; without root through a user namespace."""
    if not LINUX:
        return False
    uid, gid, c = os.getuid(), os.getgid(), libc()
    rooms = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
    if c.unshare(rooms | CLONE_NEWUSER) == 0:
        try:
            for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
        except OSError:
            return False
    elif c.unshare(rooms) != 0:
        return False
    return c.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0       # what we mount stays ours


def private_folder() -> str | None:
    """Mount an empty folder that only this process sees and make it the current one; its path, None without the right."""
    folder = next((f for f in FOLDERS if os.path.isdir(f) and not any(p.startswith(f + "/") for p in PYTHON)), None)
    c = libc()
    if not LINUX or folder is None or c.unshare(CLONE_NEWNS) != 0:
        return None
    options = b"size=64m,nr_inodes=4096,mode=700"
    if c.mount(b"none", folder.encode(), b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options) != 0:
        return None
    os.chdir(folder)
    return folder


def limits(memory_mb: int, cpu_seconds: int) -> None:
    """Resource limits. One that the system lacks, or that is lower already, stays as it is."""
    for name, value in (
        ("RLIMIT_AS", memory_mb * MB),
        ("RLIMIT_DATA", memory_mb * MB),
        ("RLIMIT_CPU", cpu_seconds),
        ("RLIMIT_FSIZE", 16 * MB),       # of each file
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_NPROC", 64),            # of its user, threads included; the kernel ignores this for root
        ("RLIMIT_CORE", 0),
        ("RLIMIT_MSGQUEUE", 0),
        ("RLIMIT_MEMLOCK", 0),
        ("RLIMIT_STACK", 8 * MB),
    ):
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, ValueError, OSError):
            pass


def no_privileges() -> bool:
    """Drop every capability, for good."""
    if not LINUX:
        return False
    c = libc()
    header, nothing = struct.pack("Ii", CAPABILITY_VERSION, 0), bytes(24)
    return c.capset(header, nothing) == 0 and c.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0


def landlock(folder: str | None) -> bool:
    """Read what Python needs; write in `folder`, nowhere where there is none; connect, bind and signal nowhere."""
    if not LINUX or platform.machine() not in seccomp.ARCHITECTURES:
        return False
    c = libc()
    version = c.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1          # all that this kernel can withhold
    ruleset = struct.pack("QQQ", rights, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]   # files, TCP, scopes
    rules = c.syscall(LANDLOCK_CREATE, ruleset, ctypes.c_size_t(len(ruleset)), 0)
    if rules < 0:
        return False

    def allow(path: str, right: int) -> bool:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return True                                     # what is not there cannot be read either
        if not os.path.isdir(path):
            right &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
        done = c.syscall(LANDLOCK_ADD, rules, 1, struct.pack("=Qi", right & rights, fd), 0) == 0
        os.close(fd)
        return done

    fine = all(allow(path, READ_FILE | READ_DIR) for path in PYTHON)
    fine &= allow("/dev/null", READ_FILE | WRITE_FILE) and allow("/dev/urandom", READ_FILE)
    if folder is not None:
        fine &= allow(folder, rights & ~(EXECUTE | MAKE_CHAR | MAKE_BLOCK | MAKE_SOCK))
    fine &= c.syscall(LANDLOCK_RESTRICT, rules, 0) == 0
    os.close(rules)
    return fine


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that forked it ends."""
    if LINUX:
        libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def hide() -> None:
    """Let no other process of this user look into the memory of this one."""
    if LINUX:
        libc().prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def put_up(memory_mb: int, cpu_seconds: int, enclosed: bool) -> dict:
    """All walls of one program, in their order; -> {wall: stands}. enclosed: we are in namespaces of our own."""
    folder = private_folder() if enclosed else None
    limits(memory_mb, cpu_seconds)
    privileges = no_privileges()
    locked = landlock(folder)
    die_with_parent()                       # after the capabilities, whose loss would cancel it
    return {"namespaces": enclosed, "folder": folder is not None, "privileges": privileges, "landlock": locked,
            "seccomp": seccomp.install()}
