//! A record as the Open Cybersecurity Schema Framework has it, version 1.3.0: what somebody asked for is API Activity
//! (class 6003), what the runner says of itself Application Lifecycle (6002). Pure.

use serde_json::{Value, json};

use super::record::{Outcome, PERMISSION, Record};

/// The schema's version.
const VERSION: &str = "1.3.0";

/// The category of both classes, Application Activity.
const CATEGORY: u64 = 6;

/// Who a peer is that has no certificate of ours.
const STRANGER: &str = "unknown";

/// One record. What the schema has no place for is under `unmapped`, so that nothing is left out.
#[must_use]
pub fn ocsf(record: &Record, hash: &str) -> Value {
    let lifecycle = match &*record.what {
        "audit.start" => Some(3),
        "audit.stop" => Some(4),
        "audit.tail" => None,
        "enrol" | "identity" if record.control.is_none() => Some(99),
        what if what.starts_with("audit.") => Some(99),
        _ => None,
    };
    let (class, activity) = match lifecycle {
        Some(activity) => (6002, activity),
        None => (6003, activity(&record.what)),
    };
    // What a rule or the clock answers an agent: nobody asked this runner for it.
    let is_own = record.what == PERMISSION;
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
        // Of a peer whose handshake was refused nothing is known but that there was one, and the schema wants to be told who.
        event["actor"] = match &record.control {
            Some(control) => {
                json!({ "user": { "uid": control, "name": control, "domain": record.authority } })
            }
            None if is_own => json!({ "user": { "name": product["name"] } }),
            None => json!({ "user": { "name": STRANGER } }),
        };
        event["api"] = json!({ "operation": record.what, "service": { "name": "oqto-runner" } });
        event["src_endpoint"] = match (record.address, &record.control) {
            (Some(address), _) => json!({ "ip": address.ip().to_string(), "port": address.port() }),
            (None, Some(control)) => json!({ "uid": control }),
            (None, None) if is_own => json!({ "name": product["name"] }),
            (None, None) => json!({ "name": STRANGER }),
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

#[cfg(test)]
mod tests {
    use oqto_protocol::id::Digest;

    use super::super::record::Entry;
    use super::*;

    /// What the schema's version 1.3.0 requires of every event of both classes.
    const OF_ALL: &[&str] = &[
        "activity_id",
        "category_uid",
        "class_uid",
        "metadata",
        "metadata.product",
        "metadata.product.vendor_name",
        "metadata.version",
        "severity_id",
        "time",
        "type_uid",
    ];

    /// What it requires besides of API Activity; of an object that has to have one of some attributes, those.
    const OF_API_ACTIVITY: &[&str] = &[
        "actor",
        "actor.user",
        "actor.user.uid|actor.user.name",
        "api",
        "api.operation",
        "src_endpoint",
        "src_endpoint.ip|src_endpoint.uid|src_endpoint.name",
    ];

    /// What it requires besides of Application Lifecycle.
    const OF_LIFECYCLE: &[&str] = &["app", "app.vendor_name"];

    fn has(event: &Value, path: &str) -> bool {
        path.split('|').any(|path| {
            let found = path.split('.').try_fold(event, |at, name| at.get(name));
            found.is_some_and(|found| !found.is_null())
        })
    }

    #[test]
    fn every_record_has_all_that_the_schema_requires_and_loses_nothing() {
        for what in [
            "audit.start",
            "audit.stop",
            "audit.checkpoint",
            "audit.gap",
            "audit.removed",
            "audit.tail",
            "identity",
            "enrol",
            "connection.open",
            "connection.cut",
            "session.create",
            "prompt",
            "subscribe",
            "set_model",
            "session.delete",
            "trust",
        ] {
            for outcome in [Outcome::Allowed, Outcome::Refused, Outcome::Noted] {
                for known in [false, true] {
                    let mut entry = Entry::new(what, outcome);
                    if known {
                        entry.control = Some("c".parse().unwrap());
                        entry.authority = Some("a".parse().unwrap());
                        entry.on_behalf_of = Some("alice".to_owned());
                        entry.reason = Some("denied".to_owned());
                    }
                    let record = Record::new(3, 1000, Digest([0; 32]), entry);
                    let event = ocsf(&record, "hash");
                    let of_class = match event["class_uid"].as_u64().unwrap() {
                        6003 => OF_API_ACTIVITY,
                        6002 => OF_LIFECYCLE,
                        other => panic!("{other}"),
                    };
                    for path in OF_ALL.iter().chain(of_class) {
                        assert!(has(&event, path), "{what}: {path}: {event}");
                    }
                    let number = |name: &str| event[name].as_u64().unwrap();
                    assert_eq!(
                        number("type_uid"),
                        number("class_uid") * 100 + number("activity_id")
                    );
                    assert_eq!(number("category_uid"), number("class_uid") / 1000);
                    assert_eq!(event["unmapped"]["what"], what);
                    if known {
                        assert_eq!(event["unmapped"]["on_behalf_of"], "alice");
                    }
                }
            }
        }
    }
}
