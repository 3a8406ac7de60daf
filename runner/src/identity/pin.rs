//! The fingerprint by which a runner knows its authority before it has a certificate.

use std::fmt;
use std::str::FromStr;

/// SHA-256 of a root's SubjectPublicKeyInfo, written `sha256:HEX`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin(pub(super) [u8; 32]);

/// A text that is no pin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not sha256: and 64 hex digits, as `oqtoctl token create` prints it")]
pub struct BadPin;

impl FromStr for Pin {
    type Err = BadPin;

    fn from_str(text: &str) -> Result<Self, BadPin> {
        let digits = text.strip_prefix("sha256:").ok_or(BadPin)?.as_bytes();
        if digits.len() != 64 {
            return Err(BadPin);
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(digits[at]).to_digit(16).ok_or(BadPin);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).map_err(|_| BadPin)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_as_it_is_written_and_in_either_case() {
        let text = format!("sha256:{}", "0a".repeat(32));
        let pin: Pin = text.parse().unwrap();
        assert_eq!(pin.to_string(), text);
        assert_eq!(format!("sha256:{}", "0A".repeat(32)).parse(), Ok(pin));
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        for text in [
            String::new(),
            "0a".repeat(32),
            "sha256:".to_owned(),
            format!("sha256:{}", "0a".repeat(31)),
            format!("sha256:{}", "0a".repeat(33)),
            format!("sha256:{}0g", "0a".repeat(31)),
            format!("sha256:{}é", "0a".repeat(31)),
            format!("sha1:{}", "0a".repeat(32)),
            format!("SHA256:{}", "0a".repeat(32)),
            format!("sha256:+{}", "a".repeat(63)),
        ] {
            assert_eq!(text.parse::<Pin>(), Err(BadPin), "{text}");
        }
    }
}
