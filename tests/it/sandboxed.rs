//! What a program sees and reaches from inside, the whole way by `oqtoctl exec`: run by root for somebody else's
//! workspace, and by somebody without privileges for their own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use oqto_control::{Event, SessionConfig};
use oqto_tests::{Home, Owner, built, is_root};

/// A home of each owner that this host lets us try.
fn homes() -> Vec<Home> {
    let mut homes = vec![Home::new()];
    if is_root() {
        homes.push(Home::of(Owner::Somebody));
    }
    homes
}

#[test]
fn a_program_is_never_root_and_writes_as_the_owner_of_the_workspace() {
    for home in homes() {
        let owner = home.workspace().metadata().unwrap().uid();
        assert_ne!(owner, 0);
        let out = home.sh("id -u; touch made").ok();
        assert_eq!(out, format!("{owner}\n"));
        assert_eq!(home.path("workspace/made").metadata().unwrap().uid(), owner);
        home.no_agents();
    }
}

#[test]
fn secrets_of_the_user_cannot_be_read() {
    for home in homes() {
        for dir in ["home/.ssh", "home/.aws", "home/plain"] {
            home.directory(dir);
            home.file(&format!("{dir}/secret"), "hush");
        }
        home.file("workspace/open", "seen\n");
        let script = format!(
            "cat open; cat {0}/*/secret {0}/.*/secret ../home/.ssh/secret /proc/1/root{0}/.ssh/secret ~/.ssh/* \
             /proc/*/root{0}/.ssh/secret; ls -A {0} ..",
            home.path("home").display()
        );
        let ended = home.sh(&script);
        assert_eq!(ended.text(), "seen\n..:\nworkspace\n", "{}", ended.err);
    }
}

#[test]
fn policies_state_tape_and_authority_are_out_of_reach() {
    for home in homes() {
        // So that everything is there: state of a runner that runs, and of a control that started it.
        assert_eq!(home.sh("true").code, 0);
        for there in [
            "data/oqto/authority",
            "state/oqto/runner/identity",
            "state/oqto/runner/sessions",
        ] {
            assert!(home.path(there).is_dir(), "{there}");
        }
        let dir = home.dir().display();
        let script = format!(
            "ls -A {dir}/state {dir}/data {dir}/config {dir}/state/oqto/runner/sessions/*/shim /etc/oqto \
             /var/lib/oqto 2>/dev/null | grep -v ':$' | grep .; \
             cat {dir}/runner.toml {dir}/state/oqto/runner/runner.json {dir}/data/oqto/authority/* 2>/dev/null; \
             echo hostile > {dir}/runner.toml; for f in /run/oqto /run/oqto/oqto-runner {dir}/state/x {dir}/data/x; do \
             touch $f 2>/dev/null && echo wrote $f; done; \
             find / -xdev -name '*.sqlite' -o -xdev -name '*.sock' -o -xdev -name tape 2>/dev/null; true"
        );
        assert_eq!(home.sh(&script).ok(), "");
        // What stood there was not the host's.
        assert_eq!(fs::read_to_string(home.path("runner.toml")).unwrap(), "");
    }
}

#[test]
fn a_workspace_above_the_runners_own_state_shows_nothing_of_it() {
    for home in homes() {
        // Of an agent's own, with the state of the runner below it.
        let above = home.path("state");
        std::os::unix::fs::chown(&above, Some(owner(&home)), Some(owner(&home))).unwrap();
        assert_eq!(home.sh("true").code, 0);
        let script = "cd oqto/runner && ls -A identity sessions events bin 2>/dev/null | grep -v ':$' | grep .; \
                      for d in identity sessions events bin; do touch $d/x 2>/dev/null && echo wrote $d; done; true";
        let ended = home.run(&["exec", "--cwd", above.to_str().unwrap(), "--", "sh", "-c", script]);
        assert_eq!((ended.code, ended.text()), (0, ""), "{}", ended.err);
        if home.path("bin/oqto-runner").exists() {
            // Its program would have to be run from a place that the session may write.
            home.run(&["exec", "--cwd", home.dir().to_str().unwrap(), "--", "true"])
                .failed(125, &["lies in", "take it from elsewhere"]);
        }
    }
}

fn owner(home: &Home) -> u32 {
    home.workspace().metadata().unwrap().uid()
}

#[test]
fn the_process_table_shows_the_sandbox_and_nothing_else() {
    for home in homes() {
        let out = home
            .sh("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done")
            .ok();
        for line in out.lines().filter(|line| !line.trim().is_empty()) {
            let ours = ["/usr/bin/bwrap", "/run/oqto/oqto-runner", "/bin/sh", "sh ", "tr "];
            assert!(ours.iter().any(|word| line.starts_with(word)), "{line}");
        }
        assert!(out.contains("exec-agent"), "{out}");
        assert!(!out.contains(&home.dir().display().to_string()), "{out}");
    }
}

#[test]
fn nothing_outside_the_workspace_can_be_written() {
    for home in homes() {
        let script = format!(
            "for p in / /usr /etc /home /root /run /dev /proc /sys /var /opt /bin /run/oqto {0}/home {0}/state; do \
             touch $p/oqto-test 2>/dev/null && echo $p; done; touch /tmp/oqto-test-of-it {0}/beside inside && ls",
            home.dir().display()
        );
        assert_eq!(home.sh(&script).ok(), "inside\n");
        // These are the session's own, and end with it.
        assert!(!std::path::Path::new("/tmp/oqto-test-of-it").exists());
        assert!(!home.path("beside").exists());
        let entries = fs::read_dir(home.workspace()).unwrap();
        assert_eq!(entries.count(), 1);
    }
}

#[test]
fn a_second_user_namespace_cannot_be_made() {
    for home in homes() {
        let ended = home.sh("unshare -U true");
        assert_ne!(ended.code, 0);
        assert!(ended.err.contains("unshare"), "{}", ended.err);
        let script = "import ctypes, os\n\
                      libc = ctypes.CDLL(None, use_errno=True)\n\
                      for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000):\n\
                      \x20assert libc.unshare(flag) == -1 and ctypes.get_errno() == 1, flag\n\
                      print('refused')";
        let out = home.run(&["exec", "--", "/usr/bin/python3", "-c", script]).ok();
        assert_eq!(out, "refused\n");
    }
}

#[test]
fn the_settings_of_the_kernel_cannot_be_written() {
    for home in homes() {
        let script = "for f in /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /proc/sys/kernel/hostname \
                      /proc/sysrq-trigger /sys/kernel/profiling; do (echo 0 > $f) 2>/dev/null && echo $f; done; true";
        assert_eq!(home.sh(script).ok(), "");
        let out = home
            .sh("find /proc/sys -writable -type f 2>/dev/null | wc -l")
            .ok();
        assert_eq!(out, "0\n");
    }
}

#[test]
fn the_network_is_not_there_unless_the_policy_says_so() {
    for home in homes() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let script = format!(
            "import socket\ntry: socket.create_connection(('127.0.0.1', {port}), 2); print('connected')\n\
             except OSError: print('refused')"
        );
        let connect = |policy: &str| {
            home.run(&[
                "exec",
                "--policy",
                policy,
                "--",
                "/usr/bin/python3",
                "-c",
                &script,
            ])
            .ok()
        };
        assert_eq!(connect("workspace"), "refused\n");
        assert_eq!(connect("open-net"), "connected\n");
    }
}

#[test]
fn a_runner_that_lies_in_the_workspace_runs_there_all_the_same() {
    for home in homes() {
        // As in a checkout of this very project: what is built in it works on it.
        let program = home.path("workspace/built/oqto-runner");
        fs::create_dir(home.path("workspace/built")).unwrap();
        fs::copy(built("oqto-runner"), &program).unwrap();
        let ended = oqto_tests::end(
            home.ctl(&[
                "exec",
                "--",
                "sh",
                "-c",
                "echo x > built/oqto-runner && echo replaced",
            ])
            .env("OQTO_RUNNER", &program),
        );
        // Whoever can replace it, the next session is held by what runs, not by what lies there.
        assert!(matches!(ended.code, 0 | 2), "{ended:?}");
        assert_eq!(
            home.sh("id -u >/dev/null && cat /proc/self/status | grep NoNewPrivs")
                .ok(),
            "NoNewPrivs:\t1\n"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_a_workspace_gets_an_empty_one_of_its_own() {
    let home = Home::new();
    if is_root() {
        // Somebody who is not root has to own it.
        home.configure("principal = \"daemon\"\n");
    }
    let control = home.control();
    let runner = control.local().await.unwrap();
    let harness = "exec".to_owned();
    let session = runner
        .create(SessionConfig {
            harness,
            ..SessionConfig::default()
        })
        .await
        .unwrap();
    let mut events = session.events().await.unwrap();
    session.prompt("ls -A && echo kept > here").await.unwrap();
    let ended = loop {
        if let Event::ToolEnd(end) = events.next().await.unwrap().unwrap().event {
            break end;
        }
    };
    assert!(!ended.is_error, "{ended:?}");
    assert!(ended.output.text().contains("\"stdout_bytes\":0"), "{ended:?}");
    let own = PathBuf::from(session.state().await.unwrap().info.cwd);
    assert_eq!(fs::read_to_string(own.join("here")).unwrap(), "kept\n");
    session.delete().await.unwrap();
    assert!(!own.exists(), "what the runner made goes with its session");
    control.close().await;
}
