//! Files of a workspace.

use serde::{Deserialize, Serialize};

use crate::codec::{Blob, grows, words};
use crate::id::{Digest, SessionId};

/// Asks for a directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileList {
    /// Whose workspace.
    pub session_id: SessionId,
    /// Relative to the workspace.
    pub path: String,
}

grows!(FileList { session_id, path });

/// Asks for one file's facts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileStat {
    /// Whose workspace.
    pub session_id: SessionId,
    /// Relative to the workspace.
    pub path: String,
}

grows!(FileStat { session_id, path });

/// Asks for a file's bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileRead {
    /// Whose workspace.
    pub session_id: SessionId,
    /// Relative to the workspace.
    pub path: String,
    /// From where, bytes.
    pub offset: u64,
    /// How many, bytes; without it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
}

grows!(FileRead {
    session_id,
    path,
    offset,
    length
});

/// Writes a file: its bytes follow, and it is there whole or not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileWrite {
    /// Whose workspace.
    pub session_id: SessionId,
    /// Relative to the workspace.
    pub path: String,
    /// How many bytes will follow.
    pub size: u64,
    /// What to do when it is there.
    pub mode: WriteMode,
}

grows!(FileWrite {
    session_id,
    path,
    size,
    mode
});

words! {
    /// What to do when a file is there.
    pub enum WriteMode {
        /// Refuse.
        0 "create" => Create,
        /// Replace it.
        1 "replace" => Replace,
    }
}

/// Removes a file or an empty directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileRemove {
    /// Whose workspace.
    pub session_id: SessionId,
    /// Relative to the workspace.
    pub path: String,
}

grows!(FileRemove { session_id, path });

/// Renames within a workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileRename {
    /// Whose workspace.
    pub session_id: SessionId,
    /// Relative to the workspace.
    pub from: String,
    /// Relative to the workspace.
    pub to: String,
}

grows!(FileRename { session_id, from, to });

/// Makes a directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileMakeDir {
    /// Whose workspace.
    pub session_id: SessionId,
    /// Relative to the workspace.
    pub path: String,
}

grows!(FileMakeDir { session_id, path });

/// A directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEntries {
    /// What is in it.
    #[serde(default)]
    pub entries: Vec<FileStatus>,
    /// Whether it has more than were listed.
    pub more: bool,
}

grows!(FileEntries { entries, more });

/// One file's facts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileStatus {
    /// Relative to the workspace.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Its size, bytes.
    pub size: u64,
    /// When it last changed, Unix milliseconds.
    pub modified_at: u64,
    /// Its permission bits.
    pub mode: u32,
}

grows!(FileStatus {
    path,
    kind,
    size,
    modified_at,
    mode
});

words! {
    /// What a file is.
    pub enum FileKind {
        /// A file.
        0 "file" => File,
        /// A directory.
        1 "directory" => Directory,
        /// A symbolic link.
        2 "symlink" => Symlink,
        /// Something else.
        3 "other" => Other,
    }
}

/// Bytes of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileChunk {
    /// Where they stand, bytes.
    pub offset: u64,
    /// The bytes.
    pub data: Blob,
}

grows!(FileChunk { offset, data });

/// All bytes were sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEnd {
    /// How many, bytes.
    pub size: u64,
    /// Their SHA-256.
    pub digest: Digest,
}

grows!(FileEnd { size, digest });
