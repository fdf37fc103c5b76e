use std::fmt;

use serde::{Deserialize, Serialize};

/// One version of the protocol that this crate supports.
///
/// The order is the order of publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ProtocolVersion {
    /// 2024-11-05
    #[serde(rename = "2024-11-05")]
    V2024_11_05,
    /// 2025-03-26
    #[serde(rename = "2025-03-26")]
    V2025_03_26,
    /// 2025-06-18
    #[serde(rename = "2025-06-18")]
    V2025_06_18,
    /// 2025-11-25
    #[serde(rename = "2025-11-25")]
    V2025_11_25,
    /// 2026-07-28
    #[serde(rename = "2026-07-28")]
    V2026_07_28,
}

impl ProtocolVersion {
    /// Every version, newest first, as `server/discover` and version errors list them.
    pub const ALL: [Self; 5] = [
        Self::V2026_07_28,
        Self::V2025_11_25,
        Self::V2025_06_18,
        Self::V2025_03_26,
        Self::V2024_11_05,
    ];

    /// The newest version that has `initialize`.
    pub const NEWEST_LEGACY: Self = Self::V2025_11_25;

    /// The version of an HTTP request without `MCP-Protocol-Version`, if nothing else names one
    /// (2025-11-25, basic/transports, "Protocol Version Header").
    pub const ASSUMED: Self = Self::V2025_03_26;

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The version with this name, if this crate supports it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// The era that this version belongs to.
    #[must_use]
    pub const fn era(self) -> Era {
        match self {
            Self::V2026_07_28 => Era::Modern,
            _ => Era::Legacy,
        }
    }

    /// The version that answers an `initialize` for `requested`: the same if it is a legacy
    /// version, else the newest legacy version (2025-11-25, basic/lifecycle).
    #[must_use]
    pub fn negotiate(requested: &str) -> Self {
        Self::parse(requested)
            .filter(|version| version.era() == Era::Legacy)
            .unwrap_or(Self::NEWEST_LEGACY)
    }

    /// Whether a content block may be audio.
    #[must_use]
    pub fn has_audio(self) -> bool {
        self >= Self::V2025_03_26
    }

    /// Whether a content block may be a link to a resource, without its contents.
    #[must_use]
    pub fn has_resource_links(self) -> bool {
        self >= Self::V2025_06_18
    }

    /// Whether a form may have a field with several choices.
    #[must_use]
    pub fn has_lists_in_forms(self) -> bool {
        self >= Self::V2025_11_25
    }

    /// Whether an event stream may begin with an empty event that only has an id, and may be closed
    /// by the server before its response (2025-11-25, basic/transports). Older clients try to parse
    /// the empty event as JSON.
    #[must_use]
    pub fn primes_streams(self) -> bool {
        self >= Self::V2025_11_25 && self.era() == Era::Legacy
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two forms of the protocol.
///
/// *Legacy* versions open a session with `initialize`. In *modern* versions each request names its
/// version, client and capabilities (2026-07-28, basic/versioning). Every difference between the
/// eras is a method here, so that no other code compares versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Era {
    /// Up to 2025-11-25.
    Legacy,
    /// From 2026-07-28 on.
    Modern,
}

impl Era {
    /// Whether every result has a `resultType`, and cacheable results say how long they are valid.
    #[must_use]
    pub const fn results_are_typed(self) -> bool {
        matches!(self, Self::Modern)
    }

    /// Whether `outputSchema` must describe an object, and `structuredContent` must be an object.
    #[must_use]
    pub const fn structured_is_object(self) -> bool {
        matches!(self, Self::Legacy)
    }

    /// Whether the server may send its own requests on a stream.
    #[must_use]
    pub const fn server_may_ask(self) -> bool {
        matches!(self, Self::Legacy)
    }

    /// The error code for a resource that does not exist.
    #[must_use]
    pub const fn resource_not_found_code(self) -> i32 {
        match self {
            Self::Legacy => crate::code::RESOURCE_NOT_FOUND_LEGACY,
            Self::Modern => crate::code::INVALID_PARAMS,
        }
    }

    /// `legacy` or `modern`, for logs and views.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialize_never_negotiates_a_version_without_a_handshake() {
        assert_eq!(ProtocolVersion::negotiate("2026-07-28"), ProtocolVersion::NEWEST_LEGACY);
        assert_eq!(ProtocolVersion::negotiate("1999-01-01"), ProtocolVersion::NEWEST_LEGACY);
        assert_eq!(ProtocolVersion::negotiate("2024-11-05"), ProtocolVersion::V2024_11_05);
    }

    #[test]
    fn all_versions_are_listed_newest_first_and_parse_back() {
        assert!(ProtocolVersion::ALL.is_sorted_by(|a, b| a > b));
        for version in ProtocolVersion::ALL {
            assert_eq!(ProtocolVersion::parse(version.as_str()), Some(version));
        }
    }
}
