"""What the seccomp filter does with each system call: the table, as data.

Every name of `syscalls.py` is in exactly one place here; tests/arch holds that. An unnamed number is ENOSYS.

Four constant answers (`ALLOWED`, `EPERM_CALLS`, `ENOSYS_CALLS`, `NOTIFY_CALLS`) and `rules()`, where arguments decide.
A rule is rows tried in order; a row is (action, *conditions) and applies when all its conditions hold; the last row
has none. Only registers are compared: what a pointer points at can change after the filter looked.

ENOSYS is for optional features (callers fall back to an older way), EPERM for acts that must be seen to be refused.
Arguments the kernel takes as int are compared in their low half alone, since it ignores the high one.
"""

from __future__ import annotations

import errno

# Actions, <linux/seccomp.h>
KILL_PROCESS = 0x80000000
ALLOW = 0x7FFF0000
NOTIFY = 0x7FC00000
_ERRNO = 0x00050000
EPERM = _ERRNO | errno.EPERM
ENOSYS = _ERRNO | errno.ENOSYS
FAKE_SUCCESS = _ERRNO  # errno 0: the caller sees success and nothing was done
EAFNOSUPPORT = _ERRNO | errno.EAFNOSUPPORT
EPROTONOSUPPORT = _ERRNO | errno.EPROTONOSUPPORT
EOPNOTSUPP = _ERRNO | errno.EOPNOTSUPP

Condition = tuple[str, int, int, int]
Row = tuple[object, ...]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def equal(arg: int, value: int) -> Condition:
    """int argument `arg` is `value`."""
    return ("masked", arg, 0xFFFFFFFF, value)


def masked(arg: int, mask: int, value: int) -> Condition:
    """int argument `arg`, reduced to `mask`, is `value`."""
    return ("masked", arg, mask, value)


def any_bit(arg: int, mask: int) -> Condition:
    """Some bit of `mask` is set in int argument `arg`."""
    return ("bits", arg, mask, 0)


def pointer(arg: int) -> Condition:
    """64-bit argument `arg` is not NULL."""
    return ("pointer", arg, 0, 0)


# --- constant answers -------------------------------------------------------------------------------------------

# Names a path or changes metadata for which Landlock has no right; or runs a program; or opens a way out.
NOTIFY_CALLS = _names(
    """
    openat2 creat execve execveat rename renameat renameat2 unlink unlinkat rmdir mkdir mkdirat link linkat symlink
    symlinkat mknod mknodat truncate chmod fchmod fchmodat fchmodat2 chown lchown fchown fchownat utime utimes
    futimesat utimensat setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat
    file_setattr connect bind
    """
)

# Namespaces and mounts would change what a path means; then other processes; then the machine's administration.
EPERM_CALLS = _names(
    """
    setns mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr
    open_tree_attr
    ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd kcmp
    kexec_load kexec_file_load init_module finit_module delete_module swapon swapoff reboot acct quotactl
    settimeofday clock_settime adjtimex clock_adjtime syslog sethostname setdomainname vhangup iopl ioperm
    lsm_set_self_attr
    """
)

# io_uring does file work that seccomp never sees; clone3 keeps its flags in memory (glibc falls back to clone).
# Keys, SysV and POSIX message queues belong to the uid, not to the session: by an id, without any *get call, they
# reach other programs. mq_unlink passes Landlock. Handles (open_by_handle_at) and fanotify look past paths.
# memfd_secret would hide a path argument from the supervisor. Last line: numbers without a call behind them.
ENOSYS_CALLS = _names(
    """
    io_uring_setup io_uring_enter io_uring_register clone3
    add_key request_key keyctl
    shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget semop semtimedop semctl
    mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
    bpf perf_event_open userfaultfd name_to_handle_at open_by_handle_at fanotify_init fanotify_mark memfd_secret
    modify_ldt listns uselib lookup_dcookie nfsservctl _sysctl
    create_module get_kernel_syms query_module getpmsg putpmsg afs_syscall tuxcall security vserver
    set_thread_area get_thread_area epoll_ctl_old epoll_wait_old
    """
)

# By descriptor; own memory, threads, timers, signals (Landlock scopes them), own identity; looking at metadata.
ALLOWED = _names(
    """
    read write close pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 lseek sendfile splice tee vmsplice
    copy_file_range ftruncate fallocate fadvise64 readahead flock fsync fdatasync sync syncfs sync_file_range fcntl
    dup dup2 dup3 pipe pipe2 close_range io_setup io_destroy io_getevents io_submit io_cancel io_pgetevents
    memfd_create cachestat quotactl_fd

    stat fstat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents getdents64 getcwd chdir
    fchdir statfs fstatfs ustat sysfs getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr
    listxattrat file_getattr statmount listmount umask inotify_init inotify_init1 inotify_add_watch inotify_rm_watch

    poll ppoll select pselect6 epoll_create epoll_create1 epoll_wait epoll_pwait epoll_pwait2 epoll_ctl eventfd
    eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime

    mmap mprotect munmap mremap brk msync mincore madvise mlock mlock2 munlock mlockall munlockall mseal membarrier
    remap_file_pages mbind set_mempolicy get_mempolicy set_mempolicy_home_node pkey_mprotect pkey_alloc pkey_free
    map_shadow_stack

    fork vfork exit exit_group wait4 waitid kill tkill tgkill pidfd_open pidfd_send_signal rt_sigaction rt_sigprocmask
    rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo rt_sigsuspend sigaltstack pause
    futex futex_waitv futex_wake futex_wait futex_requeue set_robust_list get_robust_list set_tid_address rseq
    restart_syscall sched_yield arch_prctl uretprobe uprobe

    getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgid getpgrp getsid setuid
    setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups setpgid setsid capget capset getrlimit
    getrusage sysinfo times uname getcpu getpriority ioprio_get sched_getparam sched_getscheduler sched_getaffinity
    sched_getattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval getrandom

    nanosleep clock_gettime clock_getres clock_nanosleep gettimeofday time alarm getitimer setitimer timer_create
    timer_settime timer_gettime timer_getoverrun timer_delete

    accept accept4 listen shutdown recvfrom recvmsg recvmmsg getsockname getpeername getsockopt

    landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp lsm_get_self_attr lsm_list_modules
    """
)

# --- where arguments decide -------------------------------------------------------------------------------------

O_PATH = 0x200000  # <asm-generic/fcntl.h>, the same on both machines
DIRECTORY_BITS = 0x10000 | 0x4000  # O_DIRECTORY of x86_64 and of aarch64; each is the other's O_DIRECT
WRITE_BITS = 0x3 | 0x40 | 0x200 | 0x400000  # O_ACCMODE, O_CREAT, O_TRUNC, __O_TMPFILE
NAMESPACES = (
    0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}; CLONE_NEWTIME is a signal bit of clone(2)
)
NEWTIME = 0x80
RLIMIT_RTTIME = 15  # remit writes the session's mark there
MSG_FASTOPEN = 0x20000000  # connects as it sends; Landlock does not look (landlock-lsm issue 41)
FAST_OPEN = (
    23,
    30,
)  # TCP_FASTOPEN, TCP_FASTOPEN_CONNECT: a connect that happens in a later write (linux/tcp.h)
# (level, option) by which what is addressed to this machine, as the supervisor connected it, would leave it all the same: by
# another host on the way, or by an interface of one's choice (<linux/in.h>, <linux/in6.h>, <asm-generic/socket.h>).
ROUTES = (
    (0, 4),  # IP_OPTIONS: source routes
    (0, 50),  # IP_UNICAST_IF
    (41, 6),  # IPV6_2292PKTOPTIONS: may hold the next two
    (41, 57),  # IPV6_RTHDR: segment routing
    (41, 50),  # IPV6_PKTINFO: an interface and a source address
    (41, 32),  # IPV6_FLOWLABEL_MGR: a label brings options of its own
    (41, 76),  # IPV6_UNICAST_IF
    (1, 25),  # SO_BINDTODEVICE
    (1, 62),  # SO_BINDTOIFINDEX
)
# To join a group sends its address to the network, which is of one's choice, and hears what others say there: IP_ADD_MEMBERSHIP,
# IP_ADD_SOURCE_MEMBERSHIP, IPV6_ADD_MEMBERSHIP, IPV6_JOIN_ANYCAST, MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP (<linux/in.h>, in6.h).
GROUPS = ((0, 35), (0, 39), (41, 20), (41, 27), (0, 42), (0, 46), (41, 42), (41, 46))
SOCK_TYPE_MASK = 0xF  # <linux/net.h>: the rest of `type` is SOCK_CLOEXEC and SOCK_NONBLOCK
STREAM, DGRAM, SEQPACKET = 1, 2, 5
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMPV6 = 1, 6, 17, 58

# ioctl commands that act through a descriptor opened for reading, or type into the person's terminal.
IOCTLS = (
    0x5412,  # TIOCSTI: keystrokes for the shell outside (asm-generic/ioctls.h)
    0x541C,  # TIOCLINUX: paste the console's selection
    0x541D,  # TIOCCONS: take over console output
    0x5423,  # TIOCSETD: load a line discipline
    0x40086602,  # FS_IOC_SETFLAGS: immutable, append-only (linux/fs.h)
    0x401C5820,  # FS_IOC_FSSETXATTR
    0x40087602,  # FS_IOC_SETVERSION
    0x40086604,  # EXT4_IOC_SETVERSION
    0x800C6613,  # FS_IOC_SET_ENCRYPTION_POLICY (linux/fscrypt.h)
    0xC0506617,  # FS_IOC_ADD_ENCRYPTION_KEY
    0xC0406618,  # FS_IOC_REMOVE_ENCRYPTION_KEY
    0x40047211,  # FAT_IOCTL_SET_ATTRIBUTES (linux/msdos_fs.h)
    0x50009401,  # BTRFS_IOC_SNAP_CREATE (linux/btrfs.h): makes and removes trees; Landlock is not asked
    0x5000940E,  # BTRFS_IOC_SUBVOL_CREATE
    0x5000940F,  # BTRFS_IOC_SNAP_DESTROY
    0x50009417,  # BTRFS_IOC_SNAP_CREATE_V2
    0x50009418,  # BTRFS_IOC_SUBVOL_CREATE_V2
    0x4008941A,  # BTRFS_IOC_SUBVOL_SETFLAGS
    0xC0C89425,  # BTRFS_IOC_SET_RECEIVED_SUBVOL
    0x5000943F,  # BTRFS_IOC_SNAP_DESTROY_V2
)


def _reads(flags: int, reads_fixed: bool) -> tuple[Row, ...]:
    # O_PATH beats every other flag (fs/open.c, build_open_how) and gives a handle without read or write.
    rows: tuple[Row, ...] = ((ALLOW, any_bit(flags, O_PATH)),)
    if reads_fixed:
        # Not directories: a policy may let one be listed whose tree is closed, which Landlock cannot say.
        rows += ((ALLOW, masked(flags, WRITE_BITS | DIRECTORY_BITS, 0)),)
    return (*rows, (NOTIFY,))


def _socket(net_all: bool) -> tuple[Row, ...]:
    rows: list[Row] = [
        (ALLOW, equal(0, AF_UNIX), masked(1, SOCK_TYPE_MASK, kind)) for kind in (STREAM, DGRAM, SEQPACKET)
    ]
    rows.append((NOTIFY, equal(0, AF_UNIX)))  # RAW, which the kernel turns into DGRAM
    for family in (AF_INET, AF_INET6):
        stream = masked(1, SOCK_TYPE_MASK, STREAM)
        datagram = masked(1, SOCK_TYPE_MASK, DGRAM)
        rows += [
            (ALLOW, equal(0, family), stream, equal(2, 0)),
            (ALLOW, equal(0, family), stream, equal(2, IPPROTO_TCP)),
            # MPTCP 262, SMC 256, SCTP 132: other ways to a peer, outside Landlock's CONNECT_TCP
            (EPROTONOSUPPORT, equal(0, family), stream),
        ]
        # 132 SCTP, 255 RAW and 262 MPTCP with any other type: refused without asking
        rows += [(EPROTONOSUPPORT, equal(0, family), equal(2, protocol)) for protocol in (132, 255, 262)]
        # Where a datagram goes is decided as it is sent, or as the socket is connected.
        ping = (IPPROTO_ICMP if family == AF_INET else IPPROTO_ICMPV6,) if net_all else ()
        rows += [
            (ALLOW, equal(0, family), datagram, equal(2, protocol)) for protocol in (0, IPPROTO_UDP, *ping)
        ]
        rows.append((NOTIFY, equal(0, family)))
    rows += [
        (ALLOW, equal(0, AF_NETLINK), equal(2, 0)),  # NETLINK_ROUTE: getaddrinfo and getifaddrs ask it
        (EPROTONOSUPPORT, equal(0, AF_NETLINK)),
        (EAFNOSUPPORT,),
    ]
    return tuple(rows)


def rules(*, reads_fixed: bool, net_all: bool) -> dict[str, tuple[Row, ...]]:
    """Return name -> rows for the calls whose arguments decide.

    reads_fixed: opens that can only read are left to Landlock. net_all: the session may use IP as it likes
    (connect and bind still notify, for AF_UNIX).
    """
    other = (NOTIFY, any_bit(0, 0xFFFFFFFF))  # pid != 0; the caller's own is often given as a number
    fast_open: tuple[Row, ...] = () if net_all else ((EOPNOTSUPP, any_bit(2, MSG_FASTOPEN)),)
    fast_open_mm: tuple[Row, ...] = () if net_all else ((EOPNOTSUPP, any_bit(3, MSG_FASTOPEN)),)
    addressed: tuple[Row, ...] = () if net_all else (*fast_open_mm, (NOTIFY, pointer(4)))
    # Not seen by the filter: the destination of a message, and whether the number still means the same socket.
    message: Row = (ALLOW,) if net_all else (NOTIFY,)
    return {
        "open": _reads(1, reads_fixed),
        "openat": _reads(2, reads_fixed),
        "clone": ((EPERM, any_bit(0, NAMESPACES)), (ALLOW,)),
        "unshare": ((EPERM, any_bit(0, NAMESPACES | NEWTIME)), (ALLOW,)),
        "socket": _socket(net_all),
        "socketpair": (
            (ALLOW, equal(0, AF_UNIX), masked(1, SOCK_TYPE_MASK, STREAM)),
            (ALLOW, equal(0, AF_UNIX), masked(1, SOCK_TYPE_MASK, SEQPACKET)),
            (ALLOW, equal(0, AF_UNIX), masked(1, SOCK_TYPE_MASK, DGRAM)),
            (NOTIFY, equal(0, AF_UNIX)),
            (EAFNOSUPPORT,),
        ),
        "sendto": (*addressed, (ALLOW,)),
        "sendmsg": (*fast_open, message),
        "sendmmsg": (*fast_open_mm, message),
        "setsockopt": (
            *((EOPNOTSUPP, equal(1, IPPROTO_TCP), equal(2, option)) for option in FAST_OPEN if not net_all),
            *(
                (EPERM, equal(1, level), equal(2, option))
                for level, option in ROUTES + GROUPS
                if not net_all
            ),
            (ALLOW,),
        ),
        "ioctl": (*((EPERM, equal(1, command)) for command in IOCTLS), (ALLOW,)),
        "prctl": (
            (FAKE_SUCCESS, equal(0, 4)),  # PR_SET_DUMPABLE: an undumpable process could not be read
            (EPERM, equal(0, 35)),  # PR_SET_MM: moves argv and the /proc/PID/exe link
            (ALLOW,),
        ),
        "prlimit64": (
            (EPERM, equal(1, RLIMIT_RTTIME), pointer(2)),
            (NOTIFY, any_bit(0, 0xFFFFFFFF), pointer(2)),
            (ALLOW,),
        ),
        "setrlimit": ((EPERM, equal(0, RLIMIT_RTTIME)), (ALLOW,)),
        "sched_setaffinity": (other, (ALLOW,)),
        "sched_setscheduler": (other, (ALLOW,)),
        "sched_setparam": (other, (ALLOW,)),
        "sched_setattr": (other, (ALLOW,)),
        # PRIO_PROCESS of oneself is free; PRIO_PGRP may hold the supervisor, PRIO_USER is everything of the person.
        "setpriority": ((EPERM, equal(0, 2)), (ALLOW, equal(0, 0), equal(1, 0)), (NOTIFY,)),
        "ioprio_set": ((EPERM, equal(0, 3)), (ALLOW, equal(0, 1), equal(1, 0)), (NOTIFY,)),
        "migrate_pages": ((EPERM, any_bit(0, 0xFFFFFFFF)), (ALLOW,)),
        "move_pages": ((EPERM, any_bit(0, 0xFFFFFFFF)), (ALLOW,)),
        # None, a sanitizer's or debugger's ADDR_NO_RANDOMIZE, and the question what is set; nothing laxer.
        "personality": (
            (ALLOW, equal(0, 0)),
            (ALLOW, equal(0, 0x0040000)),
            (ALLOW, equal(0, 0xFFFFFFFF)),
            (EPERM,),
        ),
    }
