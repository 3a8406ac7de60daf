//! Messages: what was said, whole. Events of the stream are a view of a message being made.

mod media;
mod part;
mod part_json;
mod whole;

pub use media::{Media, Source, SourceAttachment, SourceInline, SourceUrl};
pub use part::{
    Content, Extension, FileRef, LineRange, Part, Text, TextFormat, Thinking, ToolCall, ToolResult,
    ToolStatus,
};
pub use whole::{Message, Role, Sender, SenderType, StopReason, Usage};
