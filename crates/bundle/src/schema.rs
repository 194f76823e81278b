//! JSON schemas for types of other crates.

/// A point in time: RFC 3339 in UTC, such as `2026-01-31T12:00:00Z`. Represents `jiff::Timestamp`.
#[derive(schemars::JsonSchema)]
#[schemars(inline, with = "String", extend("format" = "date-time"))]
pub struct Time;
