"""Resources: how much of the host it takes. Each of these stops by itself a little above the limit."""

import ctypes
import errno
import mmap
import os
import resource
import signal

from bench import Stopped, call, category, in_child

attempt = category("resources")

HOST = "a host that nobody can work on"
MIB = 1 << 20


@attempt("makes processes without end", HOST, by="limits", alone=True)
def processes(bait):
    def inside():
        children = []
        out, into = os.pipe()
        try:
            while len(children) < bait["limits"]["processes"] + 20:
                child = os.fork()
                if child == 0:
                    os.close(into)
                    os.read(out, 1)
                    os._exit(0)
                children.append(child)
        finally:
            # The end of the pipe is the end of all of them.
            os.close(into)
            for child in children:
                os.waitpid(child, 0)
        return "%d at once" % len(children)

    return in_child(inside)


@attempt("takes memory without end", HOST, by="limits")
def memory(bait):
    def inside():
        size = bait["limits"]["process_memory_mib"] + 64
        # Reserved, and not touched: what is limited is what could be.
        mmap.mmap(-1, size * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
        return "%d MiB" % size

    return in_child(inside)


@attempt("takes memory by the older call (brk)", HOST, by="limits")
def memory_by_break(bait):
    def inside():
        libc = ctypes.CDLL(None, use_errno=True)
        libc.sbrk.restype = ctypes.c_void_p
        if libc.sbrk(ctypes.c_long((bait["limits"]["process_memory_mib"] + 64) * MIB)) == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "brk")
        return "taken"

    return in_child(inside)


@attempt("opens files without end", HOST, by="limits")
def open_files(bait):
    def inside():
        for _ in range(bait["limits"]["open_files"] + 20):
            os.open("/dev/null", os.O_RDONLY)
        return "opened"

    return in_child(inside)


@attempt("writes a file without end", "a full disk", by="limits")
def file_size(bait):
    def inside():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        path = os.path.join(os.environ.get("HOME", "/tmp"), "large-%d" % os.getpid())
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.unlink(path)
        # A file with nothing in it but its end.
        os.pwrite(descriptor, b"x", (bait["limits"]["file_size_mib"] + 1) * MIB)
        return "written"

    return in_child(inside)


def fill(bait, place):
    """Reserves more in a directory in memory than it may hold, then gives it back."""
    path = os.path.join(place, "fill-%d" % os.getpid())
    descriptors = []
    try:
        for index in range(bait["limits"]["tmp_mib"] // bait["limits"]["file_size_mib"] + 2):
            descriptors.append(os.open("%s-%d" % (path, index), os.O_WRONLY | os.O_CREAT))
            os.unlink("%s-%d" % (path, index))
            size = (bait["limits"]["file_size_mib"] - 1) * MIB
            error = ctypes.CDLL(None).posix_fallocate(descriptors[-1], ctypes.c_long(0), ctypes.c_long(size))
            if error:
                raise OSError(error, "fallocate")
        return "filled"
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@attempt("fills /tmp", "a host without memory", by="mounts", alone=True)
def fill_tmp(bait):
    return fill(bait, "/tmp")


@attempt("fills /dev/shm", "a host without memory", by="mounts", alone=True)
def fill_shared_memory(bait):
    return fill(bait, "/dev/shm")


@attempt("raises its own limits", HOST, by="limits")
def raise_limits(bait):
    def inside():
        names = {"processes": resource.RLIMIT_NPROC, "open_files": resource.RLIMIT_NOFILE, "file_size_mib": resource.RLIMIT_FSIZE,
                 "process_memory_mib": resource.RLIMIT_DATA}
        for name, number in names.items():
            limit = bait["limits"][name] * (MIB if name.endswith("mib") else 1)
            try:
                resource.setrlimit(number, (limit + 1, limit + 1))
            except ValueError as error:
                last = OSError(errno.EPERM, str(error))
            else:
                return name
        raise last

    return in_child(inside)


@attempt("has its core dumped, for which the host may start a program of root's", "what its memory holds, in root's hands",
         by="limits")
def core_limit(_):
    soft = resource.getrlimit(resource.RLIMIT_CORE)[0]
    if soft == 1:
        raise Stopped("the limit is 1")
    return "the limit is %d" % soft


def lowered(lower):
    """Lowers the limit of core dumps by one step in some way."""

    def inside():
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        lower(1, hard)
        if resource.getrlimit(resource.RLIMIT_CORE)[0] == 1:
            lower(0, hard)
            if resource.getrlimit(resource.RLIMIT_CORE)[0] == 0:
                return "lowered"
        raise Stopped("ignored")

    return in_child(inside)


@attempt("lowers that limit to 0, with which the host's program is started", "as above", by="seccomp")
def core_limit_lowered(_):
    return lowered(lambda soft, hard: call("setrlimit", 4, (ctypes.c_int64 * 2)(soft, hard)))


@attempt("lowers it by the newer call", "as above", by="seccomp")
def core_limit_lowered_by_prlimit(_):
    return lowered(lambda soft, hard: call("prlimit64", 0, 4, (ctypes.c_int64 * 2)(soft, hard), 0))


@attempt("runs before everybody else (real time)", HOST, ground="principal: it takes a privilege of the host")
def real_time(_):
    def inside():
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        return "real time"

    return in_child(inside)


@attempt("raises its priority", HOST, ground="principal: it takes a privilege of the host")
def raise_priority(_):
    def inside():
        os.setpriority(os.PRIO_PROCESS, 0, -5)
        return "raised"

    return in_child(inside)


@attempt("reads the disk before everybody else", HOST, ground="principal: it takes a privilege of the host")
def real_time_disk(_):
    return in_child(lambda: call("ioprio_set", 1, 0, 1 << 13))


@attempt("keeps all its memory from being swapped", HOST, depends="the host's limit of locked memory")
def lock_memory(_):
    def inside():
        mapped = mmap.mmap(-1, 256 * MIB)
        call("mlockall", 3)
        return len(mapped)

    return in_child(inside)
