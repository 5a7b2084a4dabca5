//! How a table of keys becomes a struct, its reader and its reference.
//!
//! Must not know: any key's name.

use super::kind::Secrecy;
use super::source::Settings;

/// A part of the configuration that can describe and read itself.
pub(super) trait Section: Sized {
    /// Appends the section's keys, in order.
    fn describe(keys: &mut Vec<Key>);

    /// Reads the section's values. Mistakes are noted in `settings`, and the key's default stands in.
    fn read(settings: &mut Settings) -> Self;
}

/// One key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The section and the key, with dots: `intake.body_limit`.
    pub name: &'static str,
    /// The value it has when nothing sets it, as it would be written in the environment.
    pub default: &'static str,
    /// What it is for: one or two sentences.
    pub meaning: &'static str,
    pub(super) secrecy: Secrecy,
}

/// What one key is set to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Effective {
    /// The section and the key, with dots.
    pub name: &'static str,
    /// The value as it was written; secrets are hidden.
    pub value: String,
    /// The file's line, the variable or the credential; `default` where nothing set it.
    pub from: String,
}

// === impl Key ===

impl Key {
    /// The environment variable that overrides this key: `INLET__INTAKE__BODY_LIMIT`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("INLET__{}", self.name.replace('.', "__").to_uppercase())
    }

    /// The key that names a file to read the value from: `admin.token_file`; secrets only.
    #[must_use]
    pub fn file_twin(&self) -> Option<String> {
        (self.secrecy != Secrecy::Open).then(|| format!("{}_file", self.name))
    }
}

/// Declares a section: its struct, and [`Section`] for it.
macro_rules! section {
    (
        $(#[$about:meta])*
        $name:ident at $path:literal {
            $($(#[doc = $meaning:literal])+ $key:ident: $type:ty = $kind:ident, default $default:literal;)*
        } $(with {
            $($(#[$sub_about:meta])* $sub:ident: $sub_type:ident,)*
        })?
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $($(#[doc = $meaning])+ pub $key: $type,)*
            $($($(#[$sub_about])* pub $sub: $sub_type,)*)?
        }

        impl Section for $name {
            fn describe(keys: &mut Vec<Key>) {
                $(keys.push(Key {
                    name: concat!($path, ".", stringify!($key)),
                    default: $default,
                    meaning: concat!($($meaning),+).trim_ascii(),
                    secrecy: kind::$kind.secrecy,
                });)*
                $($($sub_type::describe(keys);)*)?
            }

            fn read(settings: &mut Settings) -> Self {
                Self {
                    $($key: settings.read(concat!($path, ".", stringify!($key)), $default, &kind::$kind),)*
                    $($($sub: $sub_type::read(settings),)*)?
                }
            }
        }
    };
}
pub(super) use section;
