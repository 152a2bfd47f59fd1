"""The last wall: a filter that the kernel runs before every system call of the program.

What is refused gets an error, as if the right were missing, so that `os.fork()` raises PermissionError and the program
goes on. Calls made in another architecture's numbering end the process. The filter is a list of what is refused, closed
at its end: of the calls that Linux gained since 5.1, all but a harmless handful do not exist here.
"""

import ctypes
import functools
import os
import platform
import struct
import sys

# name, number on x86-64 / on aarch64 (- where there is none)
REFUSED = """
network
    socket 41/198  socketpair 53/199  connect 42/203  accept 43/202  accept4 288/242  bind 49/200  listen 50/201
    sendto 44/206  sendmsg 46/211  sendmmsg 307/269  recvfrom 45/207  recvmsg 47/212  recvmmsg 299/243
    shutdown 48/210  getsockname 51/204  getpeername 52/205  setsockopt 54/208  getsockopt 55/209
other processes
    fork 57/-  vfork 58/-  execve 59/221  execveat 322/281  setsid 112/157  setpgid 109/154
    ptrace 101/117  process_vm_readv 310/270  process_vm_writev 311/271  kcmp 312/272
    tkill 200/130  rt_sigqueueinfo 129/138  rt_tgsigqueueinfo 297/240
mounts and namespaces
    mount 165/40  umount2 166/39  pivot_root 155/41  chroot 161/51  unshare 272/97  setns 308/268
    swapon 167/224  swapoff 168/225  quotactl 179/60  acct 163/89  sync 162/81  syncfs 306/267
who the program is
    setuid 105/146  setgid 106/144  setreuid 113/145  setregid 114/143  setresuid 117/147  setresgid 119/149
    setfsuid 122/151  setfsgid 123/152  setgroups 116/159  capset 126/91  personality 135/92
    prctl 157/167  seccomp 317/277
the kernel
    bpf 321/280  perf_event_open 298/241  userfaultfd 323/282  add_key 248/217  request_key 249/218  keyctl 250/219
    init_module 175/105  finit_module 313/273  delete_module 176/106  create_module 174/-  kexec_load 246/104
    kexec_file_load 320/294  reboot 169/142  syslog 103/116  lookup_dcookie 212/18  vhangup 153/58  iopl 172/-
    ioperm 173/-  modify_ldt 154/-  uselib 134/-  _sysctl 156/-  nfsservctl 180/42
clock and host
    settimeofday 164/170  clock_settime 227/112  clock_adjtime 305/266  adjtimex 159/171
    sethostname 170/161  setdomainname 171/162
limits and priorities
    setrlimit 160/164  setpriority 141/140  ioprio_set 251/30  sched_setparam 142/118  sched_setscheduler 144/119
    sched_setattr 314/274  sched_setaffinity 203/122  migrate_pages 256/238  move_pages 279/239  mbind 237/235
    set_mempolicy 238/237  mlock 149/228  mlockall 151/230  mlock2 325/284
memory that RLIMIT_AS does not count, and mailboxes
    memfd_create 319/279  remap_file_pages 216/234  shmget 29/194  shmat 30/196  shmctl 31/195  shmdt 67/197
    semget 64/190  semop 65/193  semctl 66/191  semtimedop 220/192  msgget 68/186  msgsnd 69/189  msgrcv 70/188
    msgctl 71/187  mq_open 240/180  mq_unlink 241/181  mq_timedsend 242/182  mq_timedreceive 243/183
    mq_notify 244/184  mq_getsetattr 245/185  io_setup 206/0  io_submit 209/2
what Landlock does not cover of files
    chmod 90/-  fchmod 91/52  fchmodat 268/53  chown 92/-  fchown 93/55  lchown 94/-  fchownat 260/54
    utime 132/-  utimes 235/-  utimensat 280/88  futimesat 261/-  setxattr 188/5  lsetxattr 189/6  fsetxattr 190/7
    removexattr 197/14  lremovexattr 198/15  fremovexattr 199/16  mknod 133/-  mknodat 259/33  truncate 76/45
    name_to_handle_at 303/264  open_by_handle_at 304/265  fanotify_init 300/262  fanotify_mark 301/263
    inotify_init 253/-  inotify_init1 294/26  inotify_add_watch 254/27
"""
ASKED = {"clone": (56, 220), "kill": (62, 129), "tgkill": (234, 131), "fcntl": (72, 25), "ioctl": (16, 29),
         "prlimit64": (302, 261)}                           # what these may do depends on their arguments
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "arm64": 0xC00000B7}

FIRST_NEW = 424                                             # from here on both architectures count alike
NEW_ALLOWED = (436, 437, 439, 441, 449, 454, 455, 456)      # close_range openat2 faccessat2 epoll_pwait2 futex_*
X32 = 0x40000000                                            # x86-64: the bit of calls in the x32 numbering

CLONE_THREAD = 0x10000
FCNTL_SIGNALS = (8, 10, 15, 1024, 1026)                     # F_SETOWN F_SETSIG F_SETOWN_EX F_SETLEASE F_NOTIFY
IOCTL_SIGNALS = (0x5412, 0x541C, 0x5452, 0x8901, 0x8902)    # TIOCSTI TIOCLINUX FIOASYNC FIOSETOWN SIOCSPGRP

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38
LOAD, RETURN, EQUAL, AT_LEAST, BITS = 0x20, 0x06, 0x15, 0x35, 0x45       # classic BPF
NUMBER, ARCHITECTURE = 0, 4                                 # offsets in struct seccomp_data
PR_SET_SECCOMP, MODE_FILTER = 22, 2


def numbers(machine: str) -> list[int]:
    """The numbers of all refused calls on this architecture."""
    column = 0 if machine == "x86_64" else 1
    pairs = [word.split("/") for word in REFUSED.split() if "/" in word]
    return [int(pair[column]) for pair in pairs if pair[column] != "-"]


@functools.cache
def refusals(machine: str) -> bytes:
    """The first part of the filter: calls that are decided by their number."""
    steps = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, ARCHITECTURES[machine]), _give(KILL), (LOAD, 0, 0, NUMBER)]
    if machine == "x86_64":
        steps += [(AT_LEAST, 0, 1, X32), _give(KILL)]
    for number in NEW_ALLOWED:
        steps += [(EQUAL, 0, 1, number), _give(ALLOW)]
    steps += [(AT_LEAST, 0, 1, FIRST_NEW), _give(ENOSYS)]   # clone3 too: libc falls back to clone, which can be asked
    for number in numbers(machine):
        steps += [(EQUAL, 0, 1, number), _give(EPERM)]
    return _bytes(steps)


def conditions(machine: str, pid: int) -> bytes:
    """The second part: calls that are decided by an argument, and leave for all others."""
    column = 0 if machine == "x86_64" else 1
    asked = {name: pair[column] for name, pair in ASKED.items()}

    def only_if(number: int, argument: int, code: int, operand: int) -> list:
        """Call `number` is allowed only if its argument passes one comparison."""
        return [(EQUAL, 0, 4, number), _load(argument), (code, 0, 1, operand), _give(ALLOW), _give(EPERM)]

    def unless_in(number: int, argument: int, values: tuple) -> list:
        """Call `number` is refused if its argument is one of `values`."""
        tests = [step for value in values for step in ((EQUAL, 0, 1, value), _give(EPERM))]
        return [(EQUAL, 0, len(tests) + 2, number), _load(argument), *tests, _give(ALLOW)]

    steps = only_if(asked["clone"], 0, BITS, CLONE_THREAD)
    steps += only_if(asked["kill"], 0, EQUAL, pid)          # itself: so that os.abort() does what it says
    steps += only_if(asked["tgkill"], 0, EQUAL, pid)
    steps += unless_in(asked["fcntl"], 1, FCNTL_SIGNALS)    # a file that is ready could signal another process
    steps += unless_in(asked["ioctl"], 1, IOCTL_SIGNALS)
    steps += [(EQUAL, 0, 6, asked["prlimit64"]), _load(2), (EQUAL, 0, 3, 0), _load(2, high=True), (EQUAL, 0, 1, 0),
              _give(ALLOW), _give(EPERM)]                   # to look at limits, not to set them
    return _bytes([*steps, _give(ALLOW)])


def install() -> bool:
    """Put the filter on this process for good; False where that is not possible. Wants no_new_privs to be set."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ARCHITECTURES:
        return False
    code = refusals(machine) + conditions(machine, os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_ = ctypes.create_string_buffer(struct.pack("HP", len(code) // 8, ctypes.addressof(buffer)))
    return ctypes.CDLL(None).prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(filter_), 0, 0) == 0


def _bytes(steps: list[tuple[int, int, int, int]]) -> bytes:
    """BPF instructions: code, jump if true, jump if false, operand."""
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _load(argument: int, high: bool = False) -> tuple:
    """Load one half of a system call's argument (little-endian)."""
    return (LOAD, 0, 0, 16 + 8 * argument + 4 * high)


def _give(verdict: int) -> tuple:
    return (RETURN, 0, 0, verdict)
