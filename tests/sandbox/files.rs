//! Which files a harness reaches.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::bed::{Bed, is_root};

#[test]
fn secrets_beside_the_workspace_cannot_be_read() {
    let places = [Path::new("/tmp"), Path::new("/var/tmp"), Path::new("/home")];
    for place in places
        .into_iter()
        .filter(|place| is_root() || *place != Path::new("/home"))
    {
        let bed = Bed::within(place);
        bed.directory(".ssh");
        let secret = bed.file(".ssh/id", "hush");
        bed.file("workspace/mine", "seen");
        assert_eq!(bed.sh("cat mine").ok(), "seen", "{}", place.display());
        let ended = bed.sh(&format!(
            "cat {0}; cat ../.ssh/id; cat /proc/1/root{0}; ls -a ..",
            secret.display()
        ));
        assert_eq!(ended.out, ".\n..\nworkspace\n", "{}", ended.err);
    }
}

#[test]
fn nothing_outside_the_workspace_can_be_written() {
    let bed = Bed::new();
    let script = "for p in / /usr /etc /home /root /run /dev /proc /sys /var /opt /bin /run/oqto; do \
                  touch $p/oqto-test 2>/dev/null && echo $p; done; true";
    // Only these two are the session's own, and end with it.
    assert_eq!(bed.sh(script).ok(), "");
    bed.sh("touch /tmp/a /var/tmp/b ~/c /dev/shm/d ./e").ok();
    assert_eq!(bed.tree(), [bed.workspace().join("e")]);
    assert!(!Path::new("/tmp/a").exists());
}

#[test]
fn the_runners_own_directories_and_the_systems_secrets_are_empty() {
    let bed = Bed::new();
    let script = "cat /etc/shadow /etc/gshadow /etc/sudoers 2>/dev/null; \
                  ls -A /etc/ssh /etc/sudoers.d /etc/oqto /var/lib/oqto /run/user 2>/dev/null | grep -v ':$' | grep .; true";
    assert_eq!(bed.sh(script).ok(), "");
}

#[test]
fn the_process_table_shows_the_sandbox_only() {
    let bed = Bed::new();
    let out = bed
        .sh("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done")
        .ok();
    assert!(out.lines().count() <= 4, "{out}");
    assert!(!out.contains(env!("CARGO_MANIFEST_DIR")), "{out}");
}

#[test]
fn no_path_of_the_host_stands_on_a_command_line_inside() {
    let bed = Bed::new();
    let out = bed.run(&["sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline"]).ok();
    assert!(out.contains("/run/oqto/oqto-runner enter"), "{out}");
    assert!(!out.contains(bed.workspace().to_str().unwrap()), "{out}");
}

#[test]
fn descriptors_left_open_by_whoever_starts_it_do_not_get_in() {
    let bed = Bed::new();
    let run = bed.command("workspace", &["ls", "/proc/self/fd"]);
    let mut words = vec![run.get_program().to_str().unwrap().to_owned()];
    words.extend(run.get_args().map(|word| format!("'{}'", word.to_str().unwrap())));
    let script = format!("exec 7</etc/passwd 9>&1; {}", words.join(" "));
    let ended = crate::bed::end(std::process::Command::new("sh").args(["-c", &script]));
    // The last one is the listing's own.
    assert_eq!(ended.ok(), "0\n1\n2\n3\n");
}

#[test]
fn the_environment_has_what_the_policy_names_and_nothing_else() {
    let bed = Bed::new();
    let mut command = bed.command("workspace", &["/usr/bin/env"]);
    command.env_clear().env("PATH", "/usr/bin").env("TERM", "dumb");
    command
        .env("AWS_SECRET_ACCESS_KEY", "hush")
        .env("LD_PRELOAD", "")
        .env("NODE_OPTIONS", "--x");
    let out = crate::bed::end(&mut command).ok();
    let mut names: Vec<&str> = out
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .collect();
    names.sort_unstable();
    let toolchains = [
        "MISE_DATA_DIR",
        "NVM_DIR",
        "PYENV_ROOT",
        "RUSTUP_HOME",
        "VOLTA_HOME",
    ];
    names.retain(|name| !toolchains.contains(name));
    assert_eq!(names, ["HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"]);
    assert!(
        !out.contains("PATH=/usr/bin\n"),
        "the path of whoever starts it is not the harness's: {out}"
    );
}

#[test]
fn hooks_and_configuration_of_a_repository_cannot_be_changed_by_any_way() {
    let bed = Bed::new();
    bed.sh("git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one")
        .ok();
    let (config, tree) = (
        fs::read_to_string(bed.path("workspace/.git/config")).unwrap(),
        bed.tree(),
    );
    let script = "echo evil > .git/hooks/pre-commit; rm -rf .git/hooks; mv .git/hooks .git/old; \
                  mv .git .was && mkdir -p .git/hooks; ln -sfn /tmp .git/hooks; git config core.pager evil; \
                  echo evil >> .git/config; rm -f .git/config; cp -a .git .copy && mv .copy/hooks .git/; \
                  rm -rf .copy; true";
    bed.sh(script);
    assert_eq!(
        fs::read_to_string(bed.path("workspace/.git/config")).unwrap(),
        config
    );
    assert_eq!(bed.tree(), tree);
    let work = "git checkout -q -b two && echo a > f && git add f && git -c user.name=a -c user.email=a@b commit -q -m two && \
                echo b > f && git -c user.name=a -c user.email=a@b stash -q && git stash pop -q && git log --oneline | wc -l";
    assert_eq!(bed.sh(work).ok().trim(), "2");
}

#[test]
fn a_repository_that_git_is_only_pointed_to_is_protected_where_it_is() {
    let bed = Bed::new();
    bed.sh("git init -q --bare .bare && echo 'gitdir: ./.bare' > .git && git config core.bare false && \
            git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one && git worktree add -q tree 2>/dev/null")
        .ok();
    let script = "for hooks in .bare/hooks $(git rev-parse --git-path hooks); do \
                  (echo evil > $hooks/pre-commit) 2>/dev/null && echo $hooks; done; \
                  git config core.pager evil 2>/dev/null && echo config; mv .bare .was 2>/dev/null && echo moved; \
                  echo a > f && git add f && git -c user.name=a -c user.email=a@b commit -q -m two || echo broken; true";
    assert_eq!(bed.sh(script).ok(), "");
    // Seen from the linked worktree, all of this lies outside.
    let tree = bed.path("workspace/tree/.git");
    assert!(fs::read_to_string(tree).unwrap().starts_with("gitdir: "));
}

#[test]
fn a_protected_path_cannot_be_changed_by_another_name_either() {
    let bed = Bed::new();
    bed.sh("git init -q .").ok();
    let link = bed.path("link");
    symlink(bed.workspace(), &link).unwrap();
    let text = format!("description = \"d\"\nextends = \"workspace\"\n[filesystem]\nwrite = [{link:?}]\n");
    let policies = bed.policy("linked", &text);
    let script = "echo fine > file && cd ../link && cat file && (echo evil > .git/hooks/pre-commit) 2>/dev/null; \
                  mv .git .was; mv .git/hooks .git/old; rm -f .git/config; true";
    let mut command = bed.command("linked", &["sh", "-c", script]);
    command.env_clear().env("PATH", "/usr/bin:/bin");
    let mut words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    words.splice(2..2, ["--policy-dir".into(), policies.into_os_string()]);
    let ended = crate::bed::end(std::process::Command::new(crate::bed::runner()).args(words));
    assert_eq!(ended.ok(), "fine\n");
    assert!(bed.path("workspace/.git/config").exists());
    assert!(!bed.path("workspace/.git/hooks/pre-commit").exists());
}

#[test]
fn a_protected_path_that_is_replaced_from_outside_is_named_at_the_end() {
    let bed = Bed::new();
    bed.sh("git init -q .").ok();
    let mut command = bed.command(
        "workspace",
        &["sh", "-c", "echo there; read go; echo evil >> .git/config"],
    );
    let mut run = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(run.stdout.as_mut().unwrap())
        .read_line(&mut said)
        .unwrap();
    bed.file("workspace/.git/new", "[user]\n");
    fs::rename(bed.path("workspace/.git/new"), bed.path("workspace/.git/config")).unwrap();
    run.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let ended = run.wait_with_output().unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert!(
        err.contains("workspace/.git/config was replaced from outside"),
        "{err}"
    );
}

#[test]
fn a_protected_path_that_appears_is_named_at_the_end_and_no_file_is_left_behind_to_prevent_it() {
    let bed = Bed::new();
    let ended = bed.sh("true");
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert_eq!(bed.tree(), Vec::<std::path::PathBuf>::new());
    let ended = bed.sh("echo evil > .envrc");
    assert!(
        ended.err.contains("workspace/.envrc was not there"),
        "{}",
        ended.err
    );
}

#[test]
fn a_protected_path_that_is_a_link_is_watched_and_what_it_points_to_is_kept() {
    let bed = Bed::new();
    bed.directory("workspace/real");
    bed.file("workspace/real/settings", "good");
    symlink("real", bed.path("workspace/.vscode")).unwrap();
    let ended = bed.sh("echo evil > .vscode/settings; mv real other; ln -sfn /tmp .vscode; true");
    assert!(
        ended.err.contains("workspace/.vscode was not there"),
        "{}",
        ended.err
    );
    assert_eq!(
        fs::read_to_string(bed.path("workspace/real/settings")).unwrap(),
        "good"
    );
}

#[test]
fn the_workspace_s_own_policy_gives_nothing_by_a_link() {
    let bed = Bed::new();
    bed.directory("outside");
    let file = bed.file("outside/file", "hush");
    symlink(bed.path("outside"), bed.workspace().join("link")).unwrap();
    bed.directory("workspace/.oqto");
    let system = "\"/usr\", \"/bin\", \"/lib\", \"/lib64\", \"/etc\"";
    let narrow = |rules: &str| {
        bed.file(
            "workspace/.oqto/sandbox.toml",
            &format!("[filesystem]\n{rules}\n"),
        )
    };
    for what in ["link", "li*", "**"] {
        narrow(&format!("read = [{system}, \"$WORKSPACE/{what}\"]\nwrite = []"));
        assert!(!bed.sh("cat link/file").out.contains("hush"), "{what}");
        narrow(&format!("read = [{system}]\nwrite = [\"$WORKSPACE/{what}\"]"));
        bed.sh("echo planted >link/file");
        assert_eq!(fs::read_to_string(&file).unwrap(), "hush", "{what}");
    }
    narrow(&format!("read = [{system}]\nwrite = [\"$WORKSPACE/link\"]"));
    let ended = bed.sh("true");
    assert_eq!(ended.code, 125);
    assert!(ended.err.contains("by a symbolic link"), "{}", ended.err);
}
