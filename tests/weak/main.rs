//! `sandbox run` with layers left out, which the runner itself has no way to do: a test that an attempt fails without one
//! layer shows that another one stops it too.
//!
//! `oqto-weak-sandbox [--without LAYER]… --policy NAME [--policy-dir DIR] --cwd DIR [--json] -- PROGRAM [ARGS]`
//!
//! `oqto-weak-sandbox check NAME [LAYER]…` is `sandbox check --json` of the policy without those layers.
//!
//! Layers: namespaces, mounts, privileges, limits, landlock, seccomp. With `--json` it says on standard error what was
//! enforced, as `sandbox run` does. It ends as `sandbox run` does.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use oqto_runner::policy::PolicyName;
use oqto_runner::sandbox::report::Layer;
use oqto_runner::sandbox::run::{Job, run};
use oqto_runner::sandbox::{check, enter};

const USAGE: &str = "usage: oqto-weak-sandbox [--without namespaces|mounts|privileges|limits|landlock|seccomp]... \
                     --policy NAME [--policy-dir DIR] --cwd DIR [--json] -- PROGRAM [ARGS], or check NAME [LAYER]...";

/// The layers that can be left out; the others are steps on the way.
const LAYERS: [Layer; 6] = [
    Layer::Namespaces,
    Layer::Mounts,
    Layer::Privileges,
    Layer::Limits,
    Layer::Landlock,
    Layer::Seccomp,
];

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    // It is its own last stage inside, as the runner is its.
    if words.next_if(|word| word == "enter").is_some() {
        return enter::enter(words);
    }
    if words.next_if(|word| word == "check-inside").is_some() {
        return check::inside(words);
    }
    if words.next_if(|word| word == "check").is_some() {
        return checked(words);
    }
    let Some((job, json)) = parse(words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&job) {
        Ok(outcome) => {
            if json {
                let layers = serde_json::to_string(&outcome.layers).expect("texts can be said in JSON");
                eprintln!("{layers}");
            }
            ExitCode::from(outcome.code)
        }
        Err(error) => {
            say(&error);
            ExitCode::from(error.code())
        }
    }
}

fn say(error: &dyn std::error::Error) {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    eprintln!("oqto-weak-sandbox: {}", causes.join(": "));
}

fn checked(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let policy = words.next().and_then(|word| word.to_str()?.parse().ok());
    let without: Option<BTreeSet<Layer>> = words.map(|word| layer(word.to_str()?)).collect();
    let (Some(policy), Some(without)) = (policy, without) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let job = check::Job {
        policy,
        policy_dir: None,
        policy_at_most: None,
        without,
    };
    match check::check(&job) {
        Ok(check) => {
            println!(
                "{}",
                serde_json::to_string(&check).expect("texts can be said in JSON")
            );
            ExitCode::from(u8::from(!check.holds))
        }
        Err(error) => {
            say(&error);
            ExitCode::from(125)
        }
    }
}

fn layer(name: &str) -> Option<Layer> {
    LAYERS.into_iter().find(|layer| layer.to_string() == name)
}

fn parse(mut words: impl Iterator<Item = OsString>) -> Option<(Job, bool)> {
    let (mut policy, mut policy_dir, mut cwd, mut json) = (None, None, None, false);
    let mut without = BTreeSet::new();
    loop {
        match words.next()?.to_str()? {
            "--without" => {
                without.insert(layer(words.next()?.to_str()?)?);
            }
            "--policy" => policy = Some(words.next()?.to_str()?.parse::<PolicyName>().ok()?),
            "--policy-dir" => policy_dir = Some(PathBuf::from(words.next()?)),
            "--cwd" => cwd = Some(PathBuf::from(words.next()?)),
            "--json" => json = true,
            "--" => break,
            _ => return None,
        }
    }
    let job = Job {
        policy: policy?,
        policy_dir,
        policy_at_most: None,
        workspace: cwd?,
        program: words.next()?,
        args: words.collect(),
        without,
    };
    Some((job, json))
}
