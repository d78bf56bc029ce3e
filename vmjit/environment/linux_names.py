"""The names of RISC-V Linux's system calls by number (asm-generic/unistd.h), for reports."""

from __future__ import annotations

_NAMES = {
    17: "getcwd", 23: "dup", 24: "dup3", 25: "fcntl", 26: "inotify_init1", 29: "ioctl", 32: "flock", 33: "mknodat",
    34: "mkdirat", 35: "unlinkat", 36: "symlinkat", 37: "linkat", 38: "renameat", 43: "statfs", 44: "fstatfs",
    45: "truncate", 46: "ftruncate", 47: "fallocate", 48: "faccessat", 49: "chdir", 50: "fchdir", 51: "chroot",
    52: "fchmod", 53: "fchmodat", 54: "fchownat", 55: "fchown", 56: "openat", 57: "close", 59: "pipe2",
    61: "getdents64", 62: "lseek", 63: "read", 64: "write", 65: "readv", 66: "writev", 67: "pread64", 68: "pwrite64",
    69: "preadv", 70: "pwritev", 71: "sendfile", 72: "pselect6", 73: "ppoll", 76: "splice", 78: "readlinkat",
    79: "newfstatat", 80: "fstat", 81: "sync", 82: "fsync", 83: "fdatasync", 88: "utimensat", 90: "capget", 93: "exit",
    94: "exit_group", 95: "waitid", 96: "set_tid_address", 98: "futex", 99: "set_robust_list", 100: "get_robust_list",
    101: "nanosleep", 102: "getitimer", 103: "setitimer", 113: "clock_gettime", 114: "clock_getres",
    115: "clock_nanosleep", 117: "ptrace", 122: "sched_setaffinity", 123: "sched_getaffinity", 124: "sched_yield",
    129: "kill", 130: "tkill", 131: "tgkill", 132: "sigaltstack", 133: "rt_sigsuspend", 134: "rt_sigaction",
    135: "rt_sigprocmask", 137: "rt_sigtimedwait", 139: "rt_sigreturn", 140: "setpriority", 144: "setgid",
    146: "setuid", 153: "times", 154: "setpgid", 155: "getpgid", 157: "setsid", 160: "uname", 163: "getrlimit",
    164: "setrlimit", 165: "getrusage", 166: "umask", 167: "prctl", 168: "getcpu", 169: "gettimeofday", 172: "getpid",
    173: "getppid", 174: "getuid", 175: "geteuid", 176: "getgid", 177: "getegid", 178: "gettid", 179: "sysinfo",
    198: "socket", 200: "bind", 201: "listen", 202: "accept", 203: "connect", 206: "sendto", 207: "recvfrom",
    214: "brk", 215: "munmap", 216: "mremap", 220: "clone", 221: "execve", 222: "mmap", 223: "fadvise64",
    226: "mprotect", 227: "msync", 233: "madvise", 258: "riscv_hwprobe", 259: "riscv_flush_icache", 260: "wait4",
    261: "prlimit64", 276: "renameat2", 278: "getrandom", 279: "memfd_create", 283: "membarrier",
    285: "copy_file_range", 291: "statx", 293: "rseq", 403: "clock_gettime64", 404: "clock_settime64",
    406: "clock_getres_time64", 407: "clock_nanosleep_time64", 413: "pselect6_time64", 414: "ppoll_time64",
    422: "futex_time64", 435: "clone3", 436: "close_range", 437: "openat2", 439: "faccessat2",
}  # fmt: skip


def system_call_name(number: int) -> str:
    """`openat`; a number that has no name here as it is."""
    return _NAMES.get(number, str(number))
