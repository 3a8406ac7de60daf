//! Pictures, sound, films and files, and where their bytes are.

use serde::{Deserialize, Serialize};

use crate::codec::{Blob, grows, kinds};

/// A picture, sound, film or file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Media {
    /// Where its bytes are.
    pub source: Source,
    /// What it shows, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alt: Option<String>,
    /// How long it plays, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_sec: Option<f64>,
    /// What is said in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Its size, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

grows!(Media {
    source,
    alt,
    duration_sec,
    transcript,
    filename,
    size_bytes
});

kinds! {
    /// Where the bytes of a medium are.
    pub enum Source, "type" {
        /// At an address.
        1 "url" since 1 => SourceUrl(SourceUrl),
        /// In an attachment store.
        2 "attachment_ref" since 1 => SourceAttachment(SourceAttachment),
        /// Here.
        3 "base64" since 1 => SourceInline(SourceInline),
    }
}

/// Bytes at an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceUrl {
    /// The address.
    pub url: String,
    /// Their type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
}

grows!(SourceUrl { url, mime });

/// Bytes in an attachment store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceAttachment {
    /// Their name there.
    pub attachment_ref: String,
    /// Their type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
}

grows!(SourceAttachment { attachment_ref, mime });

/// Bytes that stand here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceInline {
    /// The bytes.
    pub data: Blob,
    /// Their type.
    pub mime: String,
}

grows!(SourceInline { data, mime });
