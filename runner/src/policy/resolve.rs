//! One policy, with what it extends, meets one request.

use std::collections::BTreeMap;

use super::catalog::{Catalog, CatalogError, PolicyName};
use super::document::Policy;
use super::path::{AbsolutePath, Template};
use super::plan::{Calls, Environment, Files, Layers, Limits, Network, Plan, Ports};
use super::seccomp::Denial;

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
}

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
    /// Policies extend each other in a circle.
    #[error("the policies {} extend each other in a circle", chain_text(chain))]
    Circle {
        /// Who extends whom; the last is the first again.
        chain: Vec<PolicyName>,
    },
    /// A policy names a group of system calls that does not exist.
    #[error("policy {policy} names the seccomp group {group}; there are {}", known.join(", "))]
    UnknownGroup {
        /// Which policy.
        policy: PolicyName,
        /// What it names.
        group: String,
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
    #[error("{path} cannot be given to a session: {closed} is closed to it")]
    Denied {
        /// What was asked for.
        path: AbsolutePath,
        /// What it lies in.
        closed: AbsolutePath,
    },
}

fn chain_text(chain: &[PolicyName]) -> String {
    chain
        .iter()
        .map(PolicyName::as_str)
        .collect::<Vec<_>>()
        .join(" → ")
}

/// Joins the policy `name` with the request.
///
/// A policy adds its lists to those of what it extends, and its single values replace them.
///
/// # Errors
///
/// See [`ResolveError`]; nothing is ever left out to make a request fit.
pub fn resolve(catalog: &Catalog, name: &PolicyName, request: &Request) -> Result<Plan, ResolveError> {
    let Merged {
        read,
        write,
        deny,
        mask,
        protect,
        env,
        network,
        groups,
        limits,
        layers,
    } = merge(catalog, name)?;
    let network = network.ok_or_else(|| ResolveError::NoNetworkMode { policy: name.clone() })?;
    if let (Network::None, Some(harness)) = (network, &request.network_for) {
        return Err(ResolveError::NoNetwork {
            policy: name.clone(),
            harness: harness.clone(),
        });
    }
    check_workspace(request)?;

    let expand = |templates: &[Template]| -> Vec<AbsolutePath> {
        let mut paths: Vec<_> = templates
            .iter()
            .map(|path| path.expand(&request.user_home, &request.workspace))
            .collect();
        paths.sort();
        paths.dedup();
        paths
    };
    let mut read = expand(&read);
    for path in &request.read {
        let what =
            shared(path, &request.user_home).filter(|_| !read.iter().any(|given| path.is_within(given)));
        if let Some(what) = what {
            let path = path.clone();
            return Err(ResolveError::Installation { path, what });
        }
    }
    read.extend(request.read.iter().cloned());
    let write = expand(&write);
    let mut closed = expand(&deny);
    closed.extend(request.closed.iter().cloned());
    let kernel = ["/proc", "/dev"].map(|path| AbsolutePath::try_from(path.to_owned()));
    let kernel: Vec<_> = kernel.into_iter().flatten().collect();
    // The host's would cover the sandbox's own, and show other processes and their memory.
    check_closed(&kernel, read.iter().chain(&write))?;
    check_closed(&closed, read.iter().chain(&write).chain([&request.workspace]))?;

    let mut hidden = closed;
    hidden.extend(expand(&mask));
    Ok(Plan {
        policy: name.clone(),
        workspace: request.workspace.clone(),
        home: request.session_home.clone(),
        files: Files {
            read,
            write,
            hidden,
            protect: expand(&protect),
        },
        env,
        network,
        ports: Ports::default(),
        calls: Calls {
            denied: denials(catalog, &groups)?,
            allowed: None,
        },
        limits,
        layers,
    })
}

/// A policy with everything it extends.
#[derive(Default)]
struct Merged {
    read: Vec<Template>,
    write: Vec<Template>,
    deny: Vec<Template>,
    mask: Vec<Template>,
    protect: Vec<Template>,
    env: Environment,
    network: Option<Network>,
    /// By name, with the policy that named it first.
    groups: BTreeMap<String, PolicyName>,
    limits: Limits,
    layers: Layers,
}

fn merge(catalog: &Catalog, name: &PolicyName) -> Result<Merged, ResolveError> {
    let mut chain: Vec<(PolicyName, Policy)> = Vec::new();
    let mut next = Some(name.clone());
    while let Some(name) = next {
        if chain.iter().any(|(seen, _)| *seen == name) {
            let chain = chain.into_iter().map(|(seen, _)| seen).chain([name]).collect();
            return Err(ResolveError::Circle { chain });
        }
        let policy = catalog.policy(&name)?;
        next = policy.extends.clone();
        chain.push((name, policy));
    }
    let mut merged = Merged::default();
    for (name, policy) in chain.into_iter().rev() {
        merged.add(&name, policy);
    }
    Ok(merged)
}

impl Merged {
    fn add(&mut self, name: &PolicyName, policy: Policy) {
        let Policy {
            description: _,
            extends: _,
            read,
            write,
            deny,
            mask,
            protect,
            set,
            pass,
            network,
            groups,
            limits,
            layers,
        } = policy;
        self.read.extend(read);
        self.write.extend(write);
        self.deny.extend(deny);
        self.mask.extend(mask);
        self.protect.extend(protect);
        self.env.set.extend(set);
        self.env.pass.extend(pass);
        self.network = network.or(self.network);
        for group in groups {
            self.groups.entry(group).or_insert_with(|| name.clone());
        }
        let Limits {
            process_memory_mib,
            memory_mib,
            cpu_percent,
            processes,
            open_files,
            process_cpu_seconds,
            file_size_mib,
            core_mib,
            tmp_mib,
        } = limits;
        let old = std::mem::take(&mut self.limits);
        self.limits = Limits {
            process_memory_mib: process_memory_mib.or(old.process_memory_mib),
            memory_mib: memory_mib.or(old.memory_mib),
            cpu_percent: cpu_percent.or(old.cpu_percent),
            processes: processes.or(old.processes),
            open_files: open_files.or(old.open_files),
            process_cpu_seconds: process_cpu_seconds.or(old.process_cpu_seconds),
            file_size_mib: file_size_mib.or(old.file_size_mib),
            core_mib: core_mib.or(old.core_mib),
            tmp_mib: tmp_mib.or(old.tmp_mib),
        };
        self.layers = Layers {
            namespaces: self.layers.namespaces,
            cgroup: super::plan::Need::IfAvailable,
            cgroup_namespace: layers.cgroup_namespace.unwrap_or(self.layers.cgroup_namespace),
            landlock: layers.landlock.unwrap_or(self.layers.landlock),
            seccomp: layers.seccomp.unwrap_or(self.layers.seccomp),
        };
    }
}

fn denials(catalog: &Catalog, groups: &BTreeMap<String, PolicyName>) -> Result<Vec<Denial>, ResolveError> {
    let known = catalog.groups()?;
    let mut denials = Vec::new();
    for (group, policy) in groups {
        let found = known.group(group).ok_or_else(|| ResolveError::UnknownGroup {
            policy: policy.clone(),
            group: group.clone(),
            known: known.names().map(str::to_owned).collect(),
        })?;
        denials.extend_from_slice(found);
    }
    Ok(denials)
}

/// Directories of the system, which hold more than one project. Nothing below them is a workspace either.
const SYSTEM: &[&str] = &[
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/proc", "/run", "/sbin",
    "/sys", "/usr",
];

/// Directories that hold other people's things. What lies below them may be a workspace.
const SHARED: &[&str] = &[
    "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var", "/var/lib", "/var/tmp",
];

fn check_workspace(request: &Request) -> Result<(), ResolveError> {
    let Request {
        workspace, user_home, ..
    } = request;
    let what = if SYSTEM.iter().any(|path| workspace.as_path().starts_with(path)) {
        "part of the system"
    } else if workspace
        .as_path()
        .iter()
        .any(|part| part.eq_ignore_ascii_case(".git"))
    {
        "part of a repository's own directory, where others find programs to run"
    } else if let Some(what) = shared(workspace, user_home) {
        what
    } else {
        return Ok(());
    };
    Err(ResolveError::Workspace {
        workspace: workspace.clone(),
        what,
    })
}

/// What of other people's a directory holds, if it does.
fn shared(path: &AbsolutePath, user_home: &AbsolutePath) -> Option<&'static str> {
    if path.as_str() == "/" {
        Some("the whole host")
    } else if SHARED.contains(&path.as_str()) {
        Some("a directory of the system")
    } else if path == user_home {
        Some("a home directory, with all that is in it")
    } else if user_home.is_within(path) {
        Some("a directory with a home directory in it")
    } else {
        None
    }
}

fn check_closed<'a>(
    closed: &[AbsolutePath],
    asked: impl Iterator<Item = &'a AbsolutePath>,
) -> Result<(), ResolveError> {
    for path in asked {
        if let Some(closed) = closed.iter().find(|closed| path.is_within(closed)) {
            return Err(ResolveError::Denied {
                path: path.clone(),
                closed: closed.clone(),
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
        assert!(mine.files.read.contains(&path("/srv/x")));
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
            error.contains("names the seccomp group mount") && error.contains("mounts"),
            "{error}"
        );
    }
}
