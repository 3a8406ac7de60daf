"""Sockets and shared memory of the host: what listens there does what it is told."""

import ctypes
import os
import socket

from bench import ABOVE, Absent, Stopped, call, category, libc, mark, number

attempt = category("sockets and ipc")


def unix(address, attempt_made, kind=socket.SOCK_STREAM):
    """Speaks to a socket of this host."""
    with socket.socket(socket.AF_UNIX, kind) as to:
        to.settimeout(1)
        to.connect(address)
        to.send(mark(attempt_made).encode())
    return "spoke to %r" % address


@attempt("speaks to the agent that holds the user's ssh keys", "logins everywhere", by="mounts", proof="witness")
def ssh_agent(bait):
    return unix(bait["sockets"]["ssh-agent"], ssh_agent)


@attempt("speaks to docker", "root outside", by="mounts", proof="witness")
def docker(bait):
    return unix(bait["sockets"]["docker"], docker)


@attempt("speaks to D-Bus", "programs started outside, secrets of keyrings", by="mounts", proof="witness")
def dbus(bait):
    return unix(bait["sockets"]["dbus"], dbus)


@attempt("speaks to the display (X11)", "all that is typed and shown", by="mounts", proof="witness")
def x11(bait):
    return unix(bait["sockets"]["x11"], x11)


@attempt("speaks to the display by its socket in /tmp", "all that is typed and shown", by="mounts", proof="witness")
def x11_in_tmp(bait):
    return unix(bait["sockets"]["display"], x11_in_tmp)


@attempt("speaks to a socket through a link to it", "a server of the user's", by="mounts", proof="witness")
def socket_through_a_link(bait):
    link = "/tmp/link-%d" % os.getpid()
    os.symlink(bait["sockets"]["docker"], link)
    try:
        return unix(link, socket_through_a_link)
    finally:
        os.unlink(link)


@attempt("speaks to a socket through the root of a process outside", "a server of the user's",
         by="namespaces+mounts landlock", proof="witness", ground=ABOVE)
def socket_through_a_process(bait):
    return unix("/proc/%d/cwd/sockets/docker" % bait["process"]["pid"], socket_through_a_process)


@attempt("speaks to any of the services that have a socket in /run", "root outside", by="mounts",
         ground="principal: most let root alone speak to them", depends="a service with a socket that everybody may speak to")
def services(bait):
    last = None
    for name in ("docker.sock", "podman/podman.sock", "containerd/containerd.sock", "dbus/system_bus_socket", "systemd/private",
                 "systemd/notify", "systemd/journal/socket", "systemd/journal/stdout", "systemd/io.systemd.ManagedOOM",
                 "snapd.socket", "avahi-daemon/socket", "cups/cups.sock", "pcscd/pcscd.comm", "libvirt/libvirt-sock",
                 "lxd.socket", "nscd/socket", "user/%d/bus" % os.getuid(), "user/%d/systemd/private" % os.getuid(),
                 "user/%d/gnupg/S.gpg-agent" % os.getuid(), "user/%d/wayland-0" % os.getuid(), "user/%d/pipewire-0" % os.getuid()):
        with socket.socket(socket.AF_UNIX) as to:
            try:
                to.connect("/run/" + name)
            except OSError as error:
                last = error
            else:
                return "/run/" + name
    raise last


@attempt("finds the way to agents and buses in its environment", "logins, and programs started outside", proof="own",
         ground="start: the environment is made from nothing")
def addresses_in_the_environment(_):
    names = ("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "GPG_AGENT_INFO",
             "XDG_RUNTIME_DIR", "TMUX", "KUBECONFIG", "VSCODE_IPC_HOOK_CLI")
    found = [name for name in names if name in os.environ]
    if not found:
        raise Stopped("none of them is set")
    return found


@attempt("speaks to a socket without a file", "X11, D-Bus, containerd: all have had one", by="landlock namespaces",
         where={"network": "landlock"}, proof="witness")
def abstract_stream(bait):
    return unix("\0" + bait["sockets"]["abstract-stream"], abstract_stream)


@attempt("sends a datagram to a socket without a file", "as above",
         by="landlock namespaces", where={"network": "landlock"}, proof="witness")
def abstract_datagram(bait):
    return unix("\0" + bait["sockets"]["abstract-datagram"], abstract_datagram, socket.SOCK_DGRAM)


@attempt("sends one without connecting first", "as above",
         by="landlock namespaces", where={"network": "landlock"}, proof="witness")
def abstract_sendto(bait):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        return to.sendto(mark(abstract_sendto).encode(), "\0" + bait["sockets"]["abstract-datagram"])


@attempt("speaks to a socket of packets without a file", "as above",
         by="landlock namespaces", where={"network": "landlock"}, proof="witness")
def abstract_packets(bait):
    return unix("\0" + bait["sockets"]["abstract-packets"], abstract_packets, socket.SOCK_SEQPACKET)


@attempt("lists the host's sockets", "which services there are", by="namespaces", where={"network": ""})
def list_sockets(bait):
    with open("/proc/net/unix", encoding="utf-8") as file:
        text = file.read()
    if bait["sockets"]["abstract-stream"] not in text:
        raise Stopped("none of the host's")
    return "listed"


@attempt("reads System V shared memory", "memory of the user's other programs", by="namespaces", proof="secret")
def shared_memory_segment(bait):
    libc.syscall.restype = ctypes.c_long
    place = libc.syscall(ctypes.c_long(number("shmat")), ctypes.c_long(bait["ipc"]["segment"]), ctypes.c_long(0), ctypes.c_long(0o10000))
    if place == -1:
        raise OSError(ctypes.get_errno(), "shmat")
    return ctypes.string_at(place, 64).decode()


@attempt("steers System V semaphores", "when the user's other programs run", by="namespaces")
def semaphores(bait):
    # GETVAL
    return call("semctl", bait["ipc"]["semaphores"], 0, 12, 0)


@attempt("reads a System V message queue", "what the user's other programs say", by="namespaces", proof="secret")
def message_queue(bait):
    words = ctypes.create_string_buffer(300)
    # MSG_COPY | IPC_NOWAIT, so that it stays; kernels without it take it.
    try:
        call("msgrcv", bait["ipc"]["queue"], words, ctypes.c_long(200), ctypes.c_long(0), 0o44000)
    except OSError as error:
        if error.errno != 38:
            raise
        call("msgrcv", bait["ipc"]["queue"], words, ctypes.c_long(200), ctypes.c_long(0), 0o4000)
    return words.raw[8:].decode(errors="replace")


@attempt("reads a POSIX message queue", "what the user's other programs say", by="namespaces", proof="secret")
def named_message_queue(bait):
    if not bait["ipc"]["named"]:
        raise Absent("the host has no such queues")
    queue = call("mq_open", bait["ipc"]["named"].encode(), os.O_RDWR, 0, 0)
    words = ctypes.create_string_buffer(300)
    call("mq_timedreceive", queue, words, ctypes.c_long(300), 0, 0)
    return words.raw.decode(errors="replace")


@attempt("lists System V objects by /proc", "which there are", by="namespaces+mounts")
def list_ipc(bait):
    with open("/proc/sysvipc/shm", encoding="ascii") as file:
        found = [line.split()[1] for line in file.readlines()[1:]]
    if str(bait["ipc"]["segment"]) not in found:
        raise Stopped("not the host's")
    return found
