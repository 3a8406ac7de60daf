//! One policy, with what it extends and what it meets, and one request become a plan.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::{Catalog, CatalogError, PolicyName};
use super::document::{DocumentError, Policy, nearest};
use super::meeting::{Author, Widening, meet};
use super::path::AbsolutePath;
use super::pattern::Pattern;
use super::permission::{PermissionRule, Permissions};
use super::plan::{Calls, Environment, Files, Layers, Limits, Network, Permit, Plan, Ports};
use super::rule::{Rule, Ruled, Source};
use super::seccomp::Denial;
use super::terms::{Roots, Terms};
use super::workspace::{shared, unfit};

/// What a session needs. Every path has its links resolved already, since nothing here asks the disk.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where the harness works.
    pub workspace: AbsolutePath,
    /// The home of the user whose workspace it is: `~` in policies.
    pub user_home: AbsolutePath,
    /// The session's own directory, which becomes the harness's home.
    pub session_home: AbsolutePath,
    /// What else the harness has to read: its own installation.
    pub read: Vec<AbsolutePath>,
    /// Where the runner keeps its state, its keys and its policies: out of reach, whatever the policy says.
    pub closed: Vec<AbsolutePath>,
    /// The harness that cannot work without a network, if it is one.
    pub network_for: Option<String>,
    /// The policy beyond which no session of this runner may go, if the operator named one.
    pub policy_at_most: Option<PolicyName>,
    /// What the workspace itself says, if it does.
    pub workspace_file: Option<WorkspaceFile>,
}

/// A file in the workspace that narrows the policy of whoever works there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspaceFile {
    /// Its name, for errors and for whoever asks where a rule is from.
    pub file: String,
    /// What it says.
    pub text: String,
}

/// A plan, and who said each of its rules.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The plan.
    pub plan: Plan,
    /// Who said its rules.
    pub sources: Sources,
}

/// Who said each rule of a plan.
pub type Sources = BTreeMap<Rule, Source>;

/// Why a request cannot be met.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// A policy cannot be had.
    #[error("no plan without its policy")]
    Catalog {
        /// Why not.
        #[from]
        source: CatalogError,
    },
    /// The workspace's own file says what is not in the language.
    #[error("the workspace's own policy cannot be used")]
    WorkspaceFile {
        /// What is wrong with it.
        source: DocumentError,
    },
    /// Policies extend each other in a circle.
    #[error("the policies {} extend each other in a circle", chain_text(chain))]
    Circle {
        /// Who extends whom; the last is the first again.
        chain: Vec<PolicyName>,
    },
    /// A policy asks for more than one that it meets.
    #[error(transparent)]
    Widening(#[from] Widening),
    /// A policy names a group of system calls that does not exist.
    #[error(
        "{at}: {key} names the group {group}; {}there are {}",
        near.as_ref().map(|near| format!("did you mean {near}? ")).unwrap_or_default(),
        known.join(", ")
    )]
    UnknownGroup {
        /// Where.
        at: Source,
        /// By which key.
        key: &'static str,
        /// What it names.
        group: String,
        /// What it probably means.
        near: Option<String>,
        /// What there is.
        known: Vec<String>,
    },
    /// Neither the policy nor what it extends says anything of the network.
    #[error("policy {policy} says nothing of the network; write [network] mode = \"none\" or \"host\"")]
    NoNetworkMode {
        /// Which policy.
        policy: PolicyName,
    },
    /// The harness needs a network and the policy gives none.
    #[error(
        "policy {policy} gives no network and harness {harness} needs its model provider; until the egress gateway \
         exists use --policy open-net, which gives the host's network"
    )]
    NoNetwork {
        /// Which policy.
        policy: PolicyName,
        /// Which harness.
        harness: String,
    },
    /// The workspace is too much of the host to be handed out.
    #[error("{workspace} cannot be a workspace, it is {what}; use a directory of the project's own")]
    Workspace {
        /// What was asked for.
        workspace: AbsolutePath,
        /// What it is.
        what: &'static str,
    },
    /// What the harness's program needs to be seen is far more than that program.
    #[error(
        "the program's directory {path} cannot be shown to a session, it is {what}; install it in one of its own"
    )]
    Installation {
        /// Where the program is.
        path: AbsolutePath,
        /// What that is.
        what: &'static str,
    },
    /// Something asked for lies in what the policy denies or the runner keeps to itself.
    #[error("{path} cannot be given to a session: {closed} is closed to it ({by})")]
    Denied {
        /// What was asked for.
        path: Box<Pattern>,
        /// What it lies in.
        closed: Box<Pattern>,
        /// Who closed it.
        by: Source,
    },
}

fn chain_text(chain: &[PolicyName]) -> String {
    chain
        .iter()
        .map(PolicyName::as_str)
        .collect::<Vec<_>>()
        .join(" → ")
}

/// Joins the policy `name` with what it meets and with the request.
///
/// # Errors
///
/// See [`ResolveError`]; nothing is ever left out to make a request fit.
pub fn resolve(catalog: &Catalog, name: &PolicyName, request: &Request) -> Result<Plan, ResolveError> {
    trace(catalog, name, request).map(|resolved| resolved.plan)
}

/// As [`resolve`], and tells who said each rule.
///
/// # Errors
///
/// As [`resolve`].
pub fn trace(catalog: &Catalog, name: &PolicyName, request: &Request) -> Result<Resolved, ResolveError> {
    check_workspace(request)?;
    let terms = met(catalog, name, request)?;
    let network = terms.network.as_ref().map(|network| network.value);
    let network = network.ok_or_else(|| ResolveError::NoNetworkMode { policy: name.clone() })?;
    if let (Network::None, Some(harness)) = (network, &request.network_for) {
        return Err(ResolveError::NoNetwork {
            policy: name.clone(),
            harness: harness.clone(),
        });
    }
    let mut sources = sources(&terms);
    let files = files(&terms, request, &mut sources)?;
    let wanted = terms.speaks_of_permissions();
    let Terms {
        set,
        pass,
        connect,
        bind,
        groups,
        allow,
        limits,
        layers,
        permit,
        forbid,
        otherwise,
        timeout_s,
        ..
    } = terms;
    let mut permissions = Permissions::new(
        request.workspace.clone(),
        rules(permit.unwrap_or_default()),
        rules(forbid),
        otherwise.map(|otherwise| otherwise.value),
        timeout_s.map(|timeout| timeout.value),
    );
    permissions.wanted = wanted;
    let plan = Plan {
        policy: name.clone(),
        workspace: request.workspace.clone(),
        home: request.session_home.clone(),
        files,
        env: Environment {
            set: set.into_iter().map(|(name, value)| (name, value.value)).collect(),
            pass: pass.unwrap_or_default().into_keys().collect(),
        },
        network,
        ports: Ports {
            connect: connect.map(|ports| ports.value),
            bind: bind.map(|ports| ports.value),
        },
        calls: Calls {
            denied: denials(catalog, &groups)?,
            allowed: allow.as_ref().map(|allow| permits(catalog, allow)).transpose()?,
        },
        limits: Limits::of(limits.into_iter().map(|(limit, value)| (limit, value.value))),
        layers: Layers::of(layers.into_iter().map(|(layer, need)| (layer, need.value))),
        permissions,
    };
    Ok(Resolved { plan, sources })
}

/// Each rule once, in an order of its own: which one comes first says nothing.
fn rules(said: Vec<Ruled<PermissionRule>>) -> Vec<PermissionRule> {
    let rules: BTreeSet<PermissionRule> = said.into_iter().map(|rule| rule.value).collect();
    rules.into_iter().collect()
}

/// Who said each rule but those of files, which are not all the policy's.
fn sources(terms: &Terms) -> Sources {
    let Terms {
        read: _,
        write: _,
        deny: _,
        mask: _,
        protect: _,
        set,
        pass,
        network,
        connect,
        bind,
        groups,
        allow,
        limits,
        layers,
        permit,
        forbid,
        otherwise,
        timeout_s,
    } = terms;
    let mut sources = Sources::new();
    let mut note = |rule, source: &Source| _ = sources.insert(rule, source.clone());
    if let Some(network) = network {
        note(Rule::Network, &network.source);
    }
    for (rule, ports) in [(Rule::Connect, connect), (Rule::Bind, bind)] {
        if let Some(ports) = ports {
            note(rule, &ports.source);
        }
    }
    for (name, value) in set {
        note(Rule::Set(name.clone()), &value.source);
    }
    for (name, source) in pass.iter().flatten() {
        note(Rule::Pass(name.clone()), source);
    }
    for (group, source) in groups {
        note(Rule::Group(group.clone()), source);
    }
    for (group, source) in allow.iter().flatten() {
        note(Rule::Allow(group.clone()), source);
    }
    for (limit, value) in limits {
        note(Rule::Limit(*limit), &value.source);
    }
    for (layer, need) in layers {
        note(Rule::Layer(*layer), &need.source);
    }
    for rule in permit.iter().flatten() {
        note(Rule::Permit(rule.value.clone()), &rule.source);
    }
    for rule in forbid {
        note(Rule::Forbid(rule.value.clone()), &rule.source);
    }
    if let Some(otherwise) = otherwise {
        note(Rule::Otherwise, &otherwise.source);
    }
    note(
        Rule::Timeout,
        timeout_s
            .as_ref()
            .map_or(&Source::Runner, |timeout| &timeout.source),
    );
    sources
}

/// What holds when the operator's ceiling, the policy that the session names, and the workspace's own file meet.
fn met(catalog: &Catalog, name: &PolicyName, request: &Request) -> Result<Terms, ResolveError> {
    let roots = Roots {
        home: &request.user_home,
        workspace: &request.workspace,
    };
    // Each has to make sense by itself: what it refuses is refused, whatever it meets.
    let whole = |name: &PolicyName| -> Result<Terms, ResolveError> {
        let terms = Terms::named(catalog, name, roots)?;
        if terms.network.is_none() {
            return Err(ResolveError::NoNetworkMode { policy: name.clone() });
        }
        files(&terms, request, &mut Sources::new())?;
        Ok(terms)
    };
    let asked = whole(name)?;
    let met = match &request.policy_at_most {
        Some(ceiling) => {
            let upper = whole(ceiling)?;
            meet(
                upper,
                asked,
                Author::Catalog,
                ceiling.as_str(),
                &request.workspace,
            )?
        }
        None => asked,
    };
    let Some(WorkspaceFile { file, text }) = &request.workspace_file else {
        return Ok(met);
    };
    let part = Policy::parse_part(file, text).map_err(|source| ResolveError::WorkspaceFile { source })?;
    if let Some(base) = &part.extends {
        whole(base)?;
    }
    let part = Terms::part(catalog, part, roots)?;
    Ok(meet(
        met,
        part,
        Author::Workspace,
        name.as_str(),
        &request.workspace,
    )?)
}

/// Which files, after everything that must not be given was looked for in what is.
fn files(terms: &Terms, request: &Request, sources: &mut Sources) -> Result<Files, ResolveError> {
    let runner = |path: &AbsolutePath| Ruled {
        value: Pattern::from(path.clone()),
        source: Source::Runner,
    };
    let mut read = terms.read.clone().unwrap_or_default();
    for path in &request.read {
        let given = || read.iter().any(|given| given.value.covers(path));
        if let Some(what) = shared(path, &request.user_home).filter(|_| !given()) {
            let path = path.clone();
            return Err(ResolveError::Installation { path, what });
        }
    }
    read.extend(request.read.iter().map(|path| Ruled {
        value: Pattern::from(path.clone()),
        source: Source::Harness,
    }));
    let write = terms.write.clone().unwrap_or_default();
    let mut deny = terms.deny.clone();
    deny.extend(request.closed.iter().map(runner));
    // The host's would cover the sandbox's own, and show other processes and their memory.
    let kernel = ["/proc", "/dev"].map(|path| AbsolutePath::try_from(path.to_owned()));
    let kernel: Vec<_> = kernel.iter().flatten().map(runner).collect();
    let asked = read.iter().chain(&write).map(|asked| &asked.value);
    check_closed(&kernel, asked.clone())?;
    check_closed(&deny, asked.chain([&Pattern::from(request.workspace.clone())]))?;

    let mut hidden = said(&deny, Rule::Deny, sources);
    hidden.extend(said(&terms.mask, Rule::Mask, sources));
    hidden.sort();
    hidden.dedup();
    Ok(Files {
        read: said(&read, Rule::Read, sources),
        write: said(&write, Rule::Write, sources),
        hidden,
        protect: said(&terms.protect, Rule::Protect, sources),
    })
}

/// The patterns of some rules, each once and in order; whoever said it first is its source.
fn said(rules: &[Ruled<Pattern>], rule: impl Fn(Pattern) -> Rule, sources: &mut Sources) -> Vec<Pattern> {
    let mut patterns = BTreeSet::new();
    for Ruled { value, source } in rules {
        sources
            .entry(rule(value.clone()))
            .or_insert_with(|| source.clone());
        patterns.insert(value.clone());
    }
    patterns.into_iter().collect()
}

fn denials(catalog: &Catalog, groups: &BTreeMap<String, Source>) -> Result<Vec<Denial>, ResolveError> {
    let known = catalog.groups()?;
    let mut denials = Vec::new();
    for (group, at) in groups {
        let found = known.group(group);
        let found = found.ok_or_else(|| unknown_group(at, "groups", group, known.names()))?;
        denials.extend_from_slice(found);
    }
    Ok(denials)
}

fn permits(catalog: &Catalog, groups: &BTreeMap<String, Source>) -> Result<Vec<Permit>, ResolveError> {
    let known = catalog.allow_groups()?;
    let mut permits = Vec::new();
    for (group, at) in groups {
        let found = known.group(group);
        let found = found.ok_or_else(|| unknown_group(at, "allow", group, known.names()))?;
        permits.extend_from_slice(found);
    }
    Ok(permits)
}

fn unknown_group<'a>(
    at: &Source,
    key: &'static str,
    group: &str,
    known: impl Iterator<Item = &'a str>,
) -> ResolveError {
    let known: Vec<&str> = known.collect();
    ResolveError::UnknownGroup {
        at: at.clone(),
        key,
        group: group.to_owned(),
        near: nearest(group, known.iter().copied()),
        known: known.into_iter().map(str::to_owned).collect(),
    }
}

fn check_workspace(request: &Request) -> Result<(), ResolveError> {
    let workspace = &request.workspace;
    match unfit(workspace, &request.user_home) {
        None => Ok(()),
        Some(what) => Err(ResolveError::Workspace {
            workspace: workspace.clone(),
            what,
        }),
    }
}

fn check_closed<'a>(
    closed: &[Ruled<Pattern>],
    asked: impl Iterator<Item = &'a Pattern>,
) -> Result<(), ResolveError> {
    for path in asked {
        if let Some(closed) = closed.iter().find(|closed| closed.value.contains(path)) {
            return Err(ResolveError::Denied {
                path: Box::new(path.clone()),
                closed: Box::new(closed.value.clone()),
                by: closed.source.clone(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> AbsolutePath {
        AbsolutePath::try_from(text.to_owned()).unwrap()
    }

    fn name(text: &str) -> PolicyName {
        text.parse().unwrap()
    }

    fn request(workspace: &str) -> Request {
        Request {
            workspace: path(workspace),
            user_home: path("/home/a"),
            session_home: path("/var/lib/oqto/sessions/1/home"),
            read: Vec::new(),
            closed: vec![path("/var/lib/oqto")],
            network_for: None,
            policy_at_most: None,
            workspace_file: None,
        }
    }

    fn catalog(policies: &[(&str, &str)]) -> Catalog {
        let mut catalog = Catalog::shipped();
        for (policy, text) in policies {
            catalog
                .add(name(policy), format!("{policy}.toml"), (*text).to_owned())
                .unwrap();
        }
        catalog
    }

    #[test]
    fn the_same_request_has_the_same_digest_and_another_workspace_has_another() {
        let digest = |workspace| {
            resolve(&Catalog::shipped(), &name("workspace"), &request(workspace))
                .unwrap()
                .digest()
        };
        assert_eq!(digest("/home/a/p"), digest("/home/a/p"));
        assert_ne!(digest("/home/a/p"), digest("/home/a/q"));
        assert_eq!(digest("/home/a/p").to_string().len(), 64);
    }

    #[test]
    fn a_plan_is_the_same_after_a_round_through_json() {
        let plan = resolve(&Catalog::shipped(), &name("open-net"), &request("/home/a/p")).unwrap();
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    }

    #[test]
    fn extending_adds_lists_and_replaces_single_values() {
        let catalog = catalog(&[(
            "mine",
            "description = \"d\"\nextends = \"workspace\"\n[filesystem]\nread = [\"/srv/x\"]\n[limits]\nprocesses = 7\n",
        )]);
        let base = resolve(&catalog, &name("workspace"), &request("/home/a/p")).unwrap();
        let mine = resolve(&catalog, &name("mine"), &request("/home/a/p")).unwrap();
        assert!(
            base.files
                .read
                .iter()
                .all(|known| mine.files.read.contains(known))
        );
        assert!(mine.files.read.contains(&path("/srv/x").into()));
        assert_eq!(
            (mine.limits.processes, mine.limits.open_files),
            (Some(7), base.limits.open_files)
        );
        assert_eq!(mine.calls, base.calls);
    }

    #[test]
    fn a_circle_of_policies_is_an_error() {
        let catalog = catalog(&[
            ("a", "description = \"d\"\nextends = \"b\"\n"),
            ("b", "description = \"d\"\nextends = \"a\"\n"),
        ]);
        let error = resolve(&catalog, &name("a"), &request("/home/a/p")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the policies a → b → a extend each other in a circle"
        );
    }

    #[test]
    fn a_harness_that_needs_a_network_is_told_which_policy_has_one() {
        let request = Request {
            network_for: Some("pi".to_owned()),
            ..request("/home/a/p")
        };
        let error = resolve(&Catalog::shipped(), &name("workspace"), &request).unwrap_err();
        assert!(error.to_string().contains("--policy open-net"), "{error}");
        assert!(resolve(&Catalog::shipped(), &name("open-net"), &request).is_ok());
    }

    #[test]
    fn no_policy_gives_the_hosts_processes_or_devices() {
        for (key, given) in [
            ("read", "/proc"),
            ("read", "/proc/1/root"),
            ("write", "/dev"),
            ("read", "/dev/shm"),
        ] {
            let text = format!(
                "description = \"d\"\nextends = \"workspace\"\n[filesystem]\n{key} = [\"{given}\"]\n"
            );
            let result = resolve(&catalog(&[("mine", &text)]), &name("mine"), &request("/home/a/p"));
            assert!(
                matches!(result, Err(ResolveError::Denied { .. })),
                "{key} {given}"
            );
        }
    }

    #[test]
    fn a_program_that_lies_among_other_peoples_things_does_not_bring_them_in() {
        let with = |program: &str| Request {
            read: vec![path(program)],
            ..request("/home/a/p")
        };
        let resolve = |program| resolve(&Catalog::shipped(), &name("workspace"), &with(program));
        for program in ["/home/a", "/home", "/tmp", "/"] {
            let error = resolve(program).unwrap_err();
            assert!(
                matches!(error, ResolveError::Installation { .. }),
                "{program}: {error}"
            );
        }
        // What the policy gives anyway is no reason.
        for program in ["/opt", "/usr/bin", "/home/a/.local/bin"] {
            resolve(program).unwrap();
        }
    }

    #[test]
    fn what_holds_more_than_a_project_is_no_workspace() {
        for workspace in [
            "/srv/a/.git",
            "/srv/a/.git/hooks",
            "/srv/a/.GIT/modules/b",
            "/",
            "/usr",
            "/etc/x",
            "/home",
            "/home/a",
            "/tmp",
            "/proc/1",
            "/var",
            "/root",
        ] {
            let result = resolve(&Catalog::shipped(), &name("workspace"), &request(workspace));
            assert!(
                matches!(result, Err(ResolveError::Workspace { .. })),
                "{workspace}"
            );
        }
        for workspace in ["/home/a/p", "/tmp/p", "/srv/p", "/opt/p", "/data/p"] {
            assert!(
                resolve(&Catalog::shipped(), &name("workspace"), &request(workspace)).is_ok(),
                "{workspace}"
            );
        }
    }

    #[test]
    fn nothing_denied_and_nothing_of_the_runner_is_given() {
        for workspace in [
            "/home/a/.ssh",
            "/home/a/.aws/x",
            "/var/lib/oqto",
            "/var/lib/oqto/sessions/2/home",
        ] {
            let result = resolve(&Catalog::shipped(), &name("workspace"), &request(workspace));
            assert!(matches!(result, Err(ResolveError::Denied { .. })), "{workspace}");
        }
        let catalog = catalog(&[(
            "mine",
            "description = \"d\"\nextends = \"workspace\"\n[filesystem]\nread = [\"~/.ssh/known_hosts\"]\n",
        )]);
        let result = resolve(&catalog, &name("mine"), &request("/home/a/p"));
        assert!(matches!(result, Err(ResolveError::Denied { .. })));
    }

    #[test]
    fn an_unknown_group_is_answered_with_the_known_ones() {
        let catalog = catalog(&[(
            "mine",
            "description = \"d\"\nextends = \"workspace\"\n[seccomp]\ngroups = [\"mount\"]\n",
        )]);
        let error = resolve(&catalog, &name("mine"), &request("/home/a/p"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("mine.toml:4: groups names the group mount; did you mean mounts? "),
            "{error}"
        );
    }
}
