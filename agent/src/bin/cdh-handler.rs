//! The program that the kernel starts for each crash. It contains only `cdh agent handle`, so that it
//! is small and runs on any host.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cdh_agent::handler::handle(
        std::env::args_os().skip(1).collect(),
    ))
}
