//! What one policy says of one request: with everything it extends, and its paths and values written out.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::{Catalog, PolicyName};
use super::document::Policy;
use super::path::AbsolutePath;
use super::pattern::{Pattern, Template};
use super::permission::{Otherwise, PermissionRule, RuleTemplate};
use super::plan::{Need, Network};
use super::resolve::ResolveError;
use super::rule::{LayerName, Limit, Ruled, Source};

/// The terms of a policy. What is `None` or not in a map is not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) read: Option<Vec<Ruled<Pattern>>>,
    pub(super) write: Option<Vec<Ruled<Pattern>>>,
    pub(super) deny: Vec<Ruled<Pattern>>,
    pub(super) mask: Vec<Ruled<Pattern>>,
    pub(super) protect: Vec<Ruled<Pattern>>,
    pub(super) set: BTreeMap<String, Ruled<String>>,
    pub(super) pass: Option<BTreeMap<String, Source>>,
    pub(super) network: Option<Ruled<Network>>,
    pub(super) connect: Option<Ruled<BTreeSet<u16>>>,
    pub(super) bind: Option<Ruled<BTreeSet<u16>>>,
    pub(super) groups: BTreeMap<String, Source>,
    pub(super) allow: Option<BTreeMap<String, Source>>,
    pub(super) limits: BTreeMap<Limit, Ruled<u64>>,
    pub(super) layers: BTreeMap<LayerName, Ruled<Need>>,
    pub(super) permit: Option<Vec<Ruled<PermissionRule>>>,
    pub(super) forbid: Vec<Ruled<PermissionRule>>,
    pub(super) otherwise: Option<Ruled<Otherwise>>,
    pub(super) timeout_s: Option<Ruled<u32>>,
}

/// What `~` and `$WORKSPACE` stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roots<'a> {
    pub(super) home: &'a AbsolutePath,
    pub(super) workspace: &'a AbsolutePath,
}

impl Terms {
    /// The policy of that name. What it does not give, it refuses.
    pub(super) fn named(
        catalog: &Catalog,
        name: &PolicyName,
        roots: Roots<'_>,
    ) -> Result<Self, ResolveError> {
        let mut terms = Self::of(chain(catalog, Some(name.clone()))?, roots);
        terms.complete();
        Ok(terms)
    }

    /// A document by itself. What it does not speak of, it leaves as it is, unless it extends a policy: then it is one.
    pub(super) fn part(catalog: &Catalog, part: Policy, roots: Roots<'_>) -> Result<Self, ResolveError> {
        let base = part.extends.clone();
        let whole = base.is_some();
        let mut chain = chain(catalog, base)?;
        chain.push(part);
        let mut terms = Self::of(chain, roots);
        if whole {
            terms.complete();
        }
        Ok(terms)
    }

    /// Says what a policy means that says nothing.
    fn complete(&mut self) {
        self.read.get_or_insert_default();
        self.write.get_or_insert_default();
        self.pass.get_or_insert_default();
        self.permit.get_or_insert_default();
        self.otherwise.get_or_insert(Ruled {
            value: Otherwise::Ask,
            source: Source::Runner,
        });
        for layer in LayerName::ALL {
            self.layers.entry(layer).or_insert(Ruled {
                value: Need::Required,
                source: Source::Runner,
            });
        }
    }

    /// Whether any of it says who answers an agent that asks.
    pub(super) fn speaks_of_permissions(&self) -> bool {
        let is_said = |otherwise: &Ruled<Otherwise>| otherwise.source != Source::Runner;
        self.otherwise.as_ref().is_some_and(is_said)
            || self.timeout_s.is_some()
            || !self.forbid.is_empty()
            || self.permit.as_ref().is_some_and(|rules| !rules.is_empty())
    }

    fn of(chain: Vec<Policy>, roots: Roots<'_>) -> Self {
        let mut terms = Self::default();
        for policy in chain {
            terms.add(policy, roots);
        }
        terms
    }

    /// A policy adds its lists to those of what it extends, and its single values replace them.
    fn add(&mut self, policy: Policy, roots: Roots<'_>) {
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
        } = policy;
        for (mine, added) in [(&mut self.read, read), (&mut self.write, write)] {
            if let Some(added) = added {
                roots.add(mine.get_or_insert_default(), added);
            }
        }
        for (mine, added) in [
            (&mut self.deny, deny),
            (&mut self.mask, mask),
            (&mut self.protect, protect),
        ] {
            roots.add(mine, added);
        }
        self.set
            .extend(set.into_iter().map(|(name, Ruled { value, source })| {
                let value = roots.value(&value);
                (name, Ruled { value, source })
            }));
        for (mine, added) in [(&mut self.pass, pass), (&mut self.allow, allow)] {
            if let Some(added) = added {
                first(mine.get_or_insert_default(), added);
            }
        }
        first(&mut self.groups, groups);
        if network.is_some() {
            self.network = network;
        }
        for (mine, added) in [(&mut self.connect, connect), (&mut self.bind, bind)] {
            match (mine.as_mut(), added) {
                (Some(mine), Some(added)) => mine.value.extend(added.value),
                (None, Some(added)) => *mine = Some(added),
                (_, None) => {}
            }
        }
        self.limits.extend(limits);
        self.layers.extend(layers);
        if let Some(permit) = permit {
            roots.add_rules(self.permit.get_or_insert_default(), permit);
        }
        roots.add_rules(&mut self.forbid, forbid);
        if otherwise.is_some() {
            self.otherwise = otherwise;
        }
        if timeout_s.is_some() {
            self.timeout_s = timeout_s;
        }
    }
}

/// The rule that was there first keeps its source.
pub(super) fn first(mine: &mut BTreeMap<String, Source>, added: BTreeMap<String, Source>) {
    for (name, source) in added {
        mine.entry(name).or_insert(source);
    }
}

impl Roots<'_> {
    fn add(self, mine: &mut Vec<Ruled<Pattern>>, added: Vec<Ruled<Template>>) {
        mine.extend(added.into_iter().map(|Ruled { value, source }| Ruled {
            value: value.expand(self.home, self.workspace),
            source,
        }));
    }

    fn add_rules(self, mine: &mut Vec<Ruled<PermissionRule>>, added: Vec<Ruled<RuleTemplate>>) {
        mine.extend(added.into_iter().map(|Ruled { value, source }| Ruled {
            value: value.expand(self.home, self.workspace),
            source,
        }));
    }

    /// The value of a variable, in which `~/` and `$WORKSPACE/` stand for directories where a path may begin: at its
    /// beginning and after a colon.
    fn value(self, written: &str) -> String {
        let paths = written.split(':').map(|path| {
            if let Some(rest) = path.strip_prefix("~/") {
                format!("{}/{rest}", self.home)
            } else if let Some(rest) = path.strip_prefix("$WORKSPACE/") {
                format!("{}/{rest}", self.workspace)
            } else {
                path.to_owned()
            }
        });
        paths.collect::<Vec<_>>().join(":")
    }
}

/// A policy after all that it extends.
fn chain(catalog: &Catalog, name: Option<PolicyName>) -> Result<Vec<Policy>, ResolveError> {
    let mut names: Vec<PolicyName> = Vec::new();
    let mut chain: Vec<Policy> = Vec::new();
    let mut next = name;
    while let Some(name) = next {
        if names.contains(&name) {
            names.push(name);
            return Err(ResolveError::Circle { chain: names });
        }
        let policy = catalog.policy(&name)?;
        next = policy.extends.clone();
        names.push(name);
        chain.push(policy);
    }
    chain.reverse();
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_name_directories_where_a_path_may_begin() {
        let path = |text: &str| AbsolutePath::try_from(text.to_owned()).unwrap();
        let (home, workspace) = (path("/home/a"), path("/srv/w"));
        let roots = Roots {
            home: &home,
            workspace: &workspace,
        };
        for (written, meant) in [
            ("~/.cargo/bin:/usr/bin", "/home/a/.cargo/bin:/usr/bin"),
            ("/usr/bin:$WORKSPACE/bin", "/usr/bin:/srv/w/bin"),
            ("a~/b", "a~/b"),
            ("~", "~"),
            ("--jitless", "--jitless"),
            ("http://a/~/b", "http://a/~/b"),
        ] {
            assert_eq!(roots.value(written), meant, "{written}");
        }
    }
}
