"""Other processes: reading them, driving them, signalling them, stealing what they hold."""

import ctypes
import fcntl
import os
import signal

from bench import ABOVE, Stopped, call, category, in_child, read

attempt = category("processes")

MEMORY = "secrets in the user's other programs"
DRIVE = "everything that the user's other programs may"
# Landlock keeps a process from looking into one that it does not hold itself. A process namespace hides it, but what
# shows processes is a file system, which the mounts bring.
HIDDEN = "landlock namespaces+mounts"


def number_of(bait):
    """The number of the process outside, unless another one has that number inside."""
    pid = bait["process"]["pid"]
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            words = file.read()
    except OSError:
        return pid
    if b"outside.py" not in words:
        raise Stopped("another process has that number")
    return pid


def path(bait, name):
    """A file of the process outside."""
    return "/proc/%d/%s" % (number_of(bait), name)


@attempt("reads the memory of a process outside through /proc", MEMORY, by=HIDDEN, proof="secret",
         ground=ABOVE)
def memory_outside(bait):
    descriptor = os.open(path(bait, "mem"), os.O_RDONLY)
    return os.pread(descriptor, 64, bait["process"]["address"]).decode()


@attempt("writes the memory of a process outside through /proc", DRIVE, by="landlock namespaces+mounts",
         ground=ABOVE)
def write_memory_outside(bait):
    descriptor = os.open(path(bait, "mem"), os.O_RDWR)
    # What is there already.
    before = os.pread(descriptor, 8, bait["process"]["address"])
    return os.pwrite(descriptor, before, bait["process"]["address"])


@attempt("reads where a process outside has what in its memory", "a step towards driving it", by=HIDDEN,
         ground=ABOVE)
def maps_outside(bait):
    said = read(path(bait, "maps"))
    if not said:
        raise Stopped("empty")
    return said[:100]


@attempt("reads the environment of a process outside", MEMORY, by=HIDDEN, proof="secret",
         ground=ABOVE)
def environment_outside(bait):
    said = read(path(bait, "environ"), 65536)
    start = said.find(bait["variable"])
    return said[start:start + 200]


@attempt("opens what a process outside has open", MEMORY, by=HIDDEN, proof="secret",
         ground=ABOVE)
def descriptors_outside(bait):
    return read(path(bait, "fd/%d" % bait["process"]["descriptor"]))


@attempt("reads the secret through the root of a process outside", MEMORY, by=HIDDEN, proof="secret",
         ground=ABOVE)
def root_outside(bait):
    return read(path(bait, "root") + bait["secret"])


@attempt("reads the secret through the working directory of a process outside", MEMORY, by=HIDDEN, proof="secret",
         ground=ABOVE)
def directory_outside(bait):
    return read(path(bait, "cwd") + "/.ssh/id")


@attempt("reads the command line of a process outside", "passwords on command lines", by="namespaces+mounts", proof="secret")
def command_line_outside(bait):
    return read(path(bait, "cmdline"))


@attempt("drives a process outside (ptrace)", DRIVE, by="landlock namespaces seccomp", proof="secret", alone=True,
         ground=ABOVE)
def trace_outside(bait):
    def inside():
        pid = number_of(bait)
        # PTRACE_SEIZE stops nothing.
        call("ptrace", 0x4206, pid, 0, 0)
        call("ptrace", 0x4207, pid, 0, 0)
        os.waitpid(pid, 0x40000000)
        said = b""
        for offset in range(0, 64, 8):
            word = ctypes.c_long()
            call("ptrace", 1, ctypes.c_long(pid), ctypes.c_long(bait["process"]["address"] + offset), ctypes.byref(word))
            said += word.value.to_bytes(8, "little", signed=True)
        return said.decode(errors="replace")

    return in_child(inside)


@attempt("drives a process of its own (ptrace)", "a way around what looks at arguments", by="seccomp")
def trace_own(_):
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        call("ptrace", 0x4206, child, 0, 0)
        return "seized"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@attempt("reads the memory of a process outside (process_vm_readv)", MEMORY, by="landlock namespaces seccomp", proof="secret",
         ground=ABOVE)
def copy_from_outside(bait):
    place = ctypes.create_string_buffer(64)
    here = (ctypes.c_uint64 * 2)(ctypes.addressof(place), 64)
    there = (ctypes.c_uint64 * 2)(bait["process"]["address"], 64)
    call("process_vm_readv", number_of(bait), here, 1, there, 1, 0)
    return place.raw.decode(errors="replace")


@attempt("writes the memory of a process outside (process_vm_writev)", DRIVE, by="landlock namespaces seccomp",
         ground=ABOVE)
def copy_to_outside(bait):
    place = ctypes.create_string_buffer(1)
    here = (ctypes.c_uint64 * 2)(ctypes.addressof(place), 1)
    # Behind the secret, where nothing is.
    there = (ctypes.c_uint64 * 2)(bait["process"]["address"] + 4000, 1)
    return call("process_vm_writev", number_of(bait), here, 1, there, 1, 0)


@attempt("takes a descriptor of a process outside (pidfd_getfd)", MEMORY, by="landlock namespaces seccomp", proof="secret",
         ground=ABOVE)
def take_descriptor(bait):
    process = call("pidfd_open", number_of(bait), 0)
    descriptor = call("pidfd_getfd", process, bait["process"]["descriptor"], 0)
    return os.pread(descriptor, 100, 0).decode()


@attempt("takes a descriptor of a process of its own (pidfd_getfd)", "what a program of another trust holds", by="seccomp")
def take_own_descriptor(_):
    process = call("pidfd_open", os.getpid(), 0)
    os.close(call("pidfd_getfd", process, 1, 0))
    return "taken"


@attempt("compares the kernel's addresses of two processes (kcmp)", "addresses in the kernel", by="landlock namespaces seccomp",
         ground=ABOVE)
def compare(bait):
    return call("kcmp", os.getpid(), number_of(bait), 2, 0, 0)


@attempt("compares those of its own processes (kcmp)", "addresses in the kernel", by="seccomp")
def compare_own(_):
    return call("kcmp", os.getpid(), os.getpid(), 1, 0, 0)


@attempt("moves the memory of a process outside (move_pages)", "where it lies, and a way to slow it",
         by="landlock namespaces seccomp",
         ground=ABOVE)
def move_pages(bait):
    pages, status = (ctypes.c_uint64 * 1)(bait["process"]["address"]), (ctypes.c_int * 1)()
    call("move_pages", number_of(bait), ctypes.c_long(1), pages, 0, status, 0)
    return status[0]


@attempt("moves all the memory of a process outside (migrate_pages)", "a way to slow it", by="namespaces seccomp landlock",
         ground=ABOVE)
def migrate_pages(bait):
    one = (ctypes.c_uint64 * 1)(1)
    return call("migrate_pages", number_of(bait), ctypes.c_long(2), one, one)


@attempt("steers the memory of a process outside (process_madvise)", "a way to slow it", by="landlock namespaces seccomp",
         ground="principal: it takes a privilege of the host")
def steer_memory(bait):
    process = call("pidfd_open", number_of(bait), 0)
    there = (ctypes.c_uint64 * 2)(bait["process"]["address"], 4096)
    # MADV_COLD
    return call("process_madvise", process, there, 1, 20, 0)


@attempt("lowers the priority of a process outside", "a way to slow it", by="namespaces")
def lower_priority(bait):
    call("setpriority", 0, number_of(bait), 1)
    return "lowered"


@attempt("says on which processors a process outside may run", "a way to slow it", by="namespaces")
def choose_processors(bait):
    os.sched_setaffinity(number_of(bait), os.sched_getaffinity(0))
    return "chosen"


@attempt("limits a process outside (prlimit)", "a way to break it", by="namespaces")
def limit_outside(bait):
    now = (ctypes.c_uint64 * 2)()
    call("prlimit64", number_of(bait), 7, 0, now)
    return call("prlimit64", number_of(bait), 7, now, 0)


@attempt("sends a signal to a process outside", "an end to the user's other programs",
         by="landlock namespaces", proof="witness")
def signal_outside_kill(bait):
    return os.kill(number_of(bait), bait["signals"]["signal-outside-kill"])


@attempt("sends a signal to a thread outside", "an end to the user's other programs", by="landlock namespaces", proof="witness")
def signal_outside_tgkill(bait):
    pid = number_of(bait)
    return call("tgkill", pid, pid, bait["signals"]["signal-outside-tgkill"])


@attempt("sends a signal to a thread outside by the older call", "an end to the user's other programs",
         by="landlock namespaces", proof="witness")
def signal_outside_tkill(bait):
    return call("tkill", number_of(bait), bait["signals"]["signal-outside-tkill"])


def information(number):
    """What goes with a signal that is queued: the number, and that a queue sent it."""
    words = (ctypes.c_int * 32)()
    words[0], words[2] = number, -1
    return words


@attempt("queues a signal for a process outside", "an end to the user's other programs",
         by="landlock namespaces", proof="witness")
def signal_outside_sigqueue(bait):
    number = bait["signals"]["signal-outside-sigqueue"]
    return call("rt_sigqueueinfo", number_of(bait), number, information(number))


@attempt("queues a signal for a thread outside", "an end to the user's other programs",
         by="landlock namespaces", proof="witness")
def signal_outside_tgsigqueue(bait):
    number, pid = bait["signals"]["signal-outside-tgsigqueue"], number_of(bait)
    return call("rt_tgsigqueueinfo", pid, pid, number, information(number))


@attempt("sends a signal through a pidfd", "an end to the user's other programs", by="landlock namespaces", proof="witness")
def signal_outside_pidfd(bait):
    process = call("pidfd_open", number_of(bait), 0)
    return call("pidfd_send_signal", process, bait["signals"]["signal-outside-pidfd"], 0, 0)


@attempt("has the kernel signal the owner that it names for a file", "an end to the user's other programs",
         by="landlock namespaces", proof="witness")
def signal_outside_owner_of_a_file(bait):
    out, into = os.pipe()
    fcntl.fcntl(out, 10, bait["signals"]["signal-outside-owner-of-a-file"])
    fcntl.fcntl(out, fcntl.F_SETOWN, number_of(bait))
    fcntl.fcntl(out, fcntl.F_SETFL, os.O_ASYNC)
    return os.write(into, b"x")


@attempt("lists the processes of the host", "what the user runs", by="namespaces+mounts")
def list_processes(bait):
    if not os.path.exists(path(bait, "stat")):
        raise Stopped("not among them")
    with open(path(bait, "comm"), encoding="ascii") as file:
        name = file.read()
    if "python" not in name:
        raise Stopped("another process has that number")
    return name


@attempt("makes itself the last to be ended when memory is short", "the host's other programs ended instead", by="landlock",
         ground="principal: less than it started with takes a privilege")
def escape_memory_killer(_):
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("-1000")
    return "done"


@attempt("writes its own program's code through /proc/self/mem", "code that was not there before", by="landlock")
def write_own_code(_):
    with open("/proc/self/maps", encoding="ascii") as file:
        line = next(line for line in file if " r-xp " in line)
    start = int(line.split("-")[0], 16)
    descriptor = os.open("/proc/self/mem", os.O_RDWR)
    return os.pwrite(descriptor, os.pread(descriptor, 1, start), start)


@attempt("speaks to process 1 as its tracer", "what set the sandbox up", by="landlock seccomp",
         ground="start: it lets nobody look into it")
def trace_process_1(_):
    call("ptrace", 0x4206, 1, 0, 0)
    return "seized"


@attempt("reads the memory of process 1", "what set the sandbox up", by="landlock",
         ground="start: it lets nobody look into it")
def memory_of_process_1(_):
    return os.open("/proc/1/mem", os.O_RDONLY)
