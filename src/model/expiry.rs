//! When a Facebook token ends, in whatever form its document tells it (R33).
//!
//! Must not know: tokens, keys, who asks. A form that is read here can be written again, so that a renewed token's
//! document stays readable for whoever wrote the old one.

use bson::{Bson, DateTime};

/// Below it a number is a lifetime in seconds after `updated_at`: the year 2001 is no token's end.
const SECONDS_MIN: i64 = 1_000_000_000;
/// From it on a number counts milliseconds: as seconds it would be the year 5138.
const MILLISECONDS_MIN: i64 = 100_000_000_000;

/// A token's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// Milliseconds since the epoch.
    pub at_ms: i64,
    form: Form,
}

/// How the document writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A BSON date.
    Date,
    /// ISO 8601.
    Text,
    /// A number of something.
    Number(Unit, Width),
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
    /// Seconds after `updated_at`.
    Lifetime,
}

/// The number's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Int32,
    Int64,
    Double,
    Text,
}

impl Expiry {
    /// Reads `token.expires_in`. `None`: the token never ends, or nobody can know when. That is what a number of zero
    /// or less means at Facebook, and a lifetime where the document does not say when it was updated.
    #[must_use]
    pub fn read(value: &Bson, updated_at_ms: Option<i64>) -> Option<Self> {
        let (number, width) = match value {
            Bson::Int32(number) => (i64::from(*number), Width::Int32),
            Bson::Int64(number) => (*number, Width::Int64),
            Bson::Double(number) => (whole(*number)?, Width::Double),
            Bson::String(text) => match text.trim().parse() {
                Ok(number) => (number, Width::Text),
                Err(_) => return Self::moment(value),
            },
            _ => return Self::moment(value),
        };
        let (unit, at_ms) = match number {
            ..=0 => return None,
            1..SECONDS_MIN => {
                let at_ms = updated_at_ms?.saturating_add(number * 1000);
                (Unit::Lifetime, at_ms)
            }
            SECONDS_MIN..MILLISECONDS_MIN => (Unit::Seconds, number * 1000),
            MILLISECONDS_MIN.. => (Unit::Milliseconds, number),
        };
        let form = Form::Number(unit, width);
        Some(Self { at_ms, form })
    }

    /// A date, or text that is one.
    fn moment(value: &Bson) -> Option<Self> {
        let (at_ms, form) = match value {
            Bson::DateTime(at) => (at.timestamp_millis(), Form::Date),
            Bson::String(text) => (iso_8601(text)?, Form::Text),
            _ => return None,
        };
        Some(Self { at_ms, form })
    }

    /// Another end in this one's form, for a document whose `updated_at` becomes `updated_at_ms`.
    #[must_use]
    pub fn write(self, at_ms: i64, updated_at_ms: i64) -> Bson {
        let date = DateTime::from_millis(at_ms);
        match self.form {
            Form::Date => Bson::DateTime(date),
            Form::Text => date
                .try_to_rfc3339_string()
                .map_or(Bson::DateTime(date), Bson::String),
            Form::Number(Unit::Seconds, width) => width.of(at_ms / 1000),
            Form::Number(Unit::Milliseconds, width) => width.of(at_ms),
            Form::Number(Unit::Lifetime, width) => {
                let seconds = at_ms.saturating_sub(updated_at_ms) / 1000;
                width.of(seconds.clamp(1, SECONDS_MIN - 1))
            }
        }
    }
}

impl Width {
    fn of(self, number: i64) -> Bson {
        match self {
            Self::Int32 => i32::try_from(number).map_or(Bson::Int64(number), Bson::Int32),
            Self::Int64 => Bson::Int64(number),
            Self::Double => Bson::Double(number as f64),
            Self::Text => Bson::String(number.to_string()),
        }
    }
}

/// A point in time (`updated_at`), milliseconds since the epoch. What is no point in time reads as absent.
#[must_use]
pub fn moment_ms(value: &Bson) -> Option<i64> {
    Expiry::read(value, None).map(|moment| moment.at_ms)
}

/// What fits an integer, its fraction cut off.
fn whole(number: f64) -> Option<i64> {
    (number.abs() < i64::MAX as f64).then_some(number as i64)
}

/// ISO 8601 with an offset with or without a colon, or without one, which is UTC.
fn iso_8601(text: &str) -> Option<i64> {
    let text = text.trim().replacen(' ', "T", 1);
    let parse = |text: &str| DateTime::parse_rfc3339_str(text).ok();
    let with_colon = text
        .split_at_checked(text.len().saturating_sub(2))
        .map(|(head, minutes)| format!("{head}:{minutes}"));
    let at = parse(&text)
        .or_else(|| parse(&with_colon?))
        .or_else(|| parse(&format!("{text}Z")))
        .or_else(|| parse(&format!("{text}T00:00:00Z")))?;
    Some(at.timestamp_millis())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const UPDATED_MS: i64 = 1_767_950_401_000;
    /// 2026-03-10T09:20:01Z.
    const AT_MS: i64 = 1_773_134_401_000;

    fn text(text: &str) -> Bson {
        Bson::String(text.to_owned())
    }

    fn read(value: &Bson) -> Option<i64> {
        Expiry::read(value, Some(UPDATED_MS)).map(|expiry| expiry.at_ms)
    }

    #[test]
    fn every_form_of_an_end_is_read() {
        let table = [
            (Bson::DateTime(DateTime::from_millis(AT_MS)), AT_MS),
            (text("2026-03-10T09:20:01Z"), AT_MS),
            (text(" 2026-03-10T09:20:01.000Z "), AT_MS),
            (text("2026-03-10T10:20:01+01:00"), AT_MS),
            (text("2026-03-10T09:20:01+0000"), AT_MS),
            (text("2026-03-10T10:20:01+0100"), AT_MS),
            (text("2026-03-10 09:20:01"), AT_MS),
            (text("2026-03-10"), AT_MS - 33_601_000),
            (Bson::Int32(1_773_134_401), AT_MS),
            (Bson::Int64(AT_MS / 1000), AT_MS),
            (Bson::Double(1_773_134_401.9), AT_MS),
            (text("1773134401"), AT_MS),
            (Bson::Int64(AT_MS), AT_MS),
            (Bson::Double(AT_MS as f64), AT_MS),
            (text("1773134401000"), AT_MS),
            (Bson::Int32(5_184_000), AT_MS),
            (Bson::Int64(5_184_000), AT_MS),
            (Bson::Double(5_184_000.0), AT_MS),
            (text("5184000"), AT_MS),
            (Bson::Int32(999_999_999), UPDATED_MS + 999_999_999_000),
            (Bson::Int32(1_000_000_000), 1_000_000_000_000),
            (Bson::Int64(99_999_999_999), 99_999_999_999_000),
            (Bson::Int64(100_000_000_000), 100_000_000_000),
        ];
        for (value, expected) in table {
            assert_eq!(read(&value), Some(expected), "{value:?}");
        }
    }

    #[test]
    fn what_tells_no_end_means_never() {
        let never = [
            Bson::Null,
            Bson::Int32(0),
            Bson::Int64(-1),
            Bson::Double(f64::NAN),
            Bson::Double(f64::INFINITY),
            Bson::Boolean(true),
            text(""),
            text("0"),
            text("soon"),
            text("60 days"),
            text("é"),
            Bson::Array(Vec::new()),
        ];
        for value in never {
            assert_eq!(read(&value), None, "{value:?}");
        }
        // A lifetime that began nobody knows when.
        assert_eq!(Expiry::read(&Bson::Int32(5_184_000), None), None);
    }

    #[test]
    fn a_new_end_is_written_as_the_old_one_was() {
        let later_ms = AT_MS + 5_184_000_000;
        let forms = [
            (
                Bson::DateTime(DateTime::from_millis(AT_MS)),
                Bson::DateTime(DateTime::from_millis(later_ms)),
            ),
            (
                text("2026-03-10T09:20:01+0000"),
                text("2026-05-09T09:20:01Z"),
            ),
            (Bson::Int32(1_773_134_401), Bson::Int32(1_778_318_401)),
            (Bson::Int64(1_773_134_401), Bson::Int64(1_778_318_401)),
            (Bson::Double(1_773_134_401.0), Bson::Double(1_778_318_401.0)),
            (text("1773134401"), text("1778318401")),
            (Bson::Int64(AT_MS), Bson::Int64(later_ms)),
            (Bson::Double(AT_MS as f64), Bson::Double(later_ms as f64)),
            (Bson::Int32(5_184_000), Bson::Int32(5_184_000)),
            (text("5184000"), text("5184000")),
        ];
        for (old, expected) in forms {
            let written = Expiry::read(&old, Some(UPDATED_MS))
                .unwrap()
                .write(later_ms, AT_MS);
            assert_eq!(written, expected, "{old:?}");
            let read = Expiry::read(&written, Some(AT_MS)).unwrap();
            assert_eq!(read.at_ms, later_ms, "{old:?}");
        }
    }

    #[test]
    fn seconds_that_outgrow_their_type_take_a_wider_one() {
        let seconds = Expiry::read(&Bson::Int32(1_773_134_401), None).unwrap();
        let in_2040 = 2_208_988_800;
        assert_eq!(seconds.write(in_2040 * 1000, 0), Bson::Int64(in_2040));
    }
}
