//! The store's tests against another make of server: moto, which neither checks keys nor enforces
//! checksums, and so shows what we rely on.

use std::net::TcpStream;
use std::process::Command;

use anyhow::Result;
use cdh_testkit::{ServerProcess, on_free_ports};

use crate::{build, python};

const MOTO: &str = "moto[server,s3]==5.2.5\n";

pub(crate) fn test_peers() -> Result<()> {
    let packages = python::install("moto-5.2.5", MOTO, &[])?;
    let directory = tempfile::tempdir()?;
    let (_server, port) = on_free_ports(|[port]| {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", &packages);
        command.args(["-c", "from moto.server import main; main()", "-p"]);
        command.arg(port.to_string());
        let server = ServerProcess::start(&command, directory.path(), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        })?;
        Ok((server, port))
    })?;
    build::store_tests(port)
}
