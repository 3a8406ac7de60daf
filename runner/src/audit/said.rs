//! A record in one line, for people. Pure.

use super::record::{Outcome, Record, is_plain};

/// The record in one line; nothing in it moves a cursor, whoever wrote it.
#[must_use]
pub fn for_people(record: &Record) -> String {
    let outcome = match record.outcome {
        Outcome::Allowed => "allowed",
        Outcome::Refused => "refused",
        Outcome::Noted => "noted",
    };
    let mut text = format!(
        "{:>8} {} {:<7} {}",
        record.seq,
        time(record.at),
        outcome,
        record.what
    );
    if let Some(control) = &record.control {
        text += &format!(" by {control}");
    }
    if let Some(whom) = &record.on_behalf_of {
        text += &format!(" for {whom:?}");
    }
    if let Some(session) = &record.session {
        text += &format!(" on {session}");
    }
    if let Some(address) = &record.address {
        text += &format!(" from {address}");
    }
    if let Some(count) = &record.count {
        text += &format!(" {count} times");
    }
    if let Some(reason) = &record.reason {
        text += &format!(": {reason}");
    }
    if let Some(detail) = &record.detail {
        text += &format!(" ({detail})");
    }
    // Who can write the file could else write to the terminal.
    text.replace(|letter| !is_plain(letter), "\u{fffd}")
}

/// Unix milliseconds as a date in UTC, RFC 3339.
pub(super) fn time(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from the first of March of year 0, so that a leap day is the last of its year.
    let days = day + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day_of_month:02}T{:02}:{:02}:{:02}.{ms:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_as_a_date() {
        for (unix_ms, said) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(time(unix_ms), said);
        }
    }
}
