"""Programs that try to get out, and answers that try to pass. Each is harmless where the walls stand.

    python attacks.py [walls]           runs them all, prints what broke as JSON, one line each; walls: only those that
                                        a wall stops, whose fate depends on the user and the namespaces

An attack prints GOT when it has what it wanted, or leaves a trace outside: in a folder of ours ($HOST), at a socket of
ours ($TCP, $UDP), in the processes or the folders for temporary files. $NR_x is the number of the system call x. The mild
attacks come first: if one of them gets through, those that could hurt this machine are not tried.
"""

import json
import os
import platform
import re
import socket
import stat
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nanochat.sandbox import run_code, run_tests, sandbox_level
from nanochat.sandbox.inside import seccomp

TIMEOUT = 0.6
C = "import ctypes, os, sys\nC = ctypes.CDLL(None, use_errno=True)\nC.syscall.restype = ctypes.c_long\n"
PARENT = "parent = os.getppid()\n"


def call(expression: str) -> str:
    """A program that makes one C call; it got through if the result is not negative."""
    return f"{C}{PARENT}print('GOT' if {expression} >= 0 else 'no')"


def does(statement: str) -> str:
    """A program that says GOT if a statement does not raise."""
    return f"import os, sys\n{PARENT}{statement}\nprint('GOT')"


MILD = {
    "signal nothing to the parent": does("os.kill(parent, 0)"),
    "fork": does("if os.fork() == 0: os._exit(0)"),
    "open a socket": does("import socket; socket.socket()"),
    "write outside": does("open('$HOST/new', 'w').write('x')"),
    "unshare": call("C.unshare(0x10000000)"),
    "read a file outside": does("print(open('$HOST/secret').read())"),
}

TIME = {
    "loop": "while True: pass",
    "sleep": "import time; time.sleep(1e6)",
    "loop in C": "sum(range(10**13))",
    "digits of a number": "import sys; sys.set_int_max_str_digits(0); len(str(1 << 40_000_000))",
    "regular expression": "import re; re.match(r'(a+)+$', 'a' * 60 + 'b')",
    "deaf to signals": "import signal\nfor s in {*range(1, 32)} - {9, 19}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
    "deaf to CPU limits": "import signal\nsignal.signal(signal.SIGXCPU, lambda *a: None)\nwhile True: pass",
    "masked signals": "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\ntime.sleep(1e6)",
    "sleeps at exit": "import atexit, time; atexit.register(time.sleep, 1e6)",
    "sleeps in __del__": "import time\nclass X:\n  def __del__(self): time.sleep(1e6)\nx = X()",
    "thread that stays": "import threading, time; threading.Thread(target=time.sleep, args=(1e6,)).start()",
    "busy threads": "import threading\ndef f():\n  while True: pass\nfor _ in range(8): threading.Thread(target=f).start()",
    "loops in a trace": "import sys\ndef t(*a):\n  while True: pass\nsys.settrace(t)\ndef f(): pass\nf()",
    "loops in the collector": "import gc\ndef f(*a):\n  while True: pass\ngc.callbacks.append(f)\ngc.collect()",
    "closes everything and sleeps": "import os, time\nos.closerange(0, 64)\ntime.sleep(1e6)",
    "reads what never comes": "import os\nr, w = os.pipe()\nos.read(r, 1)",
    "stops itself": "import os; os.kill(os.getpid(), 19)",
    "decimal": "from decimal import *\ngetcontext().prec = MAX_PREC\ngetcontext().Emax = MAX_EMAX\nDecimal(10) ** (10**9) + 1",
    "power": "9 ** 9 ** 9",
    "hangs when its error is shown": "import time\nclass E(Exception):\n  def __str__(self): time.sleep(1e6)\nraise E",
    "hangs in the error hook": "import sys, time\nsys.excepthook = lambda *a: time.sleep(1e6)\n1/0",
    "async generator hook": "import sys, time\nasync def g(): yield 1\nsys.set_asyncgen_hooks(lambda a: time.sleep(1e6))\ng().__anext__().send(None)",
    "timer that fires for ever": "import signal\nsignal.signal(14, lambda *a: None)\nsignal.setitimer(0, 1e-5, 1e-5)\nwhile True: pass",
    "waits for itself": "import threading\nl = threading.Lock(); l.acquire(); l.acquire()",
}

MEMORY = {
    "grows": "l = []\nwhile True: l.append(bytearray(10**7))",
    "one block": "bytearray(10**12); print('GOT')",
    "shared mapping": "import mmap\nm = []\nfor i in range(100):\n  x = mmap.mmap(-1, 10**7); x[:] = b'a' * 10**7; m.append(x)\nprint('GOT')",
    "memfd": does("f = os.memfd_create('x')\nfor i in range(60): os.write(f, b'a' * (8 << 20))"),
    "memfd_secret": call("C.syscall(447, 0)"),
    "System V": call("C.shmget(0, ctypes.c_size_t(1 << 30), 0o1600)"),
    "shared_memory": does("from multiprocessing import shared_memory\nshared_memory.SharedMemory(create=True, size=1 << 30)"),
    "locked": call("C.mlockall(3)"),
    "thread stacks": "import threading, time\nthreading.stack_size(64 << 20)\nfor i in range(32): threading.Thread(target=time.sleep, args=(.2,)).start()\nprint('GOT')",
    "recursion": "def f(n): return f(n + 1)\nf(0)",
    "recursion without limit": "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n  def __getattr__(s, n): return getattr(s, n + 'x')\nA().a",
    "deep expression": "eval('(' * 200000 + ')' * 200000)",
    "constant folding": "eval('[0] * (10**11)'); print('GOT')",
    "format width": "'{:>{}}'.format('x', 10**10); print('GOT')",
    "zip bomb": "import zlib\nz = zlib.compress(b'0' * 10**7)\nb''.join(zlib.decompress(z) for _ in range(100)); print('GOT')",
    "nested lists freed": "l = []\nfor i in range(10**7): l = [l]",
    "mremap": C + "C.mmap.restype = ctypes.c_void_p\nprint('GOT' if C.mmap(None, ctypes.c_size_t(1 << 34), 3, 0x22, -1, 0) != 2**64 - 1 else '')",
    "writes at nothing": "import ctypes; ctypes.string_at(0)",
    "bad byte code": "exec((lambda: 0).__code__.replace(co_code=bytes(range(256)) * 8, co_stacksize=1))",
}

OUTPUT = {
    "stdout": "while True: print('x' * 1000)",
    "stderr": "import sys\nwhile True: sys.stderr.write('x' * 1000)",
    "one huge line": "print('x' * 10**8)",
    "no text": "import sys; sys.stdout.buffer.write(bytes(range(256)) * 100)",
    "both from threads": "import sys, threading\ndef f(s):\n  while True: s.write('x' * 5000)\nfor s in (sys.stdout, sys.stderr): threading.Thread(target=f, args=(s,)).start()",
    "long traceback": "import sys\nsys.setrecursionlimit(10**5)\ndef f(n):\n  try: f(n - 1) if n else 1 / 0\n  except Exception as e: raise ValueError('x' * 1000) from e\nf(3000)",
    "terminal escapes in the error": "raise ValueError('\\x1b]0;GOT\\x07\\x1b[2J')",
    "closed stdout": "import sys, os\nprint('x')\nos.close(1)",
}

DISK = {
    "one big file": does("f = open('big', 'wb')\nfor i in range(100): f.write(b'z' * (1 << 20))"),
    "many big files": does("for i in range(100): open(str(i), 'wb').write(b'z' * (1 << 20))"),
    "many files": does("for i in range(10000): open(str(i), 'w').close()"),
    "many folders": does("for i in range(10000): os.mkdir(str(i))"),
    "deep folders": "import os\nfor i in range(5000): os.mkdir('a'); os.chdir('a')",
    "sparse file": does("open('s', 'wb').truncate(1 << 40)"),
    "fallocate": does("os.posix_fallocate(os.open('s', 66), 0, 1 << 30)"),
    "undeletable": "import os\nos.mkdir('k'); open('k/f', 'w').close(); os.chmod('k', 0); os.chmod('.', 0)",
    "files in memory": does("open('/dev/shm/canary', 'w')"),
    "litter in /var/tmp": does("open('/var/tmp/canary', 'w')"),
    "many open files": does("f = [os.open('/dev/null', 0) for i in range(200)]"),
    "many pipes": does("f = [os.pipe() for i in range(200)]"),
}

PROCESSES = {
    "fork bomb": "import os\nfor i in range(100):\n  if os.fork() == 0:\n    print('GOT', flush=True); import time; time.sleep(20)",
    "system": does("assert os.system('touch $HOST/new') == 0"),
    "posix.system": does("import posix; assert posix.system('touch $HOST/new') == 0"),
    "subprocess": does("import subprocess; subprocess.run(['touch', '$HOST/new'], check=True)"),
    "_posixsubprocess through a fresh import": does("sys.modules.pop('subprocess', None); import subprocess; subprocess.Popen(['touch', '$HOST/new']).wait()"),
    "posix_spawn": does("os.posix_spawn('/bin/touch', ['touch', '$HOST/new'], {})"),
    "exec": does("os.execv('/bin/echo', ['echo', 'GOT'])"),
    "execveat": call("C.syscall($NR_execveat, -100, b'/bin/true', None, None, 0)"),
    "popen in C": C + "C.popen.restype = ctypes.c_void_p\nprint('GOT' if C.popen(b'touch $HOST/new', b'r') else '')",
    "vfork in C": C + "C.syscall($NR_vfork) >= 0 and (print('GOT', flush=True), os._exit(0))",
    "clone": C + "C.syscall($NR_clone, 17, 0, 0, 0, 0) >= 0 and (print('GOT', flush=True), os._exit(0))",
    "clone that shares memory but is no thread": C + "C.syscall($NR_clone, 0x111, 0, 0, 0, 0) >= 0 and (print('GOT', flush=True), os._exit(0))",
    "clone3": C + "a = (ctypes.c_uint64 * 11)(); a[4] = 17\nC.syscall(435, a, 88) >= 0 and (print('GOT', flush=True), os._exit(0))",
    "subclasses": does("[c for c in object.__subclasses__() if c.__name__ == '_wrap_close'][0].__init__.__globals__['system']('touch $HOST/new') and 1/0"),
    "multiprocessing": does("import multiprocessing as m; p = m.get_context('fork').Process(target=print); p.start(); p.join()"),
    "pty": does("import pty; pty.fork()"),
    "daemon": "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    time.sleep(2); open('$HOST/late', 'w')",
    "leave the session": does("os.setsid()"),
    "leave the group": call("C.setpgid(0, 0)"),
    "ptrace": call("C.ptrace(16, parent, 0, 0)"),
    "become traced": call("C.ptrace(0, 0, 0, 0)"),
    "survive the parent": call("C.prctl(1, 0, 0, 0, 0)"),
}

FILES = {
    "append": does("open('$HOST/keep', 'a').write('x')"),
    "open for both": does("os.ftruncate(os.open('$HOST/keep', os.O_RDWR), 0)"),
    "truncate on opening": does("os.open('$HOST/keep', os.O_TRUNC)"),
    "truncate by name": does("os.truncate('$HOST/keep', 0)"),
    "remove": does("os.unlink('$HOST/keep')"),
    "remove a folder": does("os.rmdir('$HOST/empty')"),
    "rename": does("os.rename('$HOST/keep', '$HOST/gone')"),
    "move in": does("os.rename('$HOST/keep', 'mine')"),
    "move out": does("open('x', 'w').close(); os.rename('x', '$HOST/new')"),
    "renameat2 exchange": call("C.renameat2(-100, b'$HOST/keep', -100, b'$HOST/secret', 2)"),
    "make a folder": does("os.mkdir('$HOST/new')"),
    "symlink outside": does("os.symlink('/', '$HOST/new')"),
    "hard link outside": does("os.link('$HOST/keep', '$HOST/new')"),
    "fifo outside": does("os.mkfifo('$HOST/new')"),
    "chmod": does("os.chmod('$HOST/keep', 0o777)"),
    "fchmodat2": call("C.syscall(452, -100, b'$HOST/keep', 0o777, 0)"),
    "fchmod": does("os.fchmod(os.open('$HOST/keep', os.O_PATH), 0o777)"),
    "chown": does("os.chown('$HOST/keep', os.getuid(), os.getgid())"),
    "times": does("os.utime('$HOST/keep', (0, 0))"),
    "extended attribute": does("os.setxattr('$HOST/keep', 'user.x', b'x')"),
    "unnamed file outside": does("os.open('$HOST', os.O_TMPFILE | os.O_RDWR)"),
    "through a link": does("os.symlink('$HOST', 'l'); open('l/new', 'w')"),
    "through ..": does("os.chdir('$HOST/empty'); open('../new', 'w')"),
    "through an open folder": does("d = os.open('$HOST', os.O_PATH); os.open('new', 65, dir_fd=d)"),
    "openat2": C + "h = (ctypes.c_uint64 * 3)(65, 0o600, 0)\nprint('GOT' if C.syscall(437, -100, b'$HOST/new', h, 24) >= 0 else '')",
    "device": does("os.mknod('d', 0o60600, os.makedev(8, 0)); open('d', 'rb').read(512)"),
    "plant a module": does("import sysconfig; open(sysconfig.get_paths()['stdlib'] + '/canary.py', 'w')"),
    "plant byte code": does("import py_compile, json; py_compile.compile(json.__file__)"),
    "io_uring": call("C.syscall(425, 8, ctypes.create_string_buffer(120))"),
    "kernel AIO": call("C.syscall($NR_io_setup, 8, (ctypes.c_uint64 * 1)())"),
    "watch files": call("C.inotify_init()"),
    "lock a file outside": does("import fcntl; fcntl.flock(os.open('$HOST/keep', 0), 2)"),
}

READS = {
    "hard link to read": does("os.link('$HOST/secret', 'h'); print(open('h').read())"),
    "symlink to read": does("os.symlink('$HOST/secret', 'h'); print(open('h').read())"),
    "list a folder": does("print(os.listdir('$HOST'))"),
    "mapping": does("import mmap; print(mmap.mmap(os.open('$HOST/secret', 0), 0, access=1)[:])"),
    "sendfile": does("os.sendfile(1, os.open('$HOST/secret', 0), 0, 99)"),
    "import a file": does("sys.path.insert(0, '$HOST'); import secret_module"),
    "passwords": does("open('/etc/shadow').read()"),
    "home folder": does("os.listdir(os.path.expanduser('~root'))"),
    "our code": does("open('$REPO/nanochat/sandbox/runner.py').read()"),
    "environment": "import os; print(os.environ.get('API_KEY'), 'GOT' if os.environ else '')",
    "the parent's environment": does("print(open(f'/proc/{parent}/environ').read())"),
    "every environment": "import os, glob\nfor f in glob.glob('/proc/[0-9]*/environ'):\n  try: print('GOT', open(f).read())\n  except OSError: pass",
    "own /proc": does("open('/proc/self/maps').read()"),
    "the parent's memory": does("open(f'/proc/{parent}/mem', 'rb')"),
    "the parent's files": does("os.listdir(f'/proc/{parent}/fd')"),
    "process_vm_readv": C + PARENT + "b = ctypes.create_string_buffer(8)\nv = (ctypes.c_void_p * 2)(ctypes.addressof(b), 8)\nprint('GOT' if C.process_vm_readv(parent, v, 1, (ctypes.c_void_p * 2)(id(b), 8), 1, 0) >= 0 else '')",
    "pidfd_getfd": call("C.syscall(438, C.syscall(434, parent, 0), 0, 0)"),
    "pidfd_open": call("C.syscall(434, parent, 0)"),
    "kcmp": call("C.syscall($NR_kcmp, parent, os.getpid(), 0, 0, 0)"),
    "inherited files": "import os\nfor f in range(3, 1024):\n  try: os.fstat(f); print('GOT', f)\n  except OSError: pass",
    "kernel log": call("C.klogctl(3, ctypes.create_string_buffer(4096), 4096)"),
    "kernel memory": does("open('/dev/mem', 'rb').read(1)"),
    "raw disk": does("import glob; open(glob.glob('/dev/[vs]da*')[0], 'rb').read(1)"),
    "file handle": call("C.syscall($NR_name_to_handle_at, -100, b'$HOST/secret', ctypes.create_string_buffer(b'\\x80', 200), ctypes.byref(ctypes.c_int()), 0)"),
    "terminal": does("open('/dev/tty')"),
    "put words into a terminal": does("import fcntl, termios; fcntl.ioctl(2, termios.TIOCSTI, b'x')"),
    "system secrets": does("os.listdir('/sys/kernel')"),
}

SIGNALS = {
    "kill the parent": does("os.kill(parent, 9)"),
    "kill the parent's thread": call("C.syscall($NR_tgkill, parent, parent, 9)"),
    "tkill": call("C.syscall($NR_tkill, parent, 9)"),
    "rt_sigqueueinfo": call("C.syscall($NR_rt_sigqueueinfo, parent, 9, (ctypes.c_int * 32)(9, 0, -1))"),
    "pidfd_send_signal": call("C.syscall(424, C.syscall(434, parent, 0), 9, None, 0)"),
    "stop the parent": call("C.kill(parent, 19)"),
    "kill the group": call("C.killpg(0, 9)"),
    "kill everybody": call("C.kill(-1, 9)"),
    "kill every number": "import os\nfor p in range(2, 40000):\n  if p != os.getpid():\n    try: os.kill(p, 9); print('GOT')\n    except OSError: pass",
    "a pipe that signals": does("import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, parent)"),
    "a pipe that signals with kill": does("import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, 10, 9)"),
    "a pipe that signals a thread": does("import fcntl, struct\nr, w = os.pipe()\nfcntl.fcntl(r, 15, struct.pack('ii', 1, parent))"),
    "owner by ioctl": does("import fcntl, struct\nr, w = os.pipe()\nfcntl.ioctl(r, 0x8901, struct.pack('i', parent))"),
    "slow the parent": call("C.setpriority(0, parent, 19)"),
    "limit the parent": call("C.prlimit(parent, 0, (ctypes.c_uint64 * 2)(1, 1), None)"),
    "bind the parent to a core": does("os.sched_setaffinity(parent, {0})"),
    "idle the parent's disk": call("C.syscall($NR_ioprio_set, 1, parent, 3 << 13)"),
    "schedule oneself first": does("os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))"),
}

NETWORK = {
    "TCP": does("import socket; socket.create_connection(('127.0.0.1', $TCP), 1)"),
    "UDP": does("import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', $UDP))"),
    "listen": does("import socket; socket.socket().listen()"),
    "IPv6": does("import socket; socket.socket(socket.AF_INET6)"),
    "local socket": does("import socket; socket.socket(socket.AF_UNIX).bind('s')"),
    "abstract socket": does("import socket; socket.socket(socket.AF_UNIX).bind('\\0canary')"),
    "socket pair": does("import socket; socket.socketpair()"),
    "raw": does("import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)"),
    "netlink": does("import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)"),
    "vsock": does("import socket; socket.socket(socket.AF_VSOCK)"),
    "urllib": does("import urllib.request; urllib.request.urlopen('http://127.0.0.1:$TCP', timeout=1)"),
    "names": does("import socket; socket.getaddrinfo('example.com', 80)"),
    "socket in C": call("C.socket(2, 1, 0)"),
    "message queue": call("C.mq_open(b'/canary', 66, 0o600, None)"),
    "System V queue": call("C.msgget(0, 0o1600)"),
    "semaphores": call("C.semget(0, 1, 0o1600)"),
}

KERNEL = {
    "mount": call("-1 + (C.mount(b'none', b'/mnt', b'tmpfs', 0, None) == 0)"),
    "bind mount": call("C.mount(b'/', b'/mnt', None, 4096, None)"),
    "unmount": call("C.umount2(b'/tmp', 2)"),
    "new mount calls": call("C.syscall(430, b'tmpfs', 0)"),
    "open_tree": call("C.syscall(428, -100, b'/', 1)"),
    "chroot": does("os.chroot('.')"),
    "pivot_root": call("C.syscall($NR_pivot_root, b'.', b'.')"),
    "join a namespace": call("C.setns(0, 0x40000000)"),
    "hostname": call("C.sethostname(b'canary', 6)"),
    "clock": does("import time; time.clock_settime(0, time.time())"),
    "adjust the clock": call("C.adjtimex((ctypes.c_int * 64)(0x8000))"),
    "reboot": call("C.reboot(0)"),
    "swap": call("C.swapon(b'/dev/null', 0)"),
    "accounting": call("C.acct(None)"),
    "quota": call("C.quotactl(0, None, 0, None)"),
    "bpf": call("C.syscall($NR_bpf, 0, ctypes.create_string_buffer(128), 128)"),
    "perf": call("C.syscall($NR_perf_event_open, ctypes.create_string_buffer(b'\\0\\0\\0\\0\\x70', 128), 0, -1, -1, 0)"),
    "userfaultfd": call("C.syscall($NR_userfaultfd, 1)"),
    "keys": call("C.syscall($NR_keyctl, 0, -3, 1)"),
    "add a key": call("C.syscall($NR_add_key, b'user', b'canary', b'x', 1, -3)"),
    "module": call("C.syscall($NR_init_module, b'', 0, b'')"),
    "kexec": call("C.syscall($NR_kexec_load, 0, 0, None, 0)"),
    "personality": call("C.personality(0x0040000)"),
    "another filter": call("C.syscall($NR_seccomp, 0, 0, None)"),
    "own domain": call("C.syscall(444, (ctypes.c_uint64 * 1)(1), 8, 0)"),
    "capabilities": call("C.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*[2**32 - 1] * 6))"),
    "another user": does("os.setuid(12345)"),
    "same user": does("os.setresuid(os.getuid(), os.getuid(), os.getuid())"),
    "other groups": does("os.setgroups([0])"),
    "raise a limit": does("import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))"),
    "raise a limit in C": call("C.prlimit(0, 9, (ctypes.c_uint64 * 2)(2**64 - 1, 2**64 - 1), None)"),
    "dump core": call("C.prctl(4, 1, 0, 0, 0)"),
    "hang up": call("C.vhangup()"),
    "write all disks": call("C.syncfs(1)"),
    "listen to files": call("C.syscall($NR_fanotify_init, 0, 0)"),
}

MACHINE_CODE = """import ctypes, mmap
m = mmap.mmap(-1, 4096, prot=7)
m.write(bytes.fromhex({code!r}))
print('GOT' if ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))() > 0 else '')"""
if platform.machine() == "x86_64":
    KERNEL["32-bit getpid"] = MACHINE_CODE.format(code="b814000000cd80c3")          # mov eax, 20; int 0x80; ret
    KERNEL["32-bit fork"] = MACHINE_CODE.format(code="b802000000cd80c3")
    KERNEL["x32 getpid"] = call("C.syscall(0x40000000 + 39)")
    KERNEL["I/O ports"] = call("C.iopl(3)")
    KERNEL["segment table"] = call("C.syscall($NR_modify_ldt, 0, ctypes.create_string_buffer(64), 64)")

HARNESS = {
    "NUL": "print(1)\0",
    "lone surrogate": "print('\ud800')",
    "byte order mark": "\ufeffprint(1)",
    "unknown coding": "# coding: nonsense\n",
    "invalid bytes": b"\xff\xfe\x00print",
    "10 MB of comment": "#" * 10**7,
    "a number of a million digits": "x = " + "9" * 10**6,
    "20 MB": "#" * (20 << 20),
    "leaves at once": "import os; os._exit(0)",
    "says it was refused": "import os; os._exit(125)",
    "exit with an object": "import sys; sys.exit([1, 2])",
    "exit with a huge number": "import sys; sys.exit(2**70)",
    "aborts": "import os; os.abort()",
    "kills itself": "import os; os.kill(os.getpid(), 9)",
    "crashes": "import ctypes; ctypes.string_at(1)",
    "loses its modules": "import sys\nsys.modules.clear()",
    "loses its builtins": "import builtins\nbuiltins.__dict__.clear()",
    "loses its streams": "import sys\nsys.stdout = sys.stderr = None\nprint(1)",
    "raises without a type": "raise type('\\n', (BaseException,), {'__module__': None})",
    "replaces the ending": "import atexit, threading, os\nthreading._shutdown = atexit._run_exitfuncs = os._exit = lambda *a: None",
    "group of exceptions": "raise BaseExceptionGroup('x', [ValueError(1), SystemExit(0)])",
    "writes on every file": "import os\nfor f in range(3, 64):\n  try: os.write(f, b'0\\n')\n  except OSError: pass",
}

CLASSES = {"mild": MILD, "time": TIME, "memory": MEMORY, "output": OUTPUT, "disk": DISK, "processes": PROCESSES,
           "files": FILES, "reads": READS, "signals": SIGNALS, "network": NETWORK, "kernel": KERNEL, "harness": HARNESS}
NO_WALL = ("time", "memory", "output", "harness")       # held by limits and by our own process

# -- answers that try to pass ---------------------------------------------------------------------------------------------

TESTS = "def check(f):\n    assert f(3) == 9\n    assert f(-2) == 4\n    assert f(0) == 0\n\ncheck(sq)\n"
WRONG = "\ndef sq(x): return x + 1\n"
ALWAYS = "  __eq__ = __ge__ = __le__ = __gt__ = __lt__ = __contains__ = lambda s, o: True\n  __ne__ = lambda s, o: False\n  __hash__ = lambda s: 0\n"

FORGERIES = {
    "wrong": WRONG,
    "nothing": "",
    "sys.exit": "import sys\nsys.exit(0)" + WRONG,
    "os._exit": "import os\nos._exit(0)" + WRONG,
    "os._exit when called": "import os\ndef sq(x): os._exit(0)",
    "SystemExit when called": "def sq(x): raise SystemExit(0)",
    "no exception that is caught": "def sq(x): raise BaseException",
    "stops the iteration": "def sq(x): raise StopIteration",
    "generator exit": "def sq(x): raise GeneratorExit",
    "prints passed": "print('passed'); print('ok', flush=True)" + WRONG,
    "patched assert": "import builtins\nclass E(Exception):\n  def __new__(c, *a): raise SystemExit(0)\nbuiltins.AssertionError = E" + WRONG,
    "no assertions": "import sys\nsys.flags = None" + WRONG,
    "equal to everything": f"class E:\n{ALWAYS}def sq(x): return E()",
    "an int that equals everything": f"class E(int):\n{ALWAYS}def sq(x): return E(1)",
    "a str that equals everything": f"class E(str):\n{ALWAYS}def sq(x): return E()",
    "a list that equals everything": f"class E(list):\n{ALWAYS}def sq(x): return E()",
    "a dict that equals everything": f"class E(dict):\n{ALWAYS}def sq(x): return E()",
    "equal inside a list": f"class E:\n{ALWAYS}def sq(x): return [E()]",
    "patched equality": "import operator, builtins\noperator.eq = lambda a, b: True\nbuiltins.isinstance = lambda a, b: True" + WRONG,
    "its own type called int": f"class int:\n{ALWAYS}def sq(x): return int()",
    "changes ints": "import ctypes\nctypes.c_int.from_address(id(9) + 24).value = 4" + WRONG,
    "at exit": "import atexit, os\natexit.register(os._exit, 0)" + WRONG,
    "exit code in an error hook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\nraise ValueError" + WRONG,
    "tracing": "import sys\ndef t(f, e, a):\n  if 'other' in f.f_locals: f.f_locals['other'] = 0\n  return t\nsys.settrace(t)" + WRONG,
    "walks the collector": "import gc\nfor o in gc.get_objects():\n  if isinstance(o, dict) and 'sq' in o: o['check'] = lambda f: None" + WRONG,
    "walks the frames": "import sys\nf = sys._getframe()\nwhile f:\n  f.f_globals['check'] = lambda f: None\n  f = f.f_back" + WRONG,
    "patches the protocol": "import gc, types\nfor m in gc.get_objects():\n  if isinstance(m, types.ModuleType) and hasattr(m, 'encode') and hasattr(m, 'decode'):\n    m.encode = lambda *a: True" + WRONG,
    "writes on every file": "import os\nfor f in range(3, 64):\n  for text in (b'passed', b'0\\n', b'END', b'\\6\\0\\0\\0passed'):\n    try: os.write(f, text)\n    except OSError: pass" + WRONG,
    "answers before it is asked": "import os\nr = b'[\"value\", null]'\nfor i in range(9): os.write(3, len(r).to_bytes(4, 'little') + r)" + WRONG,
    "answers with an unknown type": "import os\nr = b'[\"value\", [\"object\", 1]]'\nfor i in range(9): os.write(3, len(r).to_bytes(4, 'little') + r)" + WRONG,
    "answers with nothing but depth": "import os\nr = b'[' * 100000\nfor i in range(2): os.write(3, len(r).to_bytes(4, 'little') + r)" + WRONG,
    "answers with a false length": "import os\nos.write(3, b'\\xff' * 64)" + WRONG,
    "answers with noise": "import os\nos.write(3, os.urandom(10000))" + WRONG,
    "raises the judge's error": "def sq(x): raise type('AnswerError', (Exception,), {})",
    "raises an exit by its name": "import os\nr = b'[\"raised\", \"SystemExit\", \"0\"]'\nfor i in range(3): os.write(3, len(r).to_bytes(4, 'little') + r)" + WRONG,
    "closes the channel": "import os\nos.close(3)" + WRONG,
    "closes the channel when called": "import os\ndef sq(x): os.close(3)",
    "returns a function": "def sq(x): return lambda *a: True",
    "returns a mock": "def sq(x):\n  from unittest.mock import MagicMock\n  return MagicMock(__eq__=lambda s, o: True)",
    "returns a generator": "def sq(x): yield x * x",
    "returns an exception": "def sq(x): return SystemExit(0)",
    "returns not a number": "def sq(x): return float('nan')",
    "returns a loop": "def sq(x):\n  l = []\n  l.append(l)\n  return l",
    "returns a huge list": "def sq(x): return [0] * 10**7",
    "returns a huge number": "def sq(x): return 10 ** 10**5",
    "name is hung": "class T(type):\n  @property\n  def __name__(c):\n    while True: pass\nclass E(metaclass=T): pass\ndef sq(x): return E()",
    "kills its parent": "import os\ndef sq(x): os.kill(os.getppid(), 9)",
    "finds the tests": "import glob, os\ndef sq(x): return eval(open(glob.glob('/tmp/*')[0]).read())",
    "hangs": "def sq(x):\n  while True: pass",
    "flood": "def sq(x):\n  while True: print('passed' * 1000)",
    "no memory": "def sq(x): return bytearray(10**12)",
    "check of its own": "def check(f): pass" + WRONG,
    "another alphabet": "def \u0455q(x): return x * x",
    "no source": "\0",
}
HONEST = {
    "right": "def sq(x): return x * x",
    "right, and talkative": "import sys\nprint('passed')\ndef sq(x):\n  print('x' * 1000, file=sys.stderr)\n  return x * x",
    "right after state": "calls = []\ndef sq(x):\n  calls.append(x)\n  return x ** 2 if len(calls) < 4 else None",
    "right with floats": "def sq(x): return float(x) ** 2",
}


def number(name: str) -> str:
    """The number of a system call on this machine (-1 where there is none, which is refused as well)."""
    column = 0 if platform.machine() == "x86_64" else 1
    if name in seccomp.ASKED:
        return str(seccomp.ASKED[name][column])
    return re.search(rf"\b{name} (\S+)/(\S+)", seccomp.REFUSED)[column + 1].replace("-", "-1")


class Outside:
    """What an attack must leave alone: a folder, two sockets, this process and its surroundings."""

    def __init__(self, folder: Path):
        self.folder, self.touched = folder, []
        (folder / "empty").mkdir()
        for name, text in (("keep", "keep"), ("secret", "SECRET"), ("secret_module.py", "print('GOT')")):
            (folder / name).write_text(text)
        self.tcp, self.udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for s in (self.tcp, self.udp):
            s.bind(("127.0.0.1", 0))
            s.settimeout(0)
        self.tcp.listen()
        self.places = [p for p in (tempfile.gettempdir(), "/dev/shm", "/var/tmp") if os.path.isdir(p)]
        self.before = self.look()

    def fill(self, text: str | bytes) -> str | bytes:
        if isinstance(text, bytes):
            return text
        text = re.sub(r"\$NR_(\w+)", lambda match: number(match[1]), text)
        for name, value in (("$HOST", self.folder), ("$REPO", Path(__file__).parents[2]), ("$TCP", self.tcp.getsockname()[1]),
                            ("$UDP", self.udp.getsockname()[1])):
            text = text.replace(name, str(value))
        return text

    def look(self) -> dict:
        seen = {"host": socket.gethostname(), "niceness": os.nice(0), "cores": sorted(os.sched_getaffinity(0))}
        for path in (self.folder, *sorted(self.folder.rglob("*"))):
            s = path.lstat()
            text = path.read_text() if path.is_file() else sorted(os.listdir(path))
            seen[path.name] = (stat.filemode(s.st_mode), s.st_uid, s.st_size, s.st_mtime_ns, s.st_nlink, text)
        for place in self.places:
            seen[place] = [name for name in os.listdir(place) if "canary" in name or name.startswith("sandbox-")]
        for what, sock in (("TCP", self.tcp), ("UDP", self.udp)):
            try:
                sock.recv(1) if what == "UDP" else sock.accept()
                seen[what] = "touched"
            except BlockingIOError:
                seen[what] = "quiet"
        return seen

    def changed(self) -> list[str]:
        now = self.look()
        return [f"{what}: {self.before.get(what)} → {now.get(what)}" for what in now | self.before if now.get(what) != self.before.get(what)]


def attack(outside: Outside, kind: str, name: str, code: str | bytes) -> list[dict]:
    """What broke: an empty list, or one entry."""
    start, timeout = time.monotonic(), TIMEOUT / (2 if kind == "time" else 1)
    result = run_code(outside.fill(code), timeout=timeout)
    late = time.monotonic() - start - timeout
    said = result.stdout + result.stderr * (kind == "reads")
    faults = [f"said {said[:200]!r}"] * ("GOT" in result.stdout or "SECRET" in said)
    faults += [f"{late:.1f} s late"] * (late > 5) + ["raw escapes"] * any(c < " " for c in result.why)
    faults += ["refused"] * (result.why.startswith("refused") and "20 MB" not in name and "refused" not in name)
    return [{"class": kind, "attack": name, "faults": faults, "why": result.why, "stderr": result.stderr[-300:], "late": late}]


def forge(kind: str, name: str, code: str) -> list[dict]:
    start = time.monotonic()
    result = run_tests(code, TESTS, ["sq"], timeout=TIMEOUT if kind == "forgery" else 5)
    late = time.monotonic() - start - TIMEOUT
    faults = [f"passed: {result.ok}"] * (result.ok != (kind == "honest"))
    return [{"class": kind, "attack": name, "faults": faults, "why": result.why, "stderr": result.stderr[-300:], "late": late}]


def run_all(classes: dict, verdicts: dict) -> list[dict]:
    """All of them, each once; -> a report of each."""
    os.environ["API_KEY"] = "SECRET"
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, ThreadPoolExecutor(4) as pool:
        outside = Outside(Path(folder))
        reports = []
        for kind, attacks in classes.items():
            found = list(pool.map(lambda item, kind=kind: attack(outside, kind, *item), attacks.items()))
            reports += [report for one in found for report in one]
            reports += [{"class": kind, "attack": "(all)", "faults": changed}] if (changed := outside.changed()) else []
            if kind == "mild" and any(report["faults"] for report in reports):
                return reports              # do not try the others
        for kind, answers in verdicts.items():
            found = pool.map(lambda item, kind=kind: forge(kind, *item), answers.items())
            reports += [report for one in found for report in one]
        return reports


def strays() -> list[str]:
    """Programs that the helper still runs."""
    from nanochat.sandbox.helper import helper

    return Path(f"/proc/{helper().process.pid}/task/{helper().process.pid}/children").read_text().split()


if __name__ == "__main__":
    if sandbox_level() != "strict":
        sys.exit(f"attacks want the level strict; here is {sandbox_level()}")
    walls = sys.argv[1:] == ["walls"]
    reports = run_all({kind: attacks for kind, attacks in CLASSES.items() if not (walls and kind in NO_WALL)},
                      {} if walls else {"forgery": FORGERIES, "honest": HONEST})
    if strays():
        reports.append({"class": "all", "attack": "(all)", "faults": [f"left processes: {strays()}"]})
    for report in reports:
        if report["faults"] or "-v" in sys.argv:
            print(json.dumps(report))
    print(json.dumps({"tried": len(reports), "broken": sum(bool(report["faults"]) for report in reports),
                      "threads": threading.active_count()}))
