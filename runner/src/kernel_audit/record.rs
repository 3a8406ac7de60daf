//! One record, from the bytes that the kernel sent to what they say. Pure, bounded, and strict: what is not as the kernel
//! writes it is no record.

use std::collections::BTreeMap;

use super::session::AuditSession;

/// A record of seccomp.
const SECCOMP: u16 = 1326;

/// A record of an access that landlock denied.
const LANDLOCK_ACCESS: u16 = 1423;

/// A record of a domain of landlock: its beginning, said once before its first denial, or its end.
const LANDLOCK_DOMAIN: u16 = 1424;

/// The length of a netlink message's header.
const HEADER_LEN: usize = 16;

/// How many fields a record may have. The kernel writes a dozen.
const FIELDS_MAX: usize = 64;

/// The longest text that is taken from a record, in bytes: the longest path.
const TEXT_MAX: usize = 4096;

/// A record that concerns a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Seccomp answered a system call otherwise than by letting it pass.
    Seccomp {
        /// Whose process made it.
        session: Option<AuditSession>,
        /// The architecture that it was made for, as `AUDIT_ARCH_…` has it.
        architecture: u32,
        /// Its number there.
        number: u32,
        /// What was done, as `SECCOMP_RET_…` has it, without its data.
        action: u32,
        /// The program.
        program: Option<String>,
    },
    /// A domain of landlock was made by this process, which denials name by its number alone.
    LandlockDomain {
        /// The number.
        domain: u64,
        /// Who made it, in the host's own numbers.
        pid: i32,
    },
    /// A domain of landlock has ended, and its number will not be said again.
    LandlockGone {
        /// The number.
        domain: u64,
    },
    /// Landlock denied something.
    Landlock {
        /// Whose rules did.
        domain: u64,
        /// Which rights were missing, as the kernel names them.
        rights: String,
        /// On what.
        target: Option<String>,
    },
}

/// Bytes that are no record as the kernel writes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// The message is cut off or longer than it says.
    #[error("an audit message of {len} bytes is not as long as it says")]
    Length {
        /// How long it is.
        len: usize,
    },
    /// The text is not a list of fields after a time.
    #[error("an audit record of type {kind} is no list of fields")]
    Text {
        /// Its type.
        kind: u16,
    },
    /// A field is missing, or its value makes no sense.
    #[error("an audit record of type {kind} has no usable {field}")]
    Field {
        /// Its type.
        kind: u16,
        /// Which field.
        field: &'static str,
    },
}

/// Understands one message of the kernel; `None` for a record that no sandbox is concerned by.
///
/// # Errors
/// When it is not as the kernel writes such records.
pub fn parse(message: &[u8]) -> Result<Option<Record>, BadRecord> {
    let bad_length = BadRecord::Length { len: message.len() };
    let (header, text) = message.split_at_checked(HEADER_LEN).ok_or(bad_length.clone())?;
    let &[a, b, c, d, e, f, ..] = header else {
        return Err(bad_length);
    };
    // What the header says is the text's own length for messages of audit, with or without the header's.
    let said = u32::from_ne_bytes([a, b, c, d]) as usize;
    let text = match said {
        said if said == text.len() || said == message.len() => text,
        // A message is padded to four bytes.
        said if said < text.len() && text.len() - said < 4 => &text[..said],
        _ => return Err(bad_length),
    };
    let kind = u16::from_ne_bytes([e, f]);
    if !matches!(kind, SECCOMP | LANDLOCK_ACCESS | LANDLOCK_DOMAIN) {
        return Ok(None);
    }
    let fields = Fields::read(kind, text).ok_or(BadRecord::Text { kind })?;
    match kind {
        SECCOMP => fields.seccomp(),
        LANDLOCK_DOMAIN => fields.domain(),
        _ => fields.denial(),
    }
    .map(Some)
}

/// A record's fields by name, their values as written.
struct Fields<'a> {
    kind: u16,
    values: BTreeMap<&'a str, &'a str>,
}

impl<'a> Fields<'a> {
    /// Reads `audit(TIME:SERIAL): name=value …`. The kernel writes what others chose in quotes without a space or a quote
    /// in it, or in hexadecimal, so a space always ends a field.
    fn read(kind: u16, text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.trim_end_matches(['\0', '\n']);
        let (time, fields) = text.strip_prefix("audit(")?.split_once("):")?;
        let of_time = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b':');
        if time.is_empty() || !time.bytes().all(of_time) {
            return None;
        }
        let mut values = BTreeMap::new();
        for field in fields.split_ascii_whitespace() {
            let (name, value) = field.split_once('=')?;
            // A name twice would let one value be checked and another one used.
            if values.len() == FIELDS_MAX || values.insert(name, value).is_some() {
                return None;
            }
        }
        Some(Self { kind, values })
    }

    fn seccomp(&self) -> Result<Record, BadRecord> {
        Ok(Record::Seccomp {
            session: AuditSession::numbered(self.decimal("ses")?),
            architecture: u32::try_from(self.hexadecimal("arch")?).map_err(|_| self.missing("arch"))?,
            number: self.decimal("syscall")?,
            action: u32::try_from(self.hexadecimal("code")?).map_err(|_| self.missing("code"))? & 0xffff_0000,
            program: self.text("exe")?,
        })
    }

    fn domain(&self) -> Result<Record, BadRecord> {
        let domain = self.hexadecimal("domain")?;
        match self.values.get("status") {
            Some(&"allocated") => Ok(Record::LandlockDomain {
                domain,
                pid: self.decimal("pid")?,
            }),
            Some(&"deallocated") => Ok(Record::LandlockGone { domain }),
            _ => Err(self.missing("status")),
        }
    }

    fn denial(&self) -> Result<Record, BadRecord> {
        let domain = self.hexadecimal("domain")?;
        let rights = *self.values.get("blockers").ok_or(self.missing("blockers"))?;
        let plain = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b',')
        };
        if rights.is_empty() || rights.len() > TEXT_MAX || !rights.bytes().all(plain) {
            return Err(self.missing("blockers"));
        }
        let port = ["dest", "src"].into_iter().find_map(|name| self.values.get(name));
        let target = match (self.text("path")?, port) {
            (Some(path), _) => Some(path),
            (None, Some(port)) => Some(format!(
                "port {}",
                port.parse::<u16>().map_err(|_| self.missing("dest"))?
            )),
            (None, None) => self.text("ocomm")?,
        };
        Ok(Record::Landlock {
            domain,
            rights: rights.to_owned(),
            target,
        })
    }

    fn missing(&self, field: &'static str) -> BadRecord {
        BadRecord::Field {
            kind: self.kind,
            field,
        }
    }

    fn decimal<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, BadRecord> {
        let value = self
            .values
            .get(name)
            .filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
        value
            .and_then(|value| value.parse().ok())
            .ok_or(self.missing(name))
    }

    fn hexadecimal(&self, name: &'static str) -> Result<u64, BadRecord> {
        let value = self.values.get(name).ok_or(self.missing(name))?;
        let value = value.strip_prefix("0x").unwrap_or(value);
        let digits = value.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(value, 16)
            .ok()
            .filter(|_| digits)
            .ok_or(self.missing(name))
    }

    /// A text that somebody else chose: in quotes, or in hexadecimal when it has bytes that would end the field.
    fn text(&self, name: &'static str) -> Result<Option<String>, BadRecord> {
        let Some(value) = self.values.get(name) else {
            return Ok(None);
        };
        if value.len() > 2 * TEXT_MAX {
            return Err(self.missing(name));
        }
        if let Some(plain) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            return Ok(Some(plain.to_owned()));
        }
        if matches!(*value, "(null)" | "?") {
            return Ok(None);
        }
        let pairs = value.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> = pairs
            .map(|pair| {
                let text = std::str::from_utf8(pair).ok()?;
                let whole = pair.len() == 2 && pair.iter().all(u8::is_ascii_hexdigit);
                whole.then(|| u8::from_str_radix(text, 16).ok()).flatten()
            })
            .collect();
        let bytes = bytes.ok_or(self.missing(name))?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, text: &str) -> Vec<u8> {
        let len = u32::try_from(text.len()).unwrap();
        let mut message = len.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(text.as_bytes());
        message
    }

    /// Written by Linux 6.18 for an x32 call in a sandbox.
    const X32: &str = "audit(1795399389.541:72): auid=61234 uid=61234 gid=61234 ses=7 pid=30663 comm=\"python3\" \
                       exe=\"/usr/bin/python3.11\" sig=31 arch=c000003e syscall=1073741863 compat=0 ip=0x7f43a9b1f829 \
                       code=0x80000000";

    #[test]
    fn a_call_that_killed_its_process_is_understood() {
        let record = parse(&message(1326, X32)).unwrap().unwrap();
        let expected = Record::Seccomp {
            session: AuditSession::numbered(7),
            architecture: 0xc000_003e,
            number: 0x4000_0000 + 39,
            action: 0x8000_0000,
            program: Some("/usr/bin/python3.11".to_owned()),
        };
        assert_eq!(record, expected);
    }

    #[test]
    fn a_call_by_the_door_for_32_bits_is_understood() {
        let said = "audit(1795402732.929:489): auid=4294967295 uid=61234 gid=61234 ses=4294967295 pid=17728 \
                    comm=\"python3\" exe=\"/usr/bin/python3.11\" sig=31 arch=40000003 syscall=20 compat=1 \
                    ip=0x7faf9cecc007 code=0x80000000";
        let record = parse(&message(1326, said)).unwrap().unwrap();
        let Record::Seccomp {
            session,
            architecture,
            number,
            ..
        } = record
        else {
            panic!("{record:?}")
        };
        assert_eq!((session, architecture, number), (None, 0x4000_0003, 20));
    }

    #[test]
    fn an_access_that_landlock_denied_is_understood_and_its_domain_named() {
        let said = "audit(1729738800.268:30): domain=195ba459b blockers=fs.write_file path=2F746D702F612062 dev=\"tmpfs\" ino=7";
        let denied = parse(&message(1423, said)).unwrap().unwrap();
        assert_eq!(
            denied,
            Record::Landlock {
                domain: 0x1_95ba_459b,
                rights: "fs.write_file".to_owned(),
                target: Some("/tmp/a b".to_owned()),
            }
        );
        let said = "audit(1.0:1): domain=1 blockers=net.connect_tcp daddr=127.0.0.1 dest=80";
        let denied = parse(&message(1423, said)).unwrap().unwrap();
        assert!(matches!(denied, Record::Landlock { target: Some(port), .. } if port == "port 80"));
        let said = "audit(1.0:1): domain=195ba459b status=allocated mode=enforcing pid=300 uid=0 exe=\"/root/sandboxer\" comm=\"sandboxer\"";
        assert_eq!(
            parse(&message(1424, said)).unwrap(),
            Some(Record::LandlockDomain {
                domain: 0x1_95ba_459b,
                pid: 300
            })
        );
        let said = "audit(1.0:2): domain=195ba459b status=deallocated denials=3";
        let gone = Record::LandlockGone {
            domain: 0x1_95ba_459b,
        };
        assert_eq!(parse(&message(1424, said)).unwrap(), Some(gone));
    }

    #[test]
    fn what_the_kernel_would_not_write_is_no_record() {
        for said in [
            "audit(1.0:1):",
            "audit(1.0:1) ses=1",
            "audit(x): ses=1",
            &X32.replace("ses=7", "ses=7 ses=8"),
            &X32.replace("ses=7", "ses=-7"),
            &X32.replace("ses=7", "session=7"),
            &X32.replace("arch=c000003e", "arch=fffc000003e"),
            &X32.replace("\"/usr/bin/python3.11\"", "/usr/bin"),
            &format!("{X32} stray"),
        ] {
            parse(&message(1326, said)).unwrap_err();
        }
        assert_eq!(parse(&message(1300, "anything")).unwrap(), None);
        let whole = message(1326, X32);
        for len in 0..whole.len() {
            parse(&whole[..len]).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(kind in 1300_u16..1430, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut message = u32::try_from(bytes.len()).unwrap().to_ne_bytes().to_vec();
            message.extend(kind.to_ne_bytes());
            message.extend([0; 10]);
            message.extend(b"audit(1:1): ");
            message.extend(bytes);
            let _no_matter_what = parse(&message);
        }
    }
}
