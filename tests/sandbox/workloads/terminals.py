"""Terminals of one's own, with a program on them that is stopped and goes on."""
import fcntl
import os
import pty
import signal
import struct
import termios

child, terminal = pty.fork()
if child == 0:
    os.execvp("sh", ["sh", "-c", "stty size; tty | cut -c1-9; read -r line; echo got $line"])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
os.write(terminal, b"typed\n")
said = b""
while True:
    try:
        said += os.read(terminal, 1000)
    except OSError:
        break
os.waitpid(child, 0)
print(b"/dev/pts/" in said, b"got typed" in said)

child, terminal = pty.fork()
if child == 0:
    # Whoever started the tests may have it ignored.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.execvp("sh", ["sh", "-c", "echo ready; exec sleep 100"])
print(b"ready" in os.read(terminal, 1000))
os.kill(child, signal.SIGSTOP)
print(os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1]))
os.kill(child, signal.SIGCONT)
# The end of a terminal is a signal to who is on it.
os.close(terminal)
print(os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGHUP)

# says:
# True True
# True
# True
# True
