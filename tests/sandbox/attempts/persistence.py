"""What is left behind: programs that go on, files that somebody runs later."""

import os
import signal

from bench import Stopped, call, category, mark, write

attempt = category("persistence")

STAYS = "an agent without a sandbox around its end"
LATER = "code that the user runs later, outside"

# How long what was left behind would stay where nothing ends it, in seconds.
STAY = 20

KEPT = {"read-only": "mounts landlock"}


def stay(bait, name, *steps):
    """Leaves a process behind that the judge finds by its name."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        for step in steps:
            step()
        if os.fork():
            os._exit(0)
        # Nothing of it may be what somebody waits for the end of.
        os.closerange(0, into)
        os.write(into, b"x")
        os.closerange(0, into + 1)
        os.execv("/bin/sh", [mark_of(name), "-c", "trap '' HUP TERM INT; sleep %d" % STAY, bait["workspace"]])
    os.close(into)
    os.waitpid(child, 0)
    if not os.read(out, 1):
        raise Stopped("could not be left behind")
    return "left behind"


def mark_of(name):
    """The mark of an attempt by its name."""
    return "escaped:%s;" % name


# Killed, it could not: then the namespace of processes does it alone.
REAPED = "start: whoever started the program ends what it leaves running"


@attempt("leaves a process behind that nobody is the parent of", STAYS, by="namespaces", proof="witness", alone=True, ground=REAPED)
def daemon(bait):
    return stay(bait, "daemon")


@attempt("leaves one behind in a session of its own", STAYS, by="namespaces", proof="witness", alone=True, ground=REAPED)
def daemon_in_own_session(bait):
    return stay(bait, "daemon-in-own-session", os.setsid)


@attempt("leaves one behind that no signal but one ends", STAYS, by="namespaces", proof="witness", alone=True, ground=REAPED)
def daemon_that_ignores_signals(bait):
    def ignore():
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            signal.signal(number, signal.SIG_IGN)

    return stay(bait, "daemon-that-ignores-signals", os.setsid, ignore)


@attempt("leaves one behind that is stopped", STAYS, by="namespaces", proof="witness", alone=True, ground=REAPED)
def daemon_that_is_stopped(bait):
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        kept = os.fork()
        if kept == 0:
            os.closerange(0, into + 1)
            stopped = "kill -STOP $$; sleep %d" % STAY
            os.execv("/bin/sh", [mark_of("daemon-that-is-stopped"), "-c", stopped, bait["workspace"]])
        os.waitpid(kept, os.WUNTRACED)
        os.write(into, b"x")
        os._exit(0)
    os.close(into)
    os.waitpid(child, 0)
    if not os.read(out, 1):
        raise Stopped("could not be left behind")
    return "left behind"


@attempt("leaves one behind that makes another one whenever it is ended", STAYS, by="namespaces", proof="witness", alone=True, ground=REAPED)
def daemon_that_comes_again(bait):
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.write(into, b"x")
        os.closerange(0, into + 1)
        again = "i=0; while [ $i -lt %d ]; do sh -c 'sleep 1'; i=$((i+1)); done" % STAY
        os.execv("/bin/sh", [mark_of("daemon-that-comes-again"), "-c", again, bait["workspace"]])
    os.close(into)
    os.waitpid(child, 0)
    if not os.read(out, 1):
        raise Stopped("could not be left behind")
    return "left behind"


@attempt("asks that nothing happen to it when its parent ends, and stays", STAYS, by="namespaces", proof="witness", alone=True, ground=REAPED)
def daemon_without_death_signal(bait):
    def reap():
        # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER
        call("prctl", 1, 0, 0, 0, 0)
        call("prctl", 36, 1, 0, 0, 0)

    return stay(bait, "daemon-without-death-signal", os.setsid, reap)


def planted(name, place, tries, gives=LATER):
    """Declares an attempt to add to a file in the user's home."""

    def plant(bait):
        path = os.path.join(bait["outside"], "home", place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return write(path, mark(plant))

    plant.__name__ = "plant_" + name
    attempt(tries, gives, by="mounts landlock", proof="witness")(plant)


planted("bashrc", ".bashrc", "adds to the user's .bashrc")
planted("profile", ".profile", "adds to the user's .profile")
planted("zshenv", ".zshenv", "makes a .zshenv for the user")
planted("user_unit", ".config/systemd/user/oqto.service", "makes a unit of the user's service manager")
planted("autostart", ".config/autostart/oqto.desktop", "makes a program that starts with the user's desktop")
planted("authorized_keys", ".ssh/authorized_keys", "lets itself in by ssh", "a login")
planted("git_configuration", ".config/git/config", "adds to the user's configuration of git")
planted("program", ".local/bin/ls", "puts a program of a known name first on the user's path")
planted("npm_configuration", ".npmrc", "adds to the user's configuration of npm")
planted("cargo_configuration", ".cargo/config.toml", "adds to the user's configuration of cargo")
planted("python_customisation", ".local/lib/python3.11/site-packages/usercustomize.py", "makes a module that every python of the user runs")


def crontab(_):
    last = None
    for path in ("/var/spool/cron/crontabs/oqto", "/etc/cron.d/oqto", "/var/spool/cron/atjobs/oqto", "/etc/profile.d/oqto.sh",
                 "/etc/systemd/system/oqto.service", "/run/systemd/system/oqto.service", "/etc/ld.so.preload"):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        except OSError as error:
            last = error
        else:
            os.unlink(path)
            return path
    raise last


attempt("makes jobs and start-up files of the system", LATER, by="mounts landlock", ground="principal: they are root's")(crontab)


def inside(name, place, tries, gives=LATER):
    """Declares an attempt to add to a protected file of the workspace, which is there."""

    def plant(bait):
        return write(os.path.join(bait["workspace"], place), mark(plant))

    plant.__name__ = "protected_" + name
    attempt(tries, gives, by="mounts", where=KEPT, proof="witness")(plant)


inside("policy", ".oqto/sandbox.toml", "changes the policy of its own workspace", "the next session's sandbox")
inside("shell_start_up", ".bashrc", "adds to a shell's start-up file in the workspace")
inside("directory_environment", ".envrc", "adds to what direnv runs")
inside("editor_tasks", ".vscode/tasks.json", "adds to tasks of an editor")
inside("agent_configuration", ".claude/settings.json", "adds to the configuration of an agent")
inside("tool_servers", ".mcp.json", "adds to the servers that agents start")
inside("cargo_configuration", ".cargo/config.toml", "adds to what cargo runs")
inside("hook_manager", ".husky/pre-commit", "adds to a manager of hooks")
inside("submodules", ".gitmodules", "adds to the repository's submodules")
inside("nested_hook", "nested/.git/hooks/pre-commit", "adds a hook to a repository inside the repository")


def appears(name, place, tries):
    """Declares an attempt to make a protected path that is not there."""

    def plant(bait):
        path = os.path.join(bait["workspace"], place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return write(path, mark(plant))

    plant.__name__ = "appearing_" + name
    attempt(tries, LATER, where=KEPT, proof="witness", alone=True)(plant)


# These are not stopped where the workspace may be written: a mount needs something to be mounted on. They are told.
appears("editor_settings", ".idea/workspace.xml", "makes an editor's settings, which were not there")
appears("devcontainer", ".devcontainer.json", "makes a development container's file, which was not there")
appears("mise", "mise.toml", "makes a file that mise runs, which was not there")


@attempt("makes a hook run by the configuration of a worktree", LATER, by="mounts", where=KEPT, proof="witness")
def protected_worktree_configuration(bait):
    return write(os.path.join(bait["workspace"], ".git/config.worktree"), mark(protected_worktree_configuration))


@attempt("leads git elsewhere by the file commondir", LATER, by="mounts", where=KEPT, proof="witness")
def protected_common_directory(bait):
    return write(os.path.join(bait["workspace"], ".git/commondir"), mark(protected_common_directory))
