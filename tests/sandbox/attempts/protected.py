"""Protected paths of the workspace: what other programs of the user run, or obey, when they find it there."""

import ctypes
import os
import threading

from bench import AT_FDCWD, Stopped, call, category, in_child, mark, read, scratch, until, write

attempt = category("protected paths")

# How long a race is run, in seconds: thousands of rounds.
RACE = 0.15

# Where the workspace may not be written, landlock holds what only a mount holds elsewhere.
KEPT = {"read-only": "mounts landlock"}

LATER = "code that the user runs later, outside"


def protected(bait, name):
    """A protected path of the workspace."""
    return os.path.join(bait["workspace"], name)


@attempt("adds a hook to the repository", LATER, by="mounts", where=KEPT, proof="witness")
def protected_hook(bait):
    return write(protected(bait, ".git/hooks/pre-commit"), mark(protected_hook))


@attempt("adds to the repository's configuration", LATER, by="mounts", where=KEPT, proof="witness")
def protected_configuration(bait):
    return write(protected(bait, ".git/config"), mark(protected_configuration))


@attempt("puts another file in the place of the configuration", LATER, by="mounts", where=KEPT, proof="witness", alone=True)
def protected_by_replacing(bait):
    fresh = protected(bait, "fresh-configuration")
    # What others left there stays for the judge.
    write(fresh, read(protected(bait, ".git/config")) + mark(protected_by_replacing))
    return os.rename(fresh, protected(bait, ".git/config"))


@attempt("removes the hooks and makes its own", LATER, by="mounts", where=KEPT, proof="witness", alone=True)
def protected_by_removing(bait):
    hooks = protected(bait, ".git/hooks")
    # What others left there stays for the judge.
    before = "".join(read(os.path.join(hooks, name)) for name in os.listdir(hooks))
    for name in os.listdir(hooks):
        os.unlink(os.path.join(hooks, name))
    os.rmdir(hooks)
    os.mkdir(hooks)
    return write(os.path.join(hooks, "pre-push"), before + mark(protected_by_removing))


@attempt("renames the directory above and makes its own", LATER, by="mounts", where=KEPT, proof="witness", alone=True)
def protected_by_renaming_the_parent(bait):
    git, away = protected(bait, ".git"), protected(bait, ".git-away")
    os.rename(git, away)
    try:
        os.makedirs(git + "/hooks")
        return write(git + "/hooks/post-merge", mark(protected_by_renaming_the_parent))
    finally:
        os.rename(git, protected(bait, ".git-own"))
        os.rename(away, git)
        os.makedirs(git + "/hooks", exist_ok=True)
        write(git + "/hooks/post-merge", mark(protected_by_renaming_the_parent))


@attempt("exchanges the directory above with its own in one step", LATER, by="mounts", where=KEPT, proof="witness", alone=True)
def protected_by_exchanging_the_parent(bait):
    own = scratch(bait, "exchange") if "read-only" not in bait["traits"] else protected(bait, "exchange")
    os.makedirs(own + "/hooks")
    git = protected(bait, ".git")
    call("renameat2", AT_FDCWD, own.encode(), AT_FDCWD, git.encode(), 2)
    said = write(git + "/hooks/post-checkout", mark(protected_by_exchanging_the_parent))
    call("renameat2", AT_FDCWD, own.encode(), AT_FDCWD, git.encode(), 2)
    write(git + "/hooks/post-checkout", mark(protected_by_exchanging_the_parent))
    return said


@attempt("renames, makes and writes over and over in several threads", LATER,
         by="mounts", where=KEPT, proof="witness", alone=True)
def protected_by_racing(bait):
    git, away = protected(bait, ".git"), protected(bait, ".git-raced")
    target = protected(bait, ".git/hooks/raced")
    going = True

    def move():
        while going:
            for one, two in ((git, away), (away, git)):
                try:
                    os.rename(one, two)
                except OSError:
                    pass

    mover = threading.Thread(target=move)
    mover.start()
    last = Stopped("no round")
    for _ in until(RACE):
        try:
            said = write(target, mark(protected_by_racing))
        except OSError as error:
            last = error
        else:
            last = None
            break
    going = False
    mover.join()
    if os.path.isdir(away):
        os.rename(away, git)
    if last:
        raise last
    return said


@attempt("links the configuration to another name and writes to that", LATER, by="mounts", where=KEPT, proof="witness")
def protected_by_hard_link(bait):
    link = protected(bait, "linked-configuration")
    os.link(protected(bait, ".git/config"), link)
    return write(link, mark(protected_by_hard_link))


@attempt("opens the configuration for reading and again for writing through /proc/self/fd", LATER,
         by="mounts", where=KEPT, proof="witness")
def protected_by_reopening(bait):
    descriptor = os.open(protected(bait, ".git/config"), os.O_RDONLY)
    return write("/proc/self/fd/%d" % descriptor, mark(protected_by_reopening), os.O_WRONLY | os.O_APPEND)


@attempt("reaches the hooks by a descriptor of the directory above", LATER, by="mounts", where=KEPT, proof="witness")
def protected_by_descriptor(bait):
    git = os.open(protected(bait, ".git"), os.O_RDONLY)
    descriptor = os.open("hooks/pre-rebase", os.O_WRONLY | os.O_CREAT, 0o755, dir_fd=git)
    return os.write(descriptor, mark(protected_by_descriptor).encode())


@attempt("puts a link in the place of the hooks", LATER, by="mounts", where=KEPT, alone=True)
def protected_by_symbolic_link(bait):
    hooks = protected(bait, ".git/hooks")
    os.rename(hooks, protected(bait, ".git/hooks-away"))
    os.symlink("/tmp", hooks)
    os.unlink(hooks)
    os.rename(protected(bait, ".git/hooks-away"), hooks)
    return "the hooks led elsewhere for a moment"


def uncovered(bait, name, attempt_made, uncover):
    """Takes the cover over the hooks away, if there is one and it may, and writes what was below."""

    def inside():
        hooks = protected(bait, ".git/hooks")
        try:
            uncover(hooks.encode())
        except OSError:
            pass
        return write(os.path.join(hooks, name), mark(attempt_made))

    return in_child(inside)


@attempt("takes the cover over the hooks away in a mount namespace of its own", LATER,
         by="mounts", where=KEPT, proof="witness", alone=True)
def protected_by_namespaces(bait):
    def uncover(hooks):
        # CLONE_NEWUSER | CLONE_NEWNS
        call("unshare", 0x10020000)
        call("umount2", hooks, 2)

    return uncovered(bait, "pre-receive", protected_by_namespaces, uncover)


@attempt("takes the cover over the hooks away", LATER, by="mounts", where=KEPT, proof="witness", alone=True)
def protected_by_unmounting(bait):
    return uncovered(bait, "pre-auto-gc", protected_by_unmounting, lambda hooks: call("umount2", hooks, 2))


@attempt("makes the cover over the hooks writable again", LATER, by="mounts", where=KEPT, proof="witness", alone=True)
def protected_by_remounting(bait):
    # MS_REMOUNT | MS_BIND
    return uncovered(bait, "update", protected_by_remounting, lambda hooks: call("mount", b"none", hooks, 0, 0x1020, 0))


@attempt("makes the cover writable again by the newer call", LATER, by="mounts", where=KEPT, proof="witness", alone=True)
def protected_by_setting_attributes(bait):
    words = (ctypes.c_uint64 * 4)(0, 1, 0, 0)
    return uncovered(bait, "post-update", protected_by_setting_attributes,
                     lambda hooks: call("mount_setattr", AT_FDCWD, hooks, 0, words, ctypes.sizeof(words)))


@attempt("copies the workspace's mount without what covers it", LATER, by="mounts privileges seccomp",
         where={"read-only": "mounts privileges seccomp landlock"}, proof="witness", alone=True)
def protected_by_copying_the_mount(bait):
    copy = call("open_tree", AT_FDCWD, bait["workspace"].encode(), 1)
    descriptor = os.open(".git/hooks/pre-applypatch", os.O_WRONLY | os.O_CREAT, 0o755, dir_fd=copy)
    return os.write(descriptor, mark(protected_by_copying_the_mount).encode())
