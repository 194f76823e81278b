//! Names of stores.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{DirectoryStore, Store, StoreError};

/// Valid options in the URL of a bucket.
const OPTIONS: [&str; 10] = [
    "ca",
    "endpoint",
    "kms-key",
    "path-style",
    "profile",
    "region",
    "sse",
    "storage-class",
    "tags",
    "timeout",
];

/// An unknown option.
fn unknown_option(text: String, option: &str) -> StoreError {
    StoreError::UnknownOption {
        text,
        option: option.to_owned(),
        similar: crate::nearest(option, OPTIONS),
        known: &OPTIONS,
    }
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreUrl {
    /// A directory, given as a path or as `file:///path`.
    Directory(PathBuf),
    /// `s3://bucket/prefix?option=value&…`.
    S3 {
        /// Bucket.
        bucket: String,
        /// Prefix of every key, without slashes at start and end; may be empty.
        prefix: String,
        /// `endpoint`, `region`, `profile`, `path-style`, `ca`, `timeout` (seconds); for written
        /// objects also `sse` (`s3` or `kms`), `kms-key`, `storage-class`, `tags`
        /// (`team:core,stage:prod`).
        options: BTreeMap<String, String>,
    },
}

impl StoreUrl {
    /// Adds an option; an option in the URL itself takes precedence.
    ///
    /// # Errors
    /// If the option is invalid, or the store has no options.
    pub fn with_option(self, name: &str, value: &str) -> Result<Self, StoreError> {
        let bad = |problem| StoreError::Url {
            text: format!("{name}={value}"),
            problem,
        };
        match self {
            Self::S3 { .. } if !OPTIONS.contains(&name) => {
                Err(unknown_option(format!("{name}={value}"), name))
            }
            Self::S3 {
                bucket,
                prefix,
                mut options,
            } => {
                let option = options.entry(name.to_owned());
                option.or_insert_with(|| value.to_owned());
                Ok(Self::S3 {
                    bucket,
                    prefix,
                    options,
                })
            }
            Self::Directory(_) => Err(bad("a directory has no options")),
        }
    }
}

impl FromStr for StoreUrl {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let bad = |problem| {
            Err(StoreError::Url {
                text: text.to_owned(),
                problem,
            })
        };
        if text.is_empty() {
            return bad("it is empty");
        }
        if let Some(path) = text.strip_prefix("file://") {
            return if path.starts_with('/') {
                Ok(Self::Directory(path.into()))
            } else {
                bad("expected three slashes: `file:///path`")
            };
        }
        let Some(rest) = text.strip_prefix("s3://") else {
            return if text.contains("://") || has_half_a_scheme(text) {
                bad("expected `s3://bucket/prefix`, `file:///path` or a directory")
            } else {
                Ok(Self::Directory(text.into()))
            };
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return bad("expected a bucket after `s3://`");
        }
        let mut options = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
            if !OPTIONS.contains(&name) {
                return Err(unknown_option(text.to_owned(), name));
            }
            options.insert(name.to_owned(), value.to_owned());
        }
        let prefix = prefix.trim_matches('/').to_owned();
        Ok(Self::S3 {
            bucket: bucket.to_owned(),
            prefix,
            options,
        })
    }
}

/// Whether it was meant as a URL: `s3:/bucket`, `s3//bucket`. A directory with such a name is written `./s3:/x`.
fn has_half_a_scheme(text: &str) -> bool {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    text.split_once(":/").is_some_and(|(word, _)| is_word(word))
        || text.starts_with("s3:")
        || text.starts_with("s3//")
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::S3 {
                bucket,
                prefix,
                options,
            } => {
                write!(f, "s3://{bucket}")?;
                if !prefix.is_empty() {
                    write!(f, "/{prefix}")?;
                }
                for (number, (name, value)) in options.iter().enumerate() {
                    write!(f, "{}{name}={value}", if number == 0 { '?' } else { '&' })?;
                }
                Ok(())
            }
        }
    }
}

/// Credentials that do not come from the standard chain.
#[derive(Clone)]
pub struct S3Keys {
    /// Access key id.
    pub access: String,
    /// Secret access key.
    pub secret: String,
}

/// Opens a store.
///
/// # Errors
/// If it does not exist, or has a kind that this version does not support.
pub fn open_store(url: &StoreUrl) -> Result<Box<dyn Store>, StoreError> {
    open_store_as(url, None)
}

/// Opens a store. A bucket is opened with `keys` if there are any, otherwise with the standard chain's.
///
/// # Errors
/// As [`open_store`].
pub fn open_store_as(url: &StoreUrl, keys: Option<S3Keys>) -> Result<Box<dyn Store>, StoreError> {
    match url {
        StoreUrl::Directory(path) => Ok(Box::new(DirectoryStore::open(path)?)),
        #[cfg(feature = "s3")]
        StoreUrl::S3 {
            bucket,
            prefix,
            options,
        } => Ok(Box::new(crate::S3Store::open_as(
            bucket, prefix, options, keys,
        )?)),
        #[cfg(not(feature = "s3"))]
        StoreUrl::S3 { .. } => {
            drop(keys);
            Err(StoreError::Unsupported {
                what: format!("{url}: an S3 store, in a build without the feature `s3`,"),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_back_as_they_were() {
        for text in [
            "/var/lib/x",
            "s3://b",
            "s3://b/p/q?endpoint=http://[::1]:9&path-style=true",
        ] {
            assert_eq!(text.parse::<StoreUrl>().unwrap().to_string(), text);
        }
        for text in ["/data/s3:/x", "./s3:/x", "a/b:/c"] {
            assert!(matches!(text.parse(), Ok(StoreUrl::Directory(_))), "{text}");
        }
        for text in [
            "",
            "s3://",
            "http://x",
            "file://x",
            "s3://b?secret=1",
            "s3:/b",
            "s3:b",
            "s3//b",
            "file:/x",
        ] {
            assert!(text.parse::<StoreUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_options_name_the_near_match_or_all() {
        let bucket = || "s3://b".parse::<StoreUrl>().unwrap();
        let in_url = "s3://b?regoin=x".parse::<StoreUrl>().unwrap_err();
        for error in [in_url, bucket().with_option("regoin", "x").unwrap_err()] {
            assert!(
                error.to_string().contains("unknown option `regoin`"),
                "{error}"
            );
            assert_eq!(error.hint().unwrap(), "did you mean `region`?");
        }
        let error = bucket().with_option("colour", "red").unwrap_err();
        assert!(error.hint().unwrap().contains("kms-key"), "{error}");
    }
}
