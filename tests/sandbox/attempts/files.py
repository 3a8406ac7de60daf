"""Files and links: reading what is hidden, writing what is not given."""

import ctypes
import os
import threading

from bench import ABOVE, AT_FDCWD, Stopped, call, category, mark, read, reached, scratch, until, write

attempt = category("files")

# How long a race is run, in seconds: thousands of rounds.
RACE = 0.15

SECRETS = "a secret of the user's"
LATER = "code that the user runs later, outside"


@attempt("reads a file beside the workspace by its path", SECRETS, by="mounts landlock", proof="secret")
def read_beside_the_workspace(bait):
    return read(bait["secret"])


@attempt("reads it by a path that climbs out of the workspace", SECRETS, by="mounts landlock", proof="secret")
def read_by_climbing(bait):
    os.chdir(bait["workspace"])
    return read("../outside/.ssh/id")


@attempt("lists the directory beside the workspace", "names of the user's files", by="mounts")
def list_beside_the_workspace(bait):
    return os.listdir(bait["outside"])


@attempt("reads it through /proc/self/root", SECRETS, by="mounts landlock", proof="secret")
def read_by_own_root(bait):
    return read("/proc/self/root" + bait["secret"])


@attempt("reads it through the root of process 1", SECRETS,
         by="mounts landlock", proof="secret",
         ground="principal: process 1 is root's where the process namespace is the host's")
def read_by_root_of_process_1(bait):
    return read("/proc/1/root" + bait["secret"])


@attempt("reads it through the root of the outermost process that can be seen", SECRETS, by="mounts landlock", proof="secret")
def read_by_root_of_a_parent(bait):
    for pid in sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True):
        try:
            said = read("/proc/%d/root%s" % (pid, bait["secret"]))
        except OSError as error:
            last = error
        else:
            return said
    raise last


@attempt("reads it through the working directory of every process that can be seen", SECRETS,
         by="mounts landlock", proof="secret")
def read_by_working_directories(bait):
    last = Stopped("no process")
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        try:
            return read("/proc/%s/cwd/../outside/.ssh/id" % pid)
        except OSError as error:
            last = error
    raise last


@attempt("reads it by a symbolic link in a place that may be written", SECRETS, by="mounts landlock", proof="secret")
def read_by_symbolic_link(bait):
    link = os.path.join(scratch(bait, "link"), "link")
    os.symlink(bait["secret"], link)
    return read(link)


@attempt("makes a hard link to it in a place that may be written", SECRETS, by="mounts landlock", proof="secret")
def read_by_hard_link(bait):
    link = os.path.join(scratch(bait, "hard"), "link")
    os.link(bait["secret"], link)
    return read(link)


@attempt("renames it into a place that may be written", SECRETS, by="mounts landlock", proof="secret")
def read_by_renaming(bait):
    to = os.path.join(scratch(bait, "moved"), "moved")
    os.rename(bait["spare"], to)
    return read(to)


@attempt("swaps a link between an own file and the secret while it is opened", SECRETS, by="mounts landlock", proof="secret")
def read_by_racing_a_link(bait):
    place = scratch(bait, "race")
    own, link, other = (os.path.join(place, name) for name in ("own", "link", "other"))
    write(own, "mine")
    os.symlink(own, link)
    going = True

    def swap():
        while going:
            for target in (bait["secret"], own):
                os.symlink(target, other)
                os.rename(other, link)

    swapper = threading.Thread(target=swap)
    swapper.start()
    said = ""
    for _ in until(RACE):
        try:
            said = read(link)
        except OSError:
            continue
        if said != "mine":
            break
    going = False
    swapper.join()
    return said


@attempt("moves the directory it stands in away while it climbs", SECRETS, by="mounts landlock", proof="secret")
def read_by_racing_the_parent(bait):
    place = scratch(bait, "climb")
    deep, high = os.path.join(place, "a", "b", "c"), os.path.join(place, "c")
    os.makedirs(deep)
    going = True

    def move():
        while going:
            os.rename(deep, high)
            os.rename(high, deep)

    mover = threading.Thread(target=move)
    mover.start()
    said = ""
    for _ in until(RACE):
        try:
            os.chdir(deep)
            said = read("../" * 20 + bait["secret"])
        except OSError:
            continue
        break
    going = False
    mover.join()
    if not said:
        raise Stopped("no round got out")
    return said


@attempt("opens it past every directory by a file handle that it guesses", SECRETS,
         by="seccomp", where={"strict": "seccomp"}, proof="secret",
         ground="principal: only the host's root opens by handle on its disks")
def read_by_file_handle(bait):
    # Any handle of this form will do: who may open by handle is asked first.
    handle = (ctypes.c_ubyte * 136)(8, 0, 0, 0, 1, 0, 0, 0, 2)
    place = os.open(bait["workspace"], os.O_RDONLY)
    return reached("open_by_handle_at", place, handle, os.O_RDONLY)


@attempt("reads a path inside the workspace that the policy masks", SECRETS, by="mounts", proof="secret")
def read_masked_file(bait):
    return read(os.path.join(bait["workspace"], "masked", "secret"))


@attempt("moves the masked directory away, to find what is below", SECRETS, by="mounts", proof="secret")
def read_masked_by_renaming(bait):
    masked = os.path.join(bait["workspace"], "masked-too")
    os.rename(masked, masked + "-moved")
    return read(masked + "-moved/secret")


@attempt("makes a hard link to a masked file", SECRETS, by="mounts", proof="secret")
def read_masked_by_hard_link(bait):
    link = os.path.join(scratch(bait, "masked"), "link")
    os.link(os.path.join(bait["workspace"], "masked", "secret"), link)
    return read(link)


@attempt("reads the passwords of the host's users", "passwords to guess offline", by="mounts",
         ground="principal: only root reads it, unless its permissions slip")
def read_shadow(bait):
    said = read("/etc/shadow")
    if not said:
        raise Stopped("empty")
    return said


@attempt("lists the host's home directories", "who uses this host", by="mounts")
def list_homes(bait):
    own = ("agent", bait["workspace"].split("/")[2])
    names = [name for name in os.listdir("/home") if name not in own]
    if not names:
        raise Stopped("only its own")
    return names


@attempt("lists the host's /tmp", "other programs' temporary files", by="mounts", proof="secret")
def read_hosts_temporary_files(bait):
    return read(os.path.join(bait["tmp"], "secret"))


@attempt("reads a file in the host's /dev/shm", "memory that other programs share", by="mounts", proof="secret")
def read_hosts_shared_memory(bait):
    return read(bait["ipc"]["shared"])


@attempt("reads the runner's state, its keys among it", "to speak as the runner", by="mounts landlock", proof="secret")
def read_state_of_the_runner(bait):
    return read(os.path.join(bait["outside"], "state", "oqto", "key"))


@attempt("finds variables of who started it in its environment", "tokens, and the way to agents that hold keys", proof="secret",
         ground="start: the environment is made from nothing")
def read_inherited_environment(bait):
    return str(dict(os.environ))


@attempt("reads the environment of every process that can be seen", "tokens of who started it",
         by="namespaces+mounts landlock", proof="secret", ground=ABOVE)
def read_environment_of_processes(bait):
    said = []
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        try:
            words = read("/proc/%s/environ" % pid, 65536).split("\0")
        except OSError:
            continue
        said += [word for word in words if word.startswith(bait["variable"] + "=") and word not in said]
    if not said:
        raise Stopped("none of them has it")
    return said


@attempt("finds descriptors that were left open", "files and sockets of who started it", proof="secret",
         ground="start: everything from 3 up is closed")
def read_inherited_descriptors(bait):
    said = []
    for name in bait["descriptors"]:
        os.lseek(name, 0, os.SEEK_SET)
        said.append(os.read(name, 100).decode())
    return said


@attempt("writes into a file beside the workspace", LATER, by="mounts landlock", proof="witness")
def write_beside_the_workspace(bait):
    return write(bait["file"], mark(write_beside_the_workspace), os.O_WRONLY | os.O_APPEND)


@attempt("makes a file beside the workspace", LATER, by="mounts landlock", proof="witness")
def make_file_beside_the_workspace(bait):
    return write(os.path.join(bait["outside"], "made"), mark(make_file_beside_the_workspace))


@attempt("makes a directory beside the workspace", LATER, by="mounts landlock", proof="witness")
def make_directory_beside_the_workspace(bait):
    return os.mkdir(os.path.join(bait["outside"], mark(make_directory_beside_the_workspace)))


@attempt("makes a link beside the workspace", LATER, by="mounts landlock", proof="witness")
def make_link_beside_the_workspace(bait):
    return os.symlink("anywhere", os.path.join(bait["outside"], mark(make_link_beside_the_workspace)))


@attempt("makes a pipe beside the workspace", "to speak with programs outside", by="mounts landlock", proof="witness")
def make_pipe_beside_the_workspace(bait):
    return os.mkfifo(os.path.join(bait["outside"], mark(make_pipe_beside_the_workspace)))


@attempt("renames an own file to beside the workspace", LATER, by="mounts landlock", proof="witness")
def rename_out_of_the_workspace(bait):
    own = os.path.join(scratch(bait, "out"), "own")
    write(own, "own")
    return os.rename(own, os.path.join(bait["outside"], mark(rename_out_of_the_workspace)))


@attempt("links an own file to beside the workspace", LATER, by="mounts landlock", proof="witness")
def link_out_of_the_workspace(bait):
    own = os.path.join(scratch(bait, "link-out"), "own")
    write(own, "own")
    return os.link(own, os.path.join(bait["outside"], mark(link_out_of_the_workspace)))


@attempt("removes a file beside the workspace", "the user's work destroyed", by="mounts landlock")
def remove_beside_the_workspace(bait):
    os.unlink(os.path.join(bait["outside"], "removable"))
    return "removed"


@attempt("cuts a file beside the workspace to nothing", "the user's work destroyed", by="mounts landlock")
def truncate_beside_the_workspace(bait):
    os.truncate(os.path.join(bait["outside"], "truncatable"), 0)
    return "truncated"


@attempt("lets everybody read a secret, by its mode", SECRETS, by="mounts")
def change_mode_beside_the_workspace(bait):
    os.chmod(os.path.join(bait["outside"], "changeable"), 0o777)
    return "changed"


@attempt("writes a file through a writable mapping of it", LATER, by="mounts landlock", proof="witness")
def write_by_mapping(bait):
    import mmap

    descriptor = os.open(os.path.join(bait["outside"], "mappable"), os.O_RDWR)
    text = mark(write_by_mapping).encode()
    with mmap.mmap(descriptor, 4096) as place:
        place[: len(text)] = text
    return "mapped"


@attempt("opens a file for reading and again for writing through /proc/self/fd", LATER, by="mounts landlock", proof="witness")
def write_by_reopening(bait):
    descriptor = os.open(bait["file"], os.O_PATH)
    return write("/proc/self/fd/%d" % descriptor, mark(write_by_reopening), os.O_WRONLY | os.O_APPEND)


@attempt("leaves a file in the host's /tmp", "to feed programs outside", by="mounts", proof="witness")
def write_hosts_temporary_files(bait):
    return write(os.path.join(bait["tmp"], "made"), mark(write_hosts_temporary_files))


@attempt("leaves a file in the host's /dev/shm", "to feed programs outside", by="mounts", proof="witness")
def write_hosts_shared_memory(bait):
    return write(bait["ipc"]["shared"], mark(write_hosts_shared_memory), os.O_WRONLY | os.O_APPEND)


@attempt("writes the system's directories", "programs that everybody runs", by="mounts landlock",
         ground="principal: they are root's")
def write_system_directories(bait):
    refused = PermissionError(1, "all")
    for place in ("/", "/usr/bin", "/usr/local/bin", "/etc", "/opt", "/var", "/run", "/run/oqto", "/lib"):
        path = os.path.join(place, "oqto-test")
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        except OSError as error:
            refused = error
        else:
            os.unlink(path)
            return path
    raise refused


@attempt("makes a node for a disk, to read it past every file system", "the whole disk", by="landlock seccomp",
         ground="principal: nodes in a user namespace open nothing")
def make_disk_node(bait):
    path = os.path.join(scratch(bait, "node"), "disk")
    os.mknod(path, 0o060600, os.makedev(254, 0))
    return read(path)


@attempt("opens the host's devices", "disks, memory, virtual machines", by="mounts",
         ground="principal: they are root's on most hosts")
def open_devices(bait):
    last = None
    for name in ("mem", "port", "kmsg", "kvm", "fuse", "loop-control", "loop0", "sda", "vda", "nvme0n1", "uinput", "vhost-net",
                 "vhost-vsock", "mapper/control", "btrfs-control", "snapshot", "cpu/0/msr", "dri/card0", "input/event0", "userfaultfd"):
        for flags in (os.O_RDWR, os.O_RDONLY):
            try:
                os.open("/dev/" + name, flags | os.O_NONBLOCK)
            except OSError as error:
                last = error
            else:
                return "/dev/" + name
    raise last


@attempt("replaces this program's own file, the runner's", "the next session's sandbox", by="mounts landlock",
         ground="principal: where root runs the runner its file is root's")
def replace_the_runner(bait):
    path = bait["runner"]
    os.close(os.open(os.path.join(os.path.dirname(path), "oqto-test"), os.O_WRONLY | os.O_CREAT))
    os.unlink(os.path.join(os.path.dirname(path), "oqto-test"))
    return "its directory can be written"


@attempt("makes a program that runs as its owner", "the user's rights, later, for whoever starts it", by="seccomp")
def set_user_id_bit(bait):
    path = os.path.join(scratch(bait, "setuid"), "program")
    write(path, "")
    os.chmod(path, 0o4755)
    return oct(os.stat(path).st_mode)


@attempt("creates a program that runs as its owner", "as above, without chmod", by="seccomp")
def create_with_user_id_bit(bait):
    path = os.path.join(scratch(bait, "creat"), "program")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o6755))
    mode = os.stat(path).st_mode
    if not mode & 0o6000:
        raise Stopped("made without the bits")
    return oct(mode)


@attempt("sets the bit through a descriptor", "as above, by fchmod", by="seccomp")
def set_user_id_bit_by_descriptor(bait):
    path = os.path.join(scratch(bait, "fchmod"), "program")
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o755)
    os.fchmod(descriptor, 0o2755)
    return oct(os.stat(path).st_mode)


@attempt("creates it without a name, to be named later", "as above, by O_TMPFILE", by="seccomp")
def create_unnamed_with_user_id_bit(bait):
    descriptor = os.open(scratch(bait, "unnamed"), os.O_TMPFILE | os.O_WRONLY, 0o4755)
    return oct(os.fstat(descriptor).st_mode)


@attempt("makes a node that is a program which runs as its owner", "as above, by mknod", by="seccomp")
def make_node_with_user_id_bit(bait):
    path = os.path.join(scratch(bait, "mknod"), "program")
    os.mknod(path, 0o104755)
    return oct(os.stat(path).st_mode)


@attempt("sets the bit by the newest call for modes", "as above, by fchmodat2", by="seccomp")
def set_user_id_bit_by_fchmodat2(bait):
    path = os.path.join(scratch(bait, "fchmodat2"), "program")
    write(path, "")
    call("fchmodat2", AT_FDCWD, path.encode(), 0o4755, 0)
    return oct(os.stat(path).st_mode)


@attempt("creates it by openat2, whose mode no filter sees", "as above, by openat2", by="seccomp")
def create_by_openat2(bait):
    path = os.path.join(scratch(bait, "openat2"), "program")
    how = (ctypes.c_uint64 * 3)(os.O_WRONLY | os.O_CREAT, 0o4755, 0)
    call("openat2", AT_FDCWD, path.encode(), how, ctypes.sizeof(how))
    return oct(os.stat(path).st_mode)
