//! What must keep working: a wall that breaks ordinary work gets switched off.

use crate::bed::Bed;

#[test]
fn shells_pipes_and_devices() {
    let bed = Bed::new();
    for (script, out) in [
        ("echo a | tr a b | cat", "b\n"),
        ("mkfifo f && (echo x > f &) && cat f", "x\n"),
        (
            "echo a > /dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c",
            "3\n3\n",
        ),
        (
            "(echo a > /dev/stdout; echo b | tee -a /dev/stdout) | sort -u",
            "a\nb\n",
        ),
        ("cat <<X\nheredoc\nX", "heredoc\n"),
        (
            "echo a > f && mv f g && mkdir d && mv g d/g && ln -s d/g l && ln d/g h && cat l h",
            "a\na\n",
        ),
        ("cp /bin/echo e && chmod 700 e && ./e run", "run\n"),
        (
            "printf '#!/bin/sh\\necho script' > s && chmod +x s && ./s",
            "script\n",
        ),
        (
            "id -un; echo $HOME; cd && pwd",
            "agent\n/home/agent\n/home/agent\n",
        ),
        (
            "mkdir -p /tmp/a/b && tar -C /tmp -cf /tmp/t.tar a && tar -C ~ -xf /tmp/t.tar && ls ~",
            "a\n",
        ),
        ("setsid sh -c 'echo detached'", "detached\n"),
        (
            "truncate -s 10 t && dd if=/dev/zero of=t bs=1 count=3 conv=notrunc 2>/dev/null; wc -c < t",
            "10\n",
        ),
        ("ls / | grep -c usr", "1\n"),
    ] {
        assert_eq!(bed.sh(script).ok(), out, "{script}");
        bed.sh("rm -rf ./*").ok();
    }
}

#[test]
fn python_with_threads_processes_sockets_terminals_and_shared_memory() {
    let bed = Bed::new();
    for script in [
        "import threading; t = threading.Thread(target=print, args=('ok',)); t.start(); t.join()",
        "import subprocess; print(subprocess.run(['echo', 'ok'], capture_output=True, text=True).stdout.strip())",
        "import tempfile, os; f = tempfile.NamedTemporaryFile(); f.write(b'x'); f.flush(); print('ok')",
        "import pty, os\npid, fd = pty.fork()\nif pid == 0: os.execvp('tty', ['tty'])\n\
         out = os.read(fd, 99)\nos.waitpid(pid, 0)\nprint('ok' if b'/dev/pts' in out else out)",
        "from multiprocessing import shared_memory as s; m = s.SharedMemory(create=True, size=9); m.close(); m.unlink(); print('ok')",
        "import multiprocessing as m; l = m.Lock(); l.acquire(); l.release(); print('ok')",
        "import socket\ns = socket.socket(socket.AF_UNIX); s.bind('sock'); s.listen()\n\
         c = socket.socket(socket.AF_UNIX); c.connect('sock'); print('ok')",
        "import socket; a, b = socket.socketpair(); a.send(b'ok'); print(b.recv(2).decode())",
        "import socket\ns = socket.create_server(('127.0.0.1', 0))\nsocket.create_connection(s.getsockname()); print('ok')",
        "import socket; s = socket.create_server(('::1', 0), family=socket.AF_INET6); print('ok')",
        "import socket; socket.getaddrinfo('127.0.0.1', 80); socket.if_nameindex(); print('ok')",
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0abstract'); s.listen(); \
         c = socket.socket(socket.AF_UNIX); c.connect('\\0abstract'); print('ok')",
        "import os, signal; p = os.fork()\nif p == 0: signal.pause()\nos.kill(p, 9); os.waitpid(p, 0); print('ok')",
        "import mmap; m = mmap.mmap(-1, 1 << 20); m[0] = 1; print('ok')",
        "import fcntl; f = open('lock', 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('ok')",
    ] {
        assert_eq!(bed.python(script).ok(), "ok\n", "{script}");
        bed.sh("rm -f sock lock").ok();
    }
}

#[test]
fn node_runs_starts_servers_and_copies_files() {
    let bed = Bed::new();
    let script = "const fs = require('fs'), http = require('http'), { execSync } = require('child_process');\
                  fs.writeFileSync('a', 'x'); fs.copyFileSync('a', 'b'); fs.renameSync('b', 'c');\
                  const w = new (require('worker_threads').Worker)('1', { eval: true });\
                  w.on('exit', () => http.createServer((q, r) => r.end('ok')).listen(0, function () {\
                    http.get({ port: this.address().port }, r => r.on('data', d => {\
                      console.log(String(d), String(execSync('cat c'))); process.exit(); })); }));";
    assert_eq!(bed.run(&["node", "-e", script]).ok(), "ok x\n");
}

#[test]
fn git_keeps_a_repository() {
    let bed = Bed::new();
    let script = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; \
                  git init -q . && echo a > f && git add . && git commit -q -m one && git checkout -q -b two && \
                  echo b > f && git commit -q -am two && git checkout -q - && git merge -q two && \
                  git worktree add -q wt two 2>/dev/null; git gc -q && git log --oneline | wc -l";
    assert_eq!(bed.sh(script).ok().trim(), "2");
}

#[test]
fn a_terminal_given_to_the_program_is_usable() {
    let bed = Bed::new();
    let run = bed.command(
        "workspace",
        &["sh", "-c", "test -t 0 && stty size >/dev/null && echo terminal"],
    );
    let words: Vec<&str> = run.get_args().map(|word| word.to_str().unwrap()).collect();
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("{} {}", run.get_program().to_str().unwrap(), words.join(" "));
    let out = crate::bed::end(std::process::Command::new("script").args(["-qec", &line, "/dev/null"])).ok();
    assert_eq!(out.trim(), "terminal");
}
