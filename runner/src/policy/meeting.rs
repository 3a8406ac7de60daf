//! Two policies meet: what holds then is what both allow.
//!
//! Whoever comes later can only narrow. To ask for more is an error, and nothing is dropped in silence: who wrote it
//! believes that it holds.

use super::path::AbsolutePath;
use super::pattern::Pattern;
use super::permission::Otherwise;
use super::plan::{Need, Network};
use super::rule::{Ruled, Source};
use super::terms::{Terms, first};

/// A policy asks for more than one that it meets.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {key} asks for {asks}, but {forbids}; a policy that meets another one can only narrow it")]
pub struct Widening {
    /// Where it asks.
    pub at: Source,
    /// By which key.
    pub key: &'static str,
    /// For what.
    pub asks: Box<str>,
    /// What stands against it, and where.
    pub forbids: Box<Forbids>,
}

/// What stands against a widening.
#[derive(Debug)]
pub enum Forbids {
    /// A rule.
    Rule {
        /// Who said it.
        by: Source,
        /// What it says.
        says: String,
    },
    /// No rule gives it.
    NotGiven {
        /// The policy that would have to.
        policy: String,
    },
}

impl std::fmt::Display for Forbids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rule { by, says } => write!(f, "{by} says {says}"),
            Self::NotGiven { policy } => write!(f, "no rule of {policy} gives it"),
        }
    }
}

/// Who wrote the later policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Author {
    /// Whoever wrote the earlier one: a policy of the catalog, chosen by the session.
    Catalog,
    /// Anybody who could write into the workspace.
    Workspace,
}

/// What holds in `workspace` when `lower` meets `upper`, a whole policy that errors call `name`.
pub(super) fn meet(
    upper: Terms,
    lower: Terms,
    author: Author,
    name: &str,
    workspace: &AbsolutePath,
) -> Result<Terms, Widening> {
    let asked = Meeting {
        upper: &upper,
        lower: &lower,
        name,
    };
    asked.files()?;
    asked.variables(author)?;
    asked.network()?;
    asked.limits()?;
    asked.layers()?;
    asked.calls()?;
    asked.permissions(workspace)?;
    Ok(narrowed(upper, lower))
}

struct Meeting<'a> {
    upper: &'a Terms,
    lower: &'a Terms,
    name: &'a str,
}

impl Meeting<'_> {
    fn files(&self) -> Result<(), Widening> {
        let of = |list: &'_ Option<Vec<Ruled<Pattern>>>| list.clone().unwrap_or_default();
        let written = of(&self.upper.write);
        let seen: Vec<_> = of(&self.upper.read).into_iter().chain(written.clone()).collect();
        for (key, asked, given) in [
            ("read", of(&self.lower.read), &seen),
            ("write", of(&self.lower.write), &written),
        ] {
            for Ruled { value, source } in &asked {
                // The very rule, which asks for nothing more, whatever else covers it.
                if given.iter().any(|given| given.value == *value) {
                    continue;
                }
                let closed = [("deny", &self.upper.deny), ("mask", &self.upper.mask)];
                for (rule, list) in closed {
                    if let Some(closed) = list.iter().find(|closed| closed.value.contains(value)) {
                        let says = format!("{rule} {}", closed.value);
                        return Err(widening(source, key, value, says, &closed.source));
                    }
                }
                if !given.iter().any(|given| given.value.contains(value)) {
                    return Err(self.not_given(source, key, value));
                }
            }
        }
        Ok(())
    }

    fn variables(&self, author: Author) -> Result<(), Widening> {
        for (name, Ruled { value, source }) in &self.lower.set {
            let asks = format!("{name} = {value:?}");
            match self.upper.set.get(name) {
                Some(upper) if upper.value == *value => {}
                Some(upper) => {
                    let says = format!("{name} = {:?}", upper.value);
                    return Err(widening(source, "set", &asks, says, &upper.source));
                }
                // The value is the system's own word, and gives nothing of the host.
                None if author == Author::Catalog => {}
                None => return Err(self.not_given(source, "set", &asks)),
            }
        }
        let (Some(lower), upper) = (&self.lower.pass, self.upper.pass.as_ref()) else {
            return Ok(());
        };
        let more = lower
            .iter()
            .find(|(name, _)| !upper.is_some_and(|upper| upper.contains_key(*name)));
        more.map_or(Ok(()), |(name, source)| Err(self.not_given(source, "pass", name)))
    }

    fn network(&self) -> Result<(), Widening> {
        if let (
            Some(Ruled {
                value: Network::None,
                source: by,
            }),
            Some(Ruled {
                value: Network::Host,
                source,
            }),
        ) = (&self.upper.network, &self.lower.network)
        {
            return Err(widening(
                source,
                "mode",
                "\"host\"",
                "mode = \"none\"".to_owned(),
                by,
            ));
        }
        for (key, upper, lower) in [
            ("connect_tcp", &self.upper.connect, &self.lower.connect),
            ("bind_tcp", &self.upper.bind, &self.lower.bind),
        ] {
            let (Some(upper), Some(lower)) = (upper, lower) else {
                continue;
            };
            if let Some(port) = lower.value.iter().find(|port| !upper.value.contains(port)) {
                let says = format!("{key} = {:?}", upper.value.iter().collect::<Vec<_>>());
                return Err(widening(&lower.source, key, port, says, &upper.source));
            }
        }
        Ok(())
    }

    fn limits(&self) -> Result<(), Widening> {
        for (limit, lower) in &self.lower.limits {
            let Some(upper) = self.upper.limits.get(limit) else {
                continue;
            };
            if lower.value > upper.value {
                let says = format!("{} = {}", limit.name(), upper.value);
                return Err(widening(
                    &lower.source,
                    limit.name(),
                    &lower.value,
                    says,
                    &upper.source,
                ));
            }
        }
        Ok(())
    }

    fn layers(&self) -> Result<(), Widening> {
        for (layer, lower) in &self.lower.layers {
            if lower.value == Need::Required {
                continue;
            }
            let asks = "\"if-available\"";
            match self.upper.layers.get(layer) {
                Some(upper) if upper.value == Need::IfAvailable => {}
                Some(upper) => {
                    let says = format!("{} = \"required\"", layer.name());
                    return Err(widening(&lower.source, layer.name(), asks, says, &upper.source));
                }
                None => return Err(self.not_given(&lower.source, layer.name(), asks)),
            }
        }
        Ok(())
    }

    fn calls(&self) -> Result<(), Widening> {
        let (Some(upper), Some(lower)) = (&self.upper.allow, &self.lower.allow) else {
            return Ok(());
        };
        let more = lower.iter().find(|(group, _)| !upper.contains_key(*group));
        more.map_or(Ok(()), |(group, source)| {
            Err(self.not_given(source, "allow", group))
        })
    }

    fn permissions(&self, workspace: &AbsolutePath) -> Result<(), Widening> {
        let otherwise = self.upper.otherwise.as_ref();
        if let (Some(upper), Some(lower)) = (otherwise, &self.lower.otherwise)
            && lower.value < upper.value
            && lower.source != Source::Runner
        {
            let asks = format!("{:?}", lower.value.name());
            let says = format!("otherwise = {:?}", upper.value.name());
            return Err(widening(&lower.source, "otherwise", &asks, says, &upper.source));
        }
        if let (Some(upper), Some(lower)) = (&self.upper.timeout_s, &self.lower.timeout_s)
            && lower.value > upper.value
        {
            let says = format!("timeout_s = {}", upper.value);
            return Err(widening(
                &lower.source,
                "timeout_s",
                &lower.value,
                says,
                &upper.source,
            ));
        }
        if otherwise.is_some_and(|otherwise| otherwise.value == Otherwise::Allow) {
            return Ok(());
        }
        let given = self.upper.permit.as_deref().unwrap_or_default();
        let is_given = |rule| given.iter().any(|given| given.value.contains(rule, workspace));
        let more = self
            .lower
            .permit
            .iter()
            .flatten()
            .find(|rule| !is_given(&rule.value));
        more.map_or(Ok(()), |rule| {
            Err(self.not_given(&rule.source, "permissions.allow", &rule.value))
        })
    }

    fn not_given(&self, at: &Source, key: &'static str, asks: &(impl ToString + ?Sized)) -> Widening {
        Widening {
            at: at.clone(),
            key,
            asks: asks.to_string().into(),
            forbids: Box::new(Forbids::NotGiven {
                policy: self.name.to_owned(),
            }),
        }
    }
}

fn widening(
    at: &Source,
    key: &'static str,
    asks: &(impl ToString + ?Sized),
    says: String,
    by: &Source,
) -> Widening {
    Widening {
        at: at.clone(),
        key,
        asks: asks.to_string().into(),
        forbids: Box::new(Forbids::Rule { by: by.clone(), says }),
    }
}

/// The terms of both, where the lower ones ask for nothing more.
fn narrowed(mut upper: Terms, lower: Terms) -> Terms {
    let Terms {
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
    } = lower;
    match (read, &write) {
        (Some(read), _) => upper.read = Some(read),
        // Who takes writing away and does not speak of reading leaves that.
        (None, Some(_)) => {
            let written = upper.write.clone().unwrap_or_default();
            upper.read.get_or_insert_default().extend(written);
        }
        (None, None) => {}
    }
    replace(&mut upper.write, write);
    upper.deny.extend(deny);
    upper.mask.extend(mask);
    upper.protect.extend(protect);
    for (name, value) in set {
        upper.set.entry(name).or_insert(value);
    }
    replace(&mut upper.pass, pass);
    replace(&mut upper.network, network);
    replace(&mut upper.connect, connect);
    replace(&mut upper.bind, bind);
    first(&mut upper.groups, groups);
    replace(&mut upper.allow, allow);
    upper.limits.extend(limits);
    upper.layers.extend(layers);
    replace(&mut upper.permit, permit);
    upper.forbid.extend(forbid);
    // One that says nothing asks, unless it met one that denies. Who says the same says it, and the runner did not.
    let stricter = |mine: &Ruled<Otherwise>| {
        let is_unsaid = mine.source == Source::Runner;
        otherwise
            .as_ref()
            .is_some_and(|other| other.value > mine.value || (is_unsaid && other.value == mine.value))
    };
    if upper.otherwise.as_ref().is_none_or(stricter) {
        upper.otherwise = otherwise;
    }
    replace(&mut upper.timeout_s, timeout_s);
    upper
}

fn replace<T>(mine: &mut Option<T>, other: Option<T>) {
    if other.is_some() {
        *mine = other;
    }
}
