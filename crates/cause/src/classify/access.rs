//! SIGSEGV and SIGBUS: an access to memory that failed.

use super::control;
use super::{SI_KERNEL, here};
use crate::cause::{Cause, Class, Fact};
use crate::instruction::{Access, AccessMode, Instruction};
use crate::place::permissions;
use crate::scene::{EXECUTABLE, READABLE, Scene, WRITABLE};
use crate::{MemberName, heap, words};

const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const SEGV_PKUERR: i32 = 4;
const BUS_ADRALN: i32 = 1;
const BUS_ADRERR: i32 = 2;
const BUS_MCEERR_AR: i32 = 4;
const BUS_MCEERR_AO: i32 = 5;
/// Nothing is mapped below (`vm.mmap_min_addr`).
const LOWEST: u64 = 64 << 10;

/// The access that failed, as far as it is known.
struct Failed {
    address: u64,
    /// Whether it is certain that data was accessed, and not an instruction.
    is_data: bool,
    found: Option<(Instruction, Access)>,
}

impl Failed {
    fn of(scene: &Scene<'_>, address: u64) -> Self {
        let touched = |instruction: Instruction| {
            // The top byte of a pointer of aarch64 may be a tag, which the kernel removes.
            let plain = |access: &Access| Access {
                address: access.address.map(|at| match scene.crash.machine {
                    cdh_elfcore::Machine::Aarch64 => at & (u64::MAX >> 8),
                    _ => at,
                }),
                ..access.clone()
            };
            let mut accesses = instruction.accesses.iter().map(plain);
            let access = accesses.find(|access| access.touches(address))?;
            Some((instruction, access))
        };
        Self {
            address,
            is_data: scene.pc().is_some(),
            found: scene.faulting().and_then(touched),
        }
    }

    fn mode(&self) -> Option<AccessMode> {
        self.found.as_ref().map(|(_, access)| access.mode)
    }

    /// `tried to read 4 bytes`, `tried to access memory`.
    fn verb(&self) -> String {
        let Some((_, access)) = &self.found else {
            return match self.is_data {
                true => "tried to access memory".to_owned(),
                false => "used memory".to_owned(),
            };
        };
        let verb = match access.mode {
            AccessMode::Read => "read",
            AccessMode::Write => "write",
            AccessMode::Update => "change",
        };
        match access.size {
            0 => format!("tried to {verb} memory"),
            size => format!("tried to {verb} {}", words::bytes(size)),
        }
    }

    /// The names of the pointer and of what was accessed through it.
    fn name(&self, scene: &Scene<'_>) -> Option<MemberName> {
        let (instruction, access) = self.found.as_ref()?;
        let base = access.base.as_ref().filter(|_| access.index.is_none())?;
        let offset = access.address?.checked_sub(base.value?)?;
        scene.name_of(0, instruction.at.0, base, offset)
    }

    /// The instruction, and the values that its address is made of.
    fn facts(&self, scene: &Scene<'_>) -> Vec<Fact> {
        let mut facts = Vec::new();
        if let Some((instruction, access)) = &self.found {
            facts.push(instruction_fact(scene, instruction, self.address));
            facts.extend(register_facts(access));
            facts.extend(self.name(scene).map(|name| {
                let text = match &name.member {
                    Some(member) => format!(
                        "the access is to `{member}`, through the pointer `{}`",
                        name.pointer
                    ),
                    None => format!("the access is through the pointer `{}`", name.pointer),
                };
                Fact::new(text).location(scene.location(0))
            }));
        } else {
            facts.push(Fact::new(format!("the address is {:#x}", self.address)).at(self.address));
        }
        facts
    }
}

fn instruction_fact(scene: &Scene<'_>, instruction: &Instruction, address: u64) -> Fact {
    let text = format!(
        "the instruction `{}` at {} accessed {address:#x}",
        instruction.text, instruction.at
    );
    Fact::new(text)
        .at(instruction.at.0)
        .instruction(&instruction.text)
        .location(scene.location(0))
}

/// The registers of an address, and what their values look like.
fn register_facts(access: &Access) -> Vec<Fact> {
    let fact = |part: &crate::RegisterValue| {
        let value = part.value?;
        let mut text = format!("`{}` is {value:#x}", part.name);
        if let Some(spelled) = words::spelled(value) {
            text.push_str(&format!(": its bytes are the text `{spelled}`"));
        } else if let Some(pattern) = words::pattern(value) {
            text.push_str(&format!(": {pattern}"));
        }
        Some(Fact::new(text).register(&part.name))
    };
    access.parts().filter_map(fact).collect()
}

pub(super) fn segv(scene: &Scene<'_>) -> Option<Cause> {
    let signal = scene.crash.signal;
    let code = signal.code?;
    if code == SI_KERNEL {
        return protection_fault(scene);
    }
    let address = signal.address?.0;
    if scene.pc() == Some(address) && !is_code(scene, address) {
        return Some(control::not_code(scene, address));
    }
    let failed = Failed::of(scene, address);
    match code {
        SEGV_MAPERR => Some(unmapped(scene, &failed)),
        SEGV_ACCERR => Some(forbidden(scene, &failed)),
        SEGV_PKUERR => {
            let (who, verb) = (scene.actor(), failed.verb());
            let sentence =
                format!("{who} {verb} at {address:#x}, which its memory protection key forbids.");
            Some(Cause::new(Class::ProtectionKey, sentence).with_all(failed.facts(scene)))
        }
        _ => None,
    }
}

fn is_code(scene: &Scene<'_>, at: u64) -> bool {
    match scene.segment(at) {
        Some(segment) => segment.flags & EXECUTABLE != 0,
        None => false,
    }
}

fn unmapped(scene: &Scene<'_>, failed: &Failed) -> Cause {
    let address = failed.address;
    if let Some(cause) = freed(scene, failed) {
        return cause;
    }
    if address < LOWEST {
        return null(scene, failed);
    }
    let (who, verb) = (scene.actor(), failed.verb());
    let is_kernel = address.cast_signed() < 0;
    let where_to = match is_kernel {
        true => "which belongs to the kernel",
        false => "where nothing is mapped",
    };
    let sentence = format!("{who} {verb} at {address:#x}, {where_to}.");
    let near = scene
        .neighbourhood(address)
        .map(|text| Fact::new(text).at(address));
    Cause::new(Class::BadPointer, sentence)
        .with_all(failed.facts(scene))
        .with(near)
        .with(here(scene))
}

fn null(scene: &Scene<'_>, failed: &Failed) -> Cause {
    let address = failed.address;
    let (who, verb) = (scene.actor(), failed.verb());
    let zero = failed.found.as_ref().and_then(|(_, access)| {
        let mut parts = access.parts();
        let zero = parts.find(|part| part.value == Some(0))?;
        Some(zero.name.clone())
    });
    let name = failed.name(scene).filter(|_| zero.is_some());
    let sentence = match (&zero, address, &name) {
        (
            Some(_),
            _,
            Some(MemberName {
                pointer,
                member: Some(member),
            }),
        ) => {
            format!(
                "{who} {verb} through a null pointer: it accessed `{member}`, and `{pointer}` is null."
            )
        }
        (
            Some(_),
            _,
            Some(MemberName {
                pointer,
                member: None,
            }),
        ) => {
            format!("{who} {verb} through a null pointer: `{pointer}` is null.")
        }
        (_, 0, _) => format!("{who} {verb} through a null pointer."),
        (Some(_), ..) => {
            format!("{who} {verb} through a null pointer, at offset {address:#x} from it.")
        }
        (None, ..) => format!(
            "{who} {verb} at address {address:#x}, close to zero, where nothing is mapped: it used a null pointer plus an offset, or a number as a pointer."
        ),
    };
    Cause::new(Class::NullPointer, sentence)
        .with_all(failed.facts(scene))
        .with(here(scene))
}

/// A pointer that the allocator wrote into a freed block.
fn freed(scene: &Scene<'_>, failed: &Failed) -> Option<Cause> {
    let (_, access) = failed.found.as_ref()?;
    let mut parts = access.parts();
    let (part, found) =
        parts.find_map(|part| Some((part, heap::allocator_word(scene, part.value?)?)))?;
    let (who, verb) = (scene.actor(), failed.verb());
    let instruction = &failed.found.as_ref()?.0;
    let used = found.words(scene.read_from(0, instruction.at.0, part));
    let sentence = format!(
        "{who} {used}: it {verb} through a pointer that `malloc` had written into a free block."
    );
    let cause = Cause::new(Class::UseAfterFree, sentence)
        .with(instruction_fact(
            scene,
            &failed.found.as_ref()?.0,
            failed.address,
        ))
        .with(Fact::new(format!("`{}` is {:#x}", part.name, part.value?)).register(&part.name))
        .with(found.fact());
    Some(cause.with(here(scene)))
}

fn forbidden(scene: &Scene<'_>, failed: &Failed) -> Cause {
    let address = failed.address;
    let (who, verb) = (scene.actor(), failed.verb());
    let place = scene
        .place(address)
        .unwrap_or_else(|| "this memory".to_owned());
    let segment = scene.segment(address);
    let flags = segment.map(|segment| segment.flags);
    let rights = flags.map(|flags| {
        Fact::new(format!(
            "{address:#x} is in {place}, {}",
            permissions(flags)
        ))
        .at(address)
    });
    let cause = match (flags, failed.mode()) {
        (Some(0), _) => {
            let sentence = format!(
                "{who} {verb} at {address:#x}, in memory that is mapped without any access, such as a guard page."
            );
            Cause::new(Class::NoAccessMemory, sentence)
        }
        (Some(flags), Some(AccessMode::Write | AccessMode::Update)) if flags & WRITABLE == 0 => {
            let sentence = format!("{who} {verb} to read-only memory, in {place}.");
            Cause::new(
                Class::ReadOnlyMemory,
                sentence.replacen("change", "write", 1),
            )
        }
        // What may be read and is not executed was written.
        (Some(flags), None)
            if flags & (READABLE | WRITABLE) == READABLE && states_permissions(scene) =>
        {
            let sentence = format!("{who} tried to write to read-only memory, in {place}.");
            Cause::new(Class::ReadOnlyMemory, sentence)
        }
        _ => {
            let sentence =
                format!("{who} {verb} at {address:#x}, but this memory does not allow it.");
            Cause::new(Class::Unknown, sentence)
        }
    };
    let guard = segment.filter(|_| flags == Some(0)).and_then(|guard| {
        let below = guard.start.0.checked_sub(1)?;
        let place = scene.place(below)?;
        let distance = address.saturating_sub(guard.start.0);
        let text = format!(
            "the address is {} after the end of {place}",
            words::bytes(distance)
        );
        Some(Fact::new(text).at(guard.start.0))
    });
    cause.with_all(failed.facts(scene)).with(rights).with(guard)
}

/// Whether the segments state what was readable. Cores that gdb wrote call everything readable.
fn states_permissions(scene: &Scene<'_>) -> bool {
    let mut segments = scene.crash.segments.iter();
    segments.any(|segment| segment.flags & READABLE == 0)
}

/// A fault without an address: the instruction shows it.
fn protection_fault(scene: &Scene<'_>) -> Option<Cause> {
    let instruction = scene.faulting()?;
    let who = scene.actor();
    let fact = |text: String| {
        Fact::new(text)
            .at(instruction.at.0)
            .instruction(&instruction.text)
            .location(scene.location(0))
    };
    let shown = fact(format!(
        "the instruction at {} is `{}`",
        instruction.at, instruction.text
    ));
    if instruction.privileged {
        let sentence = format!(
            "{who} executed the instruction `{}`, which only the kernel may use.",
            instruction.text
        );
        return Some(
            Cause::new(Class::PrivilegedInstruction, sentence)
                .with(shown)
                .with(here(scene)),
        );
    }
    let wild = instruction
        .accesses
        .iter()
        .find(|access| access.address.is_some_and(|at| scene.is_non_canonical(at)));
    if let Some(access) = wild {
        let failed = Failed {
            address: access.address?,
            is_data: true,
            found: Some((instruction.clone(), access.clone())),
        };
        return Some(freed(scene, &failed).unwrap_or_else(|| non_canonical(scene, &failed)));
    }
    if let Some(cause) = control::corrupted_target(scene, &instruction) {
        return Some(cause);
    }
    let alignment = instruction.alignment?;
    let access = instruction.accesses.first()?;
    let address = access.address?;
    if address.checked_rem(alignment)? == 0 {
        return None;
    }
    Some(unaligned(scene, &instruction, address, alignment, access))
}

fn non_canonical(scene: &Scene<'_>, failed: &Failed) -> Cause {
    let (who, verb, address) = (scene.actor(), failed.verb(), failed.address);
    let spelled = failed.found.iter().flat_map(|(_, access)| access.parts());
    let spelled = spelled
        .filter_map(|part| words::spelled(part.value?))
        .next();
    let sentence = match spelled {
        Some(text) => format!(
            "{who} {verb} through an invalid pointer, {address:#x}: text (`{text}`) is where a pointer should be."
        ),
        None => format!(
            "{who} {verb} through an invalid pointer: {address:#x} cannot be an address on this processor."
        ),
    };
    Cause::new(Class::NonCanonicalPointer, sentence)
        .with_all(failed.facts(scene))
        .with(here(scene))
}

fn unaligned(
    scene: &Scene<'_>,
    instruction: &Instruction,
    address: u64,
    alignment: u64,
    access: &Access,
) -> Cause {
    let who = scene.actor();
    let sentence = format!(
        "{who} accessed {address:#x} with the instruction `{}`, which needs an address that is a multiple of {alignment}.",
        instruction.text
    );
    Cause::new(Class::UnalignedAccess, sentence)
        .with(instruction_fact(scene, instruction, address))
        .with_all(register_facts(access))
        .with(here(scene))
}

pub(super) fn bus(scene: &Scene<'_>) -> Option<Cause> {
    let signal = scene.crash.signal;
    let code = signal.code?;
    if code == SI_KERNEL {
        return protection_fault(scene);
    }
    let address = signal.address?.0;
    let failed = Failed::of(scene, address);
    let (who, verb) = (scene.actor(), failed.verb());
    match code {
        BUS_ADRALN => {
            // x86_64 states no address.
            let access = scene.faulting().and_then(|found| {
                let is_unaligned = |access: &&Access| {
                    access
                        .address
                        .zip(Some(access.size.max(1)))
                        .is_some_and(|(at, size)| !at.is_multiple_of(size))
                };
                let access = found.accesses.iter().find(is_unaligned)?.clone();
                Some((found, access))
            });
            if let Some((found, access)) = access.filter(|_| address == 0)
                && let Some(at) = access.address
            {
                return Some(unaligned(scene, &found, at, access.size, &access));
            }
            let sentence = format!(
                "{who} {verb} at {address:#x}, which is not aligned as the access requires."
            );
            Some(
                Cause::new(Class::UnalignedAccess, sentence)
                    .with_all(failed.facts(scene))
                    .with(here(scene)),
            )
        }
        BUS_ADRERR => mapped_file(scene, &failed),
        BUS_MCEERR_AR | BUS_MCEERR_AO => {
            let sentence = format!(
                "The hardware reported a memory error at {address:#x}, which {who} accessed."
            );
            Some(
                Cause::new(Class::HardwareMemory, sentence.replace(",,", ","))
                    .with(Fact::new(signal.describe()).at(address)),
            )
        }
        _ => None,
    }
}

/// A page that its file does not have.
fn mapped_file(scene: &Scene<'_>, failed: &Failed) -> Option<Cause> {
    let address = failed.address;
    let path = scene.mapped_file(address)?;
    let mapping = scene
        .crash
        .mappings
        .iter()
        .find(|mapping| mapping.start.0 <= address && address < mapping.end.0)?;
    let (who, verb) = (scene.actor(), failed.verb());
    let offset = address
        .wrapping_sub(mapping.start.0)
        .saturating_add(mapping.offset.0);
    let is_huge = path.contains("hugepages")
        || path.starts_with("/anon_hugepage")
        || path.starts_with("/dev/hugepages");
    let (class, sentence) = match is_huge {
        true => (
            Class::HugePages,
            format!(
                "{who} {verb} of memory that is made of huge pages, and there is none at this place: none was free, or the file was cut short."
            ),
        ),
        false => (
            Class::MappedFile,
            format!(
                "{who} {verb} of the mapped file `{path}` where the file has no data: it was cut short, or its disk could not provide the page."
            ),
        ),
    };
    let text = format!(
        "{address:#x} is at offset {} of `{path}`, mapped from {} to {}",
        words::grouped(offset),
        mapping.start,
        mapping.end
    );
    let shown = failed.facts(scene).into_iter().next();
    Some(
        Cause::new(class, sentence)
            .with(shown)
            .with(Fact::new(text).at(address))
            .with(here(scene)),
    )
}
