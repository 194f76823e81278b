//! aarch64 through `yaxpeax-arm`.

use cdh_elfcore::{Avma, Registers};
use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::{
    InstDecoder, Opcode, Operand as Part, SIMDSizeCode, ShiftStyle, SizeCode,
};

use super::{Access, AccessMode, Filling, Flow, Instruction, Operand, RegisterValue};

const SP: u16 = 31;
/// The zero register, which has no DWARF number.
const ZERO: u16 = u16::MAX;

pub(super) fn decode(at: Avma, bytes: &[u8], registers: Option<&Registers>) -> Option<Instruction> {
    let word: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    let decoded = InstDecoder::default()
        .decode(&mut U8Reader::new(&word))
        .ok()?;
    let mnemonic = decoded.opcode.to_string();
    let parts = &decoded.operands;
    let access = access(&mnemonic, parts, registers);
    let flow = flow(decoded.opcode, parts, at, registers);
    let reads = parts
        .iter()
        .enumerate()
        .filter(|(index, _)| *index > 0 || is_store(&mnemonic) || !matches!(flow, Flow::Next))
        .filter_map(|(_, part)| match part {
            Part::Register(_, number) if *number < SP => value(*number, registers),
            _ => None,
        })
        .collect();
    let is_aligned = mnemonic.contains("xr") && access.is_some();
    let size = access.as_ref().map(|access| access.size);
    Some(Instruction {
        at,
        length: word.len(),
        text: text(&decoded.to_string(), at, parts),
        alignment: size.filter(|_| is_aligned),
        accesses: access.into_iter().collect(),
        writes: writes(&mnemonic, parts, &flow),
        filling: filling(&mnemonic, parts),
        flow,
        reads,
        features: Vec::new(),
        privileged: false,
    })
}

/// Registers that it changes: the first operand, of a pair the second too, and a base that is moved.
fn writes(mnemonic: &str, parts: &[Part; 4], flow: &Flow) -> Vec<u16> {
    let general = |part: &Part| match part {
        Part::Register(_, number) | Part::RegisterOrSP(_, number) => Some(*number),
        _ => None,
    };
    let moved = |part: &Part| match part {
        Part::RegPreIndex(base, _, true)
        | Part::RegPostIndex(base, _)
        | Part::RegPostIndexReg(base, _) => Some(*base),
        _ => None,
    };
    let is_written = !is_store(mnemonic) && !matches!(flow, Flow::Jump(_) | Flow::Return);
    let count = match mnemonic.starts_with("ldp") || mnemonic.starts_with("ldxp") {
        true => 2,
        false => usize::from(is_written),
    };
    let results = parts.iter().take(count).filter_map(general);
    results.chain(parts.iter().filter_map(moved)).collect()
}

fn filling(mnemonic: &str, parts: &[Part; 4]) -> Option<Filling> {
    let full = |part: &Part| match part {
        Part::Register(SizeCode::X, number) if *number < SP => Some(*number),
        _ => None,
    };
    let [to, from, other, _] = parts;
    let to = full(to)?;
    match (mnemonic, from, other) {
        ("ldr" | "ldur", Part::RegPreIndex(_, _, false) | Part::RegRegOffset(..), _) => {
            Some(Filling::Load { to })
        }
        // `mov` is `orr` with the zero register.
        (
            "orr",
            Part::Register(SizeCode::X, SP),
            Part::RegShift(ShiftStyle::LSL, 0, SizeCode::X, from),
        ) if *from < SP => Some(Filling::Copy { to, from: *from }),
        _ => None,
    }
}

/// Targets relative to pc as addresses.
fn text(text: &str, at: Avma, parts: &[Part]) -> String {
    let offset = parts.iter().find_map(|part| match part {
        Part::PCOffset(offset) => Some(*offset),
        _ => None,
    });
    match (offset, text.split_once('$')) {
        (Some(offset), Some((before, _))) => {
            format!("{before}{:#x}", at.0.wrapping_add_signed(offset))
        }
        _ => text.to_owned(),
    }
}

fn value(number: u16, registers: Option<&Registers>) -> Option<RegisterValue> {
    let name = match number {
        SP => "sp".to_owned(),
        _ => format!("x{number}"),
    };
    Some(RegisterValue {
        number,
        name,
        value: registers.and_then(|registers| registers.get(number)),
    })
}

fn is_store(mnemonic: &str) -> bool {
    mnemonic.starts_with("st") && !mnemonic.starts_with("sta")
        || mnemonic.starts_with("stlr")
        || mnemonic.starts_with("stur")
}

/// Bytes of one register of a load or store, from its mnemonic or else from the register.
fn size(mnemonic: &str, part: &Part) -> u64 {
    let is_simd = matches!(part, Part::SIMDRegister(..) | Part::SIMDRegisterGroup(..));
    if mnemonic.ends_with("sw") {
        return 4;
    }
    match mnemonic.as_bytes().last() {
        Some(b'b') if !is_simd => return 1,
        Some(b'h') if !is_simd => return 2,
        _ => {}
    }
    match part {
        Part::Register(SizeCode::W, _) => 4,
        Part::SIMDRegister(size, _) => simd_size(*size),
        Part::SIMDRegisterGroup(size, _, _, count) => {
            simd_size(*size).saturating_mul(u64::from(*count))
        }
        _ => 8,
    }
}

fn simd_size(size: SIMDSizeCode) -> u64 {
    match size {
        SIMDSizeCode::B => 1,
        SIMDSizeCode::H => 2,
        SIMDSizeCode::S => 4,
        SIMDSizeCode::D => 8,
        SIMDSizeCode::Q => 16,
    }
}

fn access(mnemonic: &str, parts: &[Part; 4], registers: Option<&Registers>) -> Option<Access> {
    let is_load = mnemonic.starts_with("ld");
    let is_update = [
        "cas", "swp", "ldadd", "ldclr", "ldset", "ldeor", "ldsmax", "ldsmin",
    ]
    .iter()
    .any(|start| mnemonic.starts_with(start))
        || ["ldumax", "ldumin", "stadd", "stclr", "stset", "steor"]
            .iter()
            .any(|start| mnemonic.starts_with(start));
    let is_store = mnemonic.starts_with("st");
    let mode = match (is_update, is_load, is_store) {
        (true, ..) => AccessMode::Update,
        (_, true, _) => AccessMode::Read,
        (_, _, true) => AccessMode::Write,
        _ => return None,
    };
    // A store-exclusive has its status register first.
    let data = parts.get(usize::from(
        mnemonic.starts_with("stx") || mnemonic.starts_with("stlx"),
    ));
    let one = size(mnemonic, data?);
    let is_pair = [
        "ldp", "stp", "ldnp", "stnp", "ldxp", "stxp", "ldaxp", "stlxp", "ldpsw",
    ];
    let size = match is_pair.contains(&mnemonic) {
        true => one.saturating_mul(2),
        false => one,
    };
    let built =
        |base: u16, index: Option<(RegisterValue, u64)>, offset: i64, extra: Option<u64>| {
            let base = value(base, registers);
            let start = base.as_ref().and_then(|base| base.value);
            let address = start
                .zip(extra)
                .map(|(start, extra)| start.wrapping_add(extra).wrapping_add_signed(offset));
            Access {
                address,
                size,
                mode,
                base,
                index,
                displacement: offset,
                is_stack: false,
            }
        };
    parts.iter().find_map(|part| match *part {
        Part::RegPreIndex(base, offset, _) => Some(built(base, None, offset.into(), Some(0))),
        Part::RegPostIndex(base, _) | Part::RegPostIndexReg(base, _) => {
            Some(built(base, None, 0, Some(0)))
        }
        Part::RegRegOffset(base, index, width, style, shift) => {
            let index = match index {
                // The zero register.
                SP => RegisterValue {
                    number: ZERO,
                    name: "xzr".to_owned(),
                    value: Some(0),
                },
                _ => value(index, registers)?,
            };
            let extended = index.value.map(|value| extend(value, width, style));
            let shifted = extended.and_then(|value| value.checked_shl(shift.into()));
            let scale = 1_u64.checked_shl(shift.into()).unwrap_or(1);
            Some(built(base, Some((index, scale)), 0, shifted))
        }
        _ => None,
    })
}

fn extend(value: u64, width: SizeCode, style: ShiftStyle) -> u64 {
    match (width, style) {
        (SizeCode::X, _) => value,
        (SizeCode::W, ShiftStyle::SXTW) => {
            let low = u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0);
            i64::from(low.cast_signed()).cast_unsigned()
        }
        (SizeCode::W, _) => value & u64::from(u32::MAX),
    }
}

fn flow(opcode: Opcode, parts: &[Part; 4], at: Avma, registers: Option<&Registers>) -> Flow {
    let target = || {
        let found = parts.iter().find_map(|part| match *part {
            Part::PCOffset(offset) => Some(Operand::Constant(at.0.wrapping_add_signed(offset))),
            Part::Register(SizeCode::X, number) if number < SP => {
                value(number, registers).map(Operand::Register)
            }
            _ => None,
        });
        found.unwrap_or(Operand::Other)
    };
    let constant = || match parts[0] {
        Part::Imm16(value) => Some(value.into()),
        Part::Immediate(value) => Some(value.into()),
        Part::Imm64(value) => Some(value),
        _ => None,
    };
    match opcode {
        Opcode::BL
        | Opcode::BLR
        | Opcode::BLRAA
        | Opcode::BLRAB
        | Opcode::BLRAAZ
        | Opcode::BLRABZ => Flow::Call(target()),
        Opcode::B | Opcode::BR | Opcode::CBZ | Opcode::CBNZ | Opcode::TBZ | Opcode::TBNZ => {
            Flow::Jump(target())
        }
        Opcode::Bcc(_) => Flow::Jump(target()),
        Opcode::RET | Opcode::RETAA | Opcode::RETAB => Flow::Return,
        Opcode::UDF | Opcode::BRK | Opcode::HLT => Flow::Trap(constant()),
        Opcode::SVC => Flow::SystemCall,
        _ => Flow::Next,
    }
}
