"""Kernel surface: calls with a history of faults, settings of the host, calls of other architectures."""

import ctypes
import mmap
import os
import socket

from bench import MACHINE, Absent, Stopped, call, category, in_child, libc, reached, write

attempt = category("kernel surface")

FAULTS = "a part of the kernel with a long record of faults"
HOSTS = "the host's administration"
ROOTS = "principal: the host's root alone may"


@attempt("sets up an io_uring", "calls past the filter", by="seccomp", depends="kernel.io_uring_disabled")
def io_uring_setup(_):
    parameters = (ctypes.c_uint32 * 30)()
    os.close(call("io_uring_setup", 8, parameters))
    return "set up"


@attempt("submits to an io_uring", "calls past the filter", by="seccomp", depends="kernel.io_uring_disabled")
def io_uring_enter(_):
    return reached("io_uring_enter", 0, 1, 0, 0, 0, 0)


@attempt("registers with an io_uring", "calls past the filter", by="seccomp", depends="kernel.io_uring_disabled")
def io_uring_register(_):
    return reached("io_uring_register", 0, 0, 0, 0)


@attempt("loads a program into the kernel (bpf)", FAULTS, by="seccomp", depends="kernel.unprivileged_bpf_disabled")
def bpf_load(_):
    # Returns 0: mov r0, 0; exit.
    code = (ctypes.c_uint64 * 2)(0xB7, 0x95)
    licence = ctypes.create_string_buffer(b"GPL")
    words = (ctypes.c_uint64 * 16)()
    ctypes.memmove(words, (ctypes.c_uint32 * 2)(1, 2), 8)
    words[1], words[2] = ctypes.addressof(code), ctypes.addressof(licence)
    os.close(call("bpf", 5, words, ctypes.sizeof(words)))
    return "loaded"


@attempt("makes a map in the kernel (bpf)", FAULTS, by="seccomp", depends="kernel.unprivileged_bpf_disabled")
def bpf_map(_):
    words = (ctypes.c_uint32 * 32)(2, 4, 4, 1)
    os.close(call("bpf", 0, words, ctypes.sizeof(words)))
    return "made"


@attempt("opens a counter of events (perf)", FAULTS, by="seccomp", depends="kernel.perf_event_paranoid")
def perf_counter(_):
    # A counter of the task's clock, of this process, not of the kernel.
    words = (ctypes.c_uint64 * 16)()
    ctypes.memmove(words, (ctypes.c_uint32 * 2)(1, 128), 8)
    words[1], words[5] = 1, 1 | 1 << 5 | 1 << 6
    os.close(call("perf_event_open", words, 0, -1, -1, 0))
    return "opened"


@attempt("handles its own page faults (userfaultfd)", "to stop the kernel at a moment of its choosing", by="seccomp")
def handle_page_faults(_):
    # For faults of its own code only, which takes no privilege.
    os.close(call("userfaultfd", 1 | os.O_CLOEXEC))
    return "handles them"


@attempt("handles page faults by the device for it", "as above", by="mounts",
         ground="principal: the device is root's")
def handle_page_faults_by_device(_):
    return os.open("/dev/userfaultfd", os.O_RDWR)


@attempt("reads a key of the user's keyring", "tokens and passwords of the user", by="seccomp", proof="secret")
def read_key(bait):
    if not bait["key"]:
        raise Absent("the host's kernel keeps no keys")
    text = ctypes.create_string_buffer(4096)
    length = call("keyctl", 11, bait["key"], text, 4096)
    return text.raw[:length].decode()


@attempt("lists the user's keyring", "tokens and passwords of the user", by="seccomp")
def list_keyring(_):
    # KEYCTL_GET_KEYRING_ID of the user's keyring, made if it is not there.
    return call("keyctl", 0, -4, 1)


@attempt("adds a key to the session's keyring", "to be found by programs outside", by="seccomp")
def add_key(_):
    return call("add_key", b"user", b"oqto-test", b"x", 1, -3)


@attempt("has the host find a key, for which it starts a program", "a program of root's", by="seccomp")
def request_key(_):
    return reached("request_key", b"user", b"oqto-no-such-key", 0, 0)


@attempt("lists keys by /proc/keys", "names of the user's keys, not what is in them", by="mounts")
def read_proc_keys(bait):
    said = open("/proc/keys", encoding="ascii").read()
    if "oqto-" not in said:
        raise Stopped("none of the user's")
    return said


@attempt("loads a module from memory", "the whole kernel", by="seccomp", ground=ROOTS)
def load_module(_):
    return reached("init_module", b"", 0, b"")


@attempt("loads a module from a file", "the whole kernel", by="seccomp", ground=ROOTS)
def load_module_from_a_file(_):
    return reached("finit_module", 0, b"", 0)


@attempt("unloads a module", "the whole kernel", by="seccomp", ground=ROOTS)
def unload_module(_):
    return reached("delete_module", b"oqto_no_such_module", 0)


@attempt("makes the kernel load a module by asking for what needs one", "a part of the kernel that nobody uses", by="seccomp")
def load_module_by_socket(_):
    # Appletalk, X.25 and rose: kernels that lack them say so after they looked for a module.
    last = None
    for family in (5, 9, 11):
        try:
            return reached("socket", family, 2, 0)
        except OSError as error:
            last = error
    raise last


@attempt("puts another kernel into memory", "the whole host", by="seccomp", ground=ROOTS)
def load_kernel(_):
    return reached("kexec_load", 0, 0, 0, 0)


@attempt("puts another kernel into memory from a file", "the whole host", by="seccomp", ground=ROOTS)
def load_kernel_from_a_file(_):
    return reached("kexec_file_load", 0, 0, 0, 0, 0)


@attempt("restarts the machine", "an end to everybody's work", by="seccomp", ground=ROOTS)
def restart(_):
    # With the numbers that are asked for, and a command that changes nothing in any namespace.
    return reached("reboot", 0xFEE1DEAD - (1 << 32), 672274793, 0, 0)


@attempt("adds swap space", HOSTS, by="seccomp", ground=ROOTS)
def add_swap(_):
    return reached("swapon", b"/oqto-no-such-file", 0)


@attempt("takes swap space away", HOSTS, by="seccomp", ground=ROOTS)
def remove_swap(_):
    return reached("swapoff", b"/oqto-no-such-file")


@attempt("has the kernel write down every process that ends", HOSTS, by="seccomp", ground=ROOTS)
def account(_):
    return reached("acct", b"/oqto-no-such-file")


@attempt("reads the kernel's log", "addresses in the kernel", by="seccomp", depends="kernel.dmesg_restrict")
def read_log(_):
    text = ctypes.create_string_buffer(4096)
    return call("syslog", 3, text, 4096)


@attempt("reads the kernel's log by /proc/kmsg and /dev/kmsg", "addresses in the kernel", by="mounts", ground=ROOTS)
def read_log_files(_):
    last = None
    for path in ("/dev/kmsg", "/proc/kmsg"):
        try:
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            last = error
    raise last


@attempt("reads the kernel's addresses", "a step of every attack on the kernel", depends="kernel.kptr_restrict",
         ground="principal: addresses are shown as zeros")
def read_addresses(_):
    with open("/proc/kallsyms", encoding="ascii") as file:
        line = file.readline()
    if line.startswith("0000000000000000"):
        raise Stopped("shown as zeros")
    return line


@attempt("sets the host's clock", HOSTS, by="seccomp", ground=ROOTS)
def set_clock(_):
    return reached("settimeofday", (ctypes.c_uint64 * 2)(), 0)


@attempt("sets the host's clock by its number", HOSTS, by="seccomp", ground=ROOTS)
def set_clock_by_number(_):
    # Out of range, in case somebody may.
    return reached("clock_settime", 0, (ctypes.c_int64 * 2)(0, -1))


@attempt("steers the speed of the host's clock", HOSTS, by="seccomp", ground=ROOTS)
def steer_clock(_):
    # ADJ_TICK, to what no clock may have.
    words = (ctypes.c_int64 * 26)()
    words[0] = 0x4000
    return reached("clock_adjtime", 0, words)


@attempt("hangs up the terminal for everybody", HOSTS, by="seccomp", ground=ROOTS)
def hang_up(_):
    return call("vhangup")


@attempt("speaks to the hardware's ports (iopl)", "the whole host", by="seccomp", ground=ROOTS)
def raw_ports_by_level(_):
    return call("iopl", 3)


@attempt("speaks to the hardware's ports (ioperm)", "the whole host", by="seccomp", ground=ROOTS)
def raw_ports(_):
    return call("ioperm", 0x80, 1, 1)


@attempt("changes the table of segments for 16-bit code", FAULTS, by="seccomp")
def segments(_):
    entry = (ctypes.c_uint32 * 4)(0, 0, 0xFFFFF, 0b1010001)
    return call("modify_ldt", 1, entry, 16)


@attempt("reorders the pages of a mapping (remap_file_pages)", FAULTS, by="seccomp")
def reorder_pages(_):
    place = mmap.mmap(-1, 8192, flags=mmap.MAP_SHARED)
    start = ctypes.addressof(ctypes.c_char.from_buffer(place))
    return call("remap_file_pages", ctypes.c_long(start), ctypes.c_long(4096), 0, ctypes.c_long(1), 0)


@attempt("asks for the file systems' numbers and statistics (ustat)", "obsolete code", by="seccomp")
def old_statistics(_):
    return reached("ustat", 0, 0)


@attempt("asks for the list of file systems (sysfs)", "obsolete code", by="seccomp")
def old_list(_):
    return call("sysfs", 3)


@attempt("asks for obsolete calls (uselib, _sysctl, lookup_dcookie, nfsservctl)", "obsolete code", by="seccomp",
         ground="start: current kernels have none of them")
def old_calls(_):
    last = None
    for name in ("uselib", "_sysctl", "lookup_dcookie", "nfsservctl"):
        try:
            return reached(name, 0, 0, 0)
        except OSError as error:
            last = error
    raise last


@attempt("puts a shadow stack where it likes", "to lead its own program astray past the processor's checks", by="",
         where={"strict": "seccomp"}, depends="a processor with shadow stacks")
def shadow_stack(_):
    return call("map_shadow_stack", 0, 4096, 0)


@attempt("makes every page that it can read executable (personality)", "weaker memory protection", by="seccomp")
def personality(_):
    def inside():
        call("personality", 0x400000)
        return hex(call("personality", 0xFFFFFFFF))

    return in_child(inside)


@attempt("sets a personality with bits set that the kernel ignores", "as above", by="seccomp")
def personality_with_high_bits(_):
    def inside():
        call("personality", 0x100000000 | 0x400000)
        return "set"

    return in_child(inside)


@attempt("rewrites what the kernel believes of its memory (PR_SET_MM)", "another name for /proc/self/exe", by="seccomp",
         ground="principal: it takes a privilege of the host")
def rewrite_memory_map(_):
    return reached("prctl", 35, 1, 0, 0, 0)


@attempt("writes the program that handles core dumps", "a program that runs as root", by="mounts landlock", ground=ROOTS)
def write_core_pattern(_):
    return write("/proc/sys/kernel/core_pattern", "", os.O_WRONLY)


@attempt("writes the program that loads modules", "a program that runs as root", by="mounts landlock", ground=ROOTS)
def write_module_loader(_):
    return write("/proc/sys/kernel/modprobe", "", os.O_WRONLY)


@attempt("writes settings of the network", HOSTS, by="mounts landlock", ground=ROOTS)
def write_network_settings(_):
    return write("/proc/sys/net/ipv4/ip_forward", "", os.O_WRONLY)


@attempt("presses the magic key", "an end to everybody's work", by="landlock", ground=ROOTS)
def press_magic_key(_):
    return write("/proc/sysrq-trigger", "", os.O_WRONLY)


@attempt("writes the kernel's own file system", "devices and settings", by="mounts landlock", ground=ROOTS)
def write_sys(_):
    last = None
    for path in ("/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state"):
        try:
            return write(path, "", os.O_WRONLY)
        except OSError as error:
            last = error
    raise last


@attempt("makes a cgroup, or changes one", "more of the host than was given",
         by="mounts landlock", ground="principal: they are root's")
def change_cgroups(_):
    last = None
    for place in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"):
        try:
            os.mkdir(place + "/oqto-test")
        except OSError as error:
            last = error
        else:
            os.rmdir(place + "/oqto-test")
            return place
    raise last


@attempt("reads the kernel's memory", "every secret of the host", by="", ground=ROOTS)
def read_kernel_memory(_):
    return os.open("/proc/kcore", os.O_RDONLY)


@attempt("becomes root by a program that is root's and says so", "root outside", by="mounts privileges",
         ground="start: the bits of users that its namespace does not know count for nothing")
def run_set_user_id_program(bait):
    if not bait["setuid"]:
        raise Absent("only root can leave a program of root's for it")
    path = os.path.join(bait["workspace"], "root-id")
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(into, 1)
        os.execv(path, [path, "-u"])
    os.close(into)
    said = os.read(out, 100).decode()
    os.waitpid(child, 0)
    if said.strip() != "0":
        raise Stopped("ran as %s" % said.strip())
    return said


@attempt("becomes root by its number", "root outside", by="privileges", ground="start: its namespace knows nobody but itself")
def set_user_id(_):
    def inside():
        call("setuid", 0)
        return "root"

    return in_child(inside)


@attempt("leaves its groups", "files that a group may not see",
         by="privileges", ground="start: its namespace refuses setgroups")
def set_groups(_):
    def inside():
        call("setgroups", 0, 0)
        return "left"

    return in_child(inside)


@attempt("takes capabilities back", "every privilege in its namespace", by="privileges")
def take_capabilities(_):
    def inside():
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        # CAP_SYS_ADMIN, effective and permitted.
        data = (ctypes.c_uint32 * 6)(1 << 21, 1 << 21)
        call("capset", header, data)
        return "taken"

    return in_child(inside)


@attempt("has capabilities, or could get them by running a program", "every privilege in its namespace", by="privileges")
def have_capabilities(_):
    with open("/proc/self/status", encoding="ascii") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    left = {name: status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb") if int(status[name], 16)}
    if not left:
        raise Stopped("every set is empty")
    return left


@attempt("could get privileges by running a program", "what set-user-id programs have", by="privileges",
         ground="start: bubblewrap, landlock and seccomp each forbid it")
def gain_privileges(_):
    if call("prctl", 39, 0, 0, 0, 0) == 1:
        raise Stopped("no new privileges")
    return "nothing forbids it"


@attempt("takes the filter of calls off", "every call", by="seccomp", ground="start: without one there is none to take off")
def take_filter_off(_):
    with open("/proc/self/status", encoding="ascii") as file:
        before = [line for line in file if line.startswith("Seccomp:")][0].split()[1]
    if before != "2":
        raise Stopped("there is none")
    libc.prctl(22, 0, 0, 0, 0)
    with open("/proc/self/status", encoding="ascii") as file:
        after = [line for line in file if line.startswith("Seccomp:")][0].split()[1]
    if after == before:
        raise Stopped("it stays")
    return after


@attempt("calls the kernel as a 32-bit program", "calls past the filter, under other numbers",
         by="seccomp", depends="a kernel for 32-bit programs")
def calls_of_32_bits(_):
    if MACHINE != "x86_64":
        raise Absent("only x86_64 has them beside its own")
    # mov eax, 20 (getpid); int 0x80; ret
    place = mmap.mmap(-1, 4096, prot=7)
    place.write(bytes.fromhex("b814000000cd80c3"))
    said = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(place)))()
    if said != os.getpid():
        raise Stopped("the answer was %d" % said)
    return said


@attempt("calls the kernel as a 32-bit program to make a socket of any family", "as above, for sockets",
         by="seccomp", depends="a kernel for 32-bit programs")
def socketcall_of_32_bits(_):
    if MACHINE != "x86_64":
        raise Absent("only x86_64 has them beside its own")
    # mov eax, 359 (socket); mov ebx, 16 (netlink); mov ecx, 3 (raw); mov edx, 15 (events); int 0x80; with rbx kept.
    place = mmap.mmap(-1, 4096, prot=7)
    place.write(bytes.fromhex("53b867010000bb10000000b903000000ba0f000000cd805bc3"))
    said = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(place)))()
    if said < 0:
        raise OSError(-said, "int 0x80")
    return said


@attempt("calls the kernel by the numbers of x32", "calls past the filter, under other numbers",
         by="seccomp", depends="a kernel for x32 programs")
def calls_of_x32(_):
    if MACHINE != "x86_64":
        raise Absent("only x86_64 has them")
    ctypes.set_errno(0)
    said = libc.syscall(ctypes.c_long(0x40000000 + 39))
    if said == -1:
        raise OSError(ctypes.get_errno(), "x32")
    return said


@attempt("maps memory that can be written and run", "code that was not there before", where={"strict": "seccomp"})
def map_writable_and_executable(_):
    mmap.mmap(-1, 4096, prot=7).close()
    return "mapped"


@attempt("makes memory executable that it wrote", "code that was not there before", where={"strict": "seccomp"})
def make_memory_executable(_):
    place = mmap.mmap(-1, 4096)
    return call("mprotect", ctypes.c_long(ctypes.addressof(ctypes.c_char.from_buffer(place))), 4096, 5)


@attempt("makes memory executable by the call with keys", "code that was not there before", where={"strict": "seccomp"},
         depends="a processor with protection keys: any other one answers after it was asked")
def make_memory_executable_with_keys(_):
    place = mmap.mmap(-1, 4096)
    return call("pkey_mprotect", ctypes.c_long(ctypes.addressof(ctypes.c_char.from_buffer(place))), 4096, 5, -1)


@attempt("runs a program that is on no disk", "code that was not there before", where={"strict": "seccomp"})
def run_from_memory(_):
    def inside():
        descriptor = call("memfd_create", b"program", 0)
        with open("/bin/true", "rb") as program:
            os.write(descriptor, program.read())
        child = os.fork()
        if child == 0:
            call("execveat", descriptor, b"", (ctypes.c_char_p * 2)(b"true", None), (ctypes.c_char_p * 1)(None), 0x1000)
            os._exit(99)
        status = os.waitpid(child, 0)[1]
        if status:
            raise Stopped("ended with %d" % status)
        return "ran"

    return in_child(inside)


@attempt("hides memory from the kernel itself", "secrets that nobody can look for", where={"strict": "seccomp"}, depends="secretmem.enable")
def secret_memory(_):
    return call("memfd_secret", 0)


def family(number, name, gives, kind=socket.SOCK_RAW, protocol=0, by="seccomp", **more):
    """Declares an attempt to make a socket of a family."""

    def make(_):
        return reached("socket", number, kind, protocol)

    make.__name__ = "socket_of_" + name
    attempt("makes a socket of family %s" % name.replace("_", " "), gives, by=by, **more)(make)


family(17, "packet", "every frame of the network", by="seccomp privileges", ground="principal: the host's network is root's")
family(16, "netlink_events", "the host's events of devices", protocol=15)
family(16, "netlink_audit", "the host's log of who did what", protocol=9)
family(16, "netlink_netfilter", FAULTS, protocol=12)
family(16, "netlink_xfrm", FAULTS, protocol=6, depends="a kernel with xfrm")
family(16, "netlink_crypto", FAULTS, protocol=21, depends="a kernel with crypto_user")
family(16, "netlink_connector", "which processes start and end", protocol=11, depends="a kernel with connectors")
family(16, "netlink_generic", FAULTS, protocol=16)
family(38, "crypto", FAULTS, kind=socket.SOCK_SEQPACKET)
family(40, "virtual_machines", "the host of this virtual machine", kind=socket.SOCK_STREAM)
family(31, "bluetooth", FAULTS, protocol=1)
family(29, "can", FAULTS)
family(30, "tipc", FAULTS, kind=socket.SOCK_RDM)
family(21, "rds", FAULTS, kind=socket.SOCK_SEQPACKET)
family(33, "rxrpc", FAULTS, kind=socket.SOCK_DGRAM)
family(44, "xdp", FAULTS, by="seccomp privileges", ground="principal: the host's network is root's")
family(43, "smc", "TCP that landlock does not see", kind=socket.SOCK_STREAM)
family(41, "kcm", FAULTS, kind=socket.SOCK_SEQPACKET, depends="a kernel with kcm")
family(15, "key", FAULTS, protocol=2)
family(24, "ppp", FAULTS)
