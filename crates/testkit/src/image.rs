//! OCI images made from nothing: layers byte by byte, as good builders and bad ones would.
//!
//! Everything is deterministic, and nothing of it uses the code that reads images.

use std::collections::BTreeMap;
use std::io::Write;

use sha2::Digest as _;

const BLOCK: usize = 512;
/// What a chunk of an eStargz or zstd:chunked file holds at most.
const CHUNK: usize = 1 << 20;

/// `sha256:…` of bytes.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    let hex: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// A tar as it is.
    Plain,
    /// gzip.
    Gzip,
    /// One zstd frame.
    Zstd,
    /// eStargz, with its table's digest in the annotations.
    Stargz,
    /// zstd:chunked, likewise.
    Chunked,
}

/// One entry of a tar.
struct Entry {
    path: String,
    kind: u8,
    link: String,
    content: Vec<u8>,
}

/// A layer in the making.
#[derive(Default)]
pub struct TestLayer {
    entries: Vec<Entry>,
}

/// A packed layer.
#[derive(Clone)]
pub struct Blob {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its media type.
    pub media_type: String,
    /// What the manifest says of it.
    pub annotations: BTreeMap<String, String>,
}

impl TestLayer {
    /// No entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn add(mut self, path: &str, kind: u8, link: &str, content: &[u8]) -> Self {
        self.entries.push(Entry {
            path: path.to_owned(),
            kind,
            link: link.to_owned(),
            content: content.to_vec(),
        });
        self
    }

    /// A regular file; `.wh.` names delete.
    #[must_use]
    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.add(path, b'0', "", content)
    }

    /// A directory.
    #[must_use]
    pub fn directory(self, path: &str) -> Self {
        self.add(path, b'5', "", b"")
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.add(path, b'2', target, b"")
    }

    /// A hard link.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.add(path, b'1', target, b"")
    }

    /// A character device.
    #[must_use]
    pub fn device(self, path: &str) -> Self {
        self.add(path, b'3', "", b"")
    }

    /// Followed by all of `other`.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        self
    }

    /// Packs it.
    #[must_use]
    pub fn pack(&self, packing: Packing) -> Blob {
        let media = |end: &str| format!("application/vnd.oci.image.layer.v1.tar{end}");
        let blob = |bytes, end| Blob {
            bytes,
            media_type: media(end),
            annotations: BTreeMap::new(),
        };
        match packing {
            Packing::Plain => blob(self.tar(), ""),
            Packing::Gzip => blob(gzip(&self.tar()), "+gzip"),
            Packing::Zstd => blob(zstd(&self.tar()), "+zstd"),
            Packing::Stargz => self.stargz(),
            Packing::Chunked => self.chunked(),
        }
    }

    fn tar(&self) -> Vec<u8> {
        let mut tar = Vec::new();
        for entry in &self.entries {
            tar.extend(header(entry));
            tar.extend(padded(&entry.content));
        }
        tar.extend([0; 2 * BLOCK]);
        tar
    }

    fn table_entry(entry: &Entry) -> serde_json::Value {
        let kind = match entry.kind {
            b'0' => "reg",
            b'1' => "hardlink",
            b'2' => "symlink",
            b'5' => "dir",
            _ => "char",
        };
        serde_json::json!({
            "name": entry.path, "type": kind, "linkName": entry.link, "size": entry.content.len(),
        })
    }

    /// Chunks of `content`, each behind `before` in the blob, as entries of the table.
    fn chunks(
        entry: &Entry,
        out: &mut Vec<u8>,
        pack: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Vec<serde_json::Value> {
        let mut entries = Vec::new();
        let mut at = 0;
        for chunk in entry.content.chunks(CHUNK) {
            let offset = out.len();
            out.extend(pack(chunk));
            let mut row = match at {
                0 => Self::table_entry(entry),
                _ => serde_json::json!({"name": entry.path, "type": "chunk"}),
            };
            if at == 0 {
                row["digest"] = digest_of(&entry.content).into();
            }
            row["offset"] = offset.into();
            row["endOffset"] = out.len().into();
            row["chunkOffset"] = at.into();
            row["chunkSize"] = chunk.len().into();
            row["chunkDigest"] = digest_of(chunk).into();
            entries.push(row);
            at += chunk.len();
        }
        entries
    }

    /// Headers in members of their own, each chunk in one, the table in the last before the footer.
    fn stargz(&self) -> Blob {
        let mut out = Vec::new();
        let mut table = Vec::new();
        for entry in &self.entries {
            out.extend(gzip(&header(entry)));
            match entry.content.is_empty() {
                true => table.push(Self::table_entry(entry)),
                false => table.extend(Self::chunks(entry, &mut out, gzip)),
            }
            let padding = padded(&entry.content).len() - entry.content.len();
            out.extend(gzip(&vec![0; padding]));
        }
        let json = serde_json::json!({"version": 1, "entries": table}).to_string();
        let name = "stargz.index.json".to_owned();
        let last = Entry {
            path: name,
            kind: b'0',
            link: String::new(),
            content: json.clone().into_bytes(),
        };
        let at = out.len();
        out.extend(gzip(
            &[header(&last), padded(&last.content), vec![0; 2 * BLOCK]].concat(),
        ));
        // An empty member whose header's extra field says where the table is.
        out.extend([
            0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0, b'S', b'G', 22, 0,
        ]);
        out.extend(format!("{at:016x}STARGZ").into_bytes());
        out.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
        let annotation = (
            "containerd.io/snapshot/stargz/toc.digest".to_owned(),
            digest_of(json.as_bytes()),
        );
        Blob {
            bytes: out,
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
            annotations: [annotation].into(),
        }
    }

    /// The same with zstd frames, and the table in a frame that readers skip.
    fn chunked(&self) -> Blob {
        let mut out = Vec::new();
        let mut table = Vec::new();
        for entry in &self.entries {
            out.extend(zstd(&header(entry)));
            match entry.content.is_empty() {
                true => table.push(Self::table_entry(entry)),
                false => table.extend(Self::chunks(entry, &mut out, zstd)),
            }
            let padding = padded(&entry.content).len() - entry.content.len();
            out.extend(zstd(&vec![0; padding]));
        }
        out.extend(zstd(&[0; 2 * BLOCK]));
        let json = serde_json::json!({"version": 1, "entries": table}).to_string();
        let packed = zstd(json.as_bytes());
        out.extend([0x50, 0x2a, 0x4d, 0x18]);
        out.extend(u32::try_from(packed.len()).unwrap_or(0).to_le_bytes());
        let position = format!("{}:{}:{}:1", out.len(), packed.len(), json.len());
        out.extend(&packed);
        let name = |end: &str| format!("io.github.containers.zstd-chunked.{end}");
        let annotations = [
            (name("manifest-checksum"), digest_of(&packed)),
            (name("manifest-position"), position),
        ];
        Blob {
            bytes: out,
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd".to_owned(),
            annotations: annotations.into(),
        }
    }
}

/// Compresses with gzip.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing into memory does not fail.
    let _ = out.write_all(bytes);
    out.finish().unwrap_or_default()
}

/// Compresses with zstd.
#[must_use]
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap_or_default()
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.resize(content.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// ustar; names that do not fit get a PAX header before.
fn header(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    if entry.path.len() > 100 || entry.link.len() > 100 {
        let mut records = Vec::new();
        for (key, value) in [("path", &entry.path), ("linkpath", &entry.link)] {
            let bare = key.len() + value.len() + 3;
            let length = (bare..).find(|length| length.to_string().len() + bare == *length);
            records.extend(format!("{} {key}={value}\n", length.unwrap_or(0)).into_bytes());
        }
        out.extend(ustar("PaxHeader", b'x', "", records.len()));
        out.extend(padded(&records));
    }
    out.extend(ustar(
        &entry.path,
        entry.kind,
        &entry.link,
        entry.content.len(),
    ));
    out
}

fn ustar(path: &str, kind: u8, link: &str, size: usize) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let short = |text: &str| text.as_bytes()[..text.len().min(100)].to_vec();
    put(0, &short(path));
    put(100, b"0000755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &short(link));
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Manifests and blobs of one or more images, by digest.
#[derive(Clone, Default)]
pub struct TestImages {
    /// Layers and configurations.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// Manifests and indexes, with their media types.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
}

impl TestImages {
    /// Adds an image of these layers, the lowest first; returns its digest.
    pub fn image(&mut self, architecture: &str, layers: &[Blob]) -> String {
        self.image_to_run(architecture, layers, &serde_json::json!({}))
    }

    /// As [`Self::image`], with what a runtime is to run: `{"Entrypoint": ["/app"]}`. A runtime unpacks only images
    /// of plain layers: of the others the digest of the unpacked layer is not the right one.
    pub fn image_to_run(
        &mut self,
        architecture: &str,
        layers: &[Blob],
        run: &serde_json::Value,
    ) -> String {
        let mut rows = Vec::new();
        let mut inside = Vec::new();
        for layer in layers {
            let digest = digest_of(&layer.bytes);
            rows.push(serde_json::json!({
                "mediaType": layer.media_type, "digest": digest, "size": layer.bytes.len(),
                "annotations": layer.annotations,
            }));
            inside.push(match layer.media_type.ends_with(".tar") {
                true => digest.clone(),
                false => digest_of(digest.as_bytes()),
            });
            self.blobs.insert(digest, layer.bytes.clone());
        }
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "config": run,
            "rootfs": {"type": "layers", "diff_ids": inside},
        })
        .to_string()
        .into_bytes();
        let media = "application/vnd.oci.image.manifest.v1+json";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest_of(&config), "size": config.len(),
            },
            "layers": rows,
        });
        self.blobs.insert(digest_of(&config), config);
        self.manifest(media, &manifest)
    }

    /// Adds an index of images: architecture and digest.
    pub fn index(&mut self, images: &[(&str, &str)]) -> String {
        let media = "application/vnd.oci.image.index.v1+json";
        let row = |(architecture, digest): &(&str, &str)| {
            let (media, bytes) = &self.manifests[*digest];
            serde_json::json!({
                "mediaType": media, "digest": digest, "size": bytes.len(),
                "platform": {"architecture": architecture, "os": "linux"},
            })
        };
        let rows: Vec<_> = images.iter().map(row).collect();
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": media, "manifests": rows});
        self.manifest(media, &index)
    }

    fn manifest(&mut self, media: &str, json: &serde_json::Value) -> String {
        let bytes = json.to_string().into_bytes();
        let digest = digest_of(&bytes);
        self.manifests
            .insert(digest.clone(), (media.to_owned(), bytes));
        digest
    }
}
