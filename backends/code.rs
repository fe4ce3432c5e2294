//! Stable names for what can be wrong, each with its explanation.
//!
//! Every kind of complaint is a variant of an enum made by [`codes!`](crate::codes), a row of which is the whole
//! of it: name, severity, and what `twill explain` says. An enum that joins the catalogue of the program is a line
//! there; a variant, a row here or there.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Packets flow, and something needs somebody's attention.
    Warning,
    /// Something does not work: packets are lost, or Twill refuses to go on.
    Broken,
}

/// What is known of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name: stable, for scripts, such as `bad-lease-key`.
    pub code: &'static str,
    /// What the program calls it, such as `Code::BadLeaseKey`.
    #[serde(skip)]
    pub variant: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it means, in a sentence.
    pub means: &'static str,
    /// What does not work because of it.
    pub breaks: &'static str,
    /// What an operator does about it.
    pub next: &'static str,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Warning => "warning",
            Self::Broken => "broken",
        })
    }
}

/// Makes an enum of codes from a table. A row: the variant, its severity and its name, what it means, what it breaks,
/// what to do about it.
#[macro_export]
macro_rules! codes {
    (
        $(#[$meta:meta])*
        $vis:vis enum $table:ident {
            $($variant:ident: $severity:ident $name:literal, $means:literal, $breaks:literal, $next:literal;)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $table {
            $(#[doc = $means] $variant,)+
        }

        impl $table {
            /// The table, in its order.
            pub const ENTRIES: &'static [$crate::code::Entry] = &[$(Self::$variant.entry()),+];

            /// What is known of it.
            #[must_use]
            pub const fn entry(self) -> $crate::code::Entry {
                match self {
                    $(Self::$variant => $crate::code::Entry {
                        code: $name,
                        variant: concat!(stringify!($table), "::", stringify!($variant)),
                        severity: $crate::code::Severity::$severity,
                        means: $means,
                        breaks: $breaks,
                        next: $next,
                    },)+
                }
            }
        }

        impl ::std::fmt::Display for $table {
            /// The name that is stable, for scripts.
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.entry().code)
            }
        }

        impl ::serde::Serialize for $table {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> ::std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.entry().code)
            }
        }
    };
}
