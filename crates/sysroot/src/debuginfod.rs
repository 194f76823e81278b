//! debuginfod servers: files by build-id.
//!
//! `GET <url>/buildid/<hex>/executable` and `…/debuginfo` (debuginfod(8)). A received file is cached
//! only if it has the build-id. If no server has a file, that is cached for a while too.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cdh_elfcore::BuildId;

use crate::transport::{Proxies, Request, Security, Transport, follow};
use crate::{Cache, FileRole, Progress, kept};

/// As elfutils (`cache_miss_s`).
const REMEMBER_MISS: Duration = Duration::from_secs(600);
const MAX_REDIRECTS: usize = 5;
/// Unless DEBUGINFOD_MAXSIZE says less.
const MAX_SIZE: u64 = 4 << 30;

/// The source name in the cache for all servers together.
const SOURCE: &str = "debuginfod";

/// Why a server provided no file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebuginfodError {
    /// No answer, or an invalid one.
    #[error("debuginfod server `{server}`: {problem}")]
    Server {
        /// Its address.
        server: String,
        /// What went wrong.
        problem: String,
    },
    /// It sent another file.
    #[error("debuginfod server `{server}` sent a file with build-id {found} for {expected}")]
    Mismatch {
        /// Its address.
        server: String,
        /// As asked for.
        expected: BuildId,
        /// As received.
        found: String,
    },
}

/// The servers of `DEBUGINFOD_URLS`.
pub struct Debuginfod {
    servers: Vec<String>,
    max_size: u64,
    http: Transport,
    directory: PathBuf,
    /// For its locks.
    cache: Cache,
}

impl Debuginfod {
    /// From the environment; `None` without servers.
    #[must_use]
    pub fn from_environment(cache: &Cache, ca: Option<PathBuf>) -> Option<Self> {
        let urls = std::env::var("DEBUGINFOD_URLS").unwrap_or_default();
        let limit = std::env::var("DEBUGINFOD_MAXSIZE")
            .ok()
            .and_then(|size| size.parse().ok());
        Self::new(&urls, cache, ca, limit.unwrap_or(MAX_SIZE))
    }

    /// Servers named in one string, with spaces between them.
    #[must_use]
    pub fn new(urls: &str, cache: &Cache, ca: Option<PathBuf>, max_size: u64) -> Option<Self> {
        let is_address = |url: &&str| url.starts_with("http://") || url.starts_with("https://");
        let servers: Vec<String> = urls
            .split_whitespace()
            .filter(is_address)
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect();
        (!servers.is_empty()).then(|| Self {
            servers,
            max_size: if max_size == 0 {
                MAX_SIZE
            } else {
                max_size.min(MAX_SIZE)
            },
            http: Transport::new(ca, None, Proxies::from_environment()),
            directory: cache.source(SOURCE),
            cache: cache.clone(),
        })
    }

    /// A cached file; sends no request.
    #[must_use]
    pub fn cached(cache: &Cache, part: FileRole, id: &BuildId) -> Option<PathBuf> {
        Cache::used(Cache::part(&cache.source(SOURCE), part, id))
    }

    /// The file with this build-id; `None` if no server has it.
    ///
    /// # Errors
    /// If the last of them failed or sent another file.
    pub fn get(
        &self,
        part: FileRole,
        id: &BuildId,
        progress: &dyn Progress,
    ) -> Result<Option<PathBuf>, DebuginfodError> {
        let path = Cache::part(&self.directory, part, id);
        if let Some(path) = Cache::used(path.clone()) {
            return Ok(Some(path));
        }
        let miss = path.with_extension("absent");
        if is_recent(&miss) {
            return Ok(None);
        }
        let _lock = self.cache.lock_module(SOURCE, part, id);
        // Another run may have fetched it meanwhile.
        if let Some(path) = Cache::used(path.clone()) {
            return Ok(Some(path));
        }
        if is_recent(&miss) {
            return Ok(None);
        }
        let mut problem = None;
        for server in &self.servers {
            match self.ask(server, part, id, &path, progress) {
                Ok(true) => return Ok(Some(path)),
                Ok(false) => {}
                Err(error) => problem = Some(error),
            }
        }
        match problem {
            Some(error) => Err(error),
            None => {
                if let Ok(draft) = Cache::draft(&self.directory) {
                    let _ = Cache::seal(&draft, &miss);
                }
                Ok(None)
            }
        }
    }

    fn ask(
        &self,
        server: &str,
        part: FileRole,
        id: &BuildId,
        path: &Path,
        progress: &dyn Progress,
    ) -> Result<bool, DebuginfodError> {
        let bad = |problem: String| DebuginfodError::Server {
            server: server.to_owned(),
            problem,
        };
        let what = match part {
            FileRole::File => "executable",
            FileRole::Debug => "debuginfo",
        };
        let mut url = format!("{server}/buildid/{id}/{what}");
        for _ in 0..=MAX_REDIRECTS {
            let security = match url.starts_with("https://") {
                true => Security::Verified,
                false => Security::Plain,
            };
            let request = Request {
                url: &url,
                security,
                headers: Vec::new(),
                form: None,
            };
            let answer = self.http.send(&request).map_err(|error| {
                bad(std::error::Error::source(&error)
                    .map_or(error.to_string(), ToString::to_string))
            })?;
            match answer.status().as_u16() {
                200 => {}
                404 => return Ok(false),
                301 | 302 | 303 | 307 | 308 => {
                    let location = answer
                        .headers()
                        .get("location")
                        .and_then(|it| it.to_str().ok());
                    let next = location.and_then(|location| follow(&url, location));
                    url = next.ok_or_else(|| bad("redirects nowhere".to_owned()))?;
                    continue;
                }
                status => return Err(bad(format!("answers {status}"))),
            }
            let length = answer.body().content_length();
            if length.is_some_and(|length| length > self.max_size) {
                return Err(bad("the file is larger than DEBUGINFOD_MAXSIZE".to_owned()));
            }
            progress.started(&format!("fetching {what} {id}"), length);
            let body = answer
                .into_body()
                .into_with_config()
                .limit(self.max_size)
                .reader();
            let kept = self.keep(Counted(body, progress), length, server, part, id, path);
            progress.finished();
            return kept.map(|()| true);
        }
        Err(bad("redirects without an end".to_owned()))
    }

    fn keep(
        &self,
        mut body: impl Read,
        length: Option<u64>,
        server: &str,
        part: FileRole,
        id: &BuildId,
        path: &Path,
    ) -> Result<(), DebuginfodError> {
        let bad = |problem: String| DebuginfodError::Server {
            server: server.to_owned(),
            problem,
        };
        let io = |error: std::io::Error| bad(error.to_string());
        let mut draft = Cache::draft(&self.directory).map_err(io)?;
        let (size, _) = kept::copy(&mut body, &mut draft.file).map_err(io)?;
        if length.is_some_and(|length| length != size) {
            return Err(bad(format!("sent {size} of {} bytes", length.unwrap_or(0))));
        }
        let found = kept::facts(&draft.file);
        if found.build_id.as_ref() != Some(id) {
            let found = found
                .build_id
                .map_or_else(|| "none".to_owned(), |id| id.to_string());
            let expected = id.clone();
            return Err(DebuginfodError::Mismatch {
                server: server.to_owned(),
                expected,
                found,
            });
        }
        // For debug information, a server may send the program itself if it contains some.
        if part == FileRole::File && found.part != Some(FileRole::File) {
            return Err(bad("sent debug information instead of the file".to_owned()));
        }
        Cache::seal(&draft, path).map_err(io)
    }
}

struct Counted<'a, R>(R, &'a dyn Progress);

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buf)?;
        self.1.advanced(count as u64);
        Ok(count)
    }
}

fn is_recent(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|then| {
        SystemTime::now()
            .duration_since(then)
            .is_ok_and(|age| age < REMEMBER_MISS)
    })
}
