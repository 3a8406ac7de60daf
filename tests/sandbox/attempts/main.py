"""Tries to get out, from inside: `main.py BAIT` makes every attempt and prints one line of JSON for each.

`main.py --list` prints the declarations instead, as one JSON.

Every attempt has a process of its own, so that what kills it or never ends is the result of that attempt.
"""

import errno
import json
import os
import selectors
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import bench  # noqa: E402
import files  # noqa: E402,F401
import protected  # noqa: E402,F401
import namespaces  # noqa: E402,F401
import kernel  # noqa: E402,F401
import processes  # noqa: E402,F401
import terminals  # noqa: E402,F401
import sockets  # noqa: E402,F401
import network  # noqa: E402,F401
import persistence  # noqa: E402,F401
import resources  # noqa: E402,F401

# Attempts at a time.
AT_ONCE = 8

# How long one may take, in seconds. None waits for more than one.
PATIENCE = 30


def one(attempt, bait):
    """What became of an attempt, said by its own process."""
    try:
        said = attempt.run(bait)
        return {"end": "done", "said": str(said)[:2000]}
    except bench.Absent as why:
        return {"end": "absent", "said": str(why)}
    except bench.Stopped as how:
        return {"end": "refused", "said": str(how)}
    except TimeoutError:
        return {"end": "refused", "said": "no answer"}
    except MemoryError:
        return {"end": "refused", "said": "ENOMEM"}
    except OSError as error:
        return {"end": "refused", "said": errno.errorcode.get(error.errno, str(error))}
    except BaseException as error:  # A fault of the attempt, which the judge must see.
        return {"end": "broken", "said": "%s: %s" % (type(error).__name__, error)}


def start(attempt, bait):
    """Starts an attempt, and answers its process and where it will say what became of it."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        # What stays behind must hold nothing that others wait for the end of.
        os.close(out)
        said = json.dumps(dict(name=attempt.name, **one(attempt, bait))).encode()
        os.write(into, said)
        os._exit(0)
    os.close(into)
    return child, out


def collect(child, out, attempt, expired):
    """Reads what an attempt said, or finds out why it did not."""
    said = b"" if expired else os.read(out, 4096)
    os.close(out)
    if not said:
        if expired:
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        end = "hung" if expired else "killed"
        said = json.dumps({"name": attempt.name, "end": end, "said": str(os.WTERMSIG(status))}).encode()
    else:
        os.waitpid(child, 0)
    # Not more at a time than fits into a pipe at once.
    os.write(1, said + b"\n")


def together(attempts, bait, at_once):
    """Makes attempts, some at a time."""
    left = list(reversed(attempts))
    selector = selectors.DefaultSelector()
    while left or selector.get_map():
        while left and len(selector.get_map()) < at_once:
            attempt = left.pop()
            child, out = start(attempt, bait)
            selector.register(out, selectors.EVENT_READ, (child, attempt, time.monotonic() + PATIENCE))
        ready = {key.fd for key, _ in selector.select(1)}
        for key in list(selector.get_map().values()):
            child, attempt, end = key.data
            expired = key.fd not in ready and time.monotonic() > end
            if key.fd in ready or expired:
                selector.unregister(key.fd)
                collect(child, key.fd, attempt, expired)


def main():
    """The door."""
    if sys.argv[1] == "--list":
        json.dump([attempt.declaration() for attempt in bench.ATTEMPTS], sys.stdout)
        return
    with open(sys.argv[1], encoding="utf-8") as file:
        bait = json.load(file)
    chosen = [attempt for attempt in bench.ATTEMPTS if len(sys.argv) < 3 or attempt.name in sys.argv[2:]]
    together([attempt for attempt in chosen if not attempt.alone], bait, AT_ONCE)
    together([attempt for attempt in chosen if attempt.alone], bait, 1)


main()
