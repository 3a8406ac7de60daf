//! Join tokens: each buys one certificate, once.
//!
//! A token is 32 random bytes. What is kept of it is a digest over the authority's name and the token, which is also the
//! name of its file in `tokens/`: finding it compares no secret with a secret. It is used up by renaming that file, which
//! succeeds for one alone of all that try at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oqto_protocol::enrol::Token;
use oqto_protocol::id::{Digest, RunnerId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize as _;

use super::disk::{self, failed};
use super::ledger::ms;
use super::record::{Outcome, Record};
use super::store::{Authority, AuthorityError, Held, now_ms};
use crate::bounds::{RECORD_LEN_MAX, TOKEN_LIFE_MAX, TOKEN_LIFE_MIN, TOKENS_MAX};

/// How every token begins: whoever finds one knows what it is.
const PREFIX: &str = "oqto1-";

/// Random bytes of a token.
const SECRET_LEN: usize = 32;

/// What stands before what is digested, so that the digest is one for nothing else.
const CONTEXT: &[u8] = b"oqto join token v1\0";

/// How many hex digits of a token's digest are its public id.
const ID_LEN: usize = 12;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Its life is out of bounds.
    #[error("a token lives from {} s to {} h", TOKEN_LIFE_MIN.as_secs(), TOKEN_LIFE_MAX.as_secs() / 3600)]
    Life,
    /// There are too many.
    #[error("{TOKENS_MAX} tokens are open already; oqtoctl token revoke takes one back")]
    TooMany,
    /// The runner that it is for was revoked.
    #[error("runner {runner} was revoked for good; it needs another identity, and with it another name")]
    Revoked {
        /// Which.
        runner: RunnerId,
    },
    /// There is none of that id.
    #[error("no open token is called {id}")]
    None {
        /// The id.
        id: String,
    },
    /// It cannot be written or read.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// What is known of a token that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenInfo {
    /// Its public id.
    pub id: String,
    /// When it was made, Unix milliseconds.
    pub created_at: u64,
    /// Until when it is good, Unix milliseconds.
    pub expires_at: u64,
    /// The only runner that it is good for. One without buys a name that nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_id: Option<RunnerId>,
}

/// Why a token buys nothing. It stands in the audit log; whoever shows the token is told none of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsold {
    #[error("no such token")]
    Unknown,
    #[error("the token was used before")]
    Used,
    #[error("the token has expired")]
    Expired,
    #[error("the token is for another runner")]
    OtherRunner,
    #[error("the name belongs to another key; a token made with --runner-id gives it away")]
    Taken,
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// A token by its digest.
pub(super) struct Shown(Digest);

impl Shown {
    /// The public id.
    pub(super) fn id(&self) -> String {
        self.0.to_string().chars().take(ID_LEN).collect()
    }
}

impl Authority {
    /// Makes a token that is good for `life`, and for one runner alone if it names one. The text exists nowhere else.
    ///
    /// # Errors
    /// When the life is out of bounds, the runner was revoked, there are too many, or it cannot be written.
    pub fn create_token(
        &self,
        life: Duration,
        runner_id: Option<RunnerId>,
    ) -> Result<(Token, TokenInfo), TokenError> {
        if !(TOKEN_LIFE_MIN..=TOKEN_LIFE_MAX).contains(&life) {
            return Err(TokenError::Life);
        }
        let held = self.hold()?;
        if let Some(runner) = runner_id.as_ref().filter(|id| self.now().is_runner_revoked(id)) {
            return Err(TokenError::Revoked {
                runner: runner.clone(),
            });
        }
        self.sweep()?;
        if self.tokens()?.len() >= TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        let mut secret = [0; SECRET_LEN];
        getrandom::fill(&mut secret).map_err(|_| AuthorityError::Random)?;
        let token = Token::new(format!("{PREFIX}{}", base32(&secret)));
        secret.zeroize();
        let shown = self.shown(&token);
        let created_at = now_ms();
        let info = TokenInfo {
            id: shown.id(),
            created_at,
            expires_at: created_at.saturating_add(ms(life)),
            runner_id,
        };
        let record = Record {
            token: Some(info.id.clone()),
            runner_id: info.runner_id.clone(),
            ..Record::new(Outcome::TokenCreated)
        };
        self.write_record(&held, record)?;
        let dir = self.tokens_dir();
        disk::private_dir(&dir)?;
        disk::write_json(&dir, &format!("{}.json", shown.0), &info)?;
        Ok((token, info))
    }

    /// The tokens that are open, the first to expire first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn tokens(&self) -> Result<Vec<TokenInfo>, AuthorityError> {
        let now = now_ms();
        let mut open: Vec<TokenInfo> = self.open_tokens()?.into_iter().map(|(_, info)| info).collect();
        open.retain(|info| info.expires_at > now);
        open.sort_by(|a, b| (a.expires_at, &a.id).cmp(&(b.expires_at, &b.id)));
        Ok(open)
    }

    /// Takes a token back.
    ///
    /// # Errors
    /// When none of that id is open, or it cannot be removed.
    pub fn revoke_token(&self, id: &str) -> Result<TokenInfo, TokenError> {
        let held = self.hold()?;
        let open = self.open_tokens()?;
        let (path, info) = open
            .into_iter()
            .find(|(_, info)| info.id == id)
            .ok_or_else(|| TokenError::None { id: id.to_owned() })?;
        let record = Record {
            token: Some(info.id.clone()),
            runner_id: info.runner_id.clone(),
            ..Record::new(Outcome::TokenRevoked)
        };
        self.write_record(&held, record)?;
        disk::remove(&path)?;
        disk::sync_dir(&self.tokens_dir())?;
        Ok(info)
    }

    /// A token by its digest: of whatever text, in the same time for all of one length.
    pub(super) fn shown(&self, token: &Token) -> Shown {
        let mut hash = Sha256::new();
        hash.update(CONTEXT);
        hash.update(self.id().as_str());
        hash.update([0]);
        hash.update(token.reveal());
        Shown(Digest(hash.finalize().into()))
    }

    /// Uses a token up for a runner.
    pub(super) fn redeem(
        &self,
        _held: &Held,
        shown: &Shown,
        runner: &RunnerId,
        key: &Digest,
    ) -> Result<(), Unsold> {
        let dir = self.tokens_dir();
        let (open, used) = (
            dir.join(format!("{}.json", shown.0)),
            dir.join(format!("{}.used", shown.0)),
        );
        // First: a backup may have brought the other file back.
        if is_there(&used)? {
            return Err(Unsold::Used);
        }
        let Some(info) = disk::read_json::<TokenInfo>(&open, RECORD_LEN_MAX)? else {
            return Err(Unsold::Unknown);
        };
        if info.expires_at <= now_ms() {
            return Err(Unsold::Expired);
        }
        match &info.runner_id {
            Some(only) if only != runner => return Err(Unsold::OtherRunner),
            None if self.issued_to(runner)?.is_some_and(|issued| issued.key != *key) => {
                return Err(Unsold::Taken);
            }
            _ => {}
        }
        match fs::rename(&open, &used) {
            Ok(()) => {}
            // Another one was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unsold::Used),
            Err(source) => return Err(failed("rename", &open)(source).into()),
        }
        Ok(disk::sync_dir(&dir)?)
    }

    /// Removes what has expired long ago, used or not: from then on it is refused as one that never was.
    fn sweep(&self) -> Result<(), AuthorityError> {
        let (dir, now) = (self.tokens_dir(), now_ms());
        for name in disk::names(&dir, TOKEN_FILES_MAX)? {
            let path = dir.join(&name);
            let is_over = match disk::read_json::<TokenInfo>(&path, RECORD_LEN_MAX) {
                Ok(Some(info)) => info.expires_at.saturating_add(ms(TOKEN_KEPT)) <= now,
                Ok(None) => false,
                // What a crash has left of one that was being written.
                Err(AuthorityError::Malformed { .. }) => name.ends_with(".new"),
                Err(error) => return Err(error),
            };
            if is_over {
                disk::remove(&path)?;
            }
        }
        Ok(())
    }

    fn open_tokens(&self) -> Result<Vec<(PathBuf, TokenInfo)>, AuthorityError> {
        let dir = self.tokens_dir();
        let mut open = Vec::new();
        for name in disk::names(&dir, TOKEN_FILES_MAX)? {
            let path = dir.join(&name);
            if name.ends_with(".json") && !is_there(&path.with_extension("used"))? {
                // One that goes meanwhile is not open.
                open.extend(disk::read_json(&path, RECORD_LEN_MAX)?.map(|info| (path, info)));
            }
        }
        Ok(open)
    }

    fn tokens_dir(&self) -> PathBuf {
        self.dir.join("tokens")
    }
}

fn is_there(path: &Path) -> Result<bool, AuthorityError> {
    path.try_exists().map_err(failed("look at", path))
}

/// How long a token that has expired is known as one, so that the audit log can say what was wrong with it.
const TOKEN_KEPT: Duration = Duration::from_secs(24 * 3600);

/// How many files are looked at, tokens that were used or have expired included.
const TOKEN_FILES_MAX: usize = 64 * TOKENS_MAX;

/// Lower-case base32 of RFC 4648, without padding.
fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let (mut text, mut bits, mut held) = (String::with_capacity(bytes.len() * 8 / 5 + 1), 0_u32, 0_u32);
    let mut push =
        |value: u32| text.extend(DIGITS.get((value & 31) as usize).map(|&digit| char::from(digit)));
    for &byte in bytes {
        held = (held << 8 | u32::from(byte)) & 0xfff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            push(held >> bits);
        }
    }
    if bits > 0 {
        push(held << (5 - bits));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_that_of_the_rfc() {
        let table = [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
            ("foobar", "mzxw6ytboi"),
        ];
        for (bytes, text) in table {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
        assert_eq!(base32(&[0xff; SECRET_LEN]).len(), 52);
    }
}
