//! The runner's own decoders. Not for libFuzzer: its program is built without the runner.

use oqto_runner::audit::ocsf;
use oqto_runner::audit::record::Line;
use oqto_runner::kernel_audit::Record;
use oqto_runner::session::Fact;

use super::targets::Target;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "audit_line",
        run: audit_line,
        golden: None,
    },
    Target {
        name: "audit_record",
        run: audit_record,
        golden: None,
    },
    Target {
        name: "facts",
        run: facts,
        golden: None,
    },
];

/// A line of the audit log that is what it says can be shown, in either form.
fn audit_line(bytes: &[u8]) {
    let Some(line) = Line::read(bytes) else { return };
    let Some(record) = line.record() else { return };
    assert_eq!(record.seq, line.seq);
    assert!(ocsf(&record, &line.hash.to_string()).is_object());
}

/// Texts of a record are no longer than the record.
fn audit_record(bytes: &[u8]) {
    let (text, other) = match oqto_runner::kernel_audit::parse(bytes) {
        Ok(Some(Record::Seccomp { program, .. })) => (program, None),
        Ok(Some(Record::Landlock { rights, target, .. })) => (target, Some(rights)),
        Ok(_) | Err(_) => (None, None),
    };
    // A byte that is no text becomes three.
    assert!(text.unwrap_or_default().len() <= 3 * bytes.len());
    assert!(other.unwrap_or_default().len() <= bytes.len());
}

/// What can be read is written the same way again.
fn facts(bytes: &[u8]) {
    if let Some(Ok(facts)) = Fact::parse(bytes) {
        let again = Fact::parse(&Fact::note(&facts));
        assert!(matches!(again, Some(Ok(again)) if again == facts), "{facts:?}");
    }
}
