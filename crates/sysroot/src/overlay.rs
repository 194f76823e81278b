//! The virtual root: resolves a path as a process in the container would, using only the layers'
//! indexes.
//!
//! Rules (OCI image specification, "Applying Changesets"): the topmost layer with an entry wins. A
//! whiteout hides a path and everything below it in lower layers. An opaque directory hides everything
//! below it in lower layers, as does anything that is not a directory. Links are followed as the kernel
//! does in a chroot: `..` at the root stays there.

use crate::index::Node;
use crate::on_disk_index::LayerFiles;

/// As the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// Maximum path components after expanding links.
const MAX_STEPS: usize = 100_000;

/// The result of resolving a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// A regular file: the layer that contains its bytes, and its path there.
    File { layer: usize, path: Vec<u8> },
    /// Not a readable file, with the reason.
    Absent(&'static str),
    /// Unknown until this layer is read.
    Unread,
    /// Unknown until this layer is asked about this path.
    Unasked(Vec<u8>),
}

enum Seen<'l> {
    At(usize, &'l Node),
    Directory,
    Absent,
    Unread,
    Unasked,
}

/// Resolves `path`. The topmost layer comes first; `None` is a layer that was not read yet.
pub(crate) fn resolve(layers: &[Option<&LayerFiles>], path: &[u8]) -> Resolution {
    let mut ahead: Vec<Vec<u8>> = parts(path);
    let mut at: Vec<u8> = Vec::new();
    let mut links = 0;
    let mut steps = 0;
    while let Some(part) = ahead.pop() {
        steps += 1;
        if steps > MAX_STEPS {
            return Resolution::Absent("too many links on the way");
        }
        if part == b".." {
            let parent = at.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            at.truncate(parent);
            continue;
        }
        let mut here = at.clone();
        if !here.is_empty() {
            here.push(b'/');
        }
        here.extend_from_slice(&part);
        match look(layers, 0, &here) {
            Seen::Unread => return Resolution::Unread,
            // Asks for the complete remaining path, so that one question is enough without links.
            Seen::Unasked => return Resolution::Unasked(whole(here, &ahead)),
            Seen::Absent => return Resolution::Absent("the image has no such file"),
            Seen::Directory | Seen::At(_, Node::Directory) => at = here,
            Seen::At(_, Node::Symlink(target)) => {
                links += 1;
                if links > MAX_LINKS {
                    return Resolution::Absent("too many links on the way");
                }
                if target.starts_with(b"/") {
                    at.clear();
                }
                ahead.extend(parts(target));
            }
            Seen::At(layer, node) => {
                if !ahead.is_empty() {
                    return Resolution::Absent("the image has a file where a directory is needed");
                }
                return file(layers, layer, here, node);
            }
        }
    }
    Resolution::Absent("it is a directory")
}

/// Reversed, so that the next component is at the end.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/');
    let parts = parts.filter(|part| !part.is_empty() && *part != b".");
    parts.rev().map(<[u8]>::to_vec).collect()
}

fn whole(mut path: Vec<u8>, ahead: &[Vec<u8>]) -> Vec<u8> {
    for part in ahead.iter().rev().take_while(|part| *part != b"..") {
        path.push(b'/');
        path.extend_from_slice(part);
    }
    path
}

fn look<'l>(layers: &[Option<&'l LayerFiles>], from: usize, path: &[u8]) -> Seen<'l> {
    for (number, layer) in layers.iter().enumerate().skip(from) {
        let Some(index) = layer else {
            return Seen::Unread;
        };
        if !index.covers(path) {
            return Seen::Unasked;
        }
        if let Some(node) = index.node(path) {
            return Seen::At(number, node);
        }
        if index.has_inside(path) {
            return Seen::Directory;
        }
        if index.hides(path) {
            return Seen::Absent;
        }
    }
    Seen::Absent
}

/// Follows hard links: the bytes are stored under another name, in the same layer or a lower one.
fn file(layers: &[Option<&LayerFiles>], layer: usize, path: Vec<u8>, node: &Node) -> Resolution {
    let (mut layer, mut path, mut node) = (layer, path, node);
    for _ in 0..MAX_LINKS {
        match node {
            Node::File { .. } => return Resolution::File { layer, path },
            Node::Hardlink(target) => match look(layers, layer, target) {
                Seen::At(next, found) => (layer, path, node) = (next, target.clone(), found),
                Seen::Unread => return Resolution::Unread,
                Seen::Unasked => return Resolution::Unasked(target.clone()),
                _ => return Resolution::Absent("it is a hard link to nothing"),
            },
            Node::Special => return Resolution::Absent("it is a device, a FIFO or a sparse file"),
            Node::Symlink(_) | Node::Directory => {
                return Resolution::Absent("it is a hard link to something that is not a file");
            }
        }
    }
    Resolution::Absent("too many links on the way")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    fn layer(entries: &[(&str, Node)]) -> LayerFiles {
        let mut index = crate::LayerIndex::default();
        for (path, node) in entries {
            let path = crate::index::normalized(path.as_bytes()).unwrap();
            let record = Record::of(path, node.clone());
            record.into_iter().for_each(|record| index.put(record));
        }
        LayerFiles::Whole(index)
    }

    fn file() -> Node {
        Node::File {
            size: 1,
            build_id: None,
        }
    }

    fn link(target: &str) -> Node {
        Node::Symlink(target.as_bytes().to_vec())
    }

    fn at(layers: &[LayerFiles], path: &str) -> Result<(usize, String), &'static str> {
        let layers: Vec<_> = layers.iter().map(Some).collect();
        match resolve(&layers, path.as_bytes()) {
            Resolution::File { layer, path } => Ok((layer, String::from_utf8(path).unwrap())),
            Resolution::Absent(why) => Err(why),
            Resolution::Unread | Resolution::Unasked(_) => Err("unread"),
        }
    }

    #[test]
    fn topmost_entry_wins_and_whiteouts_hide() {
        let layers = [
            layer(&[
                ("app/.wh.old", file()),
                ("etc/.wh..wh..opq", file()),
                ("etc/new", file()),
                ("was", file()),
            ]),
            layer(&[
                ("app/old", file()),
                ("app/kept", file()),
                ("etc/gone", file()),
                ("was/inside", file()),
            ]),
            layer(&[("app/old", file()), ("./usr//lib/x", file())]),
        ];
        assert_eq!(at(&layers, "/app/kept"), Ok((1, "app/kept".to_owned())));
        assert_eq!(at(&layers, "/etc/new"), Ok((0, "etc/new".to_owned())));
        assert_eq!(at(&layers, "/usr/lib/x"), Ok((2, "usr/lib/x".to_owned())));
        for gone in ["/app/old", "/etc/gone", "/was/inside", "/nothing"] {
            assert!(at(&layers, gone).is_err(), "{gone}");
        }
    }

    #[test]
    fn whiteout_and_new_file_of_the_same_name_in_one_layer_give_the_new_file() {
        let layers = [
            layer(&[("dir/.wh..wh..opq", file()), ("dir/x", file())]),
            layer(&[("dir/x", file()), ("dir/y", file())]),
        ];
        assert_eq!(at(&layers, "/dir/x"), Ok((0, "dir/x".to_owned())));
        assert!(at(&layers, "/dir/y").is_err());
    }

    #[test]
    fn directory_that_replaces_a_file_does_not_bring_back_what_was_below_it() {
        let layers = [
            layer(&[("a/new", file())]),
            layer(&[("a", file())]),
            layer(&[("a/old", file())]),
        ];
        assert!(at(&layers, "/a/old").is_err());
        assert_eq!(at(&layers, "/a/new"), Ok((0, "a/new".to_owned())));
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let layers = [
            layer(&[
                ("usr/lib/real.so", file()),
                (
                    "usr/lib/hard.so",
                    Node::Hardlink(b"usr/lib/real.so".to_vec()),
                ),
                ("up", link("../../../../usr/lib/real.so")),
                ("chain", link("/up")),
                ("loop", link("loop")),
                ("dev", Node::Special),
            ]),
            layer(&[("lib", link("usr/lib")), ("abs", link("/lib/./real.so"))]),
        ];
        for path in [
            "/lib/real.so",
            "/usr/lib/hard.so",
            "/up",
            "/chain",
            "/abs",
            "/lib/../lib/hard.so",
        ] {
            assert_eq!(
                at(&layers, path),
                Ok((0, "usr/lib/real.so".to_owned())),
                "{path}"
            );
        }
        for path in ["/loop", "/dev", "/usr/lib", "/up/x", "/"] {
            assert!(at(&layers, path).is_err(), "{path}");
        }
    }

    #[test]
    fn layer_that_was_not_read_leaves_it_open_unless_one_above_answers() {
        let top = layer(&[("a", file()), (".wh.b", file())]);
        let layers = [Some(&top), None];
        assert!(matches!(
            resolve(&layers, b"/a"),
            Resolution::File { layer: 0, .. }
        ));
        assert!(matches!(resolve(&layers, b"/b"), Resolution::Absent(_)));
        assert_eq!(resolve(&layers, b"/c"), Resolution::Unread);
    }
}
