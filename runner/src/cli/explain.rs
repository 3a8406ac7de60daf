//! The door `sandbox explain`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::policy::{Limit, Need, Network, Otherwise, PolicyName, Source};
use crate::sandbox::explain::{
    Answer, Explanation, NamedRule, PathAnswer, PathRule, PermissionRules, PortRule, Question, explain as ask,
};

/// `sandbox explain`.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// The policy to explain
    #[arg(long, value_name = "NAME", default_value = "workspace")]
    policy: PolicyName,
    /// A directory of policies beside the shipped ones
    #[arg(long, value_name = "DIR")]
    policy_dir: Option<PathBuf>,
    /// A policy that must not be gone beyond
    #[arg(long, value_name = "NAME")]
    at_most: Option<PolicyName>,
    /// The workspace
    #[arg(long, value_name = "DIR", default_value = ".")]
    cwd: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    /// Say for each of these whether it may be read, written and run; relative ones are below the workspace
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Runs `sandbox explain`.
pub(super) fn explain(args: ExplainArgs) -> ExitCode {
    let ExplainArgs {
        policy,
        policy_dir,
        at_most,
        cwd,
        json,
        paths,
    } = args;
    let question = Question {
        policy,
        policy_dir,
        policy_at_most: at_most,
        workspace: cwd,
        paths,
    };
    let explained = match ask(&question) {
        Ok(explained) => explained,
        Err(error) => return super::failed(&error),
    };
    let text = if json {
        let json = serde_json::to_string(&explained).expect("rules are texts and numbers");
        format!("{json}\n")
    } else if explained.paths.is_empty() {
        whole(&explained)
    } else {
        explained.paths.iter().map(one).collect()
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::failed(&error),
    }
}

/// One line a rule: what it says, and who said it.
struct Page(String);

impl Page {
    fn title(&mut self, text: &str) {
        let _infallible = writeln!(self.0, "\n{text}");
    }

    fn line(&mut self, what: &str, rule: &Source) {
        let _infallible = writeln!(self.0, "  {what:<58}  {rule}");
    }

    fn files(&mut self, title: &str, rules: &[PathRule]) {
        if rules.is_empty() {
            return;
        }
        self.title(title);
        for PathRule { path, found, rule } in rules {
            let found = match found {
                0 => " (not here)".to_owned(),
                1 => String::new(),
                many => format!(" ({many} here)"),
            };
            self.line(&format!("{path}{found}"), rule);
        }
    }

    fn permissions(&mut self, permissions: &PermissionRules) {
        self.title("when the agent asks to be allowed something");
        for rule in &permissions.deny {
            self.line(&format!("denied: {}", rule.request), &rule.rule);
        }
        for rule in &permissions.allow {
            self.line(&format!("allowed: {}", rule.request), &rule.rule);
        }
        let otherwise = match permissions.otherwise {
            Otherwise::Allow => "otherwise allowed",
            Otherwise::Ask => "otherwise somebody is asked",
            Otherwise::Deny => "otherwise denied",
        };
        self.line(otherwise, &permissions.otherwise_rule);
        let timeout = format!("denied after {} s without an answer", permissions.timeout_s);
        self.line(&timeout, &permissions.timeout_rule);
    }

    fn groups(&mut self, title: &str, rules: &[NamedRule]) {
        self.title(title);
        for NamedRule { group, rule } in rules {
            self.line(group, rule);
        }
    }
}

fn whole(explained: &Explanation) -> String {
    let Explanation {
        policy,
        workspace,
        digest,
        read,
        write,
        deny,
        mask,
        protect,
        network,
        env,
        refused_calls,
        allowed_calls,
        limits,
        layers,
        permissions,
        paths: _,
    } = explained;
    let mut page = Page(format!(
        "policy {policy} in {}\nplan {digest}\n",
        workspace.display()
    ));
    page.files("may be written, read and run", write);
    page.files("may be read and run", read);
    page.files("is empty, and refused to whoever asks for it", deny);
    page.files("is empty", mask);
    page.files("is never written", protect);
    page.title("may be reached");
    page.line(
        match network.mode {
            Network::None => "nothing but the sandbox's own loopback",
            Network::Host => "whatever the host reaches",
        },
        &network.rule,
    );
    for (what, rule) in [
        ("by TCP, connecting to", &network.connect_tcp),
        ("by TCP, listening on", &network.bind_tcp),
    ] {
        if let Some(PortRule { ports, rule }) = rule {
            page.line(&format!("{what} {ports:?} only"), rule);
        }
    }
    page.title("variables");
    for variable in env {
        let what = match &variable.value {
            Some(value) => format!("{} = {value}", variable.name),
            None => format!("{} of whoever starts it", variable.name),
        };
        page.line(&what, &variable.rule);
    }
    page.groups("system calls that are refused, by group", refused_calls);
    match allowed_calls {
        Some(allowed) => page.groups("and of the others only these are allowed, by group", allowed),
        None => page.title("every other system call is allowed"),
    }
    page.title("limits");
    for limit in limits {
        page.line(&format!("{} = {}", limit.limit.name(), limit.value), &limit.rule);
    }
    let unlimited = Limit::ALL
        .iter()
        .filter(|limit| !limits.iter().any(|said| said.limit == **limit));
    let unlimited: Vec<&str> = unlimited.map(|limit| limit.name()).collect();
    let _infallible = writeln!(page.0, "  not limited: {}", unlimited.join(", "));
    page.title("layers");
    for layer in layers {
        let need = match layer.need {
            Need::Required => "required",
            Need::IfAvailable => "if available",
        };
        page.line(&format!("{} is {need}", layer.layer.name()), &layer.rule);
    }
    page.permissions(permissions);
    page.0
}

fn one(answer: &PathAnswer) -> String {
    let PathAnswer {
        asked,
        path,
        exists,
        read,
        write,
        execute,
    } = answer;
    let mut text = asked.display().to_string();
    if asked != path {
        let _infallible = write!(text, " is {}", path.display());
    }
    text += if *exists { "\n" } else { " (not here)\n" };
    for (what, answer) in [("read", read), ("write", write), ("execute", execute)] {
        let Answer {
            allowed,
            why,
            path,
            rule,
        } = answer;
        let allowed = if *allowed { "yes" } else { "no" };
        let _infallible = write!(text, "  {what:<8} {allowed:<4}{why}");
        if let Some(path) = path {
            let _infallible = write!(text, ": {path}");
        }
        if let Some(rule) = rule {
            let _infallible = write!(text, "  {rule}");
        }
        text.push('\n');
    }
    text
}
