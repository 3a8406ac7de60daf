//! What pi's extensions show and ask.

use oqto_protocol::event::{
    ConfirmRequest, Event, InputRequest, Notify, NotifyLevel, SelectRequest, Status, TextRequest,
};

use super::wire;
use crate::harness::fragment::Fragment;

/// Reads a request of an extension; `None` when its method is unknown.
pub(super) fn read(request: wire::UiRequest<'_>) -> Option<Fragment> {
    let request_id = request.id.into_owned();
    let title = request.title.map(wire::Text::into_owned);
    let timeout = request.timeout;
    let fragment = match &*request.method {
        "select" => Fragment::Asks(InputRequest::SelectRequest(SelectRequest {
            request_id,
            title: title.unwrap_or_default(),
            options: request.options,
            timeout,
        })),
        "confirm" => Fragment::Asks(InputRequest::ConfirmRequest(ConfirmRequest {
            request_id,
            title: title.unwrap_or_default(),
            message: request.message.map(wire::Text::into_owned).unwrap_or_default(),
            timeout,
        })),
        // An editor is an input that holds a text already.
        "input" | "editor" => Fragment::Asks(InputRequest::TextRequest(TextRequest {
            request_id,
            title: title.unwrap_or_default(),
            placeholder: request
                .placeholder
                .or(request.prefill)
                .map(wire::Text::into_owned),
            timeout,
        })),
        "notify" => Fragment::Event(Event::Notify(Notify {
            level: match request.notify_type.as_deref() {
                Some("error") => NotifyLevel::Error,
                Some("warning") => NotifyLevel::Warning,
                _ => NotifyLevel::Info,
            },
            message: request.message.map(wire::Text::into_owned).unwrap_or_default(),
        })),
        "setStatus" => status(
            request.status_key.map(wire::Text::into_owned).unwrap_or_default(),
            request.status_text.map(wire::Text::into_owned),
        ),
        "setWidget" => status(
            format!("x-pi-widget-{}", request.widget_key.unwrap_or_default()),
            request.widget_lines.map(|lines| lines.join("\n")),
        ),
        // The title of a terminal, not of the session.
        "setTitle" => status("x-pi-title".to_owned(), title),
        "set_editor_text" => status(
            "x-pi-editor-text".to_owned(),
            request.text.map(wire::Text::into_owned),
        ),
        _ => return None,
    };
    Some(fragment)
}

fn status(key: String, text: Option<String>) -> Fragment {
    Fragment::Event(Event::Status(Status { key, text }))
}
