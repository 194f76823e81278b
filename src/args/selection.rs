//! Filters of `cdh ls` and `cdh groups`: the same terms, as arguments and as flags.

use clap::Args;

/// Conditions on dumps. All of them must match.
#[derive(Clone, Debug, Default, Args)]
pub struct SelectionArgs {
    /// Only dumps that match all of these: `namespace:payments`, `signal:SEGV`, `since:2d`,
    /// `image:checkout:1.4.2`, `new-since:1d`, a process id, the path of a program, a unit, a command line, or a
    /// word that occurs in a name
    #[arg(value_name = "TERM")]
    pub terms: Vec<String>,
    /// A number limits the listing (as `--limit`); anything else is a namespace (as `--namespace`)
    #[arg(short = 'n', value_name = "N|NAMESPACE")]
    pub namespace_or_count: Option<String>,
    /// Only dumps of this namespace (`*` and `?` match)
    #[arg(long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Only dumps of this pod, or of this container outside Kubernetes
    #[arg(long, value_name = "POD")]
    pub pod: Option<String>,
    /// Only dumps of this program, by name or path (a path is slower: reads manifests)
    #[arg(long, value_name = "NAME")]
    pub exe: Option<String>,
    /// Only dumps of this image (slower: reads manifests)
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Only dumps from this node (slower: reads manifests)
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Only dumps of this process id (slower: reads manifests)
    #[arg(long, value_name = "PID")]
    pub pid: Option<String>,
    /// Only dumps of this systemd unit (slower: reads manifests)
    #[arg(long, value_name = "UNIT")]
    pub unit: Option<String>,
    /// Only dumps whose command line contains this (slower: reads manifests)
    #[arg(long, value_name = "TEXT")]
    pub cmdline: Option<String>,
    /// Only dumps with this signal: 11, SEGV or SIGSEGV
    #[arg(long, value_name = "SIGNAL")]
    pub signal: Option<String>,
    /// Only dumps since then: 2h, 7d, yesterday, 2026-01-31, 2026-01-31T12:00:00Z
    #[arg(long, short = 'S', value_name = "WHEN")]
    pub since: Option<String>,
    /// Only dumps until then
    #[arg(long, short = 'U', value_name = "WHEN")]
    pub until: Option<String>,
    /// Only crashes that the store first received since then: 1d, 2026-01-31
    #[arg(long, value_name = "WHEN")]
    pub new_since: Option<String>,
    /// Only dumps that are not complete
    #[arg(long)]
    pub truncated: bool,
    /// Only dumps with this fingerprint (or the start of it)
    #[arg(long, value_name = "FINGERPRINT")]
    pub fingerprint: Option<String>,
}

impl SelectionArgs {
    /// The number after `-n`. A namespace that is a number needs `--namespace`.
    #[must_use]
    pub fn count(&self) -> Option<usize> {
        self.namespace_or_count.as_ref()?.parse().ok()
    }
}
