//! The escape matrix: every attempt, under every policy, with all layers and with some left out.
//!
//! For each policy and each claim that a set of layers stops an attempt, the attempt is made with these layers alone.
//! That an attempt is one at all is shown by a run without any layer, and by one without any sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use oqto_runner::policy::{AbsolutePath, Catalog, Network, Plan, PolicyName, Request, resolve};
use oqto_tests::not_run;

use crate::attempt::{Attempt, LAYERS, Layers, Outcome, Said, Trait};
use crate::bait::{APPEARING, Bait, LIMITS, VARIABLE};
use crate::bed::{SOMEBODY, end, end_from, is_root, runner, weak};

/// Under what attempts are made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Run {
    /// In a sandbox without these layers.
    Without(Layers),
    /// In none.
    Bare,
}

/// Everything that was tried under one policy.
struct Matrix {
    policy: PolicyName,
    traits: BTreeSet<Trait>,
    attempts: Vec<Attempt>,
    runs: BTreeMap<Run, BTreeMap<String, Outcome>>,
}

/// What sets a policy apart.
pub(crate) fn traits(policy: &PolicyName) -> BTreeSet<Trait> {
    let path = |path: &str| AbsolutePath::try_from(Path::new(path)).unwrap();
    let request = Request {
        workspace: path("/home/somebody/workspace"),
        user_home: path("/home/somebody"),
        session_home: path("/home/session"),
        read: Vec::new(),
        closed: Vec::new(),
        network_for: None,
        policy_at_most: None,
        workspace_file: None,
    };
    let plan: Plan = resolve(&Catalog::shipped(), policy, &request).unwrap();
    let written = plan
        .files
        .write
        .iter()
        .any(|given| given.matches(&plan.workspace));
    let found = [
        (plan.network == Network::Host, Trait::Network),
        (!written, Trait::ReadOnly),
        (plan.calls.allowed.is_some(), Trait::Strict),
    ];
    found
        .into_iter()
        .filter(|(has, _)| *has)
        .map(|(_, of)| of)
        .collect()
}

/// Every layer but these.
fn all_but(layers: &Layers) -> Layers {
    LAYERS
        .into_iter()
        .filter(|layer| !layers.contains(layer))
        .collect()
}

impl Matrix {
    fn of(policy: &str) -> Self {
        let policy: PolicyName = policy.parse().unwrap();
        let traits = traits(&policy);
        let mut matrix = Self {
            policy,
            traits,
            attempts: Attempt::all(),
            runs: BTreeMap::new(),
        };
        for run in matrix.wanted() {
            let outcomes = matrix.run(&run);
            matrix.runs.insert(run, outcomes);
        }
        matrix
    }

    /// All layers, each one left out, each claim alone, none, and no sandbox.
    fn wanted(&self) -> BTreeSet<Run> {
        let claims = self
            .attempts
            .iter()
            .flat_map(|attempt| attempt.claims(&self.traits));
        let alone = claims.map(|claim| all_but(&claim));
        let each = LAYERS.into_iter().map(|layer| Layers::from([layer]));
        let ends = [Layers::new(), LAYERS.into()];
        let mut wanted: BTreeSet<Run> = alone.chain(each).chain(ends).map(Run::Without).collect();
        wanted.insert(Run::Bare);
        wanted
    }

    fn run(&self, run: &Run) -> BTreeMap<String, Outcome> {
        let bait = Bait::lay(&self.traits, &weak());
        // As people start it: on a terminal.
        let terminal = nix::pty::openpty(None, None).unwrap();
        let ended = end_from(&mut self.command(run, &bait), terminal.slave);
        assert!(
            ended.code == 0,
            "{} {run:?}: {}\n{}",
            self.policy,
            ended.err,
            ended.out
        );
        let secret = bait.secret.clone();
        let marks = bait.marks();
        let mut outcomes = BTreeMap::new();
        for line in ended.out.lines() {
            let said: Said = serde_json::from_str(line).unwrap();
            let name = said.name.clone();
            let attempt = self.attempts.iter().find(|attempt| attempt.name == name).unwrap();
            outcomes.insert(name, said.judge(attempt.proof, &secret, &marks));
        }
        assert_eq!(
            outcomes.len(),
            self.attempts.len(),
            "{run:?}: some said nothing: {}",
            ended.err
        );
        outcomes
    }

    /// The attempts in a sandbox of this policy with small limits and something masked, or in none.
    fn command(&self, run: &Run, bait: &Bait) -> Command {
        let bed = &bait.bed;
        // Descriptors that were left open are part of what it is started with.
        let mut command = Command::new("sh");
        command.args(["-c", "exec 7<\"$1\" 9<\"$1\"; shift; exec \"$@\"", "sh"]);
        command.arg(bed.path("outside/.ssh/id"));
        match run {
            Run::Bare if is_root() => {
                let id = SOMEBODY.to_string();
                command.args([
                    "setpriv",
                    "--reuid",
                    &id,
                    "--regid",
                    &id,
                    "--clear-groups",
                    "--inh-caps=-all",
                ]);
            }
            Run::Bare => {}
            Run::Without(layers) => {
                command.arg(weak());
                for layer in layers {
                    command.args(["--without", layer]);
                }
                command
                    .args(["--policy", "tried", "--policy-dir"])
                    .arg(self.tried(bait));
                command.arg("--cwd").arg(bed.workspace()).arg("--");
            }
        }
        command
            .args(["/usr/bin/python3", "-B"])
            .arg(bed.path("workspace/attempts/main.py"));
        command
            .arg(bed.path("workspace/bait.json"))
            .current_dir(bed.workspace());
        command
            .env(VARIABLE, &bait.secret)
            .env("SSH_AUTH_SOCK", bed.path("outside/sockets/ssh-agent"));
        command
            .env("HOME", bed.path("outside/home"))
            .env("XDG_STATE_HOME", bed.path("outside/state"));
        command
    }

    /// A policy that is the shipped one but for limits that are reached in a moment, and something to mask.
    fn tried(&self, bait: &Bait) -> PathBuf {
        let mut text = format!(
            "description = \"to be tried\"\nextends = \"{}\"\n[filesystem]\n\
             mask = [\"$WORKSPACE/masked\", \"$WORKSPACE/masked-too\"]\n[limits]\n",
            self.policy
        );
        for (name, limit) in LIMITS {
            writeln!(text, "{name} = {limit}").unwrap();
        }
        bait.bed.policy("tried", &text)
    }

    fn outcome(&self, run: &Run, attempt: &Attempt) -> &Outcome {
        &self.runs[run][&attempt.name]
    }

    fn without(&self, layers: Layers, attempt: &Attempt) -> &Outcome {
        self.outcome(&Run::Without(layers), attempt)
    }

    /// Everything that is not as it is claimed.
    fn faults(&self) -> Vec<String> {
        self.attempts
            .iter()
            .flat_map(|attempt| self.faults_of(attempt))
            .collect()
    }

    fn faults_of(&self, attempt: &Attempt) -> Vec<String> {
        let claims = attempt.claims(&self.traits);
        let mut faults = Vec::new();
        let mut fault = |run: &str, outcome: &Outcome| {
            faults.push(format!("{}: {}, {run}: {outcome:?}", self.policy, attempt.name));
        };
        for (run, outcomes) in &self.runs {
            if let outcome @ Outcome::Broken(_) = &outcomes[&attempt.name] {
                fault(&format!("{run:?}"), outcome);
            }
        }
        let all = self.without(Layers::new(), attempt);
        if escaped(all) && !(claims.is_empty() && attempt.ground.is_empty()) {
            fault("with all layers", all);
        }
        for claim in &claims {
            let outcome = self.without(all_but(claim), attempt);
            if escaped(outcome) {
                fault(&format!("with {claim:?} alone"), outcome);
            }
            let said = !attempt.ground.is_empty() || !attempt.depends.is_empty();
            if !said && !self.shows(claim, attempt) && self.could(attempt) {
                let outcome = self.without(LAYERS.into(), attempt);
                fault(&format!("it is not {claim:?} that stop it"), outcome);
            }
        }
        for layer in LAYERS {
            let outcome = self.without(Layers::from([layer]), attempt);
            if escaped(outcome) && claims.iter().any(|claim| !claim.contains(layer)) {
                fault(&format!("without {layer}"), outcome);
            }
        }
        if !self.runs.keys().any(|run| escaped(self.outcome(run, attempt))) {
            self.never(attempt, &mut fault);
        }
        faults
    }

    /// Whether these layers make a difference: it gets out where they are left out.
    fn shows(&self, claim: &Layers, attempt: &Attempt) -> bool {
        self.runs.iter().any(|(run, outcomes)| match run {
            Run::Without(layers) => layers.is_superset(claim) && escaped(&outcomes[&attempt.name]),
            Run::Bare => false,
        })
    }

    /// Whether this host and its kernel have what it needs.
    fn could(&self, attempt: &Attempt) -> bool {
        match self.outcome(&Run::Bare, attempt) {
            Outcome::Absent(_) => false,
            Outcome::Stopped(how) => how != "ENOSYS",
            Outcome::Escaped(_) | Outcome::Broken(_) => true,
        }
    }

    /// The attempts of which no run shows which layer stops them, since they fail without any too.
    fn unshown(&self) -> Vec<&str> {
        let unshown = self.attempts.iter().filter(|attempt| {
            let claims = attempt.claims(&self.traits);
            claims.iter().any(|claim| !self.shows(claim, attempt))
        });
        unshown.map(|attempt| attempt.name.as_str()).collect()
    }

    /// An attempt that worked nowhere shows nothing, and is at fault unless it says why.
    fn never(&self, attempt: &Attempt, fault: &mut impl FnMut(&str, &Outcome)) {
        let bare = self.outcome(&Run::Bare, attempt);
        let weakest = self.without(LAYERS.into(), attempt);
        match (bare, weakest) {
            (Outcome::Absent(why), _) => not_run(&attempt.name, why),
            (Outcome::Stopped(how), _) if how == "ENOSYS" => {
                not_run(&attempt.name, "this kernel does not know the call");
            }
            (Outcome::Stopped(how), _) if !attempt.depends.is_empty() => not_run(
                &attempt.name,
                &format!(
                    "it is stopped here without any sandbox ({how}), by {}",
                    attempt.depends
                ),
            ),
            _ if !attempt.ground.is_empty() => {}
            _ => fault("it works nowhere, not even without any sandbox", bare),
        }
    }

    /// For people: which layers each alone stopped an attempt here.
    fn report(&self) -> String {
        let mut text = format!("{} attempts under {}\n", self.attempts.len(), self.policy);
        for attempt in &self.attempts {
            let stopped = |run: &Run| !matches!(self.outcome(run, attempt), Outcome::Escaped(_));
            let alone = LAYERS
                .into_iter()
                .filter(|layer| self.runs.contains_key(&only(layer)) && stopped(&only(layer)));
            let alone: Vec<&str> = alone.collect();
            let all = self.without(Layers::new(), attempt);
            let none = self.without(LAYERS.into(), attempt);
            let bare = self.outcome(&Run::Bare, attempt);
            writeln!(
                text,
                "{}: {all:?}; each alone: {}; no layer: {none:?}; no sandbox: {bare:?}",
                attempt.name,
                alone.join(" ")
            )
            .unwrap();
        }
        text
    }
}

fn escaped(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Escaped(_))
}

fn only(layer: &'static str) -> Run {
    Run::Without(all_but(&Layers::from([layer])))
}

fn holds(policy: &str) {
    let matrix = Matrix::of(policy);
    let faults = matrix.faults();
    println!("{}", matrix.report());
    let unshown = matrix.unshown();
    if !unshown.is_empty() {
        not_run(
            &format!("which layer stops an attempt alone, under {policy}"),
            &format!("these fail here without any layer too: {}", unshown.join(" ")),
        );
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

/// What no mount can protect, since it is not there, is told at the end.
#[test]
fn a_protected_path_that_appears_is_told_whatever_the_policy() {
    let appearing: Vec<Attempt> = Attempt::all()
        .into_iter()
        .filter(|attempt| attempt.name.starts_with("appearing-"))
        .collect();
    assert_eq!(appearing.len(), APPEARING.len());
    for policy in Catalog::shipped().names() {
        let traits = traits(policy);
        let bait = Bait::lay(&traits, &runner());
        let mut command = Command::new(runner());
        command.args(["sandbox", "run", "--policy", policy.as_str(), "--cwd"]);
        command
            .arg(bait.bed.workspace())
            .args(["--", "/usr/bin/python3", "-B"]);
        command
            .arg(bait.bed.path("workspace/attempts/main.py"))
            .arg(bait.bed.path("workspace/bait.json"));
        let ended = end(command.args(appearing.iter().map(|attempt| &attempt.name)));
        assert_eq!(ended.code, 0, "{policy}: {}", ended.err);
        for name in APPEARING {
            let there = bait.bed.workspace().join(name).exists();
            assert_eq!(there, !traits.contains(&Trait::ReadOnly), "{policy}: {name}");
            assert_eq!(there, ended.err.contains(name), "{policy}: {name}: {}", ended.err);
        }
        bait.marks();
    }
}

#[test]
fn nothing_gets_out_under_offline() {
    holds("offline");
}

#[test]
fn nothing_gets_out_under_open_net() {
    holds("open-net");
}

#[test]
fn nothing_gets_out_under_read_only() {
    holds("read-only");
}

#[test]
fn nothing_gets_out_under_strict() {
    holds("strict");
}

#[test]
fn nothing_gets_out_under_workspace() {
    holds("workspace");
}

/// The policies that there is a test for, here, in `workloads` and in `check`.
pub(crate) const TRIED: [&str; 5] = ["offline", "open-net", "read-only", "strict", "workspace"];

#[test]
fn every_policy_that_is_shipped_is_tried() {
    let shipped: Vec<String> = Catalog::shipped().names().map(ToString::to_string).collect();
    assert_eq!(shipped, TRIED);
}
