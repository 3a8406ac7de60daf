//! What a policy allows on this host, rule by rule, with who said each: `sandbox explain`.
//!
//! Made of the very plan that a sandbox would be made of, and of the answers that the plan gives of itself. What a
//! rule says without the disk is the policy's word; what is there of it is looked up as for a sandbox.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use oqto_protocol::id::Digest;
use serde::Serialize;

use super::expand::Expansion;
use super::policies::catalog;
use super::principal::Principal;
use super::run::{Asked, RunError, absolute};
use super::view::ViewError;
use crate::policy::{
    Because, LayerName, Limit, Need, Network, Otherwise, Pattern, PermissionRule, Plan, PolicyName, Resolved,
    Rule, Source, Sources, trace,
};

/// What to explain.
#[derive(Clone, Debug)]
pub struct Question {
    /// Which policy.
    pub policy: PolicyName,
    /// A directory of policies beside the shipped ones.
    pub policy_dir: Option<PathBuf>,
    /// A policy that it must not go beyond.
    pub policy_at_most: Option<PolicyName>,
    /// In which workspace.
    pub workspace: PathBuf,
    /// Paths to answer for.
    pub paths: Vec<PathBuf>,
}

/// What a policy allows here.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// Which policy.
    pub policy: PolicyName,
    /// Where a program would work.
    pub workspace: PathBuf,
    /// The plan's name, as `sandbox run` enforces it.
    pub digest: Digest,
    /// Readable and executable.
    pub read: Vec<PathRule>,
    /// Writable too.
    pub write: Vec<PathRule>,
    /// Empty, and refused to whoever asks.
    pub deny: Vec<PathRule>,
    /// Empty.
    pub mask: Vec<PathRule>,
    /// Never writable.
    pub protect: Vec<PathRule>,
    /// The network, and the ports of it.
    pub network: NetworkRules,
    /// Variables.
    pub env: Vec<VariableRule>,
    /// Groups of system calls that are refused.
    pub refused_calls: Vec<NamedRule>,
    /// Groups of system calls that are allowed; `None` means every call that is not refused.
    pub allowed_calls: Option<Vec<NamedRule>>,
    /// Limits.
    pub limits: Vec<LimitRule>,
    /// Layers.
    pub layers: Vec<LayerRule>,
    /// Who answers a harness that asks to be allowed something.
    pub permissions: PermissionRules,
    /// The answers for the paths that were asked for.
    pub paths: Vec<PathAnswer>,
}

/// A rule of files.
#[derive(Debug, Serialize)]
pub struct PathRule {
    /// Which files.
    pub path: String,
    /// How many there are on this host; of a plain path 0 or 1.
    pub found: usize,
    /// Who said it.
    pub rule: Source,
}

/// The network.
#[derive(Debug, Serialize)]
pub struct NetworkRules {
    /// Which one.
    pub mode: Network,
    /// Who said it.
    pub rule: Source,
    /// The TCP ports that may be connected to, where not every one.
    pub connect_tcp: Option<PortRule>,
    /// The TCP ports that may be listened on, where not every one.
    pub bind_tcp: Option<PortRule>,
}

/// Ports.
#[derive(Debug, Serialize)]
pub struct PortRule {
    /// Which ones.
    pub ports: Vec<u16>,
    /// Who said it.
    pub rule: Source,
}

/// A variable.
#[derive(Debug, Serialize)]
pub struct VariableRule {
    /// Its name.
    pub name: String,
    /// Its value; `None` means that of whoever starts the session.
    pub value: Option<String>,
    /// Who said it.
    pub rule: Source,
}

/// A group of system calls.
#[derive(Debug, Serialize)]
pub struct NamedRule {
    /// Its name.
    pub group: String,
    /// Who said it.
    pub rule: Source,
}

/// A limit.
#[derive(Debug, Serialize)]
pub struct LimitRule {
    /// Of what.
    pub limit: Limit,
    /// How much.
    pub value: u64,
    /// Who said it.
    pub rule: Source,
}

/// A layer.
#[derive(Debug, Serialize)]
pub struct LayerRule {
    /// Which.
    pub layer: LayerName,
    /// Whether it may be missing.
    pub need: Need,
    /// Who said it.
    pub rule: Source,
}

/// Who answers a harness that asks to be allowed something.
#[derive(Debug, Serialize)]
pub struct PermissionRules {
    /// What is denied.
    pub deny: Vec<RequestRule>,
    /// What is allowed, of the rest.
    pub allow: Vec<RequestRule>,
    /// What becomes of all else.
    pub otherwise: Otherwise,
    /// Who said so.
    pub otherwise_rule: Source,
    /// After how many seconds without an answer it is denied.
    pub timeout_s: u32,
    /// Who said so.
    pub timeout_rule: Source,
}

/// A rule of what a harness asks for.
#[derive(Debug, Serialize)]
pub struct RequestRule {
    /// The tool and what it works on, as a policy writes it.
    pub request: String,
    /// Who said it.
    pub rule: Source,
}

fn permission_rule(rule: &PermissionRule, source: Source) -> RequestRule {
    RequestRule {
        request: rule.to_string(),
        rule: source,
    }
}

/// What may be done at one path.
#[derive(Debug, Serialize)]
pub struct PathAnswer {
    /// The path that was asked for.
    pub asked: PathBuf,
    /// The same without links.
    pub path: PathBuf,
    /// Whether anything is there on the host.
    pub exists: bool,
    /// Whether it may be read.
    pub read: Answer,
    /// Whether it may be changed.
    pub write: Answer,
    /// Whether it may be run, as far as its own mode allows.
    pub execute: Answer,
}

/// Yes or no, and why.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// Yes or no.
    pub allowed: bool,
    /// Why, in words.
    pub why: &'static str,
    /// The files that the rule speaks of.
    pub path: Option<String>,
    /// Who said the rule; `None` where there is none.
    pub rule: Option<Source>,
}

/// Explains a policy. Nothing is run, and this process stays who it is.
///
/// # Errors
///
/// As `sandbox run` would fail before it starts anything.
pub fn explain(question: &Question) -> Result<Explanation, RunError> {
    let Question {
        policy,
        policy_dir,
        policy_at_most,
        workspace,
        paths,
    } = question;
    let workspace = fs::canonicalize(workspace).map_err(|source| RunError::Workspace {
        path: workspace.clone(),
        source,
    })?;
    let catalog = catalog(policy_dir.as_deref())?;
    let env: BTreeMap<OsString, OsString> = env::vars_os().collect();
    let principal = Principal::choose(None, &workspace)?;
    let asked = Asked {
        workspace: &workspace,
        principal: &principal,
        env: &env,
        policy_dir: policy_dir.as_deref(),
        policy_at_most: policy_at_most.as_ref(),
    };
    // The home of a session that is never made; no rule names it.
    let request = asked.request(&env::temp_dir().join("oqto-run"))?;
    let resolved = trace(&catalog, policy, &request)?;
    let paths = paths
        .iter()
        .map(|path| answer(&resolved, &workspace, path))
        .collect::<Result<_, _>>()?;
    Ok(rules(&resolved, workspace, paths)?)
}

fn rules(resolved: &Resolved, workspace: PathBuf, paths: Vec<PathAnswer>) -> Result<Explanation, ViewError> {
    let Resolved { plan, sources } = resolved;
    let mut expansion = Expansion::default();
    let mut read = Vec::new();
    let (mut write, mut deny, mut mask, mut protect) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut variables = Vec::new();
    let (mut refused, mut allowed) = (Vec::new(), Vec::new());
    let (mut limits, mut layers) = (Vec::new(), Vec::new());
    let (mut permitted, mut forbidden) = (Vec::new(), Vec::new());
    for (rule, source) in sources {
        let mut files = |list: &mut Vec<PathRule>, pattern| -> Result<(), ViewError> {
            list.push(path_rule(&mut expansion, pattern, source)?);
            Ok(())
        };
        let source = source.clone();
        match rule {
            Rule::Read(pattern) => files(&mut read, pattern)?,
            Rule::Write(pattern) => files(&mut write, pattern)?,
            Rule::Deny(pattern) => files(&mut deny, pattern)?,
            Rule::Mask(pattern) => files(&mut mask, pattern)?,
            Rule::Protect(pattern) => files(&mut protect, pattern)?,
            Rule::Set(name) => variables.push(VariableRule {
                name: name.clone(),
                value: plan.env.set.get(name).cloned(),
                rule: source,
            }),
            Rule::Pass(name) if plan.env.set.contains_key(name) => {}
            Rule::Pass(name) => variables.push(VariableRule {
                name: name.clone(),
                value: None,
                rule: source,
            }),
            Rule::Group(name) => refused.push(NamedRule {
                group: name.clone(),
                rule: source,
            }),
            Rule::Allow(name) => allowed.push(NamedRule {
                group: name.clone(),
                rule: source,
            }),
            Rule::Limit(limit) => limits.extend(plan.limits.limit(*limit).map(|value| LimitRule {
                limit: *limit,
                value,
                rule: source,
            })),
            Rule::Layer(layer) => layers.push(LayerRule {
                layer: *layer,
                need: plan.layers.need(*layer),
                rule: source,
            }),
            Rule::Permit(rule) => permitted.push(permission_rule(rule, source)),
            Rule::Forbid(rule) => forbidden.push(permission_rule(rule, source)),
            Rule::Network | Rule::Connect | Rule::Bind | Rule::Otherwise | Rule::Timeout => {}
        }
    }
    Ok(Explanation {
        policy: plan.policy.clone(),
        workspace,
        digest: plan.digest(),
        read,
        write,
        deny,
        mask,
        protect,
        network: network(plan, sources),
        env: variables,
        refused_calls: refused,
        allowed_calls: plan.calls.allowed.as_ref().map(|_| allowed),
        limits,
        layers,
        permissions: PermissionRules {
            deny: forbidden,
            allow: permitted,
            otherwise: plan.permissions.otherwise,
            otherwise_rule: sources.get(&Rule::Otherwise).cloned().unwrap_or(Source::Runner),
            timeout_s: plan.permissions.timeout_s,
            timeout_rule: sources.get(&Rule::Timeout).cloned().unwrap_or(Source::Runner),
        },
        paths,
    })
}

fn network(plan: &Plan, sources: &Sources) -> NetworkRules {
    let source = |rule| sources.get(&rule).cloned().unwrap_or(Source::Runner);
    let ports = |ports: &Option<std::collections::BTreeSet<u16>>, rule| {
        ports.as_ref().map(|ports| PortRule {
            ports: ports.iter().copied().collect(),
            rule: source(rule),
        })
    };
    NetworkRules {
        mode: plan.network,
        rule: source(Rule::Network),
        connect_tcp: ports(&plan.ports.connect, Rule::Connect),
        bind_tcp: ports(&plan.ports.bind, Rule::Bind),
    }
}

fn path_rule(expansion: &mut Expansion, pattern: &Pattern, source: &Source) -> Result<PathRule, ViewError> {
    let paths = expansion.paths(pattern)?;
    Ok(PathRule {
        path: pattern.to_string(),
        // What may not be looked at is there.
        found: paths
            .iter()
            .filter(|path| !fs::symlink_metadata(path).is_err_and(|error| super::view::is_absent(&error)))
            .count(),
        rule: source.clone(),
    })
}

fn answer(resolved: &Resolved, workspace: &Path, asked: &Path) -> Result<PathAnswer, RunError> {
    let plain = without_links(&workspace.join(asked));
    let path = absolute(&plain)?;
    let verdict = resolved.plan.file(&path);
    let say = |allowed, because| {
        let (why, rules) = match because {
            Because::Read(pattern) => ("readable", vec![Rule::Read(pattern.clone())]),
            Because::Write(pattern) => ("writable", vec![Rule::Write(pattern.clone())]),
            Because::Hidden(pattern) => (
                "hidden",
                vec![Rule::Deny(pattern.clone()), Rule::Mask(pattern.clone())],
            ),
            Because::Protected(pattern) => ("protected", vec![Rule::Protect(pattern.clone())]),
            Because::Own => ("the sandbox's own, the host's is out of sight", Vec::new()),
            Because::NotGiven => ("no rule gives it", Vec::new()),
        };
        Answer {
            allowed,
            why,
            path: match because {
                Because::Read(pattern)
                | Because::Write(pattern)
                | Because::Hidden(pattern)
                | Because::Protected(pattern) => Some(pattern.to_string()),
                Because::Own | Because::NotGiven => None,
            },
            rule: rules.iter().find_map(|rule| resolved.sources.get(rule).cloned()),
        }
    };
    Ok(PathAnswer {
        asked: asked.to_owned(),
        exists: fs::symlink_metadata(&plain).is_ok(),
        read: say(verdict.read, verdict.read_because),
        write: say(verdict.write, verdict.write_because),
        execute: say(verdict.read, verdict.read_because),
        path: plain,
    })
}

/// The path as the kernel would take it: links of what exists are followed, and the rest is added as it is.
fn without_links(path: &Path) -> PathBuf {
    let mut rest: Vec<Component<'_>> = Vec::new();
    for (above, part) in path.ancestors().zip(path.components().rev()) {
        if let Ok(real) = fs::canonicalize(above) {
            return rest.iter().rev().fold(real, |path, part| match part {
                Component::ParentDir => path.parent().map(Path::to_owned).unwrap_or(path),
                part => path.join(part),
            });
        }
        rest.push(part);
    }
    path.to_owned()
}
