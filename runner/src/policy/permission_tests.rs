//! Rules against what agents may say, and their meeting against an oracle that only asks.

use std::sync::LazyLock;

use oqto_protocol::event::PermissionTool;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::catalog::Catalog;
use super::path::AbsolutePath;
use super::permission::{Judgement, Permissions};
use super::resolve::{Request, ResolveError, WorkspaceFile, resolve};

const HEAD: &str = "description = \"d\"\n[network]\nmode = \"none\"\n";

fn path(text: &str) -> AbsolutePath {
    AbsolutePath::try_from(text.to_owned()).unwrap()
}

fn resolved(upper: Option<&str>, policy: &str, file: Option<&str>) -> Result<Permissions, ResolveError> {
    // With what reading it costs paid once.
    static SHIPPED: LazyLock<Catalog> = LazyLock::new(|| {
        let catalog = Catalog::shipped();
        catalog.groups().unwrap();
        catalog.allow_groups().unwrap();
        catalog
    });
    let mut catalog = SHIPPED.clone();
    for (name, text) in [("upper", upper.unwrap_or_default()), ("policy", policy)] {
        let text = format!("{HEAD}{text}");
        catalog
            .add(name.parse().unwrap(), format!("{name}.toml"), text)
            .unwrap();
    }
    let request = Request {
        workspace: path("/work"),
        user_home: path("/home/a"),
        session_home: path("/run/s"),
        read: Vec::new(),
        closed: Vec::new(),
        network_for: None,
        policy_at_most: upper.map(|_| "upper".parse().unwrap()),
        workspace_file: file.map(|text| WorkspaceFile {
            file: ".oqto/sandbox.toml".to_owned(),
            text: text.to_owned(),
        }),
    };
    resolve(&catalog, &"policy".parse().unwrap(), &request).map(|plan| plan.permissions)
}

fn rules(allow: &[&str], deny: &[&str]) -> Permissions {
    resolved(
        None,
        &format!("[permissions]\nallow = {allow:?}\ndeny = {deny:?}\n"),
        None,
    )
    .unwrap()
}

#[test]
fn who_says_anything_of_permissions_wants_an_agent_to_ask() {
    fn wants(upper: Option<&str>, policy: &str, file: Option<&str>) -> bool {
        resolved(upper, policy, file).unwrap().wanted
    }
    assert!(!wants(None, "", None));
    assert!(!wants(None, "[permissions]\n", None));
    for said in [
        "allow = [\"read\"]",
        "deny = [\"execute\"]",
        "otherwise = \"ask\"",
        "timeout_s = 9",
    ] {
        let table = format!("[permissions]\n{said}\n");
        assert!(wants(None, &table, None), "{said}");
    }
    assert!(wants(None, "", Some("[permissions]\notherwise = \"ask\"\n")));
    assert!(wants(Some("[permissions]\ndeny = [\"fetch\"]\n"), "", None));
}

fn tool(name: &str, kind: Option<&str>, targets: &[&str]) -> PermissionTool {
    PermissionTool {
        tool_call_id: None,
        name: name.to_owned(),
        kind: kind.map(str::to_owned),
        targets: targets.iter().map(|target| (*target).to_owned()).collect(),
        input: None,
    }
}

fn runs(command: &str) -> PermissionTool {
    tool("Bash", Some("execute"), &[command])
}

fn is_allowed(rules: &Permissions, tool: &PermissionTool) -> bool {
    matches!(rules.judge(Some(tool)), Judgement::Allowed(_))
}

fn is_denied(rules: &Permissions, tool: &PermissionTool) -> bool {
    matches!(rules.judge(Some(tool)), Judgement::Denied(_))
}

#[test]
fn a_wildcard_never_stands_for_what_a_shell_makes_more_of() {
    let rules = rules(&["execute:git status*", "execute:cargo *"], &[]);
    for command in [
        "git status",
        "git status --short",
        "  git status -s ",
        "cargo test -p x",
    ] {
        assert!(is_allowed(&rules, &runs(command)), "{command:?}");
    }
    for command in [
        "git status; rm -rf ~",
        "git status\nrm -rf ~",
        "git status\rrm -rf ~",
        "git status && rm x",
        "git status & rm x",
        "git status | sh",
        "git status $(rm x)",
        "git status `rm x`",
        "git status > /etc/passwd",
        "git status < /dev/tcp/a/1",
        "git status $IFS",
        "git status ${IFS}",
        "git status {a,b}",
        "git status (x)",
        "git status \\\nrm",
        "git status \u{0}x",
        "git status \u{202e}x",
        "git status \u{200b}",
        "g\u{456}t status",
        "\u{ff47}it status",
        "git\u{a0}status",
        "git  status",
        "x git status",
        "GIT STATUS",
        "",
    ] {
        assert!(!is_allowed(&rules, &runs(command)), "{command:?}");
    }
    assert!(!is_allowed(&rules, &tool("Bash", Some("execute"), &[])));
    assert!(!is_allowed(
        &rules,
        &tool("Bash", Some("execute"), &["git status", "rm x"])
    ));
    assert!(is_allowed(
        &rules,
        &tool("Bash", Some("execute"), &["git status", "cargo x"])
    ));
    assert!(!is_allowed(&rules, &runs(&format!("cargo {}", "x".repeat(5000)))));
}

#[test]
fn a_command_that_is_written_out_is_allowed_as_it_stands() {
    let exact = rules(&["execute:make && make test", "execute:echo *; ls"], &[]);
    assert!(is_allowed(&exact, &runs("make && make test")));
    assert!(!is_allowed(&exact, &runs("make && make test; rm x")));
    assert!(is_allowed(&exact, &runs("echo *; ls")));
    assert!(!is_allowed(&exact, &runs("echo a; ls")));
    assert!(is_allowed(&rules(&["execute"], &[]), &runs("a; b | c > d")));
}

#[test]
fn what_is_denied_is_found_in_every_part_of_a_command() {
    let rules = rules(&["*"], &["execute:rm *", "execute:curl*"]);
    for command in [
        "rm -rf /",
        "  rm   -rf  /",
        "git status; rm x",
        "git status\nrm x",
        "true && rm x",
        "true || rm x",
        "echo $(rm x)",
        "echo `rm x`",
        "(rm x)",
        "{ rm x; }",
        "/bin/rm x",
        "r\"\"m x",
        "\\rm x",
        "A=1 rm x",
        "A=1 B=2 /usr/bin/rm x",
        "x | curl http://a",
        "curl",
    ] {
        assert!(is_denied(&rules, &runs(command)), "{command:?}");
    }
    for command in ["farm x", "ls rm", "git rm"] {
        assert!(!is_denied(&rules, &runs(command)), "{command:?}");
    }
    // What cannot be compared is not allowed either: somebody has to look.
    assert_eq!(rules.judge(Some(&runs(&"x".repeat(5000)))), Judgement::Asked);
    assert_eq!(
        rules.judge(Some(&tool("Bash", Some("execute"), &[]))),
        Judgement::Asked
    );
}

#[test]
fn what_stands_before_a_denied_program_does_not_hide_it() {
    let denies = rules(&["*"], &["execute:rm *", "Bash:rm *"]);
    for command in [
        "A='b c' rm x",
        "A=\"b c\" B=1 rm x",
        ">a rm x",
        "2>/dev/null rm x",
        "2> /dev/null </dev/zero rm x",
        "! rm x",
        "if true; then rm x; fi",
        "while :; do rm x; done",
        "exec rm x",
        "command rm x",
        "env A=1 rm x",
        "time rm x",
        "nohup /bin/rm x",
    ] {
        assert!(is_denied(&denies, &runs(command)), "{command:?}");
    }
    for command in ["ls 'rm x'", "echo then x", "A='rm x' ls", "git time rm"] {
        assert!(!is_denied(&denies, &runs(command)), "{command:?}");
    }
    // Whether its kind is told or not.
    for kind in [None, Some("other")] {
        let bash = tool("Bash", kind, &["true; rm x"]);
        assert!(is_denied(&denies, &bash), "{kind:?}");
    }
}

#[test]
fn what_agents_read_as_another_path_is_allowed_by_no_pattern() {
    let rules = rules(&["read:$WORKSPACE"], &[]);
    for target in [
        "file://localhost/etc/passwd",
        "file:/etc/passwd",
        "FILE:///etc/passwd",
        "file:///work/%2e%2e/etc/passwd",
        "file:///work/a?b",
        "file:///work/a\\..\\..\\etc\\passwd",
        "file:///work/.\u{9}./etc/passwd",
        "https://example.com/a",
        "ssh://host/etc/passwd",
        " /etc/passwd",
        "/work/../etc/passwd",
        "\u{a0}/etc/passwd",
        "@/etc/passwd",
        "\"/etc/passwd\"",
        "'/etc/passwd'",
    ] {
        assert_eq!(
            rules.judge(Some(&tool("Read", Some("read"), &[target]))),
            Judgement::Asked,
            "{target:?}"
        );
    }
    for target in ["file:///work/a", "a:b", "src/a b.rs", "/work/100%", "a@b", "it's"] {
        assert!(
            is_allowed(&rules, &tool("Read", Some("read"), &[target])),
            "{target:?}"
        );
    }
}

#[test]
fn paths_are_compared_as_what_they_lead_to() {
    let rules = rules(
        &["edit:$WORKSPACE/src", "edit:/work/docs/*.md", "read"],
        &["edit:$WORKSPACE/src/.git", "read:~/.ssh", "delete:/work/keep"],
    );
    let edits = |target: &str| tool("Edit", Some("edit"), &[target]);
    for target in [
        "/work/src/a.rs",
        "src/a.rs",
        "./src//a.rs",
        "/work//src/./a",
        "/work/x/../src/a",
        "file:///work/src/a",
        "docs/a.md",
    ] {
        assert!(is_allowed(&rules, &edits(target)), "{target}");
    }
    for target in [
        "/work/src/../secret",
        "src/../../etc/passwd",
        "/etc/passwd",
        "/work/srcx/a",
        "docs/a/b.md",
        "docs/a.rs",
        "~/src/a",
        "$HOME/src",
        "/work/src/\u{1b}[2K",
        "",
    ] {
        assert!(!is_allowed(&rules, &edits(target)), "{target}");
    }
    for target in ["/work/src/.git/config", "src/x/../.git", "/work/src//.git/"] {
        assert!(is_denied(&rules, &edits(target)), "{target}");
    }
    let reads = |target: &str| tool("Read", Some("read"), &[target]);
    assert!(is_allowed(&rules, &reads("/etc/hosts")));
    assert!(is_denied(&rules, &reads("/home/a/.ssh/id")));
    assert_eq!(rules.judge(Some(&reads("~/.ssh/id"))), Judgement::Asked);
    assert!(is_denied(&rules, &tool("rm", Some("delete"), &["/work"])));
    assert!(is_denied(
        &rules,
        &tool("Edit", Some("edit"), &["src/a", "src/.git/b"])
    ));
}

#[test]
fn an_address_is_compared_by_its_parts() {
    let rules = rules(
        &["fetch:https://docs.example/*", "fetch:https://*.good.example/a/*"],
        &["fetch:*evil*"],
    );
    let fetches = |target: &str| tool("WebFetch", Some("fetch"), &[target]);
    for address in [
        "https://docs.example/x?y",
        "HTTPS://DOCS.example/x",
        "https://a.good.example/a/b",
    ] {
        assert!(is_allowed(&rules, &fetches(address)), "{address}");
    }
    for address in [
        "http://docs.example/x",
        "https://docs.example.other/x",
        "https://docs.example@other/x",
        "https://other/x.good.example/a/b",
        "https://other?.good.example/a/b",
        "https://u@.good.example/a/b",
        "https://other\\.good.example/a/b",
        "https://a.good.example/a/../b",
        "https://a.good.example/a/%2e%2E/b",
        "https://docs.example/ x",
    ] {
        assert!(!is_allowed(&rules, &fetches(address)), "{address}");
    }
    assert!(is_denied(&rules, &fetches("https://docs.example/EVIL")));
}

#[test]
fn no_tool_becomes_harmless_by_its_name() {
    let rules = rules(&["read", "Task"], &["Shell"]);
    assert!(is_allowed(&rules, &tool("whatever", Some("read"), &["/a"])));
    assert!(is_allowed(&rules, &tool("Task", None, &[])));
    assert!(is_allowed(&rules, &tool("read", None, &["/a"])));
    assert!(!is_allowed(&rules, &tool("read", Some("execute"), &["rm x"])));
    assert!(!is_allowed(&rules, &tool("task", None, &[])));
    assert!(is_denied(&rules, &tool("shell", Some("read"), &["/a"])));
    assert_eq!(rules.judge(None), Judgement::Asked);
}

#[test]
fn what_no_rule_speaks_of_is_asked_unless_the_policy_says_otherwise() {
    let judged = |text: &str| resolved(None, text, None).unwrap().judge(Some(&runs("ls")));
    assert_eq!(judged(""), Judgement::Asked);
    let otherwise = |word: &str| judged(&format!("[permissions]\notherwise = \"{word}\"\n"));
    assert_eq!(otherwise("deny"), Judgement::Denied("otherwise".to_owned()));
    assert_eq!(otherwise("allow"), Judgement::Allowed("otherwise".to_owned()));
    assert_eq!(resolved(None, "", None).unwrap().timeout_s, 300);
}

#[test]
fn a_table_that_means_nothing_is_refused_by_file_and_line() {
    for (text, message) in [
        (
            "[permissions]\nallow = [\"\"]\n",
            "policy.toml:5: the rule \"\" names no tool",
        ),
        (
            "[permissions]\nallow = [\"execute:\"]\n",
            "has nothing behind its colon",
        ),
        ("[permissions]\ndeny = [\"edit:/a/../b\"]\n", "has . or .. in it"),
        ("[permissions]\nallow = [\"a\\u0007\"]\n", "control character"),
        (
            "[permissions]\ntimeout_s = 0\n",
            "policy.toml:5: timeout_s is 0, it must be 1 to 86400",
        ),
        ("[permissions]\ntimeout_s = 86401\n", "it must be 1 to 86400"),
        ("[permissions]\notherwise = \"maybe\"\n", "ask"),
        ("[permissions]\nalow = []\n", "did you mean allow?"),
    ] {
        let error = crate::cause::chain(&resolved(None, text, None).unwrap_err());
        assert!(error.contains(message), "{error}");
    }
    let many = format!("[permissions]\nallow = {:?}\n", vec!["read"; 65]);
    let error = crate::cause::chain(&resolved(None, &many, None).unwrap_err());
    assert!(error.contains("there are 65 rules in allow"), "{error}");
}

#[test]
fn who_asks_for_more_is_told_the_rule_against_it() {
    let upper =
        "[permissions]\nallow = [\"execute:git *\"]\ndeny = [\"execute:git push*\"]\ntimeout_s = 60\n";
    for (file, message) in [
        (
            "[permissions]\nallow = [\"read\"]\n",
            ":2: permissions.allow asks for read, but no rule of policy gives it",
        ),
        (
            "[permissions]\notherwise = \"allow\"\n",
            ":2: otherwise asks for \"allow\", but the runner says",
        ),
        (
            "[permissions]\ntimeout_s = 61\n",
            ":2: timeout_s asks for 61, but policy.toml:7 says timeout_s = 60",
        ),
    ] {
        let error = resolved(None, upper, Some(file)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let narrow = "[permissions]\nallow = [\"execute:git status\"]\notherwise = \"deny\"\n";
    let met = resolved(None, upper, Some(narrow)).unwrap();
    assert!(is_allowed(&met, &runs("git status")));
    assert!(is_denied(&met, &runs("git log")));
    assert!(is_denied(&met, &runs("git push")));
    assert_eq!(met.timeout_s, 60);
    // Who names another policy and says nothing there has nobody allowed anything.
    let other = resolved(Some(upper), "", None).unwrap();
    assert_eq!(other.judge(Some(&runs("git status"))), Judgement::Asked);
    assert!(is_denied(&other, &runs("git push")));
}

const RULES: &[&str] = &[
    "*",
    "read",
    "read:/work/a",
    "read:/work/a/*.rs",
    "read:a/b",
    "edit:$WORKSPACE",
    "edit:/etc/**",
    "execute",
    "execute:git *",
    "execute:git status",
    "execute:git status*",
    "execute:a; b",
    "execute:*",
    "Bash:git status",
    "Bash:*",
    "*:git *",
    "*:/work/a",
    "*:/work/*",
    "fetch:https://a/*",
    "fetch:https://a/b",
    "fetch:https://*",
    "*:https://a/*",
];

fn table() -> impl Strategy<Value = String> {
    let otherwise = option::of(select(vec!["allow", "ask", "deny"]));
    let rules = || subsequence(RULES, 0..4);
    (option::of(rules()), rules(), otherwise).prop_map(|(allow, deny, otherwise)| {
        let mut text = "[permissions]\n".to_owned();
        if let Some(allow) = allow {
            text += &format!("allow = {allow:?}\n");
        }
        text += &format!("deny = {deny:?}\n");
        if let Some(otherwise) = otherwise {
            text += &format!("otherwise = \"{otherwise}\"\n");
        }
        text
    })
}

fn asked() -> impl Strategy<Value = PermissionTool> {
    let kinds = vec![
        None,
        Some("read"),
        Some("edit"),
        Some("execute"),
        Some("fetch"),
        Some("other"),
    ];
    let fixed = vec![
        "git status",
        "git log -p",
        "git status; rm x",
        "a; b",
        "git $(x)",
        "/work/a/x.rs",
        "/work/a",
        "a/b/c",
        "/work/a/../b",
        "/etc/passwd",
        "/work/$x;y",
        "~/x",
        "https://a/b",
        "https://a/b/../c",
        "https://a@b/c",
    ];
    let target = prop_oneof![select(fixed).prop_map(str::to_owned), "[a-z/ .;$:*]{0,12}"];
    (
        select(vec!["Bash", "Read", "x"]),
        select(kinds),
        vec(target, 0..3),
    )
        .prop_map(|(name, kind, targets)| {
            let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
            tool(name, kind, &targets)
        })
}

/// How strict an answer is.
fn strictness(rules: &Permissions, tool: &PermissionTool) -> u8 {
    match rules.judge(Some(tool)) {
        Judgement::Allowed(_) => 0,
        Judgement::Asked => 1,
        Judgement::Denied(_) => 2,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_meeting_of_permissions_is_never_laxer_than_either(
        upper in table(), lower in table(), is_file: bool, asked in vec(asked(), 24),
    ) {
        let alone = resolved(None, &upper, None).unwrap();
        let met = match is_file {
            true => resolved(None, &upper, Some(&lower)),
            false => resolved(Some(&upper), &lower, None),
        };
        let Ok(met) = met else { return Ok(()) };
        let own = resolved(None, &lower, None).unwrap();
        for tool in &asked {
            let strict = strictness(&met, tool);
            prop_assert!(strict >= strictness(&alone, tool), "{tool:?}");
            // A file that names no list leaves that of the policy as it is.
            if !is_file {
                prop_assert!(strict >= strictness(&own, tool), "{tool:?}");
            }
        }
    }

    #[test]
    fn permissions_that_meet_themselves_stay_what_they_are(table in table()) {
        let alone = resolved(None, &table, None).unwrap();
        prop_assert_eq!(&resolved(Some(&table), &table, None).unwrap(), &alone);
        prop_assert_eq!(&resolved(None, &table, Some(&table)).unwrap(), &alone);
    }

    #[test]
    fn nothing_that_an_agent_says_breaks_the_rules(
        table in table(), name in ".{0,20}", targets in vec("\\PC{0,40}", 0..4),
    ) {
        let rules = resolved(None, &table, None).unwrap();
        for kind in [None, Some("read"), Some("delete"), Some("execute"), Some("fetch"), Some("\u{0}")] {
            let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
            let _judged = rules.judge(Some(&tool(&name, kind, &targets)));
        }
    }
}
