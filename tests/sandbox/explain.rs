//! `sandbox explain`: what a policy allows here, and who says so.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::bed::{Bed, Ended, end, runner};

const MINE: &str = "description = \"mine\"\nextends = \"workspace\"\n[filesystem]\nmask = [\"$WORKSPACE/**/*.key\"]\n\
                    [env.set]\nKIND = \"tried\"\n[network]\nconnect_tcp = [443]\n[limits]\nopen_files = 99\n\
                    [layers]\ncgroup = \"if-available\"\n\
                    [permissions]\nallow = [\"execute:git status\"]\ndeny = [\"edit:*.key\"]\ntimeout_s = 7\n";

/// `sandbox explain` of the policy `mine` in the workspace.
fn explain(bed: &Bed, words: &[&str]) -> Ended {
    let policies = bed.policy("mine", MINE);
    let mut command = Command::new(runner());
    command
        .args(["sandbox", "explain", "--policy", "mine", "--policy-dir"])
        .arg(policies);
    end(command.arg("--cwd").arg(bed.workspace()).args(words))
}

fn json(bed: &Bed, words: &[&str]) -> Value {
    let words: Vec<&str> = ["--json"].iter().chain(words).copied().collect();
    let said = explain(bed, &words).ok();
    assert_eq!(said.lines().count(), 1);
    serde_json::from_str(&said).unwrap()
}

/// Every value of a key, however deep.
fn values<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key));
            fields.values().for_each(|value| values(value, key, found));
        }
        Value::Array(items) => items.iter().for_each(|value| values(value, key, found)),
        _ => {}
    }
}

/// The text of a policy's file by the name that a source has for it.
fn source(bed: &Bed, file: &str) -> String {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox-policies");
    let path = if Path::new(file).is_absolute() {
        PathBuf::from(file)
    } else {
        shipped.join(Path::new(file).file_name().unwrap())
    };
    assert!(
        path.starts_with(bed.path("")) || path.starts_with(&shipped),
        "{file}"
    );
    fs::read_to_string(path).unwrap()
}

/// Asserts that a rule is of the runner itself, or that what it speaks of stands on the line that it names.
#[track_caller]
fn stands(bed: &Bed, rule: &str, what: &str) {
    if rule == "the runner" {
        return;
    }
    let (file, line) = rule.rsplit_once(':').unwrap();
    let text = source(bed, file);
    let line = text.lines().nth(line.parse::<usize>().unwrap() - 1).unwrap();
    assert!(line.contains(what), "{rule} says {line:?} and not {what:?}");
}

#[test]
fn the_page_names_for_every_rule_the_line_that_says_it() {
    let bed = Bed::new();
    let page = explain(&bed, &[]).ok();
    assert!(page.starts_with(&format!("policy mine in {}\nplan ", bed.workspace().display())));
    let rules: Vec<&str> = page.lines().filter(|line| line.starts_with("  ")).collect();
    let named = rules.iter().filter(|line| !line.starts_with("  not limited: "));
    let mut lines = 0;
    for rule in named {
        let who = rule.rsplit("  ").next().unwrap().trim();
        if who == "the runner" {
            continue;
        }
        let (file, line) = who
            .rsplit_once(':')
            .unwrap_or_else(|| panic!("{rule:?} names nobody"));
        let count = source(&bed, file).lines().count();
        assert!((1..=count).contains(&line.parse().unwrap()), "{rule}");
        lines += 1;
    }
    // The shipped policies alone have more than these.
    assert!(lines > 100, "{lines} rules with a line: {page}");
    let mine = bed.path("policies/mine.toml");
    for (what, line) in [
        ("workspace/**/*.key", 4),
        ("KIND = tried", 6),
        ("by TCP, connecting to [443] only", 8),
        ("open_files = 99", 10),
        ("cgroup is if available", 12),
    ] {
        let said = rules.iter().find(|rule| rule.contains(what)).unwrap();
        assert!(said.ends_with(&format!("{}:{line}", mine.display())), "{said}");
    }
}

#[test]
fn the_json_has_every_rule_of_the_page_and_always_the_same_keys() {
    let bed = Bed::new();
    bed.directory("workspace/deep");
    bed.file("workspace/deep/a.key", "");
    bed.file("workspace/b.key", "");
    let said = json(&bed, &[]);
    let keys: BTreeSet<&str> = said.as_object().unwrap().keys().map(String::as_str).collect();
    let known = BTreeSet::from([
        "policy",
        "workspace",
        "digest",
        "read",
        "write",
        "deny",
        "mask",
        "protect",
        "network",
        "env",
        "refused_calls",
        "allowed_calls",
        "limits",
        "layers",
        "permissions",
        "paths",
    ]);
    assert_eq!(keys, known);
    assert_eq!(said, json(&bed, &[]), "the same question has the same answer");
    assert_eq!(said["policy"], "mine");
    assert_eq!(said["workspace"], bed.workspace().to_str().unwrap());
    assert_eq!(said["network"]["mode"], "none");
    assert_eq!(said["network"]["connect_tcp"]["ports"], serde_json::json!([443]));
    assert_eq!(said["network"]["bind_tcp"], Value::Null);
    assert_eq!(said["allowed_calls"], Value::Null);
    let find = |list: &str, key: &str, value: &str| {
        let mut rules = said[list].as_array().unwrap().iter();
        rules
            .find(|rule| rule[key] == value)
            .unwrap_or_else(|| panic!("{list} has no {value}"))
            .clone()
    };
    let keys = format!("{}/**/*.key", bed.workspace().display());
    assert_eq!(find("mask", "path", &keys)["found"], 2);
    assert_eq!(find("limits", "limit", "open_files")["value"], 99);
    let permissions = &said["permissions"];
    assert_eq!(
        (&permissions["otherwise"], &permissions["timeout_s"]),
        (&"ask".into(), &7.into())
    );
    assert_eq!(permissions["allow"][0]["request"], "execute:git status");
    assert_eq!(permissions["deny"][0]["request"], "edit:*.key");
    stands(
        &bed,
        permissions["deny"][0]["rule"].as_str().unwrap(),
        "edit:*.key",
    );
    stands(&bed, permissions["timeout_rule"].as_str().unwrap(), "timeout_s");
    assert_eq!(find("layers", "layer", "cgroup")["need"], "if-available");
    for (list, key) in [
        ("env", "name"),
        ("refused_calls", "group"),
        ("limits", "limit"),
        ("layers", "layer"),
    ] {
        for rule in said[list].as_array().unwrap() {
            stands(&bed, rule["rule"].as_str().unwrap(), rule[key].as_str().unwrap());
        }
    }
    for list in ["read", "write", "deny", "mask", "protect"] {
        for rule in said[list].as_array().unwrap() {
            let name = Path::new(rule["path"].as_str().unwrap()).file_name();
            // The workspace itself stands there as a variable.
            let name = name.unwrap().to_str().unwrap().replace("workspace", "$WORKSPACE");
            stands(&bed, rule["rule"].as_str().unwrap(), &name);
        }
    }
    // Whatever the page says of who said what, this says too.
    let page = explain(&bed, &[]).ok();
    let mut rules = Vec::new();
    for key in ["rule", "otherwise_rule", "timeout_rule"] {
        values(&said, key, &mut rules);
    }
    let lines = page
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("  not limited: "));
    assert_eq!(rules.len(), lines.count());
    assert!(page.contains(said["digest"].as_str().unwrap()));
}

#[test]
fn an_explained_plan_is_the_one_that_is_enforced() {
    let bed = Bed::new();
    bed.file("workspace/a.key", "hush");
    bed.file("workspace/b", "seen");
    bed.directory("workspace/.git/hooks");
    let policies = bed.policy("mine", MINE);
    let paths = [
        "a.key",
        "b",
        ".git/hooks/post-commit",
        "/etc/shadow",
        "/usr/bin/env",
        "/srv/none",
    ];
    let said = json(&bed, &paths);
    for (path, answer) in paths.iter().zip(said["paths"].as_array().unwrap()) {
        let script =
            format!("test -s {path} && head -c1 {path} >/dev/null && echo read; (: >>{path}) && echo write");
        let mut command = Command::new(runner());
        command
            .args(["sandbox", "run", "--policy", "mine", "--policy-dir"])
            .arg(&policies);
        command.arg("--cwd").arg(bed.workspace());
        let ended = end(command.args(["--", "sh", "-c", &script]));
        let mut told = String::new();
        for (key, word) in [("read", "read\n"), ("write", "write\n")] {
            let exists = answer["exists"] == true || key == "write";
            told += if answer[key]["allowed"] == true && exists {
                word
            } else {
                ""
            };
        }
        assert_eq!(ended.out, told, "{path}: {answer}: {}", ended.err);
    }
}

#[test]
fn a_path_is_answered_with_the_rule_that_decides() {
    let bed = Bed::new();
    bed.directory("workspace/src");
    symlink("/etc", bed.path("workspace/link")).unwrap();
    let workspace = bed.workspace().display().to_string();
    let mine = bed.path("policies/mine.toml").display().to_string();
    let text = explain(
        &bed,
        &[
            "src/new.rs",
            "src/a.key",
            ".git/hooks",
            "link/passwd",
            "/tmp/x",
            "/srv",
        ],
    )
    .ok();
    let answers: Vec<&str> = text.split_inclusive('\n').collect();
    let answer = |name: &str| {
        let at = answers.iter().position(|line| line.starts_with(name)).unwrap();
        answers[at..at + 4].concat()
    };
    let new = answer("src/new.rs is ");
    assert!(
        new.starts_with(&format!("src/new.rs is {workspace}/src/new.rs (not here)\n")),
        "{new}"
    );
    assert!(
        new.contains(&format!("write    yes writable: {workspace}  ")),
        "{new}"
    );
    assert!(new.contains("workspace.toml:"), "{new}");
    let key = answer("src/a.key is ");
    assert!(
        key.contains(&format!("read     no  hidden: {workspace}/**/*.key  {mine}:4")),
        "{key}"
    );
    let hooks = answer(".git/hooks is ");
    assert!(hooks.contains("read     yes "), "{hooks}");
    assert!(
        hooks.contains(&format!("write    no  protected: {workspace}/.git/hooks  ")),
        "{hooks}"
    );
    let passwd = answer("link/passwd is /etc/passwd\n");
    assert!(passwd.contains("write    no  "), "{passwd}");
    let tmp = answer("/tmp/x (not here)\n");
    assert!(tmp.contains("the sandbox's own"), "{tmp}");
    let srv = answer("/srv\n");
    assert!(srv.contains("read     no  no rule gives it\n"), "{srv}");
}

#[test]
fn what_a_workspace_takes_away_is_shown_as_its_own_word() {
    let bed = Bed::new();
    bed.directory("workspace/.oqto");
    bed.file(
        "workspace/.oqto/sandbox.toml",
        "[filesystem]\nmask = [\"$WORKSPACE/private\"]\nprotect = [\"$WORKSPACE/vendor\"]\n[limits]\nopen_files = 50\n",
    );
    let own = bed.path("workspace/.oqto/sandbox.toml").display().to_string();
    let said = json(&bed, &["private/x", "vendor/y"]);
    let rule = |list: &str, key: &str, value: &str| {
        let mut rules = said[list].as_array().unwrap().iter();
        rules.find(|rule| rule[key] == value).unwrap()["rule"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let path = |name: &str| bed.path("workspace").join(name).display().to_string();
    assert_eq!(rule("mask", "path", &path("private")), format!("{own}:2"));
    assert_eq!(rule("protect", "path", &path("vendor")), format!("{own}:3"));
    assert_eq!(rule("limits", "limit", "open_files"), format!("{own}:5"));
    assert_eq!(said["paths"][0]["read"]["rule"], format!("{own}:2"));
    assert_eq!(said["paths"][1]["write"]["rule"], format!("{own}:3"));
    let without = Bed::new();
    assert_ne!(json(&without, &[])["digest"], said["digest"]);
}

#[test]
fn a_ceiling_takes_away_and_is_named_and_what_goes_beyond_it_is_refused() {
    let bed = Bed::new();
    let ceiling = "description = \"c\"\nextends = \"mine\"\n[filesystem]\n\
                   deny = [\"/opt/secret\"]\n[seccomp]\ngroups = [\"executable-memory\"]\n";
    let file = bed
        .policy("ceiling", ceiling)
        .join("ceiling.toml")
        .display()
        .to_string();
    let said = json(&bed, &["--at-most", "ceiling", "/opt/secret/x"]);
    let mut groups = said["refused_calls"].as_array().unwrap().iter();
    let group = groups.find(|rule| rule["group"] == "executable-memory").unwrap();
    assert_eq!(group["rule"], format!("{file}:6"));
    assert_eq!(said["paths"][0]["read"]["allowed"], false);
    assert_eq!(said["paths"][0]["read"]["rule"], format!("{file}:4"));
    let beyond = explain(&bed, &["--at-most", "read-only"]);
    assert_eq!((beyond.code, beyond.out.as_str()), (125, ""));
    assert!(beyond.err.contains(" asks for "), "{}", beyond.err);
    let unknown = explain(&bed, &["--at-most", "workspce"]);
    assert_eq!((unknown.code, unknown.out.as_str()), (125, ""));
    assert!(
        unknown.err.contains("there is no policy workspce"),
        "{}",
        unknown.err
    );
}

#[test]
fn what_cannot_be_explained_says_why() {
    let bed = Bed::new();
    let explain = |words: &[&str]| end(Command::new(runner()).args(["sandbox", "explain"]).args(words));
    let workspace = bed.workspace();
    let workspace = workspace.to_str().unwrap();
    let ended = explain(&["--policy", "workspce", "--cwd", workspace]);
    assert_eq!((ended.code, ended.out.as_str()), (125, ""));
    assert!(
        ended.err.contains("there is no policy workspce; there are "),
        "{}",
        ended.err
    );
    for name in ["workspace", "strict", "read-only", "offline", "open-net"] {
        assert!(ended.err.contains(name), "{}", ended.err);
        assert_eq!(explain(&["--policy", name, "--cwd", workspace]).code, 0, "{name}");
    }
    let ended = explain(&["--cwd", "/no/such/place"]);
    assert_eq!(ended.code, 125);
    assert!(
        ended.err.contains("cannot work in /no/such/place"),
        "{}",
        ended.err
    );
    assert_eq!(explain(&["--cwd", workspace, "--without", "landlock"]).code, 2);
}
