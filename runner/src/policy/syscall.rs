//! The system calls that a policy may name.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::syscall_table::TABLE;

/// An architecture whose system calls are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Architecture {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The one that this was built for. There is no sandbox on another one, since nobody knows its calls.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// The one that this was built for. There is no sandbox on another one, since nobody knows its calls.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the numbers of the system calls are known for x86_64 and aarch64 only");

/// A system call by name, one of the table, so that a misspelt name stops the policy and not nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct Syscall {
    name: &'static str,
    x86_64: Option<u16>,
    aarch64: Option<u16>,
}

/// No system call of that name is in the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system call {name} is not known to this version")]
pub struct UnknownSyscall {
    name: String,
}

impl Syscall {
    /// A row of the table.
    pub(super) const fn at(name: &'static str, x86_64: Option<u16>, aarch64: Option<u16>) -> Self {
        Self {
            name,
            x86_64,
            aarch64,
        }
    }

    /// Its number; `None` where the architecture never had it.
    #[must_use]
    pub fn number(self, architecture: Architecture) -> Option<i64> {
        match architecture {
            Architecture::X86_64 => self.x86_64,
            Architecture::Aarch64 => self.aarch64,
        }
        .map(i64::from)
    }

    /// The call of that number, as the kernel's records name it; `None` if the table does not know it.
    #[must_use]
    pub fn of(number: i64, architecture: Architecture) -> Option<Self> {
        Self::all().find(|call| call.number(architecture) == Some(number))
    }

    /// Every call that is known, by name.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().copied()
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }
}

impl TryFrom<String> for Syscall {
    type Error = UnknownSyscall;

    fn try_from(name: String) -> Result<Self, UnknownSyscall> {
        match TABLE.binary_search_by(|call| call.name.cmp(&name)) {
            Ok(at) => Ok(TABLE[at]),
            Err(_) => Err(UnknownSyscall { name }),
        }
    }
}

// By hand, since the derived one would ask for texts that live as long as the table does.
impl<'de> Deserialize<'de> for Syscall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl From<Syscall> for String {
    fn from(call: Syscall) -> Self {
        call.name.to_owned()
    }
}

impl fmt::Debug for Syscall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_call_is_an_error() {
        assert_eq!(
            Syscall::try_from("ptrase".to_owned()),
            Err(UnknownSyscall {
                name: "ptrase".to_owned()
            })
        );
    }

    #[test]
    fn a_number_names_its_call_on_each_architecture() {
        let of = |number, architecture| Syscall::of(number, architecture).map(Syscall::name);
        assert_eq!(of(101, Architecture::X86_64), Some("ptrace"));
        assert_eq!(of(101, Architecture::Aarch64), Some("nanosleep"));
        assert_eq!(of(117, Architecture::Aarch64), Some("ptrace"));
        assert_eq!(of(9999, Architecture::X86_64), None);
        let open = Syscall::try_from("open".to_owned()).unwrap();
        assert_eq!(open.number(Architecture::Aarch64), None);
    }
}
