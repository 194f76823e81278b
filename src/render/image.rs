//! Short names of images.

use super::terminal_line;

/// Number of digits shown of a digest, as `git` does for commits.
const DIGITS: usize = 6;

/// `checkout:1.4.2` if the release is known, otherwise `checkout@1f52bc`: the last part of the repository's
/// name, and what distinguishes its images. Both forms can be used as a filter: `image:checkout:1.4.2`.
#[must_use]
pub fn short_image(reference: &str, release: Option<&str>) -> String {
    let (repository, digest) = reference.split_once('@').unwrap_or((reference, ""));
    let name = repository.rsplit('/').next().unwrap_or(repository);
    // A reference by tag contains the release.
    let (name, tag) = name.split_once(':').unwrap_or((name, ""));
    let release = release.or(Some(tag).filter(|tag| !tag.is_empty()));
    let digits = digest.rsplit(':').next().and_then(|hex| hex.get(..DIGITS));
    terminal_line(&match (release, digits) {
        (Some(release), _) => format!("{name}:{release}"),
        (None, Some(digits)) => format!("{name}@{digits}"),
        (None, None) => name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_image_names_release_or_digest() {
        let digest = "registry:5000/shop/checkout@sha256:1f52bc00aa";
        let table = [
            (digest, Some("1.4.2"), "checkout:1.4.2"),
            (digest, None, "checkout@1f52bc"),
            ("registry:5000/shop/checkout:1.4.2", None, "checkout:1.4.2"),
            ("checkout", None, "checkout"),
            ("checkout@sha256:1f", None, "checkout"),
            ("a\x1b[2J@sha256:1f52bc00aa", None, "a\\x1b[2J@1f52bc"),
        ];
        for (reference, release, shown) in table {
            assert_eq!(short_image(reference, release), shown);
        }
    }
}
