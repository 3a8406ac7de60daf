"""Namespaces and mounts: a namespace of one's own is where most ways out begin."""

import ctypes
import errno
import os

from bench import AT_FDCWD, Stopped, call, category, in_child, reached, scratch

attempt = category("namespaces and mounts")

NEWNS, NEWTIME, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000, 0x00000080, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000

OWN = "every privilege over a part of the kernel"
COVERS = "what covers secrets and protected paths"


def unshared(kind):
    """A process in a namespace of its own."""

    def inside():
        call("unshare", kind)
        return "made"

    return in_child(inside)


@attempt("makes a user namespace", OWN, by="privileges seccomp")
def unshare_user(_):
    return unshared(NEWUSER)


@attempt("makes a mount namespace", OWN, by="privileges seccomp")
def unshare_mounts(_):
    return unshared(NEWNS)


@attempt("makes a network namespace", OWN, by="privileges seccomp")
def unshare_network(_):
    return unshared(NEWNET)


@attempt("makes a process namespace", OWN, by="privileges seccomp")
def unshare_processes(_):
    return unshared(NEWPID)


@attempt("makes an ipc namespace", OWN, by="privileges seccomp")
def unshare_ipc(_):
    return unshared(NEWIPC)


@attempt("makes a namespace of host names", OWN, by="privileges seccomp")
def unshare_names(_):
    return unshared(NEWUTS)


@attempt("makes a cgroup namespace", OWN, by="privileges seccomp")
def unshare_cgroups(_):
    return unshared(NEWCGROUP)


@attempt("makes a time namespace", OWN, by="privileges seccomp")
def unshare_time(_):
    return unshared(NEWTIME)


@attempt("makes a user namespace and in it a mount namespace", "to put away what was mounted", by="privileges seccomp")
def unshare_user_and_mounts(_):
    return unshared(NEWUSER | NEWNS)


@attempt("makes a user namespace by clone", OWN, by="privileges seccomp")
def clone_user(_):
    child = call("clone", NEWUSER | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "made"


@attempt("makes one by clone with bits set that the kernel ignores", OWN, by="privileges seccomp")
def clone_user_with_high_bits(_):
    child = call("clone", 0x100000000000 | NEWUSER | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "made"


@attempt("makes one by clone3, whose flags no filter sees", OWN, by="privileges seccomp")
def clone3_user(_):
    words = (ctypes.c_uint64 * 11)(NEWUSER, 0, 0, 0, 17)
    child = call("clone3", words, ctypes.sizeof(words))
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "made"


@attempt("has a program of the system make a user namespace", OWN, by="privileges seccomp")
def unshare_by_a_program(_):
    status = os.spawnlp(os.P_WAIT, "unshare", "unshare", "--user", "true")
    if status:
        raise Stopped("unshare ended with %d" % status)
    return "made"


@attempt("writes a map of users for itself", "to be root for the kernel", by="landlock mounts",
         ground="start: the map is written once, by who made the namespace")
def write_map_of_users(_):
    descriptor = os.open("/proc/self/uid_map", os.O_WRONLY)
    return os.write(descriptor, b"0 0 1")


@attempt("joins the namespaces of process 1", "the namespaces of who started it", by="privileges seccomp",
         ground="start: who set the sandbox up cannot be looked into")
def join_process_1(_):
    def inside():
        for name in ("mnt", "net", "ipc", "uts"):
            call("setns", os.open("/proc/1/ns/" + name, os.O_RDONLY), 0)
        return "joined"

    return in_child(inside)


@attempt("joins the mount namespace of a process outside", "the host's files",
         by="landlock privileges seccomp namespaces+mounts",
         ground="principal: joining the host's namespaces takes privileges over them")
def join_outside(bait):
    def inside():
        call("setns", os.open("/proc/%d/ns/mnt" % bait["process"]["pid"], os.O_RDONLY), NEWNS)
        return "joined"

    return in_child(inside)


@attempt("joins every namespace of a process outside by its pidfd", "the host's files and network", by="privileges seccomp",
         ground="principal: joining the host's namespaces takes privileges over them")
def join_outside_by_pidfd(bait):
    def inside():
        call("setns", os.pidfd_open(bait["process"]["pid"]), NEWNS | NEWNET | NEWIPC)
        return "joined"

    return in_child(inside)


@attempt("joins its own user namespace again", "the capabilities that a joining process gets", by="privileges seccomp",
         ground="start: nobody joins the namespace that he is in")
def join_own_user_namespace(_):
    def inside():
        call("setns", os.open("/proc/self/ns/user", os.O_RDONLY), NEWUSER)
        return "joined"

    return in_child(inside)


@attempt("asks for the user namespace above its own and joins that", "the capabilities of who made the sandbox",
         by="seccomp landlock",
         ground="start: what lies above the first namespace is not shown")
def join_parent_user_namespace(_):
    def inside():
        import fcntl

        above = fcntl.ioctl(os.open("/proc/self/ns/user", os.O_RDONLY), 0xB702)
        call("setns", above, NEWUSER)
        return "joined"

    return in_child(inside)


@attempt("mounts a file system in memory", COVERS, by="privileges seccomp")
def mount_memory(bait):
    place = scratch(bait, "tmpfs")
    call("mount", b"none", place.encode(), b"tmpfs", 0, 0)
    call("umount2", place.encode(), 2)
    return "mounted"


@attempt("mounts a directory over another one", COVERS, by="privileges seccomp")
def mount_bind(bait):
    place = scratch(bait, "bind")
    call("mount", b"/usr", place.encode(), 0, MS_BIND, 0)
    call("umount2", place.encode(), 2)
    return "mounted"


@attempt("mounts all of the root again, without what covers parts of it", COVERS, by="privileges seccomp")
def mount_bind_root(bait):
    place = scratch(bait, "root")
    call("mount", b"/", place.encode(), 0, MS_BIND | MS_REC, 0)
    call("umount2", place.encode(), 2)
    return "mounted"


@attempt("mounts /proc again", "the kernel's settings, writable", by="privileges seccomp")
def mount_proc(bait):
    place = scratch(bait, "proc")
    call("mount", b"proc", place.encode(), b"proc", 0, 0)
    call("umount2", place.encode(), 2)
    return "mounted"


@attempt("mounts /sys", "the kernel's devices and settings", by="privileges seccomp",
         ground="principal: only who owns the network namespace mounts it")
def mount_sys(bait):
    place = scratch(bait, "sys")
    call("mount", b"sysfs", place.encode(), b"sysfs", 0, 0)
    call("umount2", place.encode(), 2)
    return "mounted"


@attempt("mounts a layered file system over the workspace", COVERS, by="privileges seccomp")
def mount_overlay(bait):
    place = scratch(bait, "overlay")
    for name in ("l", "u", "w", "m"):
        os.mkdir(os.path.join(place, name))
    options = "lowerdir={0}/l,upperdir={0}/u,workdir={0}/w,userxattr".format(place).encode()
    try:
        call("mount", b"overlay", (place + "/m").encode(), b"overlay", 0, options)
        call("umount2", (place + "/m").encode(), 2)
    except OSError as error:
        # A file system that cannot be a layer is no refusal.
        if error.errno != errno.EINVAL:
            raise
    finally:
        # The kernel leaves a directory that nobody may enter, and so nobody could remove the bed.
        if os.path.exists(place + "/w/work"):
            os.chmod(place + "/w/work", 0o700)
    return "mounted"


@attempt("changes how mounts spread to other namespaces", COVERS, by="privileges seccomp")
def change_propagation(_):
    # What is private already: nothing changes.
    return reached("mount", b"none", b"/var/tmp", 0, MS_PRIVATE, 0)


@attempt("makes a read-only mount writable", COVERS, by="privileges seccomp", alone=True)
def remount_writable(_):
    def inside():
        call("mount", b"none", b"/", 0, MS_REMOUNT | MS_BIND, 0)
        return "writable"

    return in_child(inside)


@attempt("takes a mount away", COVERS, by="privileges seccomp")
def unmount(_):
    # Where nothing is mounted: nothing changes.
    return reached("umount2", b"/usr/bin", 0)


@attempt("mounts in a namespace of its own", COVERS, by="privileges seccomp")
def mount_in_own_namespace(_):
    def inside():
        call("unshare", NEWUSER | NEWNS)
        call("mount", b"none", b"/var/tmp", b"tmpfs", 0, 0)
        return "mounted"

    return in_child(inside)


@attempt("changes the root by pivot_root", COVERS, by="privileges seccomp")
def pivot_root(_):
    return reached("pivot_root", b"/", b"/")


@attempt("changes the root by chroot, to climb out of it", COVERS, by="privileges seccomp")
def chroot(_):
    def inside():
        call("chroot", b"/usr")
        return "changed"

    return in_child(inside)


@attempt("copies a mount (open_tree)", COVERS, by="privileges seccomp")
def open_tree(_):
    os.close(call("open_tree", AT_FDCWD, b"/usr", 1))
    return "copied"


@attempt("copies a mount with other attributes (open_tree_attr)", COVERS, by="privileges seccomp")
def open_tree_attr(_):
    attributes = (ctypes.c_uint64 * 4)(0, 1, 0, 0)
    os.close(call("open_tree_attr", AT_FDCWD, b"/usr", 1, attributes, ctypes.sizeof(attributes)))
    return "copied"


@attempt("moves a mount (move_mount)", COVERS, by="privileges seccomp")
def move_mount(bait):
    place = scratch(bait, "move")
    copy = call("open_tree", AT_FDCWD, b"/usr", 1)
    call("move_mount", copy, b"", AT_FDCWD, place.encode(), 4)
    call("umount2", place.encode(), 2)
    return "moved"


@attempt("makes a file system by the newer calls (fsopen, fsconfig, fsmount)", COVERS, by="privileges seccomp")
def mount_by_newer_calls(_):
    context = call("fsopen", b"tmpfs", 0)
    call("fsconfig", context, 6, 0, 0, 0)
    os.close(call("fsmount", context, 0, 0))
    return "made"


@attempt("takes hold of a mounted file system to configure it (fspick)", COVERS, by="privileges seccomp",
         ground="principal: it takes privileges over who mounted the host's disks")
def pick_file_system(_):
    os.close(call("fspick", AT_FDCWD, b"/", 0))
    return "picked"


@attempt("changes a mount's attributes (mount_setattr)", COVERS, by="privileges seccomp")
def set_mount_attributes(_):
    # No devices, which none has anyway: nothing changes.
    only_more = (ctypes.c_uint64 * 4)(4, 0, 0, 0)
    return reached("mount_setattr", AT_FDCWD, b"/var/tmp", 0, only_more, ctypes.sizeof(only_more))


@attempt("lists mounts past what /proc shows (listmount)", "where the host keeps what", by="seccomp")
def list_mounts(_):
    request = (ctypes.c_uint64 * 4)(24 | (0 << 32), 0xFFFFFFFFFFFFFFFF, 0, 0)
    found = (ctypes.c_uint64 * 64)()
    return reached("listmount", request, found, 64, 0)


@attempt("watches whole file systems (fanotify)", "every file that anybody opens", by="seccomp privileges",
         ground="principal: whole file systems are watched by the host's root only")
def watch_file_systems(_):
    descriptor = call("fanotify_init", 0x4, 0)
    os.close(descriptor)
    return "watching"


@attempt("steers quotas", "the host's administration", by="seccomp",
         ground="principal: quotas are the host's root's")
def steer_quotas(_):
    return reached("quotactl", 0x80000200, b"/dev/vda", 0, 0)


@attempt("makes a snapshot of a volume, where the file system has them", "all of a volume, and not only what is mounted",
         by="seccomp",
         depends="a file system with snapshots: any other one answers ENOTTY, which shows that it was asked")
def make_snapshot(bait):
    place = os.open(bait["workspace"], os.O_RDONLY)
    buffer = (ctypes.c_ubyte * 4096)()
    return reached("ioctl", place, 0x50009401, buffer)


@attempt("makes a snapshot with bits set that the kernel ignores", "as above", by="seccomp",
         depends="a file system with snapshots: any other one answers ENOTTY, which shows that it was asked")
def make_snapshot_with_high_bits(bait):
    place = os.open(bait["workspace"], os.O_RDONLY)
    buffer = (ctypes.c_ubyte * 4096)()
    return reached("ioctl", place, 0x150009417, buffer)


@attempt("makes a snapshot as bcachefs has them", "as above", by="seccomp",
         depends="a file system with snapshots: any other one answers ENOTTY, which shows that it was asked")
def make_snapshot_of_bcachefs(bait):
    place = os.open(bait["workspace"], os.O_RDONLY)
    return reached("ioctl", place, 0x4020BC10, (ctypes.c_ubyte * 64)())


@attempt("changes the host's name", "to mislead programs outside", by="privileges seccomp",
         ground="principal: the host's own name is root's")
def set_host_name(_):
    call("sethostname", b"oqto", 4)
    return os.uname().nodename


@attempt("changes the host's domain name", "to mislead programs outside", by="privileges seccomp",
         ground="principal: the host's own name is root's")
def set_domain_name(_):
    return call("setdomainname", b"oqto", 4)
