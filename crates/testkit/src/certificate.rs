//! Certificates of an authority of a test's own, by `openssl`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority, and a certificate that it signed. Both are good for two days.
#[derive(Clone, Debug)]
pub struct TestCertificate {
    /// The authority's certificate: who trusts it trusts the other one.
    pub authority: PathBuf,
    /// Certificate of the server, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];

impl TestCertificate {
    /// Whether there is an `openssl`.
    #[must_use]
    pub fn can_be_made() -> bool {
        Command::new("openssl").arg("version").output().is_ok()
    }

    /// For 127.0.0.1.
    ///
    /// # Errors
    /// When `openssl` fails or is not there.
    pub fn make(directory: &Path) -> io::Result<Self> {
        Self::make_for(directory, "IP:127.0.0.1")
    }

    /// For this host: `IP:127.0.0.1`, `DNS:example.test`. Files of an earlier one in the directory are
    /// written over.
    ///
    /// # Errors
    /// When `openssl` fails or is not there.
    pub fn make_for(directory: &Path, host: &str) -> io::Result<Self> {
        let run = |words: &[&str]| {
            let output = Command::new("openssl")
                .args(words)
                .current_dir(directory)
                .output()?;
            let said = || String::from_utf8_lossy(&output.stderr).into_owned();
            match output.status.success() {
                true => Ok(()),
                false => Err(io::Error::other(said())),
            }
        };
        let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=test CA"];
        let files = ["-keyout", "ca.key", "-out", "ca.pem"];
        run(&[&authority[..], &files, &NEW_KEY].concat())?;
        let request = ["req", "-subj", "/CN=test server"];
        let files = ["-keyout", "key.pem", "-out", "csr.pem"];
        run(&[&request[..], &files, &NEW_KEY].concat())?;
        let extensions = directory.join("extensions");
        fs::write(&extensions, format!("subjectAltName={host}\n"))?;
        let sign = ["x509", "-req", "-days", "2", "-in", "csr.pem"];
        let by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        let files = ["-extfile", "extensions", "-out", "cert.pem"];
        run(&[&sign[..], &by, &files].concat())?;
        Ok(Self {
            authority: directory.join("ca.pem"),
            certificate: directory.join("cert.pem"),
            key: directory.join("key.pem"),
        })
    }
}
