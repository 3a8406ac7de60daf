"""Terminals: what is typed there is taken for the user's own word."""

import ctypes
import fcntl
import os
import signal
import termios

from bench import call, category, in_child, mark, reached

attempt = category("terminals")

TYPES = "commands in the user's own shell"


def own_terminal():
    """A terminal that controls this process, which has to be a child."""
    os.setsid()
    _, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    return terminal


def typed(request):
    """What can be read from a terminal after it was typed into."""

    def inside():
        terminal = own_terminal()
        for letter in b"id\n":
            call("ioctl", terminal, request, ctypes.byref(ctypes.c_char(letter)))
        return os.read(terminal, 10)

    return in_child(inside)


@attempt("types into its terminal (TIOCSTI)", TYPES, by="seccomp", depends="dev.tty.legacy_tiocsti")
def type_into_terminal(_):
    return typed(0x5412)


@attempt("types with bits set in the request that the kernel ignores", TYPES, by="seccomp", depends="dev.tty.legacy_tiocsti")
def type_with_high_bits(_):
    return typed(0x100005412)


@attempt("types with the highest bits set", TYPES, by="seccomp", depends="dev.tty.legacy_tiocsti")
def type_with_highest_bits(_):
    return typed(0x7FFFFFFF00005412)


@attempt("makes the terminal that it was started on its own and types into it", TYPES,
         by="seccomp", depends="dev.tty.legacy_tiocsti")
def type_into_given_terminal(_):
    def inside():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        return "typed: %d" % call("ioctl", 0, 0x5412, ctypes.byref(ctypes.c_char(b"x")))

    return in_child(inside)


@attempt("pastes into a console (TIOCLINUX)", TYPES, by="seccomp")
def paste_into_console(_):
    def inside():
        return reached("ioctl", own_terminal(), 0x541C, ctypes.byref(ctypes.c_char(3)))

    return in_child(inside)


@attempt("puts another line discipline on a terminal (TIOCSETD)", "kernel modules with a record of faults", by="seccomp")
def change_line_discipline(_):
    def inside():
        # The one that it has.
        return "set: %d" % call("ioctl", own_terminal(), 0x5423, ctypes.byref(ctypes.c_int(0)))

    return in_child(inside)


@attempt("takes the console's messages for itself (TIOCCONS)", "what the kernel tells its administrator",
         ground="principal: it takes a privilege of the host")
def take_console(_):
    def inside():
        return call("ioctl", own_terminal(), 0x541D, 0)

    return in_child(inside)


@attempt("steals the terminal of another session (TIOCSCTTY with force)", TYPES,
         ground="principal: it takes a privilege of the host")
def steal_terminal(_):
    def inside():
        _, terminal = os.openpty()
        out, into = os.pipe()
        first = os.fork()
        if first == 0:
            os.setsid()
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
            os.write(into, b"x")
            signal.pause()
        os.read(out, 1)
        try:
            os.setsid()
            return call("ioctl", terminal, 0x540E, 1)
        finally:
            os.kill(first, 9)
            os.waitpid(first, 0)

    return in_child(inside)


@attempt("opens the terminal of who started it by /dev/tty", TYPES,
         ground="start: it is in a session of its own")
def open_terminal(_):
    return os.open("/dev/tty", os.O_RDWR)


@attempt("writes to a terminal of the user's", "what he takes for his shell's words", by="mounts", proof="witness")
def write_to_terminal(bait):
    descriptor = os.open(bait["terminal"], os.O_RDWR | os.O_NOCTTY)
    return os.write(descriptor, mark(write_to_terminal).encode())


@attempt("reads what is typed on a terminal of the user's", "passwords", by="mounts", proof="secret")
def read_from_terminal(bait):
    descriptor = os.open(bait["terminal"], os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    return os.read(descriptor, 100).decode()
