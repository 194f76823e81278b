//! x86_64 through `iced-x86`.

use cdh_elfcore::{Avma, Registers};
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, Instruction as Decoded,
    InstructionInfoFactory, IntelFormatter, Mnemonic, OpAccess, OpKind, Register, UsedMemory,
};

use super::{Access, AccessMode, Filling, Flow, Instruction, LONGEST, Operand, RegisterValue};

pub(super) fn decode(at: Avma, bytes: &[u8], registers: Option<&Registers>) -> Option<Instruction> {
    let bytes = bytes.get(..bytes.len().min(LONGEST))?;
    let mut decoder = Decoder::with_ip(64, bytes, at.0, DecoderOptions::NONE);
    let decoded = decoder.decode();
    if decoded.is_invalid() {
        return None;
    }
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(&decoded);
    let accesses: Vec<Access> = info
        .used_memory()
        .iter()
        .filter_map(|memory| access(memory, registers))
        .collect();
    let mut reads: Vec<RegisterValue> = Vec::new();
    for used in info.used_registers() {
        let is_read = matches!(
            used.access(),
            OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        );
        let Some(value) = register(used.register(), registers).filter(|_| is_read) else {
            continue;
        };
        if !reads.contains(&value) {
            reads.push(value);
        }
    }
    let changed = |used: &&iced_x86::UsedRegister| {
        matches!(
            used.access(),
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        )
    };
    let writes = info.used_registers().iter().filter(changed);
    let writes = writes.filter_map(|used| number(used.register())).collect();
    Some(Instruction {
        at,
        length: decoded.len(),
        text: text(&decoded),
        flow: flow(&decoded, registers),
        alignment: alignment(&decoded),
        features: features(&decoded),
        privileged: decoded.is_privileged(),
        filling: filling(&decoded),
        accesses,
        reads,
        writes,
    })
}

fn text(decoded: &Decoded) -> String {
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_space_after_operand_separator(true);
    options.set_branch_leading_zeros(false);
    options.set_leading_zeros(false);
    options.set_small_hex_numbers_in_decimal(false);
    let mut text = String::new();
    formatter.format(decoded, &mut text);
    text
}

/// DWARF number of a general register's full width (System V psABI, figure 3.36).
fn number(register: Register) -> Option<u16> {
    Some(match register.full_register() {
        Register::RAX => 0,
        Register::RDX => 1,
        Register::RCX => 2,
        Register::RBX => 3,
        Register::RSI => 4,
        Register::RDI => 5,
        Register::RBP => 6,
        Register::RSP => 7,
        Register::R8 => 8,
        Register::R9 => 9,
        Register::R10 => 10,
        Register::R11 => 11,
        Register::R12 => 12,
        Register::R13 => 13,
        Register::R14 => 14,
        Register::R15 => 15,
        Register::RIP => 16,
        _ => return None,
    })
}

const NAMES: [&str; 17] = [
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip",
];

fn register(register: Register, registers: Option<&Registers>) -> Option<RegisterValue> {
    let number = number(register)?;
    Some(RegisterValue {
        number,
        name: (*NAMES.get(usize::from(number))?).to_owned(),
        value: registers.and_then(|registers| registers.get(number)),
    })
}

fn filling(decoded: &Decoded) -> Option<Filling> {
    let full = |register: Register| number(register).filter(|_| register.is_gpr64());
    if decoded.mnemonic() != Mnemonic::Mov || decoded.op0_kind() != OpKind::Register {
        return None;
    }
    let to = full(decoded.op0_register())?;
    match decoded.op1_kind() {
        OpKind::Memory => Some(Filling::Load { to }),
        OpKind::Register => {
            let from = full(decoded.op1_register())?;
            Some(Filling::Copy { to, from })
        }
        _ => None,
    }
}

fn access(memory: &UsedMemory, registers: Option<&Registers>) -> Option<Access> {
    let mode = match memory.access() {
        OpAccess::Read | OpAccess::CondRead => AccessMode::Read,
        OpAccess::Write | OpAccess::CondWrite => AccessMode::Write,
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => AccessMode::Update,
        _ => return None,
    };
    let is_flat = !matches!(memory.segment(), Register::FS | Register::GS);
    let is_relative = memory.base() == Register::RIP;
    let base = Some(memory.base()).filter(|base| *base != Register::None && !is_relative);
    let index = Some(memory.index()).filter(|index| *index != Register::None);
    let value = |part: Option<Register>| part.map(|part| register(part, registers));
    let (base_value, index_value) = (value(base), value(index));
    let scale = u64::from(memory.scale());
    // Vector registers as an index (`vgather`) have no value here: then the address is unknown.
    let known = |part: &Option<Option<RegisterValue>>| match part {
        None => Some(0),
        Some(part) => part.as_ref()?.value,
    };
    let address = || {
        let index = known(&index_value)?.wrapping_mul(scale);
        let sum = known(&base_value)?
            .wrapping_add(index)
            .wrapping_add(memory.displacement());
        Some(match memory.address_size() {
            iced_x86::CodeSize::Code32 => sum & u64::from(u32::MAX),
            _ => sum,
        })
    };
    Some(Access {
        address: is_flat.then(address).flatten(),
        size: u64::try_from(memory.memory_size().size()).unwrap_or(0),
        mode,
        base: base_value.flatten(),
        index: index_value.flatten().map(|index| (index, scale)),
        displacement: memory.displacement().cast_signed(),
        is_stack: memory.segment() == Register::SS,
    })
}

fn operand(decoded: &Decoded, registers: Option<&Registers>) -> Operand {
    match decoded.op0_kind() {
        OpKind::Register => match register(decoded.op0_register(), registers) {
            Some(value) => Operand::Register(value),
            None => Operand::Other,
        },
        OpKind::Memory => Operand::Memory(0),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
            Operand::Constant(decoded.near_branch_target())
        }
        _ => Operand::Other,
    }
}

fn flow(decoded: &Decoded, registers: Option<&Registers>) -> Flow {
    match decoded.mnemonic() {
        Mnemonic::Div | Mnemonic::Idiv => {
            let size = match decoded.op0_kind() {
                OpKind::Register => decoded.op0_register().size(),
                _ => decoded.memory_size().size(),
            };
            return Flow::Divide {
                divisor: operand(decoded, registers),
                signed: decoded.mnemonic() == Mnemonic::Idiv,
                size: u64::try_from(size).unwrap_or(0),
            };
        }
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => return Flow::Trap(None),
        Mnemonic::Int3 | Mnemonic::Int1 => return Flow::Breakpoint,
        Mnemonic::Syscall | Mnemonic::Sysenter => return Flow::SystemCall,
        _ => {}
    }
    match decoded.flow_control() {
        FlowControl::Call | FlowControl::IndirectCall => Flow::Call(operand(decoded, registers)),
        FlowControl::UnconditionalBranch
        | FlowControl::IndirectBranch
        | FlowControl::ConditionalBranch => Flow::Jump(operand(decoded, registers)),
        FlowControl::Return => Flow::Return,
        _ => Flow::Next,
    }
}

/// Features of every x86_64 processor (psABI, x86-64-v1), and of none in particular.
fn is_base(feature: &str) -> bool {
    const BASE: [&str; 18] = [
        "X64",
        "FPU",
        "FPU287",
        "FPU387",
        "CMOV",
        "CX8",
        "MMX",
        "SSE",
        "SSE2",
        "FXSR",
        "SYSCALL",
        "MULTIBYTENOP",
        "PAUSE",
        "CPUID",
        "TSC",
        "MSR",
        "CLFSH",
        "UDBG",
    ];
    feature.starts_with("INTEL") || BASE.contains(&feature)
}

fn features(decoded: &Decoded) -> Vec<String> {
    let all = decoded.cpuid_features().iter();
    let names = all.map(|feature| format!("{feature:?}"));
    let needed = names.filter(|name| !is_base(name));
    needed.map(|name| name.replace('_', ".")).collect()
}

/// SSE instructions with a memory operand of 16 bytes need it aligned, except those made for unaligned ones
/// (Intel SDM, volume 1, 4.1.1). VEX forms do not, except the aligned moves.
fn alignment(decoded: &Decoded) -> Option<u64> {
    let size = u64::try_from(decoded.memory_size().size()).ok()?;
    let aligned_move = matches!(
        decoded.mnemonic(),
        Mnemonic::Movaps
            | Mnemonic::Movapd
            | Mnemonic::Movdqa
            | Mnemonic::Movntdq
            | Mnemonic::Movntps
            | Mnemonic::Movntpd
            | Mnemonic::Movntdqa
            | Mnemonic::Vmovaps
            | Mnemonic::Vmovapd
            | Mnemonic::Vmovdqa
            | Mnemonic::Vmovdqa32
            | Mnemonic::Vmovdqa64
            | Mnemonic::Vmovntdq
            | Mnemonic::Vmovntps
            | Mnemonic::Vmovntpd
            | Mnemonic::Vmovntdqa
            | Mnemonic::Cmpxchg16b
    );
    let has_memory = (0..decoded.op_count()).any(|op| decoded.op_kind(op) == OpKind::Memory);
    (aligned_move && has_memory && size >= 16).then_some(size)
}
