"""What is to be reached, outside: `outside.py DIRECTORY SECRET` sets it up and says in one line of JSON where it is.

Runs as the user whose agent is inside. A line on its input ends it; then it says which marks reached it.
"""

import ctypes
import json
import mmap
import os
import re
import selectors
import signal
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)
CALLS = {"x86_64": (29, 30, 64, 68, 69, 240, 242, 248, 250), "aarch64": (194, 196, 190, 186, 189, 180, 182, 217, 219)}
SHMGET, SHMAT, SEMGET, MSGGET, MSGSND, MQ_OPEN, MQ_TIMEDSEND, ADD_KEY, KEYCTL = CALLS[os.uname().machine]

libc.syscall.restype = ctypes.c_long


def call(number, *args):
    """Asks the kernel itself, since Python has no words for these. Answers -1 where it refuses."""
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return libc.syscall(ctypes.c_long(number), *words)


# Ways to send a signal. Each has a number of its own, so that it is known which one arrived.
SIGNALS = [
    "signal-outside-kill", "signal-outside-tgkill", "signal-outside-tkill", "signal-outside-sigqueue",
    "signal-outside-tgsigqueue", "signal-outside-pidfd", "signal-outside-owner-of-a-file",
]

MARK = re.compile(rb"escaped:([a-z0-9-]+);")


class Outside:
    """Everything that an attempt might reach, and the marks of those that did."""

    def __init__(self, directory, secret):
        self.directory = directory
        self.secret = secret
        self.selector = selectors.DefaultSelector()
        self.seen = set()
        self.kept = []

    def listen(self, family, kind, address):
        """A socket that notes who speaks to it."""
        to = socket.socket(family, kind)
        to.bind(address)
        to.setblocking(False)
        if kind == socket.SOCK_STREAM:
            to.listen(64)
        self.selector.register(to, selectors.EVENT_READ, kind)
        return to.getsockname()

    def ports(self):
        """Services on every address that this host has."""
        found = {}
        for name, family, address in (("4", socket.AF_INET, "127.0.0.1"), ("6", socket.AF_INET6, "::1")):
            try:
                found["tcp" + name] = self.listen(family, socket.SOCK_STREAM, (address, 0))[1]
                found["udp" + name] = self.listen(family, socket.SOCK_DGRAM, (address, 0))[1]
            except OSError:
                found["tcp" + name] = found["udp" + name] = None
        own = self.own_address()
        found["own"] = own
        if own:
            found["tcp-own"] = self.listen(socket.AF_INET, socket.SOCK_STREAM, (own, 0))[1]
            found["udp-own"] = self.listen(socket.AF_INET, socket.SOCK_DGRAM, (own, 0))[1]
        return found

    @staticmethod
    def own_address():
        """This host's address in its network, if it has one."""
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect(("198.51.100.1", 9))
                return probe.getsockname()[0]
        except OSError:
            return None

    def names(self):
        """Sockets with a name: in the file system, where such services have theirs, and without a file."""
        found = {}
        for name in ("ssh-agent", "docker", "dbus", "x11"):
            path = os.path.join(self.directory, "sockets", name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self.listen(socket.AF_UNIX, socket.SOCK_STREAM, path)
            found[name] = path
        kinds = {"stream": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM, "packets": socket.SOCK_SEQPACKET}
        for name, kind in kinds.items():
            address = "\0oqto-%s-%s" % (self.secret[:12], name)
            if kind == socket.SOCK_SEQPACKET:
                to = socket.socket(socket.AF_UNIX, kind)
                to.bind(address)
                to.setblocking(False)
                to.listen(8)
                self.selector.register(to, selectors.EVENT_READ, socket.SOCK_STREAM)
            else:
                self.listen(socket.AF_UNIX, kind, address)
            found["abstract-" + name] = address[1:]
        return found

    def in_tmp(self, tmp):
        """A display's socket where displays have it, in the directory for temporary files."""
        path = os.path.join(tmp, "X0")
        self.listen(socket.AF_UNIX, socket.SOCK_STREAM, path)
        return path

    def terminal(self):
        """A terminal of the user's, on which the secret was typed and not read yet."""
        user, shell = os.openpty()
        self.kept.append(shell)
        os.write(user, self.secret.encode() + b"\n")
        os.set_blocking(user, False)
        self.selector.register(os.fdopen(user, "rb", buffering=0), selectors.EVENT_READ, "terminal")
        return os.ttyname(shell)

    def memory(self):
        """The secret in this process's memory, environment and open files."""
        place = mmap.mmap(-1, 4096)
        place.write(self.secret.encode())
        self.kept.append(place)
        descriptor = os.open(os.path.join(self.directory, ".ssh", "id"), os.O_RDWR)
        address = ctypes.addressof(ctypes.c_char.from_buffer(place))
        return {"pid": os.getpid(), "address": address, "descriptor": descriptor}

    def ipc(self):
        """The secret in what processes share by a number or a name."""
        secret = self.secret.encode()
        segment = call(SHMGET, 0, 4096, 0o1600)
        place = call(SHMAT, segment, 0, 0)
        if place > 0:
            ctypes.memmove(place, secret, len(secret))
        semaphores = call(SEMGET, 0, 1, 0o1600)
        queue = call(MSGGET, 0, 0o1600)
        message = (1).to_bytes(8, sys.byteorder) + secret
        call(MSGSND, queue, message, len(secret), 0)
        name = "oqto-%s" % self.secret[:12]
        # Ten messages of at most 256 bytes.
        shape = (ctypes.c_long * 8)(0, 10, 256, 0, 0, 0, 0, 0)
        named = call(MQ_OPEN, name.encode(), os.O_CREAT | os.O_RDWR, 0o600, shape)
        if named >= 0:
            call(MQ_TIMEDSEND, named, secret, len(secret), 0, 0)
        shared = "/dev/shm/%s" % name
        with open(shared, "w", encoding="ascii") as file:
            file.write(self.secret)
        found = {"segment": segment, "semaphores": semaphores, "queue": queue, "shared": shared}
        return dict(found, named=name if named >= 0 else None)

    def key(self):
        """The secret in the user's keyring, for every process of the user to read."""
        secret = self.secret.encode()
        # The user's own keyring; 3 is what everybody with this user's number may do.
        key = call(ADD_KEY, b"user", b"oqto-" + secret[:12], secret, len(secret), -4)
        if key < 0:
            return None
        call(KEYCTL, 5, key, 0x3F3F0000)
        return key

    def signals(self):
        """Notes which ones arrive."""
        found = {}
        for index, name in enumerate(SIGNALS):
            found[name] = signal.SIGRTMIN + 1 + index
            signal.signal(found[name], lambda *_, name=name: self.seen.add(name))
        return found

    def note(self, said):
        """Keeps the marks in what arrived."""
        self.seen.update(found.decode() for found in MARK.findall(said))

    def drain(self, patience):
        """Reads what there is; answers whether the tester has had enough."""
        enough = False
        for key, _ in self.selector.select(patience):
            if key.data == "tester":
                enough = True
            elif key.data == "terminal":
                self.note(key.fileobj.read(4096) or b"")
            elif key.data == socket.SOCK_DGRAM:
                self.note(key.fileobj.recv(4096))
            elif key.data == socket.SOCK_STREAM:
                peer = key.fileobj.accept()[0]
                peer.setblocking(False)
                self.selector.register(peer, selectors.EVENT_READ, "peer")
            else:
                self.hear(key.fileobj)
        return enough

    def hear(self, peer):
        """Reads from somebody who connected."""
        try:
            said = peer.recv(4096)
        except OSError:
            said = b""
        self.note(said)
        if not said:
            self.selector.unregister(peer)
            peer.close()

    def clean(self, ipc, key):
        """Takes away what would outlive this process."""
        os.unlink(ipc["shared"])
        for command, of in (("-m", "segment"), ("-s", "semaphores"), ("-q", "queue")):
            os.spawnlp(os.P_WAIT, "ipcrm", "ipcrm", command, str(ipc[of]))
        if ipc["named"]:
            unlink = {"x86_64": 241, "aarch64": 181}[os.uname().machine]
            call(unlink, ipc["named"].encode())
        if key:
            call(KEYCTL, 21, key)


def main():
    """The door."""
    directory, secret, tmp = sys.argv[1:4]
    outside = Outside(directory, secret)
    ipc, key = outside.ipc(), outside.key()
    bait = {
        "ports": outside.ports(),
        "sockets": dict(outside.names(), display=outside.in_tmp(tmp)),
        "process": outside.memory(),
        "terminal": outside.terminal(),
        "ipc": ipc,
        "key": key,
        "signals": outside.signals(),
    }
    print(json.dumps(bait), flush=True)
    outside.selector.register(sys.stdin, selectors.EVENT_READ, "tester")
    while not outside.drain(None):
        pass
    # Everything inside has ended, so what was sent is here already; the tester's own line stays unread.
    outside.selector.unregister(sys.stdin)
    while outside.selector.select(0):
        outside.drain(0)
    outside.clean(ipc, key)
    print(json.dumps(sorted(outside.seen)), flush=True)


main()
