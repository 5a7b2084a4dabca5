//! Values: as they are found, and the types of those that need more than the standard library has.
//!
//! Must not know: any key's name, or where a value was written.

use std::fmt;

use toml::de::DeValue;

/// A value before its kind is known.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    /// Text, from wherever.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Flag(bool),
    /// A TOML array.
    List(Vec<Raw>),
    /// What no key takes: floats, times, tables, integers out of range. As it was written.
    Odd(String),
}

/// A text that is never shown: not in logs, not in answers, not in mistakes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// An `http` or `https` address without a slash at its end, so that paths can be put behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for collectors.
    Json,
    /// For people.
    Text,
}

// === impl Raw ===

impl Raw {
    /// A value of a parsed file.
    pub(super) fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .map_or_else(|_| Self::Odd(integer.to_string()), Self::Integer),
            DeValue::Boolean(flag) => Self::Flag(*flag),
            DeValue::Array(items) => {
                Self::List(items.iter().map(|item| Self::of(item.get_ref())).collect())
            }
            DeValue::Float(float) => Self::Odd(float.to_string()),
            DeValue::Datetime(datetime) => Self::Odd(datetime.to_string()),
            DeValue::Table(_) => Self::Odd("{…}".to_owned()),
        }
    }

    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty() || text == "[]",
            Self::List(items) => items.is_empty(),
            _ => false,
        }
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Odd(text) => f.write_str(text),
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(Self::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

// === impl Secret ===

impl Secret {
    /// `None` where it is empty or blank: an empty secret would let everybody in.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (!text.trim().is_empty()).then(|| Self(text.to_owned()))
    }

    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

// === impl BaseUrl ===

impl BaseUrl {
    /// `None` where it is no absolute `http` or `https` URL with a host, or has a query or a fragment.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = reqwest::Url::parse(text).ok()?;
        let is_base = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none();
        is_base.then(|| Self(text.trim_end_matches('/').to_owned()))
    }

    /// The address, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
