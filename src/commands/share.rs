//! `cdh share <dump>`: prints a presigned, time-limited download URL of the bundle (S3). The URL is a
//! secret, because a core contains the process's memory.

use std::time::Duration;

use anyhow::Result;
use cdh_store::StoreUrl;
use jiff::Timestamp;

use crate::args::{ShareArgs, TextFormat};
use crate::pipeline;
use crate::render::{self, SharedDump};
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

/// Maximum lifetime of a URL signed with AWS Signature Version 4, in seconds.
const LONGEST: u64 = 7 * 24 * 3600;

pub(super) fn run(settings: &Settings, args: &ShareArgs) -> Result<ExitStatus> {
    if args.expires > LONGEST {
        let message = "`--expires` is too long: a presigned URL works for a maximum of 7 days";
        let hint = "pass `--expires 7d` or less, and run `cdh share` again later; for longer, copy the bundle with `cdh fetch`";
        return Err(Failure::new(ExitStatus::Failure, message).hint(hint).into());
    }
    let store = pipeline::open_store(settings)?;
    let dump = pipeline::resolve(settings, store.as_ref(), &args.dump)?;
    if let StoreUrl::Directory(path) = &settings.store {
        let bundle = path.join(dump.key.as_str());
        let message = "cannot share from a directory store: it has no URLs";
        let hint = format!("send the bundle itself: `{}`", bundle.display());
        return Err(Failure::new(ExitStatus::Failure, message).hint(hint).into());
    }
    let (now, expires) = (Timestamp::now(), Duration::from_secs(args.expires));
    let address = store
        .share(&dump.key, expires)
        .map_err(|error| pipeline::store_failure(error, "share from"))?;
    super::print(&match args.output.format() {
        TextFormat::Text => format!("{address}\n"),
        TextFormat::Json => render::json_text(&SharedDump {
            id: dump.id,
            url: address.to_string(),
            expires_at: now + expires,
        })?,
    })?;
    if settings.interactive {
        eprintln!("note: until it expires, this URL gives access to the memory of the process");
    }
    Ok(ExitStatus::Done)
}
