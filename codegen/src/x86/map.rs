//! The map leaf: a vector program over contiguous memory, with a masked tail.
//!
//! ```text
//! for i in (0..n).step_by(lanes)      out[i..] = program(in[i..], operands[i..])
//! ```
//!
//! Four vectors are computed in turn, or two, if each copy of the program has registers enough: the next operation on a vector
//! waits for the one before, and the CPU looks only so far ahead.
//!
//! A result that is larger than the L2 cache can be written past them: a line that is written whole need not be read first, which
//! is a third of the traffic.
//!
//! Nothing outside the `n` elements is read or written. In and out may be the same memory.

use super::alloc::{Allocated, Place, allocate};
use super::asm::{Asm, Mask, Mem, VReg, mem};
use super::vprog::{Access, VProg};
use super::{Isa, LeafError, map_slots};
use iced_x86::{Code, Register};

/// What the leaf computes; each operand is a stream ([`Access::Same`]), a vector ([`Access::Channel`]) or an element.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Map {
    pub program: VProg,
    /// Whether the result is written past the caches.
    pub past_caches: bool,
}

const ARGS: Register = Register::RDI;
pub(super) const IN: Register = Register::RAX;
pub(super) const OUT: Register = Register::RDX;
pub(super) const LEFT: Register = Register::RCX;
/// Elements left, while LEFT counts those before an aligned place.
pub(super) const COUNT: Register = Register::RBX;
/// Bytes done; the arguments have been read when it is set.
pub(super) const DONE: Register = Register::RDI;
pub(super) const OPERANDS: [Register; 5] = [Register::R8, Register::R9, Register::R10, Register::R11, Register::RSI];

impl Map {
    pub(super) fn emit(&self, isa: Isa) -> Result<Vec<u8>, LeafError> {
        let program = self.program.legal(isa)?;
        let operands = program.operands().to_vec();
        if self.past_caches && operands.contains(&Access::Channel) {
            return Err(LeafError::Unsupported("a vector for all, where vectors begin anywhere"));
        }
        if operands.iter().any(|a| matches!(a, Access::Strided { .. })) {
            return Err(LeafError::Unsupported("a map over a strided operand"));
        }
        // The highest register holds the mask of the tail.
        let top = isa.registers() as VReg - 1;
        let code = allocate(&program, isa, 0, &(1..top).collect::<Vec<_>>())?;
        let together = copies(&program, isa)?;
        let vector = isa.bytes() as i64;
        let lanes = isa.lanes() as i32;
        let mut asm = Asm::new(isa);
        let frame = vector * code.slots as i64;
        if self.past_caches {
            asm.op_r(Code::Push_r64, COUNT);
        }
        enter(&mut asm, frame, operands.len());

        let (tail, end) = (asm.label(), asm.label());
        if !together.is_empty() {
            if self.past_caches {
                let plain = asm.label();
                asm.op_ri(Code::Cmp_rm64_imm8, LEFT, together.len() as i32 * lanes);
                asm.jump(Code::Jl_rel32_64, plain);
                to_aligned(&mut asm, &code, &operands);
                rounds(&mut asm, &together, &operands, true);
                asm.fence();
                asm.bind(plain);
            }
            rounds(&mut asm, &together, &operands, false);
        }
        asm.op_ri(Code::Sub_rm64_imm8, LEFT, lanes);
        asm.jump(Code::Jl_rel32_64, tail);
        let top_of_loop = asm.here();
        body(&mut asm, &code, &operands, vector, None);
        asm.add_imm(DONE, vector);
        asm.op_ri(Code::Sub_rm64_imm8, LEFT, lanes);
        asm.jump(Code::Jge_rel32_64, top_of_loop);
        asm.bind(tail);
        asm.op_ri(Code::Add_rm64_imm8, LEFT, lanes);
        asm.jump(Code::Jle_rel32_64, end);
        let mask = tail_mask(&mut asm, isa);
        body(&mut asm, &code, &operands, vector, Some(mask));
        asm.bind(end);
        restore(&mut asm, frame);
        if self.past_caches {
            asm.op_r(Code::Pop_r64, COUNT);
        }
        asm.zero_upper();
        asm.ret();
        asm.finish()
    }
}

/// Makes room for spills and loads the arguments; nothing is done yet.
pub(super) fn enter(asm: &mut Asm, frame: i64, operands: usize) {
    if frame > 0 {
        asm.op_r(Code::Push_r64, Register::RBP);
        asm.mov(Register::RBP, Register::RSP);
        asm.op_ri(Code::Sub_rm64_imm32, Register::RSP, frame as i32);
        asm.op_ri(Code::And_rm64_imm8, Register::RSP, -64);
    }
    for (k, pointer) in OPERANDS.iter().take(operands).enumerate() {
        asm.load64(*pointer, mem(ARGS, map_slots::OPERANDS + 8 * k as i64));
    }
    asm.load64(IN, mem(ARGS, map_slots::IN));
    asm.load64(OUT, mem(ARGS, map_slots::OUT));
    asm.load64(LEFT, mem(ARGS, map_slots::COUNT));
    asm.op_rr(Code::Xor_r32_rm32, Register::EDI, Register::EDI);
}

pub(super) fn restore(asm: &mut Asm, frame: i64) {
    if frame > 0 {
        asm.mov(Register::RSP, Register::RBP);
        asm.op_r(Code::Pop_r64, Register::RBP);
    }
}

pub(super) fn leave(asm: &mut Asm, frame: i64) {
    restore(asm, frame);
    asm.zero_upper();
    asm.ret();
}

/// The current vector of the stream at `base`.
pub(super) fn current(base: Register) -> Mem {
    Mem { base, index: DONE, scale: 1, disp: 0 }
}

/// Where an operand's current vector is, and whether it is one element for all lanes.
pub(super) fn operand(accesses: &[Access], k: u8) -> (Mem, bool) {
    let base = OPERANDS[usize::from(k)];
    match accesses[usize::from(k)] {
        Access::Same => (current(base), false),
        Access::Splat => (mem(base, 0), true),
        Access::Channel | Access::Strided { .. } => (mem(base, 0), false),
    }
}

/// One vector of the loop.
fn body(asm: &mut Asm, code: &Allocated, operands: &[Access], vector: i64, mask: Option<Mask>) {
    asm.load(0, current(IN), mask);
    let operand = |k: u8| operand(operands, k);
    let slot = |i: usize| mem(Register::RSP, vector * i as i64);
    code.emit(asm, &Place { operand: &operand, slot: &slot, mask });
    asm.store(current(OUT), code.result, mask);
}

/// The program for as many vectors as have registers enough, each in its own; none if that is one.
fn copies(program: &VProg, isa: Isa) -> Result<Vec<Allocated>, LeafError> {
    let registers = isa.registers() as VReg - 1;
    for n in [4, 2] {
        let each = registers / n;
        let one = |c: VReg| allocate(program, isa, c * each, &(c * each + 1..(c + 1) * each).collect::<Vec<_>>());
        match (0..n).map(one).collect::<Result<Vec<_>, _>>() {
            Ok(copies) if copies.iter().all(|c| c.slots == 0) => return Ok(copies),
            Ok(_) | Err(LeafError::TooFewRegisters) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(vec![])
}

/// The elements before the first of the result that is aligned to a vector, if there are any.
fn to_aligned(asm: &mut Asm, code: &Allocated, operands: &[Access]) {
    let vector = asm.isa.bytes() as i64;
    let bytes_before = |asm: &mut Asm| {
        asm.mov(LEFT, OUT);
        asm.op_r(Code::Neg_rm64, LEFT);
        asm.op_ri(Code::And_rm64_imm8, LEFT, vector as i32 - 1);
    };
    asm.mov(COUNT, LEFT);
    bytes_before(asm);
    asm.op_ri(Code::Shr_rm64_imm8, LEFT, 2);
    let isa = asm.isa;
    let mask = tail_mask(asm, isa);
    body(asm, code, operands, vector, Some(mask));
    bytes_before(asm);
    asm.mov(DONE, LEFT);
    asm.op_ri(Code::Shr_rm64_imm8, LEFT, 2);
    asm.op_rr(Code::Sub_r64_rm64, COUNT, LEFT);
    asm.mov(LEFT, COUNT);
}

/// As many vectors at once as there are copies, as long as there are so many left.
fn rounds(asm: &mut Asm, copies: &[Allocated], operands: &[Access], past_caches: bool) {
    let (few, some) = (asm.label(), copies.len() as i64);
    let elements = (some as usize * asm.isa.lanes()) as i32;
    asm.op_ri(Code::Sub_rm64_imm8, LEFT, elements);
    asm.jump(Code::Jl_rel32_64, few);
    let top = asm.here();
    several(asm, copies, operands, past_caches);
    asm.add_imm(DONE, some * asm.isa.bytes() as i64);
    asm.op_ri(Code::Sub_rm64_imm8, LEFT, elements);
    asm.jump(Code::Jge_rel32_64, top);
    asm.bind(few);
    asm.op_ri(Code::Add_rm64_imm8, LEFT, elements);
}

/// So many vectors at once.
fn several(asm: &mut Asm, copies: &[Allocated], operands: &[Access], past_caches: bool) {
    let vector = asm.isa.bytes() as i64;
    let each = (asm.isa.registers() as VReg - 1) / copies.len() as VReg;
    let shifted = |c: i64| {
        move |k: u8| match operand(operands, k) {
            (m, false) if operands[usize::from(k)] == Access::Same => (Mem { disp: c * vector, ..m }, false),
            fixed => fixed,
        }
    };
    let shifted: Vec<_> = (0..copies.len() as i64).map(shifted).collect();
    let slot = |_: usize| unreachable!("copies that spill are not used");
    for c in 0..copies.len() {
        asm.load(c as VReg * each, Mem { disp: c as i64 * vector, ..current(IN) }, None);
    }
    let placed: Vec<(&Allocated, Place)> =
        copies.iter().zip(&shifted).map(|(code, operand)| (code, Place { operand, slot: &slot, mask: None })).collect();
    Allocated::emit_in_turn(&placed, asm);
    for (c, code) in copies.iter().enumerate() {
        let to = Mem { disp: c as i64 * vector, ..current(OUT) };
        match past_caches {
            true => asm.store_past(to, code.result),
            false => asm.store(to, code.result, None),
        }
    }
}

/// The mask of the first LEFT lanes, fewer than a vector's. Changes LEFT.
pub(super) fn tail_mask(asm: &mut Asm, isa: Isa) -> Mask {
    match isa {
        Isa::Avx512 => {
            // ~(-1 << left), by way of a push: no other register is free.
            asm.op_r(Code::Push_r64, IN);
            asm.op_ri(Code::Mov_r32_imm32, Register::EAX, -1);
            asm.op_rr(Code::Shl_rm32_CL, Register::EAX, Register::CL);
            asm.op_r(Code::Not_rm32, Register::EAX);
            asm.op_rr(Code::VEX_Kmovw_kr_r32, Register::K1, Register::EAX);
            asm.op_r(Code::Pop_r64, IN);
            Mask::Predicate
        }
        Isa::Avx2 => {
            // Eight lanes of a table of eight ones and eight zeros, from the position that leaves LEFT ones.
            let lanes = isa.lanes();
            let table = asm.table((0..2 * lanes).map(|i| if i < lanes { u32::MAX } else { 0 }).collect());
            let at = asm.rip(table);
            asm.op_r(Code::Push_r64, IN);
            asm.lea(IN, at);
            asm.op_r(Code::Neg_rm64, LEFT);
            asm.load(15, Mem { base: IN, index: LEFT, scale: 4, disp: 4 * lanes as i64 }, None);
            asm.op_r(Code::Pop_r64, IN);
            Mask::Vector(15)
        }
    }
}
