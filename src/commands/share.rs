//! `cdh share <dump>`: prints an address with which anybody can download the bundle until it expires.
//! The address is a secret: a core holds what the process held.

use std::time::Duration;

use anyhow::Result;
use cdh_store::StoreUrl;

use crate::args::ShareArgs;
use crate::pipeline;
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &ShareArgs) -> Result<ExitStatus> {
    let store = pipeline::open_store(settings)?;
    let dump = pipeline::resolve(settings, store.as_ref(), &args.dump)?;
    if let StoreUrl::Directory(path) = &settings.store {
        let bundle = path.join(dump.key.as_str());
        let message = "a store in a directory has no addresses to share";
        let hint = format!("send the bundle itself: {}", bundle.display());
        return Err(Failure::new(ExitStatus::Failure, message).hint(hint).into());
    }
    let expires = Duration::from_secs(args.expires);
    let address = store
        .share(&dump.key, expires)
        .map_err(|error| pipeline::store_failure(error, "share from"))?;
    super::print(&format!("{address}\n"))?;
    if settings.interactive {
        eprintln!("whoever has this address can read the memory of the process until it expires");
    }
    Ok(ExitStatus::Done)
}
