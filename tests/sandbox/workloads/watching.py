"""Watching files (inotify), waiting for many things at once (epoll, timers, events, signals as files)."""
import ctypes
import os
import select
import signal
import struct

libc = ctypes.CDLL(None, use_errno=True)
watcher = libc.inotify_init1(os.O_CLOEXEC)
# IN_CREATE | IN_MODIFY | IN_MOVED_TO
print(libc.inotify_add_watch(watcher, b".", 0x100 | 0x2 | 0x80) > 0)
with open("made", "w", encoding="ascii") as file:
    file.write("x")
events = os.read(watcher, 4096)
print("made" in events.decode(errors="replace"))

poll = select.epoll()
event = libc.eventfd(0, 0)
poll.register(event, select.EPOLLIN)
os.write(event, struct.pack("=Q", 5))
print([number == event for number, _ in poll.poll(5)], struct.unpack("=Q", os.read(event, 8))[0])

timer = libc.timerfd_create(1, 0)
libc.timerfd_settime(timer, 0, struct.pack("=qqqq", 0, 0, 0, 1000), None)
print(struct.unpack("=Q", os.read(timer, 8))[0] >= 1)

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
words = (ctypes.c_ulong * 16)(1 << (signal.SIGUSR1 - 1))
signals = libc.signalfd(-1, words, 0)
os.kill(os.getpid(), signal.SIGUSR1)
print(struct.unpack_from("=I", os.read(signals, 128))[0] == signal.SIGUSR1)

# says:
# True
# True
# [True] 5
# True
# True
