//! Exact reduction of huge angles, which a vector program's sine and cosine need from 2^17 on (Payne and Hanek's method).
//!
//! ```text
//! for lanes |x| = m 2^e >= 2^17, m of 24 bits:
//!     q = m * (the bits of 1/pi from 2^(1-e) on)      mod 2, in 64 bits: |x|/pi; for the cosine 1/2 more
//!     if |q| > 1/2 { q = +-1 - q }                    sin(pi q) stays
//!     lane = pi q                                     NaN for infinities
//! ```
//!
//! Rare, hence a routine behind the leaf: where no lane is huge it costs a comparison and a branch.

use super::Isa;
use super::asm::{Asm, Label, Mem, Pred, VReg, mem};
use super::vtrig::HUGE_ANGLE;
use iced_x86::{Code, Instruction, Register};

/// The bits of 1/pi, the most significant first, behind 64 zeros.
const INVERSE_PI: [u64; 5] =
    [0, 0x517c_c1b7_2722_0a94, 0xfe13_abe8_fa9a_6ee0, 0x6db1_4acc_9e21_c820, 0xff28_b1d5_ef5d_e2b0];

/// From the exponent field, `e` and 150, to the position in the table of the bit of weight 2^-e, which is one of parity.
const FIELD_TO_POSITION: i32 = 63 - 150;

/// pi / 2^63 as an f64's bits.
const SCALE: u64 = ((0x400 - 63) << 52) | 0x9_21fb_5444_2d18;
const HALF: i64 = 1 << 62;

const KEPT: [Register; 7] =
    [Register::RAX, Register::RCX, Register::RDX, Register::RBX, Register::RSI, Register::RDI, Register::R8];

/// The routines that the code so far calls, for sine and cosine.
#[derive(Default)]
pub(super) struct Routines {
    sine: Option<Label>,
    cosine: Option<Label>,
}

/// Huge lanes of `a >= 0` become angles in [-pi/2, pi/2] whose sine is the sine, or the cosine; the others are left.
pub(super) fn reduce(asm: &mut Asm, d: VReg, a: VReg, cosine: bool) {
    let done = asm.label();
    let fresh = asm.label();
    let routines = &mut asm.angles;
    let known = if cosine { &mut routines.cosine } else { &mut routines.sine };
    let routine = *known.get_or_insert(fresh);
    any_huge(asm, d, a);
    asm.copy(d, a);
    asm.jump(Code::Je_rel32_64, done);
    let vector = asm.isa.bytes() as i64;
    asm.add_imm(Register::RSP, -vector);
    asm.store(mem(Register::RSP, 0), d, None);
    asm.jump(Code::Call_rel32_64, routine);
    asm.load(d, mem(Register::RSP, 0), None);
    asm.add_imm(Register::RSP, vector);
    asm.bind(done);
}

/// The routines, behind all other code: they work on the vector above the return address and change no register.
pub(super) fn routines(asm: &mut Asm) {
    let Routines { sine, cosine } = std::mem::take(&mut asm.angles);
    for (label, cosine) in [(sine, false), (cosine, true)] {
        let Some(label) = label else { continue };
        asm.bind(label);
        KEPT.iter().for_each(|r| asm.op_r(Code::Push_r64, *r));
        asm.op_rr(Code::Xor_r32_rm32, Register::EDI, Register::EDI);
        let words = INVERSE_PI.into_iter().chain([SCALE]).flat_map(|w| [w as u32, (w >> 32) as u32]);
        let table = asm.table(words.collect());
        let lane = asm.here();
        one_lane(asm, table, cosine);
        asm.add_imm(Register::RDI, 4);
        asm.op_ri(Code::Cmp_rm64_imm32, Register::RDI, asm.isa.bytes() as i32);
        asm.jump(Code::Jl_rel32_64, lane);
        KEPT.iter().rev().for_each(|r| asm.op_r(Code::Pop_r64, *r));
        asm.ret();
    }
}

/// Clears the zero flag if a lane is huge or infinite. Uses k2, or `d`, which must not be `a` then.
fn any_huge(asm: &mut Asm, d: VReg, a: VReg) {
    let bound = asm.constant(HUGE_ANGLE.to_bits());
    let avx512 = asm.isa == Isa::Avx512;
    let bound = asm.operand(bound, avx512);
    let (vd, va, ge) = (asm.v(d), asm.v(a), Pred::Ge.immediate());
    if avx512 {
        let code = Code::EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae;
        asm.try_push(Instruction::with4(code, Register::K2, va, bound, ge));
        asm.op_rr(Code::VEX_Kortestw_kr_kr, Register::K2, Register::K2);
    } else {
        asm.try_push(Instruction::with4(Code::VEX_Vcmpps_ymm_ymm_ymmm256_imm8, vd, va, bound, ge));
        asm.op_rr(Code::VEX_Vtestps_ymm_ymmm256, vd, vd);
    }
}

/// The lane that rdi counts bytes to, if it is huge.
fn one_lane(asm: &mut Asm, table: Label, cosine: bool) {
    use Register::{EAX, EBX, ECX, R8, RAX, RBX, RDI, RDX, RSI, RSP};
    let at = Mem { base: RSP, index: RDI, scale: 1, disp: 8 * (1 + KEPT.len() as i64) };
    let (finite, near, next) = (asm.label(), asm.label(), asm.label());
    asm.load_u32(EAX, at);
    asm.op_ri(Code::Cmp_rm32_imm32, EAX, HUGE_ANGLE.to_bits() as i32);
    asm.jump(Code::Jl_rel32_64, next);
    asm.op_ri(Code::Cmp_rm32_imm32, EAX, f32::INFINITY.to_bits() as i32);
    asm.jump(Code::Jl_rel32_64, finite);
    asm.store_u32(at, f32::NAN.to_bits());
    asm.jump(Code::Jmp_rel32_64, next);
    asm.bind(finite);
    // m, and the three words from the position on.
    asm.op_rr(Code::Mov_r32_rm32, EBX, EAX);
    asm.op_ri(Code::And_rm32_imm32, EBX, 0x7f_ffff);
    asm.op_ri(Code::Or_rm32_imm32, EBX, 0x80_0000);
    asm.op_ri(Code::Shr_rm32_imm8, EAX, 23);
    asm.op_ri(Code::Add_rm32_imm32, EAX, FIELD_TO_POSITION);
    asm.op_rr(Code::Mov_r32_rm32, ECX, EAX);
    asm.op_ri(Code::Shr_rm32_imm8, EAX, 6);
    let table = asm.rip(table);
    asm.lea(RSI, table);
    let word = |i: i64| Mem { base: RSI, index: RAX, scale: 8, disp: 8 * i };
    asm.load64(RDX, word(0));
    asm.load64(R8, word(1));
    asm.load64(RAX, word(2));
    asm.try_push(Instruction::with3(Code::Shld_rm64_r64_CL, RDX, R8, Register::CL));
    asm.try_push(Instruction::with3(Code::Shld_rm64_r64_CL, R8, RAX, Register::CL));
    // q = m * words, of which 64 bits from parity on are kept.
    let scale = mem(RSI, 8 * INVERSE_PI.len() as i64);
    asm.op_rr(Code::Imul_r64_rm64, RDX, RBX);
    asm.mov(RAX, R8);
    asm.mov(R8, RDX);
    asm.op_r(Code::Mul_rm64, RBX);
    asm.op_rr(Code::Add_r64_rm64, RDX, R8);
    asm.try_push(Instruction::with2(Code::Mov_r64_imm64, RAX, HALF));
    if cosine {
        asm.op_rr(Code::Add_r64_rm64, RDX, RAX);
    }
    asm.op_rr(Code::Add_r64_rm64, RAX, RDX);
    asm.jump(Code::Jns_rel32_64, near);
    asm.try_push(Instruction::with2(Code::Mov_r64_imm64, RAX, i64::MIN));
    asm.op_rr(Code::Sub_r64_rm64, RAX, RDX);
    asm.mov(RDX, RAX);
    asm.bind(near);
    // The x87 unit rounds once, to f32, and leaves the vectors alone.
    asm.store64(mem(RSP, -8), RDX);
    for (code, m) in [(Code::Fild_m64int, mem(RSP, -8)), (Code::Fmul_m64fp, scale), (Code::Fstp_m32fp, at)] {
        let m = asm.operand(m, false);
        asm.try_push(Instruction::with1(code, m));
    }
    asm.bind(next);
}
