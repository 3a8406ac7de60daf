//! `docs/ESCAPES.md`: the attempts and what is claimed of them, for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use oqto_runner::policy::{Catalog, PolicyName};

use crate::attempt::{Attempt, Layers, Trait};
use crate::escapes::traits;

const INTRODUCTION: &str = "\
# Ways out, and what stops them

Every attempt to get out of the sandbox that the tests make, on the real kernel, under every shipped policy. This page is
written by a test from the declarations of the attempts (`tests/sandbox/attempts/`), and the test fails when they differ.

**How to read it.** *Stopped by* names the layers of which each one stops the attempt alone, with every other layer left
out; `a + b` where it takes both. The layers are those of `oqto-runner sandbox run --json`: namespaces, mounts, privileges,
limits, landlock, seccomp. A claim that differs by policy names the policies in brackets; *not stopped* is as much a claim.
*Holds anyway* says why an attempt fails without any of these layers: because the agent is never root
(`principal`), or because of how every sandbox is started (`start`): an environment made from nothing, descriptors closed,
a session and a user namespace of its own. That the named layers stop such an attempt alone is what they are made for and is
not shown here: it fails without them too. The filter of system calls is held against its policy call by call elsewhere
(`runner/src/sandbox/seccomp.rs`).

**What is tested**, for each policy: with all layers, every attempt of which anything is claimed is stopped; with one layer
left out, every attempt that another layer is said to stop still is; with the named layers alone, it is too. And
that each attempt is one: it gets out without any layer, or without any sandbox, or it says why not; and that a layer makes
the difference, unless it *holds anyway* or depends on the host: where the layer is left out, it gets out. What shows that it got
out is what happened: the file outside is changed, the secret that only the test knows was read, the packet, the word or
the signal arrived, the process lives on. Where the kernel is only asked whether it would, any answer but a refusal counts
as a way out.

**What this does not show**: that there is no other way. A layer left out here is left out by a program of the tests
(`oqto-weak-sandbox`); the one that ships has no such option. What a host cannot exercise, since its kernel lacks it or
its settings forbid it to everybody, is printed by name (`NOT RUN`).

**To reproduce it**, as root and as anybody else:

```
cargo build --workspace --all-features
cargo nextest run -p oqto-tests --all-features --test sandbox --no-capture -- escapes
```

The output names, for each policy and attempt, what happened here with all layers, with each one alone, and with none.
After a change of an attempt: `OQTO_BLESS=1 cargo nextest run -p oqto-tests --all-features --test sandbox -- table`.
";

/// The policies that are shipped, with what sets them apart.
fn policies() -> BTreeMap<PolicyName, BTreeSet<Trait>> {
    let shipped = Catalog::shipped();
    shipped.names().map(|name| (name.clone(), traits(name))).collect()
}

fn words(claims: &[Layers]) -> String {
    let words = |layers: &Layers| layers.iter().copied().collect::<Vec<_>>().join(" + ");
    let claims: Vec<String> = claims.iter().map(words).collect();
    claims.join(", ")
}

/// What is claimed of an attempt, by policy where it differs.
fn claimed(attempt: &Attempt, policies: &BTreeMap<PolicyName, BTreeSet<Trait>>) -> String {
    let nothing = if attempt.ground.is_empty() {
        "not stopped"
    } else {
        "–"
    };
    let mut by_claim: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (policy, traits) in policies {
        let claims = words(&attempt.claims(traits));
        by_claim.entry(claims).or_default().push(policy.as_str());
    }
    let one = by_claim.len() == 1;
    // What most policies claim comes first.
    let mut claims: Vec<(String, Vec<&str>)> = by_claim.into_iter().collect();
    claims.sort_by_key(|(_, policies)| std::cmp::Reverse(policies.len()));
    let said = claims.into_iter().map(|(claim, policies)| {
        let claim = if claim.is_empty() { nothing } else { &claim };
        if one {
            claim.to_owned()
        } else {
            format!("{claim} ({})", policies.join(", "))
        }
    });
    said.collect::<Vec<_>>().join("; ")
}

fn document() -> String {
    let (attempts, policies) = (Attempt::all(), policies());
    let mut text = INTRODUCTION.to_owned();
    let names: Vec<&str> = policies.keys().map(PolicyName::as_str).collect();
    writeln!(
        text,
        "\n{} attempts, under the policies {}.",
        attempts.len(),
        names.join(", ")
    )
    .unwrap();
    let mut categories: Vec<&str> = Vec::new();
    for attempt in &attempts {
        if !categories.contains(&attempt.category.as_str()) {
            categories.push(&attempt.category);
        }
    }
    for category in categories {
        let of = || attempts.iter().filter(|attempt| attempt.category == category);
        writeln!(
            text,
            "\n## {}{} ({})\n",
            category[..1].to_uppercase(),
            &category[1..],
            of().count()
        )
        .unwrap();
        text.push_str("| attempt | what it tries | what it would give | stopped by | holds anyway |\n|---|---|---|---|---|\n");
        for attempt in of() {
            writeln!(
                text,
                "| `{}` | {} | {} | {} | {} |",
                attempt.name,
                attempt.tries,
                attempt.gives,
                claimed(attempt, &policies),
                attempt.ground
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn the_table_of_attempts_is_the_one_in_the_documentation() {
    let text = document();
    if std::env::var_os("OQTO_BLESS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ESCAPES.md");
        return fs::write(path, text).unwrap();
    }
    assert!(
        text == include_str!("../../docs/ESCAPES.md"),
        "docs/ESCAPES.md is not what the attempts say: \
         OQTO_BLESS=1 cargo nextest run -p oqto-tests --all-features --test sandbox -- table"
    );
}
