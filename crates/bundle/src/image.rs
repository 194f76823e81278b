//! An image as the manifest records it: by digest, with names and labels for people.

use serde::{Deserialize, Serialize};

/// Longest label value accepted as a version or revision, in bytes.
const LONGEST_LABEL: usize = 256;

/// An OCI image by digest, with the names that people use for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageRef {
    /// `repository@sha256:…`.
    pub reference: String,
    /// The name in the pod spec or on the engine's command line: `registry.example.com/shop/api:1.4.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image's label `org.opencontainers.image.version` (OCI image spec, `annotations.md`). Without
    /// one, the pod's label `app.kubernetes.io/version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The image's label `org.opencontainers.image.revision`: the commit it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

impl ImageRef {
    /// An image known only by its digest.
    #[must_use]
    pub fn by_digest(reference: impl Into<String>) -> Self {
        Self {
            reference: reference.into(),
            ..Self::default()
        }
    }

    /// Image label with the version of the software.
    pub const VERSION_LABEL: &str = "org.opencontainers.image.version";
    /// Image label with the commit that the image was built from.
    pub const REVISION_LABEL: &str = "org.opencontainers.image.revision";
    /// Pod label that is the fallback for the image's [`Self::VERSION_LABEL`].
    pub const POD_VERSION_LABEL: &str = "app.kubernetes.io/version";

    /// Sets version and revision from the image's labels. A missing label leaves the old value.
    pub fn set_labels<'l>(&mut self, label: impl Fn(&str) -> Option<&'l str>) {
        let value = |name: &str| {
            let value = label(name)?.trim();
            let good = !value.is_empty() && value.len() <= LONGEST_LABEL;
            good.then(|| value.to_owned())
        };
        self.version = value(Self::VERSION_LABEL).or(self.version.take());
        self.revision = value(Self::REVISION_LABEL).or(self.revision.take());
    }

    /// Sets the version from the pod's labels if the image has none.
    pub fn set_pod_labels<'l>(&mut self, label: impl Fn(&str) -> Option<&'l str>) {
        if self.version.is_none() {
            let of_pod = |name: &str| match name {
                Self::VERSION_LABEL => label(Self::POD_VERSION_LABEL),
                _ => None,
            };
            self.set_labels(of_pod);
        }
    }

    /// Chooses the most specific name. Precedence: an already known name with a tag; then `asked`
    /// (from the pod spec) if it has a tag; then one of the `tags` that the node knows for this
    /// repository. Among several tags of one image the longest wins: `1.4.2` is more specific than
    /// `1.4`, and any tag is more specific than `latest`.
    pub fn set_name<'t>(&mut self, asked: Option<&str>, tags: impl IntoIterator<Item = &'t str>) {
        let before = self.name.take();
        let names = [before.as_deref(), asked.filter(|name| is_name(name))];
        let mut tagged = names
            .into_iter()
            .flatten()
            .filter(|name| tag(name).is_some());
        let name = tagged.next().map(str::to_owned).or_else(|| {
            let mut names = names.into_iter().rev().flatten();
            let name = names.next();
            let wanted = name.and_then(repository).or(repository(&self.reference))?;
            let own = tags
                .into_iter()
                .filter(|name| repository(name) == Some(wanted));
            let best = own.filter_map(|name| {
                let tag = tag(name)?;
                Some((tag != "latest", tag.len(), tag, name))
            });
            let best = best.max().map(|(.., name)| name);
            best.or(name).map(str::to_owned)
        });
        self.name = name;
    }

    /// The release name: the tag, otherwise the version label. `latest` is not a release.
    #[must_use]
    pub fn release(&self) -> Option<&str> {
        let tag = self.name.as_deref().and_then(tag);
        let label = self.version.as_deref().filter(|label| !label.is_empty());
        tag.filter(|tag| *tag != "latest").or(label)
    }
}

/// The tag in an image name: `1.4.2` in `localhost:5000/shop/api:1.4.2@sha256:…`.
#[must_use]
pub fn tag(name: &str) -> Option<&str> {
    let name = name.split('@').next().filter(|name| is_name(name))?;
    let last = name.rsplit('/').next()?;
    let (_, tag) = last.split_once(':')?;
    Some(tag).filter(|tag| !tag.is_empty())
}

/// The repository in an image name: `quay.io/shop/api` in `quay.io/shop/api:1.2`. A registry's port
/// is not a tag.
#[must_use]
pub fn repository(name: &str) -> Option<&str> {
    let name = name.split('@').next()?;
    let end = match name.rfind(':') {
        Some(colon) if name.rfind('/').is_none_or(|slash| slash < colon) => colon,
        _ => name.len(),
    };
    name.get(..end).filter(|name| !name.is_empty())
}

/// Whether the text names an image. Runtimes also report a bare id here (`sha256:…`, or its 64
/// digits).
#[must_use]
pub fn is_name(name: &str) -> bool {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let is_id = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    !name.is_empty() && !is_id && !name.starts_with("sha256:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_release_is_its_tag_then_its_version_label() {
        let image = |name: &str, version: Option<&str>| ImageRef {
            name: Some(name.to_owned()),
            version: version.map(str::to_owned),
            ..ImageRef::by_digest("a@sha256:b")
        };
        for (name, label, expected) in [
            ("localhost:5000/shop/api:1.4.2", None, Some("1.4.2")),
            ("api:1.4.2@sha256:aa", Some("9"), Some("1.4.2")),
            ("localhost:5000/api", None, None),
            ("api:latest", Some("2.0"), Some("2.0")),
            ("api:latest", None, None),
        ] {
            assert_eq!(image(name, label).release(), expected, "{name}");
        }
    }

    #[test]
    fn image_name_prefers_the_pod_specs_tag_then_the_most_specific_on_the_node() {
        let digest = format!("quay.io/shop/api@sha256:{}", "a".repeat(64));
        let id = format!("sha256:{}", "b".repeat(64));
        let tags = [
            "quay.io/shop/api:latest",
            "quay.io/shop/api:1.4",
            "quay.io/shop/api:1.4.2",
            "other/api:1.4.2-debug",
        ];
        let name = |asked: &str, tags: &[&'static str]| {
            let mut image = ImageRef::by_digest(digest.as_str());
            image.set_name(Some(asked), tags.iter().copied());
            image.name
        };
        let exact = Some("quay.io/shop/api:1.4.2".to_owned());
        assert_eq!(
            name("quay.io/shop/api:stable", &tags).as_deref(),
            Some("quay.io/shop/api:stable")
        );
        assert_eq!(name(&id, &tags), exact);
        assert_eq!(name(id.trim_start_matches("sha256:"), &tags), exact);
        assert_eq!(name(&digest, &tags), exact);
        assert_eq!(name("quay.io/shop/api", &tags), exact);
        assert_eq!(
            name("quay.io/shop/api", &[]).as_deref(),
            Some("quay.io/shop/api")
        );
        assert_eq!(name(&id, &["other/api:1"]), None);
    }

    #[test]
    fn image_version_falls_back_to_the_pods_label() {
        let mut image = ImageRef::by_digest("a@sha256:b");
        let own = |name: &str| (name == ImageRef::REVISION_LABEL).then_some(" 5f3c \n");
        image.set_labels(own);
        assert_eq!(
            (image.version.as_deref(), image.revision.as_deref()),
            (None, Some("5f3c"))
        );
        let pod = |name: &str| (name == ImageRef::POD_VERSION_LABEL).then_some("1.4.2");
        image.set_pod_labels(pod);
        assert_eq!(
            (image.version.as_deref(), image.revision.as_deref()),
            (Some("1.4.2"), Some("5f3c"))
        );
        image.set_pod_labels(|_| Some("9"));
        assert_eq!(image.version.as_deref(), Some("1.4.2"));
        let long = "x".repeat(LONGEST_LABEL + 1);
        let mut other = ImageRef::by_digest("a@sha256:b");
        other.set_labels(|_| Some(&long));
        assert_eq!((other.version, other.revision), (None, None));
    }

    #[test]
    fn image_tag_ignores_a_registry_port() {
        assert_eq!(repository("localhost:5000/a/b"), Some("localhost:5000/a/b"));
        assert_eq!(
            repository("localhost:5000/a/b:1"),
            Some("localhost:5000/a/b")
        );
        assert_eq!(repository("a@sha256:b"), Some("a"));
        assert_eq!(repository(""), None);
    }
}
