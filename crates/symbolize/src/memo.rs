//! What earlier runs found out about a module: the answers for addresses and for pairs of frames.
//!
//! A memo belongs to one build-id together with the very files that were asked (a debug file that is
//! installed later makes a new one). It is a cache: what does not check is ignored, and written anew.
//!
//! ```text
//! "cdhmemo3" | CRC-32 u32 of the rest | strings | answers | pairs
//! string: length u32, bytes                      lists start with their count, u32
//! answer: address, entry | u64::MAX, call 0 | 1 address | 2 string, sites
//! pair:   key 16 bytes, frames of (module's identity: string, address, site)
//! site:   name, file: string | u32::MAX, line u32, column u32, MD5: string | u32::MAX
//! ```
//! All numbers are little-endian; addresses are u64.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};

use crate::debug_info::{Found, Site, Target};
use crate::{LoadedModule, Location};

const MAGIC: &[u8; 8] = b"cdhmemo4";
const NONE: u32 = u32::MAX;
const NO_ADDRESS: u64 = u64::MAX;
/// Answers and pairs of one memo; a module that crashes in more places starts over.
const LIMIT: usize = 16 << 10;
/// Maximum of frames of a pair, and of sites of one answer.
const LIST_LIMIT: usize = 512;

/// Names a pair of frames among the modules of a process.
pub(crate) type PairKey = [u8; 16];

/// A frame between two others: the identity of its module, the address after the jump, what is there.
pub(crate) type Between = (String, u64, Site);

/// The answers for one module.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    pub(crate) found: BTreeMap<u64, Found>,
    pub(crate) pairs: HashMap<PairKey, Vec<Between>>,
}

/// Names the files that are asked for a module; `None` if they look like others.
pub(crate) fn identity(loaded: &LoadedModule<'_>) -> Option<String> {
    let object = loaded.object.as_ref()?;
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(object.build_id()?.as_bytes());
    for object in [Some(object), loaded.debug.as_ref(), loaded.alt.as_ref()] {
        let size = object.map_or(0, |object| object.data().len());
        hash.update((size as u64).to_le_bytes());
        let id = object.and_then(cdh_elfcore::ElfObject::build_id);
        hash.update(id.as_ref().map_or(&[][..], |id| id.as_bytes()));
    }
    Some(hex(hash.finalize().get(..16)?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key of `parts`: what all of them together say, and nothing else, has.
pub(crate) fn key(parts: &[&[u8]]) -> PairKey {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().first_chunk().copied().unwrap_or_default()
}

impl Memo {
    /// Whether it should start over.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() > LIMIT || self.pairs.len() > LIMIT
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (crc, payload) = rest.split_first_chunk()?;
        let mut check = flate2::Crc::new();
        check.update(payload);
        if check.sum() != u32::from_le_bytes(*crc) {
            return None;
        }
        Reader {
            rest: payload,
            strings: Vec::new(),
        }
        .memo()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.number(self.found.len());
        for (at, found) in &self.found {
            writer.address(*at);
            writer.address(found.entry.unwrap_or(NO_ADDRESS));
            match &found.call {
                None => writer.number(0),
                Some(Target::Address(at)) => {
                    writer.number(1);
                    writer.address(*at);
                }
                Some(Target::Name(name)) => {
                    writer.number(2);
                    writer.string(Some(name));
                }
            }
            writer.number(found.sites.len());
            found.sites.iter().for_each(|site| writer.site(site));
        }
        writer.number(self.pairs.len());
        for (key, frames) in &self.pairs {
            writer.bytes.extend_from_slice(key);
            writer.number(frames.len());
            for (module, after, site) in frames {
                writer.string(Some(module));
                writer.address(*after);
                writer.site(site);
            }
        }
        writer.finish()
    }
}

#[derive(Default)]
struct Writer<'a> {
    bytes: Vec<u8>,
    strings: Vec<&'a str>,
    known: HashMap<&'a str, u32>,
}

impl<'a> Writer<'a> {
    fn number(&mut self, number: usize) {
        let number = u32::try_from(number).unwrap_or(NONE);
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn address(&mut self, at: u64) {
        self.bytes.extend_from_slice(&at.to_le_bytes());
    }

    fn string(&mut self, text: Option<&'a str>) {
        let index = text.map_or(NONE, |text| {
            let next = u32::try_from(self.strings.len()).unwrap_or(NONE);
            *self.known.entry(text).or_insert_with(|| {
                self.strings.push(text);
                next
            })
        });
        self.bytes.extend_from_slice(&index.to_le_bytes());
    }

    fn site(&mut self, site: &'a Site) {
        self.string(site.name.as_deref());
        let place = site.location.as_ref();
        self.string(place.map(|place| place.file.as_str()));
        let numbers = place.map_or((0, 0), |place| (place.line, place.column.unwrap_or(0)));
        self.bytes.extend_from_slice(&numbers.0.to_le_bytes());
        self.bytes.extend_from_slice(&numbers.1.to_le_bytes());
        self.string(place.and_then(|place| place.md5.as_deref()));
    }

    fn finish(self) -> Vec<u8> {
        let mut strings = Writer::default();
        strings.number(self.strings.len());
        for text in &self.strings {
            strings.number(text.len());
            strings.bytes.extend_from_slice(text.as_bytes());
        }
        let mut check = flate2::Crc::new();
        check.update(&strings.bytes);
        check.update(&self.bytes);
        [
            &MAGIC[..],
            &check.sum().to_le_bytes(),
            &strings.bytes,
            &self.bytes,
        ]
        .concat()
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    strings: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn count(&mut self, limit: usize) -> Option<usize> {
        usize::try_from(self.number()?)
            .ok()
            .filter(|count| *count <= limit)
    }

    fn address(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// The outer option is an error, the inner one an absent string.
    fn string(&mut self) -> Option<Option<String>> {
        match self.number()? {
            NONE => Some(None),
            index => {
                let text = self.strings.get(usize::try_from(index).ok()?)?;
                Some(Some((*text).to_owned()))
            }
        }
    }

    fn site(&mut self) -> Option<Site> {
        let (name, file) = (self.string()?, self.string()?);
        let (line, column) = (self.number()?, self.number()?);
        let column = Some(column).filter(|column| *column != 0);
        let md5 = self.string()?;
        let location = file.map(|file| Location {
            file,
            line,
            column,
            md5,
        });
        Some(Site { name, location })
    }

    fn sites(&mut self) -> Option<Vec<Site>> {
        (0..self.count(LIST_LIMIT)?).map(|_| self.site()).collect()
    }

    fn memo(mut self) -> Option<Memo> {
        // Each string takes four bytes at least.
        for _ in 0..self.count(self.rest.len() / 4)? {
            let length = usize::try_from(self.number()?).ok()?;
            let (text, rest) = self.rest.split_at_checked(length)?;
            self.rest = rest;
            self.strings.push(std::str::from_utf8(text).ok()?);
        }
        let mut memo = Memo::default();
        for _ in 0..self.count(LIMIT.saturating_mul(2))? {
            let at = self.address()?;
            let entry = Some(self.address()?).filter(|entry| *entry != NO_ADDRESS);
            let call = match self.number()? {
                0 => None,
                1 => Some(Target::Address(self.address()?)),
                _ => self.string()?.map(Target::Name),
            };
            let (sites, tail_calls) = (self.sites()?, Vec::new());
            memo.found.insert(
                at,
                Found {
                    sites,
                    entry,
                    call,
                    tail_calls,
                },
            );
        }
        for _ in 0..self.count(LIMIT.saturating_mul(2))? {
            let key = self.take()?;
            let frame =
                |reader: &mut Self| Some((reader.string()??, reader.address()?, reader.site()?));
            let count = self.count(LIST_LIMIT)?;
            let frames: Option<Vec<Between>> = (0..count).map(|_| frame(&mut self)).collect();
            memo.pairs.insert(key, frames?);
        }
        self.rest.is_empty().then_some(memo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Memo {
        let place = |line| Location {
            file: "/src/a.c".to_owned(),
            line,
            column: Some(3),
            md5: (line == 1).then(|| "00ff".to_owned()),
        };
        let site = |name: Option<&str>, line| Site {
            name: name.map(str::to_owned),
            location: Some(place(line)),
        };
        let mut memo = Memo::default();
        let call = Some(Target::Name("next".to_owned()));
        let sites = vec![site(Some("inner"), 1), site(None, 2)];
        memo.found.insert(
            16,
            Found {
                sites,
                entry: Some(10),
                call,
                tail_calls: Vec::new(),
            },
        );
        memo.found.insert(17, Found::default());
        memo.pairs.insert(
            key(&[b"a"]),
            vec![("m".to_owned(), 5, site(Some("tail"), 3))],
        );
        memo.pairs.insert(key(&[b"b"]), Vec::new());
        memo
    }

    #[test]
    fn memo_survives_being_written() {
        let back = Memo::from_bytes(&example().to_bytes()).unwrap();
        assert_eq!(
            format!("{:?}", back.found),
            format!("{:?}", example().found)
        );
        assert_eq!(back.pairs.len(), 2);
        assert_eq!(back.pairs[&key(&[b"a"])][0].0, "m");
    }

    proptest! {
        #[test]
        fn damaged_memo_is_ignored(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
            let mut bytes = example().to_bytes();
            let at = at.index(bytes.len());
            prop_assume!(cut || bytes[at] != byte);
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            prop_assert!(Memo::from_bytes(&bytes).is_none());
        }

        #[test]
        fn hostile_memo_never_panics(payload in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Reader { rest: &payload, strings: Vec::new() }.memo();
        }
    }
}
