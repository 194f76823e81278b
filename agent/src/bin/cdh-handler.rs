//! The program that the kernel starts for each crash: `cdh agent handle` and nothing else, so that it
//! is small and runs on any host.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cdh_agent::handler::handle(
        std::env::args_os().skip(1).collect(),
    ))
}
