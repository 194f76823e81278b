//! Parses image indexes and manifests, OCI's and Docker's, to find the layers for the core's
//! platform.
//!
//! `oci_client` defines the structure of these documents. This module checks size, type and digests,
//! before and after parsing.

use std::collections::BTreeMap;
use std::fmt;

use cdh_elfcore::Machine;
use oci_client::config::{Architecture, Os};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, ImageIndexEntry,
    OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex,
    OciImageManifest, Platform, Versioned,
};
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, de::DeserializeOwned};

use crate::registry::Ask;
use crate::{Cache, Digest, ImageReference, PullError, Registry};

/// Supported media types. Docker's schema 1 has no digests of its own and is no longer used by
/// registries.
const ACCEPT: [&str; 4] = [
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
];
/// The schema version of all of these.
const SCHEMA: i32 = 2;
/// Maximum document size: the distribution specification asks registries to accept 4 MiB.
const MAX_MANIFEST: u64 = 4 << 20;
/// Maximum number of layers: Docker has a limit of 127, others allow more.
const MAX_LAYERS: usize = 512;
/// Maximum manifests in an index: platforms, attestations and signatures of one image. A million
/// would fit into a document, but not into memory when parsed.
const MAX_MANIFESTS: usize = 4096;
/// Maximum layer size; larger claims are an attack.
const MAX_LAYER: u64 = 64 << 30;
/// Indexes may hold indexes.
const MAX_DEPTH: usize = 3;

/// One layer.
#[derive(Clone, Debug)]
pub(crate) struct LayerBlob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// An image of one platform.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) reference: ImageReference,
    /// The topmost first.
    pub(crate) layers: Vec<LayerBlob>,
}

/// Distinguishes the two kinds of documents before parsing them completely.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Shape {
    manifests: Option<Count>,
    layers: Option<Count>,
}

/// Counts the elements of an array without storing them.
struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counter;
        impl<'de> Visitor<'de> for Counter {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Count, A::Error> {
                let mut count: usize = 0;
                while elements.next_element::<IgnoredAny>()?.is_some() {
                    count = count.saturating_add(1);
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_seq(Counter)
    }
}

/// A document of one of the two kinds.
enum Document {
    Image(Box<OciImageManifest>),
    Index(OciImageIndex),
}

impl Document {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
            serde_json::from_slice(bytes).map_err(|error| error.to_string())
        }
        let versioned: Versioned = read(bytes)?;
        if versioned.schema_version != SCHEMA {
            return Err(format!(
                "it has schema {}, which has no verifiable digests",
                versioned.schema_version
            ));
        }
        let shape: Shape = read(bytes)?;
        let said = versioned.media_type.as_deref();
        let says_index = matches!(
            said,
            Some(OCI_IMAGE_INDEX_MEDIA_TYPE | IMAGE_MANIFEST_LIST_MEDIA_TYPE)
        );
        let says_image = matches!(said, Some(OCI_IMAGE_MEDIA_TYPE | IMAGE_MANIFEST_MEDIA_TYPE));
        match (shape.manifests, shape.layers) {
            // Otherwise, two readers of one digest could see two images (CVE-2021-41190).
            (Some(_), Some(_)) => Err("it is an image and an index at once".to_owned()),
            (Some(_), None) if says_image => {
                Err("it is an index but declares another type".to_owned())
            }
            (None, Some(_)) if says_index => {
                Err("it is an image but declares another type".to_owned())
            }
            (Some(Count(count)), None) if count > MAX_MANIFESTS => {
                Err(format!("it holds {count} manifests"))
            }
            (None, Some(Count(count))) if count > MAX_LAYERS => {
                Err(format!("it has {count} layers"))
            }
            (Some(_), None) => read(bytes).map(Self::Index),
            (None, Some(_)) => read(bytes).map(Box::new).map(Self::Image),
            (None, None) => Err("it has neither layers nor manifests".to_owned()),
        }
    }
}

/// Where documents come from.
pub(crate) struct Source<'a> {
    pub(crate) cache: &'a Cache,
    /// The registry; `None` if the network must not be used.
    pub(crate) registry: Option<&'a Registry>,
}

impl Source<'_> {
    fn document(&self, image: &ImageReference) -> Result<(Vec<u8>, Digest), PullError> {
        if let Some(digest) = image.digest()
            && let Some(bytes) = self.cache.document(digest)
        {
            return Ok((bytes, digest));
        }
        let what = format!("manifest {}", image.version());
        let registry = self.registry.ok_or_else(|| PullError::Offline {
            what: format!("image `{image}`"),
        })?;
        let path = format!("manifests/{}", image.version());
        let ask = Ask {
            path: &path,
            accept: &ACCEPT.join(", "),
            range: None,
            what: &what,
        };
        let (bytes, digest) = registry.document(image, &ask, image.digest(), MAX_MANIFEST)?;
        self.cache.keep_document(digest, &bytes);
        Ok((bytes, digest))
    }
}

/// Finds the manifest for `machine`.
pub(crate) fn resolve(
    source: &Source<'_>,
    reference: &ImageReference,
    machine: Machine,
) -> Result<Image, PullError> {
    let mut at = reference.clone();
    for _ in 0..MAX_DEPTH {
        let (bytes, digest) = source.document(&at)?;
        at = at.at(digest);
        let malformed = |problem: String| PullError::Malformed {
            what: format!("manifest {digest}"),
            problem,
        };
        match Document::parse(&bytes).map_err(malformed)? {
            Document::Index(index) => {
                let chosen = choose(&index.manifests, machine)?;
                let digest = Digest::parse(&chosen.digest)
                    .ok_or_else(|| malformed("it contains an invalid digest".to_owned()))?;
                at = at.at(digest);
            }
            Document::Image(image) => {
                let layers = layers_of(&image.layers).map_err(malformed)?;
                return Ok(Image {
                    reference: at,
                    layers,
                });
            }
        }
    }
    Err(PullError::Malformed {
        what: format!("image `{reference}`"),
        problem: "its indexes are nested too deeply".to_owned(),
    })
}

fn layers_of(layers: &[OciDescriptor]) -> Result<Vec<LayerBlob>, String> {
    let layer = |descriptor: &OciDescriptor| {
        let digest = Digest::parse(&descriptor.digest);
        let digest = digest.ok_or_else(|| "a layer's digest is not `sha256:`".to_owned())?;
        let size = u64::try_from(descriptor.size).ok();
        let size = size
            .filter(|size| *size <= MAX_LAYER)
            .ok_or_else(|| format!("layer {digest} claims {} bytes", descriptor.size))?;
        Ok(LayerBlob {
            digest,
            size,
            annotations: descriptor.annotations.clone().unwrap_or_default(),
        })
    };
    // Attestations are manifests too; their layers are not file systems.
    let is_tar = |descriptor: &&OciDescriptor| {
        descriptor.media_type.is_empty() || descriptor.media_type.contains("tar")
    };
    layers.iter().filter(is_tar).rev().map(layer).collect()
}

/// The manifest for the core's architecture. A core does not record the variant (`v8`), so the first
/// match is used.
fn choose(manifests: &[ImageIndexEntry], machine: Machine) -> Result<&ImageIndexEntry, PullError> {
    let wanted = match machine {
        Machine::X86_64 => Some(Architecture::Amd64),
        Machine::Aarch64 => Some(Architecture::ARM64),
        Machine::Riscv64 => Some(Architecture::RISCV64),
        Machine::Ppc64Le => Some(Architecture::PowerPC64le),
        Machine::S390x => Some(Architecture::s390x),
        Machine::I386 => Some(Architecture::i386),
        Machine::Arm => Some(Architecture::ARM),
        Machine::X32 | Machine::Other(_) => None,
    };
    let runs = |platform: &Platform| {
        let is_linux = match &platform.os {
            Os::Linux => true,
            Os::Other(name) => name.is_empty(),
            _ => false,
        };
        is_linux && wanted.as_ref() == Some(&platform.architecture)
    };
    let fits = |one: &&ImageIndexEntry| one.platform.as_ref().is_some_and(runs);
    if let Some(found) = manifests.iter().find(fits) {
        return Ok(found);
    }
    match manifests {
        // Without platforms, there is no choice.
        [only] if only.platform.is_none() => Ok(only),
        _ => {
            let names = manifests.iter().filter_map(|one| {
                let it = one.platform.as_ref()?;
                let is_known = it.architecture != Architecture::Other("unknown".to_owned());
                is_known.then(|| format!("{}/{}", it.os, it.architecture))
            });
            Err(PullError::Platform {
                wanted: match wanted {
                    Some(architecture) => format!("linux/{architecture}"),
                    None => format!("linux/{machine}"),
                },
                offered: names.take(16).collect::<Vec<_>>().join(", "),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn layers(text: &str) -> Result<Vec<LayerBlob>, String> {
        match Document::parse(text.as_bytes())? {
            Document::Image(image) => layers_of(&image.layers),
            Document::Index(_) => panic!("an index"),
        }
    }

    /// The media types of Docker 17 and of today's buildkit; others are ignored.
    #[test]
    fn manifests_of_either_kind_are_read_with_whatever_else_is_in_them() {
        for (media, layer, more) in [
            (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "",
            ),
            (
                "application/vnd.oci.image.manifest.v1+json",
                "application/vnd.oci.image.layer.v1.tar+zstd",
                r#""annotations": {"a": "b"}, "subject": null, "future": [1, {"x": 2}],"#,
            ),
        ] {
            let text = format!(
                r#"{{"schemaVersion": 2, "mediaType": "{media}", {more}
                    "config": {{"mediaType": "x", "size": 2, "digest": "{DIGEST}", "data": "e30="}},
                    "layers": [
                        {{"mediaType": "{layer}", "size": 5, "digest": "{DIGEST}", "urls": ["https://x/y"]}},
                        {{"mediaType": "application/vnd.in-toto+json", "size": 7, "digest": "none"}}
                    ]}}"#
            );
            let found = layers(&text).unwrap();
            assert_eq!(found.len(), 1, "{media}");
            assert_eq!(found[0].size, 5);
        }
    }

    #[test]
    fn documents_that_are_no_manifest_are_refused_for_what_they_are() {
        let layer = |size: &str| {
            format!(
                r#"{{"schemaVersion": 2, "config": {{"mediaType": "x", "size": 2, "digest": "{DIGEST}"}},
                    "layers": [{{"mediaType": "tar", "size": {size}, "digest": "{DIGEST}"}}]}}"#
            )
        };
        assert!(layers(&layer("9")).is_ok());
        let many = format!(
            r#"{{"schemaVersion": 2, "manifests": [{}]}}"#,
            vec!["{}"; 1_000_000].join(",")
        );
        let both = r#"{"schemaVersion": 2, "manifests": [], "layers": []}"#;
        let false_index = r#"{"schemaVersion": 2, "layers": [],
            "mediaType": "application/vnd.oci.image.index.v1+json"}"#;
        for (text, expected) in [
            ("[]", "invalid length"),
            ("[2, null]", "invalid type"),
            ("{}", "schemaVersion"),
            (r#"{"schemaVersion": 1, "fsLayers": []}"#, "schema 1"),
            (r#"{"schemaVersion": 2}"#, "neither layers nor manifests"),
            (r#"{"schemaVersion": 2, "layers": []}"#, "config"),
            (r#"{"schemaVersion": 2, "layers": {}}"#, "an array"),
            (both, "an image and an index at once"),
            (false_index, "declares another type"),
            (&many, "1000000 manifests"),
            (&layer("-1"), "claims -1 bytes"),
            (&layer("68719476737"), "claims 68719476737 bytes"),
            (&layer("99999999999999999999"), "invalid"),
        ] {
            let problem = layers(text).unwrap_err();
            assert!(
                problem.contains(expected),
                "{problem} instead of {expected}"
            );
        }
    }
}
