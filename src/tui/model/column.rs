//! The columns by which the list can be sorted.

/// A column of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Newest first.
    Time,
    /// Namespace and pod.
    Workload,
    /// Program.
    Exe,
    /// Signal.
    Signal,
    /// Incomplete cores first.
    Verdict,
    /// Largest first.
    Size,
    /// The frame in which it crashed.
    Top,
}

/// All columns, left to right.
pub const COLUMNS: [Column; 7] = [
    Column::Time,
    Column::Workload,
    Column::Exe,
    Column::Signal,
    Column::Verdict,
    Column::Size,
    Column::Top,
];

impl Column {
    /// The title.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Time => "AGE",
            Self::Workload => "WORKLOAD",
            Self::Exe => "EXE",
            Self::Signal => "SIGNAL",
            Self::Verdict => "VERDICT",
            Self::Size => "SIZE",
            Self::Top => "TOP FRAME",
        }
    }

    /// The name in `:sort`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Workload => "workload",
            Self::Exe => "exe",
            Self::Signal => "signal",
            Self::Verdict => "verdict",
            Self::Size => "size",
            Self::Top => "top",
        }
    }
}
