//! Determines which AWS profile is used, and checks that it exists.
//!
//! The rules are those of the AWS CLI (measured with 1.46.3; <https://github.com/aws/aws-cli/issues/113>,
//! <https://github.com/boto/botocore/pull/486>). An explicit `--profile`, here `?profile=`, takes precedence
//! over AWS_ACCESS_KEY_ID; AWS_PROFILE does not. A profile that is named either way and does not exist is an
//! error, even with keys in the environment. The Rust SDK would silently use those keys.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::StoreError;

/// A file of the AWS CLI: its path, and whether its sections are named `profile NAME`.
struct ProfileFile {
    path: PathBuf,
    is_config: bool,
}

/// Checks that the profile named by the URL, otherwise by AWS_PROFILE, exists.
///
/// # Errors
/// [`StoreError::NoProfile`], or if a file cannot be read.
pub(super) fn require(explicit: Option<&str>) -> Result<(), StoreError> {
    let variable = std::env::var("AWS_PROFILE").ok();
    let named = explicit
        .or(variable.as_deref())
        .filter(|name| !name.is_empty());
    let Some(name) = named else { return Ok(()) };
    require_in(name, &files())
}

fn require_in(name: &str, files: &[ProfileFile]) -> Result<(), StoreError> {
    let mut known: Vec<String> = Vec::new();
    for file in files {
        let text = match fs::read(&file.path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::from_io(file.path.display().to_string(), error)),
        };
        known.extend(profiles(&text, file.is_config));
    }
    if known.iter().any(|profile| profile == name) {
        return Ok(());
    }
    known.sort();
    known.dedup();
    Err(StoreError::NoProfile {
        name: name.to_owned(),
        files: files
            .iter()
            .map(|file| file.path.display().to_string())
            .collect(),
        known,
    })
}

fn files() -> [ProfileFile; 2] {
    let file = |variable: &str, name: &str, is_config| ProfileFile {
        path: match std::env::var_os(variable).filter(|path| !path.is_empty()) {
            Some(path) => from_home(Path::new(&path)),
            None => from_home(&Path::new("~/.aws").join(name)),
        },
        is_config,
    };
    [
        file("AWS_CONFIG_FILE", "config", true),
        file("AWS_SHARED_CREDENTIALS_FILE", "credentials", false),
    ]
}

fn from_home(path: &Path) -> PathBuf {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.to_owned(),
    }
}

/// The names of the profiles in a file.
fn profiles(text: &str, is_config: bool) -> Vec<String> {
    let name = |line: &str| {
        let section = line.trim().strip_prefix('[')?.split(']').next()?.trim();
        if !is_config || section == "default" {
            return Some(section.to_owned());
        }
        let rest = section.strip_prefix("profile")?;
        let name = rest.strip_prefix([' ', '\t'])?.trim();
        let quoted = name
            .strip_prefix('"')
            .and_then(|name| name.strip_suffix('"'));
        Some(quoted.unwrap_or(name).to_owned())
    };
    text.lines()
        .filter_map(name)
        .filter(|name| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_sections_are_those_of_the_aws_cli() {
        let config = "[default]\nregion = x\n [profile prod] # live\n[profile \"two words\"]\n\
                      [sso-session corp]\n[profilex]\n[dev]\n";
        assert_eq!(profiles(config, true), ["default", "prod", "two words"]);
        assert_eq!(
            profiles("[default]\n[dev]\nx = [a]\n", false),
            ["default", "dev"]
        );
    }

    #[test]
    fn missing_profile_names_the_files_and_the_profiles_that_exist() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, is_config| ProfileFile {
            path: dir.path().join(name),
            is_config,
        };
        let files = [file("config", true), file("credentials", false)];
        assert!(matches!(
            require_in("prod", &files),
            Err(StoreError::NoProfile { known, .. }) if known.is_empty()
        ));
        fs::write(dir.path().join("config"), "[profile prod]\n").unwrap();
        fs::write(dir.path().join("credentials"), "[dev]\n[prod]\n").unwrap();
        require_in("prod", &files).unwrap();
        require_in("dev", &files).unwrap();
        let error = require_in("nope", &files).unwrap_err();
        assert!(error.to_string().ends_with("credentials"), "{error}");
        assert_eq!(error.hint().unwrap(), "profiles that exist: dev, prod");
    }
}
