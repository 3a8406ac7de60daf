//! A record as the Open Cybersecurity Schema Framework has it, version 1.3.0: what somebody asked for is API Activity
//! (class 6003), what the runner says of itself Application Lifecycle (6002). Pure.

use serde_json::{Value, json};

use super::record::{Outcome, Record};

/// The schema's version.
const VERSION: &str = "1.3.0";

/// The category of both classes, Application Activity.
const CATEGORY: u64 = 6;

/// One record. What the schema has no place for is under `unmapped`, so that nothing is left out.
#[must_use]
pub fn ocsf(record: &Record, hash: &str) -> Value {
    let lifecycle = match &*record.what {
        "audit.start" => Some(3),
        "audit.stop" => Some(4),
        what if what.starts_with("audit.") => Some(99),
        _ => None,
    };
    let (class, activity) = match lifecycle {
        Some(activity) => (6002, activity),
        None => (6003, activity(&record.what)),
    };
    let (status_id, status) = match record.outcome {
        Outcome::Allowed | Outcome::Noted => (1, "Success"),
        Outcome::Refused => (2, "Failure"),
    };
    let product =
        json!({ "name": "oqto-runner", "vendor_name": "oqto", "version": env!("CARGO_PKG_VERSION") });
    let mut event = json!({
        "activity_id": activity,
        "category_uid": CATEGORY,
        "class_uid": class,
        "type_uid": class * 100 + activity,
        "severity_id": 1,
        "status_id": status_id,
        "status": status,
        "time": record.at,
        "metadata": {
            "version": VERSION,
            "product": product,
            "log_name": "audit",
            "sequence": record.seq,
            "uid": hash,
        },
        "unmapped": {
            "what": record.what,
            "outcome": record.outcome,
            "session": record.session,
            "command": record.command,
            "arguments": record.arguments,
            "policy": record.policy,
            "detail": record.detail,
            "on_behalf_of": record.on_behalf_of,
            "runner": record.runner,
            "signature": record.signature,
            "prev": record.prev,
        },
    });
    if activity == 99 {
        event["activity_name"] = json!(record.what);
    }
    if let Some(reason) = &record.reason {
        event["status_code"] = json!(reason);
    }
    if let Some(count) = record.count {
        event["count"] = json!(count);
    }
    if lifecycle.is_some() {
        event["app"] = product;
    } else {
        let user = json!({ "uid": record.control, "name": record.control, "domain": record.authority });
        event["actor"] = json!({ "user": user });
        event["api"] = json!({ "operation": record.what, "service": { "name": "oqto-runner" } });
        event["src_endpoint"] = match record.address {
            Some(address) => json!({ "ip": address.ip().to_string(), "port": address.port() }),
            None => json!({ "uid": record.control }),
        };
    }
    without_nulls(&mut event);
    event
}

/// What kind of thing an operation does, as the schema counts: create, read, update, delete, other.
fn activity(what: &str) -> u64 {
    match what {
        "session.create" | "session.new" | "fork" => 1,
        "subscribe" | "get_messages" | "get_fork_points" | "audit.tail" | "files.list" | "files.stat"
        | "files.read" => 2,
        "session.restart" | "session.switch" | "files.write" | "files.rename" | "files.mkdir" => 3,
        "session.close" | "session.delete" | "files.remove" => 4,
        what if what.starts_with("set_") => 3,
        _ => 99,
    }
}

fn without_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, field| !field.is_null());
        fields.values_mut().for_each(without_nulls);
    }
}
