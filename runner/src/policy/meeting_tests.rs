//! The meeting, held against an oracle that knows nothing of it: random documents, and random things to try.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::TestRunner;

use super::path::AbsolutePath;
use super::resolve::{Request, ResolveError, WorkspaceFile, resolve};
use super::rule::Limit;
use super::syscall::Syscall;
use super::verdict::Probe;
use super::{Catalog, Plan};

const PATTERNS: &[&str] = &[
    "/data",
    "/data/a",
    "/data/a/b",
    "/data/*",
    "/data/*/b",
    "/data/**/k",
    "/data/a/*.key",
    "/other",
    "$WORKSPACE",
    "$WORKSPACE/src",
    "$WORKSPACE/*",
    "~/.tool",
];
const PATHS: &[&str] = &[
    "/data",
    "/data/a",
    "/data/a/b",
    "/data/a/b/k",
    "/data/x/b",
    "/data/a/s.key",
    "/data/k",
    "/other/x",
    "/srv/w",
    "/srv/w/src/f",
    "/srv/w/f",
    "/home/a/.tool/x",
    "/elsewhere",
];
const PORTS: &[u16] = &[0, 22, 80, 443];
const GROUPS: &[&str] = &["namespaces", "mounts", "sockets", "setuid", "executable-memory"];
const ALLOW: &[&str] = &["files", "memory", "sockets", "devices"];
const VARIABLES: &[&str] = &["LANG", "TERM", "TOKEN"];
const CALLS: &[&str] = &[
    "read", "unshare", "mount", "socket", "mmap", "chmod", "ioctl", "brk", "ptrace",
];
const LIMITS: &[Limit] = &[Limit::Processes, Limit::OpenFiles, Limit::MemoryMib];

/// A document, as its parts.
#[derive(Clone, Debug)]
struct Words {
    lists: BTreeMap<&'static str, Option<Vec<&'static str>>>,
    network: &'static str,
    connect: Option<BTreeSet<u16>>,
    bind: Option<BTreeSet<u16>>,
    groups: Vec<&'static str>,
    allow: Option<Vec<&'static str>>,
    pass: Option<Vec<&'static str>>,
    set: BTreeSet<&'static str>,
    limits: Vec<Option<u64>>,
    landlock: &'static str,
}

fn words() -> impl Strategy<Value = Words> {
    let list = || option::of(subsequence(PATTERNS, 0..4));
    let lists = (list(), list(), list(), list(), list()).prop_map(|(read, write, deny, mask, protect)| {
        BTreeMap::from([
            ("read", read),
            ("write", write),
            ("deny", deny),
            ("mask", mask),
            ("protect", protect),
        ])
    });
    let ports = || option::of(btree_set(select(PORTS), 0..4));
    let calls = (subsequence(GROUPS, 0..3), option::of(subsequence(ALLOW, 0..4)));
    let env = (
        option::of(subsequence(VARIABLES, 0..3)),
        btree_set(select(VARIABLES), 0..2),
    );
    let limits = vec(option::of(1..4_u64), LIMITS.len());
    let network = (select(&["none", "host"][..]), ports(), ports());
    let landlock = select(&["required", "if-available"][..]);
    (lists, network, calls, env, limits, landlock).prop_map(
        |(lists, (network, connect, bind), (groups, allow), (pass, set), limits, landlock)| Words {
            lists,
            network,
            connect,
            bind,
            groups,
            allow,
            pass,
            set,
            limits,
            landlock,
        },
    )
}

/// A second document that is likely to ask for no more than the first: parts of it, and some of another one.
fn narrower(upper: Words) -> impl Strategy<Value = (Words, Words)> {
    (Just(upper), words(), vec(any::<bool>(), 10)).prop_map(|(upper, other, keep)| {
        let mut lower = other.clone();
        for (at, key) in ["read", "write"].into_iter().enumerate() {
            if keep[at] {
                lower.lists.insert(key, upper.lists[key].clone());
            }
        }
        if keep[2] {
            lower.network = upper.network;
        }
        if keep[3] {
            (lower.connect, lower.bind) = (upper.connect.clone(), upper.bind.clone());
        }
        if keep[4] {
            lower.allow.clone_from(&upper.allow);
        }
        if keep[5] {
            lower.pass.clone_from(&upper.pass);
        }
        if keep[6] {
            lower.set.clone_from(&upper.set);
        }
        if keep[7] {
            lower.limits.clone_from(&upper.limits);
        }
        if keep[8] {
            lower.landlock = upper.landlock;
        }
        (upper, lower)
    })
}

impl Words {
    fn text(&self) -> String {
        let quoted = |words: &[&str]| format!("{words:?}");
        let mut text = String::from("description = \"d\"\n[filesystem]\n");
        for (key, list) in &self.lists {
            if let Some(list) = list {
                text += &format!("{key} = {}\n", quoted(list));
            }
        }
        text += "[env]\n";
        if let Some(pass) = &self.pass {
            text += &format!("pass = {}\n", quoted(pass));
        }
        let set: Vec<String> = self.set.iter().map(|name| format!("{name} = \"v\"")).collect();
        text += &format!(
            "set = {{ {} }}\n[network]\nmode = \"{}\"\n",
            set.join(", "),
            self.network
        );
        for (key, ports) in [("connect_tcp", &self.connect), ("bind_tcp", &self.bind)] {
            if let Some(ports) = ports {
                text += &format!("{key} = {:?}\n", ports.iter().collect::<Vec<_>>());
            }
        }
        text += &format!("[seccomp]\ngroups = {}\n", quoted(&self.groups));
        if let Some(allow) = &self.allow {
            text += &format!("allow = {}\n", quoted(allow));
        }
        text += "[limits]\n";
        for (limit, value) in LIMITS.iter().zip(&self.limits) {
            if let Some(value) = value {
                text += &format!("{} = {value}\n", limit.name());
            }
        }
        text + &format!("[layers]\nlandlock = \"{}\"\n", self.landlock)
    }
}

fn path(text: &str) -> AbsolutePath {
    AbsolutePath::try_from(text.to_owned()).unwrap()
}

fn request() -> Request {
    Request {
        workspace: path("/srv/w"),
        user_home: path("/home/a"),
        session_home: path("/run/s"),
        read: Vec::new(),
        closed: Vec::new(),
        network_for: None,
        policy_at_most: None,
        workspace_file: None,
    }
}

/// With its groups read already, which takes longer than everything else here.
static SHIPPED: LazyLock<Catalog> = LazyLock::new(|| {
    let catalog = Catalog::shipped();
    catalog.groups().unwrap();
    catalog.allow_groups().unwrap();
    catalog
});

/// The plan of `name` in a catalog of the two, below a ceiling, with a workspace's own file.
fn plan(
    (upper, lower): (&str, &str),
    name: &str,
    ceiling: Option<&str>,
    file: Option<&str>,
) -> Result<Plan, ResolveError> {
    let mut catalog = SHIPPED.clone();
    for (name, text) in [("upper", upper), ("lower", lower)] {
        catalog
            .add(name.parse().unwrap(), format!("{name}.toml"), text.to_owned())
            .unwrap();
    }
    let request = Request {
        policy_at_most: ceiling.map(|name| name.parse().unwrap()),
        workspace_file: file.map(|text| WorkspaceFile {
            file: ".oqto/sandbox.toml".to_owned(),
            text: text.to_owned(),
        }),
        ..request()
    };
    resolve(&catalog, &name.parse().unwrap(), &request)
}

static PROBES: LazyLock<Vec<Probe>> = LazyLock::new(probes);

/// Everything that is worth trying with the words above.
fn probes() -> Vec<Probe> {
    let mut probes = vec![Probe::Network];
    for text in PATHS {
        probes.extend([
            Probe::Read(path(text)),
            Probe::Execute(path(text)),
            Probe::Write(path(text)),
        ]);
    }
    for port in PORTS {
        probes.extend([Probe::Connect(*port), Probe::Bind(*port)]);
    }
    probes.extend(VARIABLES.iter().map(|name| Probe::Variable((*name).to_owned())));
    for limit in LIMITS {
        probes.extend((1..5).map(|amount| Probe::Use(*limit, amount)));
    }
    for name in CALLS {
        let call = Syscall::try_from((*name).to_owned()).unwrap();
        for args in [
            [0; 6],
            [2, 1, 0, 0, 0, 0],
            [16, 3, 4, 0x20, 0, 0],
            [0, 0o4755, 6, 0, 0, 0],
            [1; 6],
        ] {
            probes.push(Probe::Call(call, args));
        }
    }
    probes
}

fn answers(plan: &Plan) -> Vec<bool> {
    PROBES.iter().map(|probe| plan.allows(probe)).collect()
}

/// A probe that nobody thought of: mostly of what the documents speak of, so that their rules are asked.
fn probe() -> impl Strategy<Value = Probe> {
    let name = prop_oneof![
        select(vec!["a", "b", "k", "x", "s.key", "src", "f", ".tool"]).prop_map(str::to_owned),
        "[a-z.]{1,3}[a-z]",
    ];
    let roots = vec![
        "/data",
        "/other",
        "/srv/w",
        "/home/a",
        "/home/a/.tool",
        "/usr",
        "",
    ];
    let file = (select(roots), vec(name, 1..5))
        .prop_map(|(root, names)| path(&format!("{root}/{}", names.join("/"))));
    let port = prop_oneof![select(PORTS), any::<u16>()];
    let word = prop_oneof![0_u64..64, any::<u64>()];
    let calls: Vec<Syscall> = Syscall::all().collect();
    prop_oneof![
        file.clone().prop_map(Probe::Read),
        file.clone().prop_map(Probe::Execute),
        file.prop_map(Probe::Write),
        port.clone().prop_map(Probe::Connect),
        port.prop_map(Probe::Bind),
        (
            select(calls),
            [
                word.clone(),
                word.clone(),
                word.clone(),
                word.clone(),
                word.clone(),
                word
            ]
        )
            .prop_map(|(call, args)| Probe::Call(call, args)),
        "[A-Z]{1,5}".prop_map(Probe::Variable),
        (select(LIMITS), any::<u64>()).prop_map(|(limit, amount)| Probe::Use(limit, amount)),
    ]
}

fn never_more(met: &Plan, part: &Plan, random: &[Probe]) -> Result<(), TestCaseError> {
    for probe in PROBES.iter().chain(random) {
        prop_assert!(!met.allows(probe) || part.allows(probe), "{probe:?}");
    }
    Ok(())
}

/// How many documents are tried.
const CASES: u32 = 400;

/// How many of them at least have to meet and take something away from the upper one: where nothing meets, nothing is
/// shown. About 80 do, of which every run has another number; this few would be six standard deviations away.
const NARROWED_MIN: u32 = 30;

/// Holds a property against random documents, of which it says whether they met and one narrowed the other.
fn hold<S: Strategy>(documents: &S, property: impl Fn(S::Value) -> Result<bool, TestCaseError>) {
    let narrowed = Cell::new(0);
    let config = ProptestConfig {
        source_file: Some(file!()),
        ..ProptestConfig::with_cases(CASES)
    };
    let held = TestRunner::new(config).run(documents, |documents| {
        narrowed.set(narrowed.get() + u32::from(property(documents)?));
        Ok(())
    });
    if let Err(error) = held {
        panic!("{error}");
    }
    let narrowed = narrowed.get();
    assert!(
        narrowed >= NARROWED_MIN,
        "only {narrowed} of {CASES} met and narrowed"
    );
}

#[test]
fn a_meeting_never_allows_what_one_of_its_parts_refuses() {
    let documents = (words().prop_flat_map(narrower), vec(probe(), 64));
    hold(&documents, |((upper, lower), random)| {
        let texts = (&*upper.text(), &*lower.text());
        let alone = (plan(texts, "upper", None, None), plan(texts, "lower", None, None));
        let met = plan(texts, "lower", Some("upper"), None);
        if let Ok(met) = &met {
            for part in [&alone.0, &alone.1] {
                match part {
                    Ok(part) => never_more(met, part, &random)?,
                    // A part that cannot be had by itself gives no meeting either.
                    Err(error) => prop_assert!(false, "{error}"),
                }
            }
        }
        let turned = plan(texts, "upper", Some("lower"), None);
        if let (Ok(met), Ok(turned)) = (&met, &turned) {
            prop_assert_eq!(answers(met), answers(turned));
            prop_assert_eq!(&met.env.set, &turned.env.set);
            prop_assert_eq!(met.layers, turned.layers);
        }
        let narrowed = |(met, upper): (&Plan, &Plan)| answers(met) != answers(upper);
        Ok(met.as_ref().ok().zip(alone.0.as_ref().ok()).is_some_and(narrowed))
    });
}

#[test]
fn a_workspace_never_gives_itself_more() {
    let documents = (words().prop_flat_map(narrower), any::<bool>(), vec(probe(), 64));
    hold(&documents, |((upper, lower), whole, random)| {
        let texts = (&*upper.text(), &*lower.text());
        let file = if whole {
            "extends = \"lower\"\n".to_owned()
        } else {
            lower.text()
        };
        let Ok(met) = plan(texts, "upper", None, Some(&file)) else {
            return Ok(false);
        };
        let alone = plan(texts, "upper", None, None).unwrap();
        never_more(&met, &alone, &random)?;
        prop_assert_eq!(&met.env.set, &alone.env.set, "a value is the system's own word");
        if whole {
            never_more(&met, &plan(texts, "lower", None, None).unwrap(), &random)?;
        }
        Ok(answers(&met) != answers(&alone))
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn a_policy_that_meets_itself_stays_what_it_is(words in words()) {
        let text = words.text();
        let texts = (&*text, &*text);
        if let Ok(alone) = plan(texts, "upper", None, None) {
            prop_assert_eq!(&plan(texts, "upper", Some("upper"), None).unwrap(), &alone);
            prop_assert_eq!(&plan(texts, "upper", Some("lower"), None).unwrap(), &alone);
        }
    }
}

#[test]
fn what_a_workspace_asks_for_in_vain_is_named_with_the_rule_against_it() {
    let upper = "description = \"d\"\n[filesystem]\nread = [\"/usr\"]\nwrite = [\"$WORKSPACE\"]\n\
                 deny = [\"~/.ssh\"]\n[env]\nset = { A = \"1\" }\npass = [\"LANG\"]\n[network]\nmode = \"none\"\n\
                 connect_tcp = [443]\n[limits]\nprocesses = 8\n[seccomp]\nallow = [\"files\"]\n";
    let prefix = ".oqto/sandbox.toml:";
    for (asked, message) in [
        (
            "[filesystem]\nread = [\n  \"/usr/lib\",\n  \"/srv\",\n]\n",
            "4: read asks for /srv, but no rule of upper gives it",
        ),
        (
            "[filesystem]\nwrite = [\"/usr\"]\n",
            "2: write asks for /usr, but no rule of upper gives it",
        ),
        (
            "[filesystem]\nread = [\"~/.ssh\"]\n",
            "2: read asks for /home/a/.ssh, but upper.toml:5 says deny /home/a/.ssh",
        ),
        ("[env]\npass = [\"TERM\"]\n", "2: pass asks for TERM, but no rule"),
        (
            "[env]\nset = { A = \"2\" }\n",
            "2: set asks for A = \"2\", but upper.toml:7 says A = \"1\"",
        ),
        ("[env.set]\nB = \"2\"\n", "2: set asks for B = \"2\", but no rule"),
        (
            "[network]\nmode = \"host\"\n",
            "2: mode asks for \"host\", but upper.toml:10 says mode = \"none\"",
        ),
        (
            "[network]\nconnect_tcp = [80]\n",
            "2: connect_tcp asks for 80, but upper.toml:11 says connect_tcp = [443]",
        ),
        (
            "[limits]\nprocesses = 9\n",
            "2: processes asks for 9, but upper.toml:13 says processes = 8",
        ),
        (
            "[layers]\nlandlock = \"if-available\"\n",
            "2: landlock asks for \"if-available\", but the runner says landlock = \"required\"",
        ),
        (
            "[seccomp]\nallow = [\"memory\"]\n",
            "2: allow asks for memory, but no rule",
        ),
    ] {
        let error = plan((upper, upper), "upper", None, Some(asked)).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with(&format!("{prefix}{message}")), "{error}");
        assert!(error.ends_with("can only narrow it"), "{error}");
    }
}

#[test]
fn a_workspace_can_take_writing_away_and_keep_reading() {
    let upper = "description = \"d\"\n[filesystem]\nwrite = [\"$WORKSPACE\"]\n[network]\nmode = \"none\"\n";
    let met = plan((upper, upper), "upper", None, Some("[filesystem]\nwrite = []\n")).unwrap();
    let verdict = met.file(&path("/srv/w/f"));
    assert!(verdict.read && !verdict.write);
}

#[test]
fn a_stricter_shipped_policy_is_within_a_ceiling() {
    for (name, ceiling, fits) in [
        ("strict", "open-net", true),
        ("strict", "workspace", true),
        ("read-only", "workspace", true),
        ("offline", "workspace", true),
        ("open-net", "workspace", false),
        ("workspace", "read-only", false),
        ("workspace", "strict", false),
    ] {
        let mut request = request();
        request.policy_at_most = Some(ceiling.parse().unwrap());
        let plan = resolve(&Catalog::shipped(), &name.parse().unwrap(), &request);
        assert_eq!(plan.is_ok(), fits, "{name} {ceiling}");
    }
}
