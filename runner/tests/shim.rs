//! The shim as it ships: the real binary, a real program, a real disk.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oqto_runner::bounds::TAPE_BACKLOG_MAX;
use oqto_runner::launch::{Arg, Launch};
use oqto_runner::shim::start::StartError;
use oqto_runner::shim::{Client, Exit, Kind, Notice, Order, Refusal, TapeReader, Target, start};
use tokio::process::Child;

const RUNNER: &str = env!("CARGO_BIN_EXE_oqto-runner");

fn order(script: &str) -> Order {
    let args = ["-c", script].map(|text| Arg::Text(text.into())).into();
    let env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    let launch = Launch {
        program: "/bin/sh".into(),
        args,
        env,
        cwd: "/".into(),
    };
    Order {
        launch,
        principal: None,
        watch: None,
        doorway: None,
    }
}

/// A shim with a script, in a directory that goes when the test ends, and the shim with it.
struct Session {
    _home: tempfile::TempDir,
    dir: PathBuf,
    shim: Child,
}

impl Session {
    async fn start(script: &str) -> Self {
        Self::start_order(&order(script)).await
    }

    async fn start_order(order: &Order) -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("session");
        let shim = start(Path::new(RUNNER), &dir, order).await.unwrap();
        Self {
            _home: home,
            dir,
            shim,
        }
    }

    async fn client(&self) -> Client {
        Client::connect(&self.dir).await.unwrap()
    }

    fn tape(&self) -> Vec<(Kind, Vec<u8>)> {
        let mut reader = TapeReader::open(&self.dir, 0).unwrap();
        let until = reader.file_len().unwrap();
        let mut records = Vec::new();
        while let Some(record) = reader.next(until).unwrap() {
            records.push((record.kind, record.payload.to_vec()));
        }
        records
    }

    fn said(&self, kind: Kind) -> String {
        let tape = self.tape().into_iter().filter(|(found, _)| *found == kind);
        String::from_utf8(tape.flat_map(|(_, payload)| payload).collect()).unwrap()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.shim.id().unwrap().try_into().unwrap())
    }

    fn status(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    async fn release(mut self, mut client: Client) {
        client.release().await;
        assert_eq!(
            until(&mut client, |notice| *notice == Notice::Gone).await,
            Notice::Gone
        );
        assert!(self.shim.wait().await.unwrap().success());
        assert!(!self.dir.join("shim.sock").exists());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A test that failed half-way leaves no program behind.
        if self.shim.id().is_some() {
            let _ended = kill(self.pid(), Signal::SIGTERM);
        }
    }
}

async fn until(client: &mut Client, wanted: impl Fn(&Notice) -> bool) -> Notice {
    loop {
        let notice = client.next().await;
        if wanted(&notice) || notice == Notice::Gone {
            return notice;
        }
    }
}

async fn exited(client: &mut Client) -> Exit {
    if let Some(exit) = client.greeting().exited {
        return exit;
    }
    match until(client, |notice| matches!(notice, Notice::Exited { .. })).await {
        Notice::Exited { exit } => exit,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_goes_in_and_comes_out_is_on_the_tape_in_order() {
    let session = Session::start("cat; echo bye >&2; exit 3").await;
    let mut client = session.client().await;
    client.write([1; 16], Target::Stdin, b"hello\n").await;
    assert_eq!(client.next().await, Notice::Wrote { id: [1; 16] });
    client.write([2; 16], Target::Note, b"between us").await;
    client.close_stdin().await;
    assert_eq!(exited(&mut client).await, Exit::Code(3));
    let tape = session.tape();
    assert_eq!(tape.first().unwrap().0, Kind::Start);
    assert_eq!(tape.last().unwrap().0, Kind::Exit);
    assert_eq!(session.said(Kind::Out), "hello\n");
    assert_eq!(session.said(Kind::Err), "bye\n");
    assert_eq!(session.said(Kind::Note), "between us");
    let said = tape.iter().position(|(kind, _)| *kind == Kind::Out);
    let told = tape.iter().position(|(kind, _)| *kind == Kind::In);
    assert!(told < said, "stdin stands on the tape before it goes on");
    session.release(client).await;
}

#[tokio::test]
async fn the_same_write_twice_has_one_effect_also_from_another_client() {
    let session = Session::start("cat").await;
    let mut first = session.client().await;
    first.write([7; 16], Target::Stdin, b"once\n").await;
    first.write([7; 16], Target::Stdin, b"once\n").await;
    for _ in 0..2 {
        let answer = until(&mut first, |notice| matches!(notice, Notice::Wrote { .. })).await;
        assert_eq!(answer, Notice::Wrote { id: [7; 16] });
    }
    let mut second = session.client().await;
    assert_eq!(
        until(&mut first, |notice| *notice == Notice::Gone).await,
        Notice::Gone
    );
    second.write([7; 16], Target::Stdin, b"once\n").await;
    let answer = until(&mut second, |notice| matches!(notice, Notice::Wrote { .. })).await;
    assert_eq!(answer, Notice::Wrote { id: [7; 16] });
    second.close_stdin().await;
    exited(&mut second).await;
    assert_eq!(session.said(Kind::Out), "once\n");
    session.release(second).await;
}

#[tokio::test]
async fn a_client_that_is_gone_is_followed_by_one_that_misses_nothing() {
    let session = Session::start("cat").await;
    let mut client = session.client().await;
    client.write([1; 16], Target::Stdin, b"one\n").await;
    until(&mut client, |notice| matches!(notice, Notice::Wrote { .. })).await;
    drop(client);
    let mut client = session.client().await;
    client.write([2; 16], Target::Stdin, b"two\n").await;
    client.close_stdin().await;
    assert_eq!(exited(&mut client).await, Exit::Code(0));
    drop(client);
    // The exit waits for whoever comes.
    let client = session.client().await;
    assert_eq!(client.greeting().exited, Some(Exit::Code(0)));
    assert_eq!(session.said(Kind::Out), "one\ntwo\n");
    session.release(client).await;
}

#[tokio::test]
async fn a_killed_runner_leaves_its_shim_alive() {
    // The stand-in for a runner is a shell that starts the shim and is then killed.
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("session");
    std::fs::create_dir(&dir).unwrap();
    let text = serde_json::to_vec(&order("cat")).unwrap();
    std::fs::write(dir.join("launch.json"), text).unwrap();
    let script = format!("{RUNNER} shim --dir {} & wait", dir.display());
    let mut command = tokio::process::Command::new("/bin/sh");
    command.args(["-c", &script]).stdout(std::process::Stdio::piped());
    let mut runner = command.spawn().unwrap();
    let mut ready = [0; 6];
    let mut stdout = runner.stdout.take().unwrap();
    tokio::io::AsyncReadExt::read_exact(&mut stdout, &mut ready)
        .await
        .unwrap();
    runner.kill().await.unwrap();
    let mut client = Client::connect(&dir).await.unwrap();
    client.write([1; 16], Target::Stdin, b"still here\n").await;
    client.close_stdin().await;
    assert_eq!(exited(&mut client).await, Exit::Code(0));
    client.release().await;
    assert_eq!(
        until(&mut client, |notice| *notice == Notice::Gone).await,
        Notice::Gone
    );
}

#[tokio::test]
async fn output_that_nobody_reads_waits_in_the_pipe_and_then_comes_whole() {
    const LEN: usize = 96 * 1024 * 1024;
    let session = Session::start(&format!("head -c {LEN} /dev/zero")).await;
    let mut client = session.client().await;
    let mut known = client.greeting().tape_len;
    while known <= TAPE_BACKLOG_MAX {
        match client.next().await {
            Notice::Grown { len } => known = len,
            other => panic!("{other:?}"),
        }
    }
    assert!(known <= TAPE_BACKLOG_MAX + 128 * 1024, "{known}");
    assert!(
        session.status("VmRSS:") < 20 * 1024,
        "{} KiB",
        session.status("VmRSS:")
    );
    let mut reader = TapeReader::open(&session.dir, 0).unwrap();
    let (mut seen, mut told) = (0, 0);
    let mut end = None;
    loop {
        while let Some(record) = reader.next(known).unwrap() {
            if record.kind == Kind::Out {
                assert!(record.payload.iter().all(|byte| *byte == 0));
                seen += record.payload.len();
            }
        }
        if reader.offset() > told {
            told = reader.offset();
            client.consumed(told, told).await;
        }
        if end.is_some() {
            break;
        }
        match client.next().await {
            Notice::Grown { len } => known = len,
            Notice::Exited { exit } => end = Some(exit),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((seen, end), (LEN, Some(Exit::Code(0))));
    let tape = std::fs::File::open(session.dir.join("tape")).unwrap();
    // Once it is gone it has done all that it was told.
    session.release(client).await;
    let blocks = std::os::unix::fs::MetadataExt::blocks(&tape.metadata().unwrap());
    assert!(
        blocks * 512 < 16 * 1024 * 1024,
        "what was consumed is given back: {blocks} blocks"
    );
}

#[tokio::test]
async fn a_program_that_does_not_read_is_not_written_to_without_end() {
    let session = Session::start("exec sleep 1000").await;
    let mut client = session.client().await;
    let piece = vec![b'x'; 512 * 1024];
    let mut answers = Vec::new();
    for number in 0..8 {
        client.write([number; 16], Target::Stdin, &piece).await;
        answers.push(
            until(&mut client, |notice| {
                matches!(notice, Notice::Wrote { .. } | Notice::Refused { .. })
            })
            .await,
        );
    }
    assert_eq!(answers[0], Notice::Wrote { id: [0; 16] });
    assert_eq!(
        answers[7],
        Notice::Refused {
            id: [7; 16],
            why: Refusal::Busy
        }
    );
    // Nothing that waits for the program is in the way of ending it.
    client.kill().await;
    assert_eq!(exited(&mut client).await, Exit::Signal(9));
    client.write([9; 16], Target::Stdin, b"too late").await;
    assert_eq!(
        client.next().await,
        Notice::Refused {
            id: [9; 16],
            why: Refusal::Closed
        }
    );
    session.release(client).await;
}

#[tokio::test]
async fn a_full_disk_pauses_the_program_and_loses_nothing() {
    const LEN: usize = 4 * 1024 * 1024;
    let session = Session::start(&format!("read go; head -c {LEN} /dev/zero; echo done")).await;
    // A limit on the size of files looks to the shim like a full disk, and can be taken away again.
    let limit = |soft: &str| {
        let pid = session.pid().to_string();
        let fsize = format!("--fsize={soft}:");
        assert!(
            std::process::Command::new("prlimit")
                .args(["--pid", &pid, &fsize])
                .status()
                .unwrap()
                .success()
        );
    };
    limit("1048576");
    let mut client = session.client().await;
    client.write([1; 16], Target::Stdin, b"go\n").await;
    assert_eq!(client.next().await, Notice::Wrote { id: [1; 16] });
    let trouble = until(&mut client, |notice| matches!(notice, Notice::Trouble { .. })).await;
    assert!(matches!(trouble, Notice::Trouble { .. }), "{trouble:?}");
    client.write([2; 16], Target::Stdin, b"refused").await;
    let answer = until(&mut client, |notice| matches!(notice, Notice::Refused { .. })).await;
    assert_eq!(
        answer,
        Notice::Refused {
            id: [2; 16],
            why: Refusal::NoSpace
        }
    );
    limit("unlimited");
    assert_eq!(
        until(&mut client, |notice| *notice == Notice::Recovered).await,
        Notice::Recovered
    );
    assert_eq!(exited(&mut client).await, Exit::Code(0));
    let said = session.said(Kind::Out);
    assert_eq!(said.len(), LEN + 5);
    assert!(said.ends_with("done\n"));
    session.release(client).await;
}

#[tokio::test]
async fn a_shim_that_is_told_to_end_ends_its_program_and_says_so_on_the_tape() {
    let mut session = Session::start("cat; exit 4").await;
    kill(session.pid(), Signal::SIGTERM).unwrap();
    assert!(session.shim.wait().await.unwrap().success());
    assert_eq!(session.tape().last().unwrap().0, Kind::Exit);
    assert!(!session.dir.join("shim.sock").exists());
    assert!(Client::connect(&session.dir).await.is_err());
}

#[tokio::test]
async fn a_program_that_ignores_its_closed_input_is_killed_after_the_grace() {
    let mut session = Session::start("trap '' TERM; exec sleep 1000").await;
    kill(session.pid(), Signal::SIGTERM).unwrap();
    assert!(session.shim.wait().await.unwrap().success());
    let mut reader = TapeReader::open(&session.dir, 0).unwrap();
    let until = reader.file_len().unwrap();
    let mut exit = None;
    while let Some(record) = reader.next(until).unwrap() {
        exit = record.exit();
    }
    assert_eq!(exit, Some(Exit::Signal(9)));
}

#[tokio::test]
async fn garbage_and_giant_frames_cost_the_connection_and_nothing_else() {
    let session = Session::start("cat").await;
    let hello = [3, 0, 0, 0, 1, 1, 0];
    let hostile: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
        &[0, 0, 0, 0],
        &[3, 0, 0, 0, 1, 9, 9],
        &[1, 0, 0, 0, 4],
        &[&hello[..], &[1, 0, 0, 0, 99]].concat(),
    ];
    let path = session.dir.join("shim.sock");
    for bytes in hostile {
        let mut socket = UnixStream::connect(&path).unwrap();
        socket.write_all(bytes).unwrap();
        // The greeting comes, then the end.
        let mut answer = Vec::new();
        let _reset_or_end = socket.read_to_end(&mut answer);
    }
    // Half a frame and then nothing holds nothing up either.
    let mut half = UnixStream::connect(&path).unwrap();
    half.write_all(&[&hello[..], &[200, 0, 0, 0, 2]].concat())
        .unwrap();
    let mut client = session.client().await;
    client.write([1; 16], Target::Stdin, b"fine\n").await;
    client.close_stdin().await;
    assert_eq!(exited(&mut client).await, Exit::Code(0));
    assert_eq!(session.said(Kind::Out), "fine\n");
    session.release(client).await;
}

#[tokio::test]
async fn a_session_may_lie_deeper_than_a_socket_address_is_long() {
    let home = tempfile::tempdir().unwrap();
    let mut dir = home.path().to_owned();
    for _ in 0..8 {
        dir.push("d".repeat(60));
        std::fs::create_dir(&dir).unwrap();
    }
    dir.push("session");
    let shim = start(Path::new(RUNNER), &dir, &order("exit 5")).await.unwrap();
    let session = Session {
        _home: home,
        dir,
        shim,
    };
    let mut client = session.client().await;
    assert_eq!(exited(&mut client).await, Exit::Code(5));
    let mode = |name: &str| session.dir.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode("."), mode("shim.sock"), mode("tape")),
        (0o700, 0o600, 0o600)
    );
    assert!(
        !session.dir.join("launch.json").exists(),
        "an order may hold keys and is for one start"
    );
    session.release(client).await;
}

#[tokio::test]
async fn a_program_that_cannot_start_is_named_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("session");
    let mut order = order("");
    order.launch.program = "/no/such/program".into();
    let error = start(Path::new(RUNNER), &dir, &order).await.unwrap_err();
    let StartError::GaveUp { reason } = error else {
        panic!("{error:?}")
    };
    assert!(reason.contains("/no/such/program"), "{reason}");
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_program_starts_with_a_clean_slate() {
    let mut order = order("");
    order.launch.program = "/usr/bin/env".into();
    let text = |text: &str| Arg::Text(text.into());
    order.launch.args = vec![text("ls"), text("/proc/self/fd")];
    let session = Session::start_order(&order).await;
    let mut client = session.client().await;
    exited(&mut client).await;
    // The fourth is the listing's own.
    assert_eq!(session.said(Kind::Out), "0\n1\n2\n3\n");
    session.release(client).await;

    let session = Session::start("env").await;
    let mut client = session.client().await;
    exited(&mut client).await;
    let said = session.said(Kind::Out);
    assert!(said.contains("PATH=") && !said.contains("HOME="), "{said}");
    session.release(client).await;
}

#[tokio::test]
async fn the_shim_holds_no_descriptor_of_its_runner() {
    let ours = tempfile::tempfile().unwrap();
    let inode = std::fs::read_link(format!("/proc/self/fd/{}", ours.as_raw_fd())).unwrap();
    let session = Session::start("cat").await;
    let fds = std::fs::read_dir(format!("/proc/{}/fd", session.pid())).unwrap();
    for fd in fds {
        // One that it has closed meanwhile is not held.
        assert_ne!(std::fs::read_link(fd.unwrap().path()).ok().as_ref(), Some(&inode));
    }
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", session.pid())).unwrap();
    let session_id = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(3)
        .unwrap()
        .to_owned();
    assert_eq!(
        session_id,
        session.pid().to_string(),
        "it leads a session of its own"
    );
    let mut client = session.client().await;
    client.close_stdin().await;
    exited(&mut client).await;
    session.release(client).await;
}

#[tokio::test]
async fn a_root_runner_gives_the_shim_away_for_good() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: only root can become somebody else");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let dir = home.path().join("session");
    let mut order = order("id -u; id -g; id -G; cat");
    order.principal = Some(oqto_runner::shim::Principal {
        uid: 12345,
        gid: 12346,
    });
    let shim = start(Path::new(RUNNER), &dir, &order).await.unwrap();
    let session = Session {
        _home: home,
        dir,
        shim,
    };
    let mut client = session.client().await;
    client.close_stdin().await;
    exited(&mut client).await;
    assert_eq!(session.said(Kind::Out), "12345\n12346\n12346\n");
    session.release(client).await;
}
