"""What attempts are made of: how one is declared, how it asks the kernel, how it says what it got."""

import ctypes
import errno
import os
import platform
import socket
import time

ATTEMPTS = []

libc = ctypes.CDLL(None, use_errno=True)
MACHINE = platform.machine()

# Numbers of x86_64 and of aarch64; None where that architecture never had the call.
CALLS = {
    "unshare": (272, 97), "setns": (308, 268), "clone": (56, 220), "clone3": (435, 435), "mount": (165, 40),
    "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "move_mount": (429, 429),
    "open_tree": (428, 428), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262), "quotactl": (179, 60), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "process_madvise": (440, 440), "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "kcmp": (312, 272), "move_pages": (279, 239),
    "migrate_pages": (256, 238), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162), "vhangup": (153, 58),
    "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None), "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42), "remap_file_pages": (216, 234), "uselib": (134, None), "ustat": (136, None),
    "sysfs": (139, None), "_sysctl": (156, None), "personality": (135, 92), "prctl": (157, 167),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "ioctl": (16, 29), "socket": (41, 198),
    "socketpair": (53, 199), "fchmod": (91, 52), "fchmodat2": (452, 452), "openat2": (437, 437),
    "mknod": (133, None), "setrlimit": (160, 164), "prlimit64": (302, 261), "renameat2": (316, 276),
    "mq_open": (240, 180), "mq_timedreceive": (243, 183), "shmat": (30, 196), "semctl": (66, 191),
    "msgrcv": (70, 188), "memfd_create": (319, 279), "execveat": (322, 281), "mprotect": (10, 226),
    "pkey_mprotect": (329, 288), "seccomp": (317, 277), "capset": (126, 91), "tgkill": (234, 131),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "sendmmsg": (307, 269),
    "setuid": (105, 146), "setgroups": (116, 159), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "memfd_secret": (447, 447), "listmount": (458, 458), "open_tree_attr": (467, 467), "mlockall": (151, 230),
    "map_shadow_stack": (453, 453), "bind": (49, 200),
}

AT_FDCWD = -100

# Why something fails without any layer: the kernel asks for privileges over the user namespace of the process outside.
ABOVE = "start: who is in a user namespace of its own looks into no process outside of it"


class Absent(Exception):
    """This host lacks what the attempt needs, so nothing can be said of it."""


class Stopped(Exception):
    """It came to nothing without the kernel naming an error."""


class Attempt:
    """One way to get out, as data, with the code that goes it."""

    def __init__(self, category, run, tries, gives, by, where, ground, depends, proof, alone):
        self.name = run.__name__.replace("_", "-")
        self.category = category
        self.tries = tries
        self.gives = gives
        self.by = by
        self.where = where
        self.ground = ground
        self.depends = depends
        self.proof = proof
        self.alone = alone
        self.run = run

    def declaration(self):
        """Everything but the code."""
        return {key: value for key, value in vars(self).items() if key != "run"}


def category(name):
    """Gives the decorator that declares attempts of a category.

    tries, gives -- in words, for people.
    by           -- the layers of which each stops it alone, with blanks between; "a+b" where it takes two.
    where        -- the same for policies of some trait ("network", "strict", "read-only"), instead of `by`.
    ground       -- why it fails without any layer too: "principal: ..." or "start: ...".
    depends      -- a setting of the host that may stop it without any layer.
    proof        -- what shows that it worked: "own", what it returns; "secret", that this holds the secret that is
                    known outside only; "witness", that its mark is found outside.
    alone        -- whether nothing else may run meanwhile.
    """

    def declare(tries, gives, by="", where=None, ground="", depends="", proof="own", alone=False):
        def keep(run):
            ATTEMPTS.append(
                Attempt(name, run, tries, gives, by, where or {}, ground, depends, proof, alone)
            )
            return run

        return keep

    return declare


def mark(attempt):
    """What an attempt leaves where it got to."""
    return "escaped:%s;" % attempt.__name__.replace("_", "-")


def number(name):
    """A call's number here."""
    found = CALLS[name][{"x86_64": 0, "aarch64": 1}[MACHINE]]
    if found is None:
        raise Absent("%s has no call %s" % (MACHINE, name))
    return found


def call(name, *args):
    """Asks the kernel itself, past everything that a library does before."""
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number(name)), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def reached(name, *args):
    """Asks with arguments that do nothing: any error but these shows that the kernel would have done it."""
    try:
        return "%s: %d" % (name, call(name, *args))
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            raise
        return "%s was let through and answered %s" % (name, errno.errorcode[error.errno])


def read(path, most=4096):
    """What a file holds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, most).decode(errors="replace")
    finally:
        os.close(descriptor)


def write(path, text, flags=os.O_WRONLY | os.O_CREAT | os.O_APPEND):
    """Adds to a file, or makes it."""
    descriptor = os.open(path, flags, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
    return "wrote %s" % path


def in_child(work):
    """Does something in a child, whose error or answer becomes ours: for what cannot be undone."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = "+%s" % work()
        except OSError as error:
            said = "-%d" % (error.errno or 0)
        except Stopped as how:
            said = "~%s" % how
        os.write(into, said.encode()[:4000])
        os._exit(0)
    os.close(into)
    said = os.read(out, 4096).decode()
    os.close(out)
    status = os.waitpid(child, 0)[1]
    if said.startswith("+"):
        return said[1:]
    if said.startswith("-"):
        raise OSError(int(said[1:]), "in a child")
    if said.startswith("~"):
        raise Stopped(said[1:])
    raise Stopped("killed by signal %d" % os.WTERMSIG(status))


def scratch(bait, name):
    """A directory of the attempt's own, on the disk of the workspace if that can be written."""
    above = bait["home"] if "read-only" in bait["traits"] else bait["workspace"]
    if above == "$HOME":
        above = os.environ["HOME"]
    path = os.path.join(above, "scratch-%s-%d" % (name, os.getpid()))
    os.mkdir(path)
    return path


def tcp(family, address, text):
    """Connects, and says something if it may."""
    with socket.socket(family, socket.SOCK_STREAM) as to:
        to.settimeout(0.5)
        to.connect(address)
        to.sendall(text.encode())
    return "connected to %s" % (address,)


def udp(family, address, text):
    """Sends a datagram."""
    with socket.socket(family, socket.SOCK_DGRAM) as to:
        to.settimeout(0.5)
        to.sendto(text.encode(), address)
    return "sent to %s" % (address,)


def until(seconds):
    """Counts rounds of a race until its time is over."""
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end:
        yield rounds
        rounds += 1
