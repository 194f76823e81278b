//! Image indexes and manifests, OCI's and Docker's: from a name to the layers of the core's platform.

use std::collections::BTreeMap;

use cdh_elfcore::Machine;
use serde::Deserialize;

use crate::registry::Ask;
use crate::{Cache, Digest, ImageReference, PullError, Registry};

/// What we can read. Docker's schema 1 has no digests of its own and is gone from registries.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// The distribution specification asks registries to take 4 MiB.
const MAX_MANIFEST: u64 = 4 << 20;
/// Docker has 127 at most; others more.
const MAX_LAYERS: usize = 512;
/// No layer is larger: what claims to be only wants to keep us busy.
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

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default, rename = "mediaType")]
    media_type: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

/// Where documents come from.
pub(crate) struct Source<'a> {
    pub(crate) cache: &'a Cache,
    /// `None` where the network may not be used.
    pub(crate) registry: Option<&'a Registry>,
}

impl Source<'_> {
    fn document(&self, image: &ImageReference) -> Result<(Vec<u8>, Digest), PullError> {
        if let Some(digest) = image.digest
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
            accept: ACCEPT,
            range: None,
            what: &what,
        };
        let (bytes, digest) = registry.document(image, &ask, image.digest, MAX_MANIFEST)?;
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
        let document: Document =
            serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        match (document.manifests, document.layers) {
            (Some(manifests), _) => {
                let chosen = choose(&manifests, machine)?;
                let digest = Digest::parse(&chosen.digest)
                    .ok_or_else(|| malformed("a digest in it is none".to_owned()))?;
                at = at.at(digest);
            }
            (None, Some(layers)) => {
                let layers = layers_of(&layers).map_err(malformed)?;
                return Ok(Image {
                    reference: at,
                    layers,
                });
            }
            (None, None) => {
                return Err(malformed("it has neither layers nor manifests".to_owned()));
            }
        }
    }
    Err(PullError::Malformed {
        what: format!("image `{reference}`"),
        problem: "its indexes hold indexes that hold indexes".to_owned(),
    })
}

fn layers_of(layers: &[Descriptor]) -> Result<Vec<LayerBlob>, String> {
    if layers.len() > MAX_LAYERS {
        return Err(format!("it has {} layers", layers.len()));
    }
    let layer = |descriptor: &Descriptor| {
        let digest = Digest::parse(&descriptor.digest);
        let digest = digest.ok_or_else(|| "a layer's digest is not `sha256:`".to_owned())?;
        if descriptor.size > MAX_LAYER {
            return Err(format!("layer {digest} claims {} bytes", descriptor.size));
        }
        Ok(LayerBlob {
            digest,
            size: descriptor.size,
            annotations: descriptor.annotations.clone(),
        })
    };
    // Attestations and the like are manifests too, with layers that are no file systems.
    let is_tar = |descriptor: &&Descriptor| {
        descriptor.media_type.is_empty() || descriptor.media_type.contains("tar")
    };
    layers.iter().filter(is_tar).rev().map(layer).collect()
}

/// The manifest for the core's processor. The variant (`v8`) is not in a core, so the first one counts.
fn choose(manifests: &[Descriptor], machine: Machine) -> Result<&Descriptor, PullError> {
    let wanted = match machine {
        Machine::X86_64 => "amd64",
        Machine::Aarch64 => "arm64",
        Machine::Other(_) => "",
    };
    let fits = |one: &&Descriptor| {
        let platform = one.platform.as_ref();
        platform
            .is_some_and(|it| it.architecture == wanted && (it.os.is_empty() || it.os == "linux"))
    };
    if let Some(found) = manifests.iter().find(fits) {
        return Ok(found);
    }
    match manifests {
        // Without platforms there is nothing to choose by.
        [only] if only.platform.is_none() => Ok(only),
        _ => {
            let names = manifests.iter().filter_map(|one| {
                let it = one.platform.as_ref()?;
                (it.architecture != "unknown").then(|| format!("{}/{}", it.os, it.architecture))
            });
            Err(PullError::Platform {
                wanted: format!(
                    "linux/{}",
                    if wanted.is_empty() {
                        machine.to_string()
                    } else {
                        wanted.to_owned()
                    }
                ),
                offered: names.take(16).collect::<Vec<_>>().join(", "),
            })
        }
    }
}
