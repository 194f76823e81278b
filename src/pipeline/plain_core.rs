//! The plain core of a dump as one stream: the bytes that the kernel wrote.

use std::io::{self, Read, Write};

use anyhow::{Context, Result};
use cdh_bundle::DigestReader;

use super::dump::{bundle_failure, unreadable};
use super::files::open_regular;
use super::{Case, Dump, Observer, Origin};
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};

/// Writes the core of `dump` to `out` and compares it with the manifest's digest. On an error, `out` may hold a
/// part of it.
///
/// # Errors
/// If there is no core, if it cannot be read or written, or if it is damaged.
pub fn write_core(dump: &Dump, out: &mut dyn Write, observer: &dyn Observer) -> Result<()> {
    let label = dump.label();
    let missing = || -> anyhow::Error {
        Failure::new(ExitStatus::Nothing, "this dump has no core")
            .hint(format!("`cdh info {label}` shows why it is missing"))
            .into()
    };
    let open = |path: &std::path::Path| {
        let shown = terminal_line(&path.display().to_string());
        open_regular(path).map_err(|error| unreadable(error, &shown))
    };
    let record = dump.manifest.core.as_ref();
    let plain: Box<dyn Read> = match (&dump.origin, dump.bundle()) {
        (Origin::Core(path), _) => Box::new(open(dump.plain_core(path))?),
        (Origin::Case(path), _) => Box::new(open(&Case::core_path(path).ok_or_else(missing)?)?),
        (_, Some(bundle)) => {
            let reader = bundle.core_reader();
            let reader = reader.map_err(|error| bundle_failure(error, &label))?;
            reader.ok_or_else(missing)?
        }
        _ => return Err(missing()),
    };
    observer.started("writing the core", record.map(|core| core.size));
    let mut reader = DigestReader::new(plain);
    let mut block = vec![0; 1 << 20];
    loop {
        if observer.is_cancelled() {
            return Err(Failure::new(ExitStatus::Interrupted, "interrupted").into());
        }
        let count = match reader.read(&mut block) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let failure = Failure::new(ExitStatus::Mismatch, "the core in the dump is damaged");
                return Err(failure.cause(error).into());
            }
        };
        out.write_all(block.get(..count).unwrap_or_default())
            .context("cannot write the core")?;
        observer.advanced(count as u64);
    }
    out.flush().context("cannot write the core")?;
    observer.finished();
    let expected = record.and_then(|core| core.sha256);
    if expected.is_some_and(|expected| expected != reader.digests().sha256) {
        let message = "the core in the dump is damaged: its SHA-256 is not that of the manifest";
        return Err(Failure::new(ExitStatus::Mismatch, message).into());
    }
    Ok(())
}
