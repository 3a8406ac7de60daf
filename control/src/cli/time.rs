//! Times as people write and read them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration as one writes it: a number and `s`, `m`, `h` or `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

/// A text that is no duration.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a duration is a number and s, m, h or d, such as 15m")]
pub(super) struct BadSpan;

impl FromStr for Span {
    type Err = BadSpan;

    fn from_str(text: &str) -> Result<Self, BadSpan> {
        let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
        let (digits, seconds) = units
            .into_iter()
            .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
            .ok_or(BadSpan)?;
        // A sign is none of the digits that a number would take.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadSpan);
        }
        let count: u64 = digits.parse().map_err(|_| BadSpan)?;
        let seconds = count.checked_mul(seconds).ok_or(BadSpan)?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ 0..120 => write!(f, "{seconds} s"),
            seconds @ 120..7200 => write!(f, "{} min", seconds / 60),
            seconds @ 7200..172_800 => write!(f, "{} h", seconds / 3600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

/// A moment, from Unix milliseconds, shown to the minute in UTC.
pub(super) struct Moment(pub(super) u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0 / 60_000;
        let (days, minute) = (minutes / 1440, minutes % 1440);
        // Days are counted from 1 March of the year 0, so that the day which some years have more is a year's last.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = (month_from_march + 2) % 12 + 1;
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC",
            minute / 60,
            minute % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        let table = [
            ("15m", Some(900)),
            ("1s", Some(1)),
            ("24h", Some(86_400)),
            ("7d", Some(604_800)),
            ("15", None),
            ("m", None),
            ("+1m", None),
            ("-1m", None),
            ("1.5h", None),
            ("99999999999999999999s", None),
            ("9999999999999999999d", None),
        ];
        for (text, seconds) in table {
            let span = text.parse::<Span>().ok();
            assert_eq!(
                span,
                seconds.map(|seconds| Span(Duration::from_secs(seconds))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_moment_is_a_date() {
        let table = [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399_000, "2000-02-28 23:59 UTC"),
            (951_782_400_000, "2000-02-29 00:00 UTC"),
            (951_868_800_000, "2000-03-01 00:00 UTC"),
            (1_790_000_000_000, "2026-09-21 14:13 UTC"),
            (4_102_444_799_000, "2099-12-31 23:59 UTC"),
        ];
        for (ms, text) in table {
            assert_eq!(Moment(ms).to_string(), text);
        }
    }
}
