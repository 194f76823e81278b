//! Files that would name more frames. The caller looks for them; this crate only says which are right.

use cdh_elfcore::{BuildId, ElfObject};

use crate::{LoadedModule, ModuleStatus, UnwoundFrame, section};

/// A file that is missing for a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleNeed {
    /// Index of the module.
    pub module: usize,
    /// What is missing.
    pub what: Need,
}

/// Which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// The module's own file.
    Object {
        /// Its build-id, if the core has it.
        build_id: Option<BuildId>,
    },
    /// Its separate debug file.
    DebugFile {
        /// Its name in `.gnu_debuglink`: hostile bytes, not a path.
        link: Option<Vec<u8>>,
        /// CRC-32 of the file that the link means.
        crc: Option<u32>,
        /// Its build-id, the same as the module's.
        build_id: Option<BuildId>,
    },
    /// The file that the module's DWARF shares with others (dwz).
    AltFile {
        /// Its path in `.gnu_debugaltlink`, often relative to the debug file: hostile bytes.
        path: Vec<u8>,
        /// Its build-id.
        build_id: BuildId,
    },
}

impl Need {
    /// Whether `candidate` is the file that is meant.
    #[must_use]
    pub fn accepts(&self, candidate: &ElfObject<'_>) -> bool {
        match self {
            Self::Object { build_id: None } => true,
            Self::Object { build_id } => candidate.build_id() == *build_id,
            Self::DebugFile {
                build_id: Some(id), ..
            }
            | Self::AltFile { build_id: id, .. } => candidate.build_id().as_ref() == Some(id),
            Self::DebugFile {
                crc: Some(expected),
                ..
            } => {
                let mut crc = flate2::Crc::new();
                crc.update(candidate.data());
                crc.sum() == *expected
            }
            Self::DebugFile { .. } => false,
        }
    }
}

/// What is missing for the modules that `frames` are in.
#[must_use]
pub fn needs_of<'f>(
    modules: &[LoadedModule<'_>],
    frames: impl IntoIterator<Item = &'f UnwoundFrame>,
) -> Vec<ModuleNeed> {
    let mut indices: Vec<usize> = frames
        .into_iter()
        .filter_map(|frame| frame.module)
        .collect();
    indices.sort_unstable();
    indices.dedup();
    let need = |index: usize| {
        let what = need_of(modules.get(index)?)?;
        Some(ModuleNeed {
            module: index,
            what,
        })
    };
    indices.into_iter().filter_map(need).collect()
}

fn need_of(loaded: &LoadedModule<'_>) -> Option<Need> {
    let Some(object) = &loaded.object else {
        return match &loaded.status {
            ModuleStatus::Unreadable(_) => None,
            _ => Some(Need::Object {
                build_id: loaded.module.build_id.clone(),
            }),
        };
    };
    let source = match &loaded.debug {
        Some(debug) => debug,
        None if section::present(object, ".debug_info") => object,
        None => {
            let link = object.debug_link();
            let build_id = object.build_id();
            return (link.is_some() || build_id.is_some()).then(|| Need::DebugFile {
                link: link.map(|link| link.0.to_vec()),
                crc: link.map(|link| link.1),
                build_id,
            });
        }
    };
    let (path, build_id) = source.debug_alt_link().filter(|_| loaded.alt.is_none())?;
    Some(Need::AltFile {
        path: path.to_vec(),
        build_id,
    })
}
