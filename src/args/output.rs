//! Output formats: `-o`, the same for every command.

use clap::{Args, ValueEnum};

/// Output format of a command that prints one document.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// Output format
    #[arg(long, short = 'o', value_enum, default_value_t = TextFormat::Text, value_name = "FORMAT")]
    output: TextFormat,
    /// Same as `-o json`
    #[arg(long, hide = true, conflicts_with = "output")]
    json: bool,
}

impl OutputArgs {
    /// The requested format.
    #[must_use]
    pub fn format(self) -> TextFormat {
        match self.json {
            true => TextFormat::Json,
            false => self.output,
        }
    }
}

/// Output format of a command that prints rows.
#[derive(Clone, Copy, Debug, Args)]
pub struct ListOutputArgs {
    /// Output format
    #[arg(long, short = 'o', value_enum, default_value_t = ListFormat::Table, value_name = "FORMAT")]
    output: ListFormat,
    /// Same as `-o json`
    #[arg(long, hide = true, conflicts_with = "output")]
    json: bool,
}

impl ListOutputArgs {
    /// The requested format.
    #[must_use]
    pub fn format(self) -> ListFormat {
        match self.json {
            true => ListFormat::Json,
            false => self.output,
        }
    }
}

/// Text for people or JSON for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TextFormat {
    /// For people
    Text,
    /// One JSON document
    Json,
}

/// Formats of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// Aligned columns for people
    #[value(alias = "text")]
    Table,
    /// More columns, and nothing cut to the width of the terminal
    Wide,
    /// One JSON array
    Json,
    /// One JSON object per line
    Jsonl,
    /// Comma-separated values with a header line; columns and values are those of JSON
    Csv,
    /// Ids only, one per line
    Id,
}

impl ListFormat {
    /// Whether it is meant for people.
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

/// Order of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SortBy {
    /// Newest first
    Time,
    /// Largest first
    Size,
    /// By program
    Exe,
    /// By signal
    Signal,
    /// By namespace and pod
    Pod,
    /// Most frequent first (only groups)
    Count,
}
