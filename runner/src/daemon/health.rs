//! The table `[health]` of the configuration: how often sessions are looked at, and what a silent harness may expect.

use std::time::Duration;

use serde::Deserialize;

use crate::session::SilentAct;
use crate::supervisor::HealthSettings;

/// How often the processes of sessions are looked at, seconds: a look reads a few hundred small files, some milliseconds.
const HEARTBEAT_S: u64 = 10;

/// The longest time between two looks: who watches would take a longer one for a runner that is gone.
const HEARTBEAT_S_MAX: u64 = 3600;

/// After how long a harness that works and says nothing is told of, seconds. A model thinks for minutes before its
/// first word, and a tool that builds or tests something may say nothing for an hour: that is legal, so nothing is done
/// about it unless it is asked for.
const SILENT_WARN_S: u64 = 600;

/// The longest silence that can be configured, seconds: thirty days.
const SILENT_S_MAX: u64 = 30 * 24 * 3600;

/// The table as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HealthDocument {
    heartbeat_s: Option<u64>,
    /// 0: never.
    silent_warn_s: Option<u64>,
    silent_act: Option<ActDocument>,
    silent_act_s: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActDocument {
    None,
    Abort,
    Restart,
}

/// A table that says nothing that can be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHealth {
    /// Zero, or too long.
    #[error("{key} is {value}, it must be {min} to {max} seconds")]
    Seconds {
        /// Which key.
        key: &'static str,
        /// What it says.
        value: u64,
        /// The least that it may say.
        min: u64,
        /// The most.
        max: u64,
    },
    /// Something is to be done, at no time.
    #[error("silent_act is set; say with silent_act_s after how many seconds of silence it is done")]
    NoTime,
    /// A time, and nothing to be done then.
    #[error("silent_act_s is set and silent_act is not; say what is done then: \"abort\" or \"restart\"")]
    NoAct,
}

fn seconds(key: &'static str, value: u64, min: u64, max: u64) -> Result<Duration, BadHealth> {
    if (min..=max).contains(&value) {
        return Ok(Duration::from_secs(value));
    }
    Err(BadHealth::Seconds { key, value, min, max })
}

impl TryFrom<HealthDocument> for HealthSettings {
    type Error = BadHealth;

    fn try_from(document: HealthDocument) -> Result<Self, BadHealth> {
        let HealthDocument {
            heartbeat_s,
            silent_warn_s,
            silent_act,
            silent_act_s,
        } = document;
        let heartbeat = seconds(
            "heartbeat_s",
            heartbeat_s.unwrap_or(HEARTBEAT_S),
            1,
            HEARTBEAT_S_MAX,
        )?;
        let warn_s = silent_warn_s.unwrap_or(SILENT_WARN_S);
        let silent_warn = seconds("silent_warn_s", warn_s, 0, SILENT_S_MAX)?;
        let act = match silent_act {
            None | Some(ActDocument::None) => None,
            Some(ActDocument::Abort) => Some(SilentAct::Abort),
            Some(ActDocument::Restart) => Some(SilentAct::Restart),
        };
        let silent_act = match (act, silent_act_s) {
            (None, None) => None,
            (Some(act), Some(value)) => Some((seconds("silent_act_s", value, 1, SILENT_S_MAX)?, act)),
            (Some(_), None) => return Err(BadHealth::NoTime),
            (None, Some(_)) => return Err(BadHealth::NoAct),
        };
        Ok(Self {
            heartbeat,
            silent_warn: Some(silent_warn).filter(|after| !after.is_zero()),
            silent_act,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<HealthSettings, BadHealth> {
        toml::from_str::<HealthDocument>(text).unwrap().try_into()
    }

    #[test]
    fn an_empty_table_warns_and_does_nothing() {
        let health = settings("").unwrap();
        assert_eq!(health.heartbeat, Duration::from_secs(10));
        assert_eq!(health.silent_warn, Some(Duration::from_secs(600)));
        assert_eq!(health.silent_act, None);
    }

    #[test]
    fn an_act_needs_its_time_and_a_time_its_act() {
        let both = settings("silent_act = \"restart\"\nsilent_act_s = 60").unwrap();
        assert_eq!(
            both.silent_act,
            Some((Duration::from_secs(60), SilentAct::Restart))
        );
        assert_eq!(settings("silent_act = \"abort\""), Err(BadHealth::NoTime));
        assert_eq!(settings("silent_act_s = 60"), Err(BadHealth::NoAct));
        assert_eq!(
            settings("silent_act = \"none\"\nsilent_act_s = 60"),
            Err(BadHealth::NoAct)
        );
        assert_eq!(settings("silent_act = \"none\"").unwrap().silent_act, None);
    }

    #[test]
    fn times_that_mean_nothing_are_refused_and_zero_warns_never() {
        assert_eq!(settings("silent_warn_s = 0").unwrap().silent_warn, None);
        for (text, key) in [
            ("heartbeat_s = 0", "heartbeat_s"),
            ("heartbeat_s = 3601", "heartbeat_s"),
            ("silent_warn_s = 2592001", "silent_warn_s"),
            ("silent_act = \"abort\"\nsilent_act_s = 0", "silent_act_s"),
        ] {
            match settings(text) {
                Err(BadHealth::Seconds { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
