//! A thin assembler over iced: vector instructions by meaning, in the width of the [`Isa`]; labels; a pool of constants.
//!
//! Instructions are collected with labels as their addresses, and iced's block encoder turns those into displacements. The
//! pool lies behind the code and is addressed relative to RIP, so the bytes need no relocation. With AVX-512 a constant is four
//! bytes and is broadcast by the instruction that uses it; with AVX2 it is a whole vector.

use super::angle::{Routines, reduce, routines};
use super::{Isa, LeafError};
use iced_x86::{BlockEncoder, BlockEncoderOptions, Code, Instruction, InstructionBlock, MemoryOperand, Register};

/// The vector register of this number.
pub(super) type VReg = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(u64);

/// `[base + index * scale + disp]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mem {
    pub base: Register,
    pub index: Register,
    pub scale: u32,
    pub disp: i64,
}

pub(super) fn mem(base: Register, disp: i64) -> Mem {
    Mem { base, index: Register::None, scale: 1, disp }
}

/// The last source of a vector instruction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Src {
    Reg(VReg),
    /// The same 32 bits in every lane.
    Const(u32),
    /// A whole vector in memory.
    Mem(Mem),
    /// One element in memory, for every lane. AVX-512 only.
    Broadcast(Mem),
}

/// Two-operand lane arithmetic. `Min` and `Max` give the second operand where either is NaN, as the instructions do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bin {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    And,
    Or,
    Xor,
    /// Of the lanes' 32-bit integers.
    AddInt,
    SubInt,
    /// `a * 2^b` with one rounding, `b` integral and within +-250.
    Scale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Un {
    Sqrt,
    /// About 1/sqrt, to 14 bits. AVX-512 only: legalisation has rewritten it for AVX2.
    InverseRootEstimate,
    /// To nearest, ties to even.
    Round,
    Floor,
    Ceil,
    Trunc,
    ToInt,
    FromInt,
    ShiftLeft(u8),
    ShiftRightSigned(u8),
    /// Of a number that is not negative: lanes of 2^17 and more become angles whose sine is the number's sine; others stay.
    HugeSine,
    /// Likewise angles whose sine is the number's cosine.
    HugeCosine,
}

/// Comparisons, false where an operand is NaN unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pred {
    Lt,
    Le,
    Eq,
    Gt,
    Ge,
    /// True where either is NaN.
    Unordered,
    /// Not greater or equal: true where either is NaN.
    NotGe,
    /// True where either is NaN.
    NotEq,
    /// True where neither is NaN.
    Ordered,
}

impl Pred {
    pub(super) fn immediate(self) -> u32 {
        match self {
            Pred::Lt => 0x11,
            Pred::Le => 0x12,
            Pred::Eq => 0x00,
            Pred::Gt => 0x1e,
            Pred::Ge => 0x1d,
            Pred::Unordered => 0x03,
            Pred::NotGe => 0x19,
            Pred::NotEq => 0x04,
            Pred::Ordered => 0x07,
        }
    }
}

/// Which operand of `dst = x * y + z` is overwritten: `F213` is `dst = x*dst + src`, and so on as in the mnemonics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FmaForm {
    F132,
    F213,
    F231,
}

pub(super) struct Asm {
    pub isa: Isa,
    code: Vec<Instruction>,
    pool: Vec<(u32, u64)>,
    tables: Vec<(Vec<u32>, u64)>,
    next: u64,
    pending: Option<u64>,
    failed: Option<String>,
    /// What [`reduce`] calls.
    pub angles: Routines,
}

impl Asm {
    pub fn new(isa: Isa) -> Self {
        Asm {
            isa,
            code: Vec::new(),
            pool: Vec::new(),
            tables: Vec::new(),
            next: 1,
            pending: None,
            failed: None,
            angles: Routines::default(),
        }
    }

    /// The bytes, code first, the pool behind it.
    pub fn finish(mut self) -> Result<Vec<u8>, LeafError> {
        routines(&mut self);
        // The pool is aligned to a vector so that no constant crosses a cache line: encode once to learn the code's length.
        let (pool, tables) = (std::mem::take(&mut self.pool), std::mem::take(&mut self.tables));
        let mut data = Vec::new();
        let per_constant = match self.isa {
            Isa::Avx512 => 1,
            Isa::Avx2 => self.isa.lanes(),
        };
        for (words, label) in pool.into_iter().map(|(bits, label)| (vec![bits; per_constant], label)).chain(tables) {
            for (i, chunk) in words.chunks(4).enumerate() {
                let mut d = Instruction::with_declare_dword(chunk).map_err(LeafError::encoder)?;
                d.set_ip(if i == 0 { label } else { 0 });
                data.push(d);
            }
        }
        if let Some(message) = self.failed {
            return Err(LeafError::Encoder(message));
        }
        let encode = |code: &[Instruction]| {
            BlockEncoder::encode(64, InstructionBlock::new(code, 0), BlockEncoderOptions::NONE)
                .map(|r| r.code_buffer)
                .map_err(LeafError::encoder)
        };
        if data.is_empty() {
            return encode(&self.code);
        }
        let mut all = self.code.clone();
        all.extend_from_slice(&data);
        let words: usize = data.iter().map(|d| d.declare_data_len()).sum();
        let code_len = encode(&all)?.len() - 4 * words;
        let pad = code_len.next_multiple_of(self.isa.bytes()) - code_len;
        for chunk in vec![0xcc_u8; pad].chunks(16) {
            self.code.push(Instruction::with_declare_byte(chunk).map_err(LeafError::encoder)?);
        }
        self.code.extend_from_slice(&data);
        encode(&self.code)
    }

    // ---- labels and data ----

    pub fn label(&mut self) -> Label {
        self.next += 1;
        Label(self.next)
    }

    /// The next instruction is at `label`.
    pub fn bind(&mut self, label: Label) {
        if self.pending.is_some() {
            self.push(Instruction::with(Code::Nopd));
        }
        self.pending = Some(label.0);
    }

    pub fn here(&mut self) -> Label {
        let label = self.label();
        self.bind(label);
        label
    }

    /// A table in the pool; its address with [`Asm::rip`].
    pub fn table(&mut self, words: Vec<u32>) -> Label {
        let label = self.label();
        self.tables.push((words, label.0));
        label
    }

    /// A table at a label that code has used already.
    pub fn table_at(&mut self, label: Label, words: Vec<u32>) {
        self.tables.push((words, label.0));
    }

    pub fn rip(&self, label: Label) -> Mem {
        mem(Register::RIP, label.0 as i64)
    }

    pub(super) fn constant(&mut self, bits: u32) -> Mem {
        let label = match self.pool.iter().find(|(b, _)| *b == bits) {
            Some((_, label)) => *label,
            None => {
                let label = self.label().0;
                self.pool.push((bits, label));
                label
            }
        };
        mem(Register::RIP, label as i64)
    }

    // ---- instructions ----

    fn push(&mut self, mut i: Instruction) {
        if let Some(label) = self.pending.take() {
            i.set_ip(label);
        }
        self.code.push(i);
    }

    pub(super) fn try_push(&mut self, i: Result<Instruction, iced_x86::IcedError>) {
        match i {
            Ok(i) => self.push(i),
            Err(e) => self.failed = Some(e.to_string()),
        }
    }

    pub(super) fn operand(&mut self, m: Mem, broadcast: bool) -> MemoryOperand {
        if m.base != Register::RIP && i32::try_from(m.disp).is_err() {
            self.failed = Some(format!("displacement {} is beyond 32 bits", m.disp));
        }
        MemoryOperand::new(m.base, m.index, m.scale, m.disp, 1, broadcast, Register::None)
    }

    pub fn v(&self, n: VReg) -> Register {
        match self.isa {
            Isa::Avx512 => Register::ZMM0 + u32::from(n),
            Isa::Avx2 => Register::YMM0 + u32::from(n),
        }
    }

    pub(super) fn by_isa(&self, avx512: Code, avx2: Code) -> Code {
        match self.isa {
            Isa::Avx512 => avx512,
            Isa::Avx2 => avx2,
        }
    }

    pub(super) fn three(&mut self, code: Code, d: VReg, a: VReg, b: Src) {
        let (d, a) = (self.v(d), self.v(a));
        let i = match b {
            Src::Reg(b) => Instruction::with3(code, d, a, self.v(b)),
            Src::Const(bits) => {
                let m = self.constant(bits);
                let broadcast = self.isa == Isa::Avx512;
                let m = self.operand(m, broadcast);
                Instruction::with3(code, d, a, m)
            }
            Src::Mem(m) => Instruction::with3(code, d, a, self.operand(m, false)),
            Src::Broadcast(m) => Instruction::with3(code, d, a, self.operand(m, true)),
        };
        self.try_push(i);
    }

    pub fn bin(&mut self, op: Bin, d: VReg, a: VReg, b: Src) {
        let (avx512, avx2) = match op {
            Bin::Add => (Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er, Code::VEX_Vaddps_ymm_ymm_ymmm256),
            Bin::Sub => (Code::EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er, Code::VEX_Vsubps_ymm_ymm_ymmm256),
            Bin::Mul => (Code::EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er, Code::VEX_Vmulps_ymm_ymm_ymmm256),
            Bin::Div => (Code::EVEX_Vdivps_zmm_k1z_zmm_zmmm512b32_er, Code::VEX_Vdivps_ymm_ymm_ymmm256),
            Bin::Min => (Code::EVEX_Vminps_zmm_k1z_zmm_zmmm512b32_sae, Code::VEX_Vminps_ymm_ymm_ymmm256),
            Bin::Max => (Code::EVEX_Vmaxps_zmm_k1z_zmm_zmmm512b32_sae, Code::VEX_Vmaxps_ymm_ymm_ymmm256),
            Bin::And => (Code::EVEX_Vpandd_zmm_k1z_zmm_zmmm512b32, Code::VEX_Vpand_ymm_ymm_ymmm256),
            Bin::Or => (Code::EVEX_Vpord_zmm_k1z_zmm_zmmm512b32, Code::VEX_Vpor_ymm_ymm_ymmm256),
            Bin::Xor => (Code::EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32, Code::VEX_Vpxor_ymm_ymm_ymmm256),
            Bin::AddInt => (Code::EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32, Code::VEX_Vpaddd_ymm_ymm_ymmm256),
            Bin::SubInt => (Code::EVEX_Vpsubd_zmm_k1z_zmm_zmmm512b32, Code::VEX_Vpsubd_ymm_ymm_ymmm256),
            // Legalisation has rewritten it for AVX2, so that code is never chosen.
            Bin::Scale => (Code::EVEX_Vscalefps_zmm_k1z_zmm_zmmm512b32_er, Code::INVALID),
        };
        let code = self.by_isa(avx512, avx2);
        self.three(code, d, a, b);
    }

    /// With AVX2, `d` must not be `a` where huge angles are reduced.
    pub fn un(&mut self, op: Un, d: VReg, a: VReg) {
        let round = (Code::EVEX_Vrndscaleps_zmm_k1z_zmmm512b32_imm8_sae, Code::VEX_Vroundps_ymm_ymmm256_imm8);
        let (codes, immediate) = match op {
            Un::Sqrt => ((Code::EVEX_Vsqrtps_zmm_k1z_zmmm512b32_er, Code::VEX_Vsqrtps_ymm_ymmm256), None),
            Un::InverseRootEstimate => ((Code::EVEX_Vrsqrt14ps_zmm_k1z_zmmm512b32, Code::INVALID), None),
            Un::ToInt => ((Code::EVEX_Vcvtps2dq_zmm_k1z_zmmm512b32_er, Code::VEX_Vcvtps2dq_ymm_ymmm256), None),
            Un::FromInt => ((Code::EVEX_Vcvtdq2ps_zmm_k1z_zmmm512b32_er, Code::VEX_Vcvtdq2ps_ymm_ymmm256), None),
            // Bit 3 of the immediate suppresses the precision exception.
            Un::Round => (round, Some(8)),
            Un::Floor => (round, Some(9)),
            Un::Ceil => (round, Some(10)),
            Un::Trunc => (round, Some(11)),
            Un::HugeSine => return reduce(self, d, a, false),
            Un::HugeCosine => return reduce(self, d, a, true),
            Un::ShiftLeft(n) => ((Code::EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8, Code::VEX_Vpslld_ymm_ymm_imm8), Some(n)),
            Un::ShiftRightSigned(n) => {
                ((Code::EVEX_Vpsrad_zmm_k1z_zmmm512b32_imm8, Code::VEX_Vpsrad_ymm_ymm_imm8), Some(n))
            }
        };
        let code = self.by_isa(codes.0, codes.1);
        let (d, a) = (self.v(d), self.v(a));
        self.try_push(match immediate {
            None => Instruction::with2(code, d, a),
            Some(n) => Instruction::with3(code, d, a, u32::from(n)),
        });
    }

    pub fn fma(&mut self, form: FmaForm, d: VReg, a: VReg, b: Src) {
        let (avx512, avx2) = match form {
            FmaForm::F132 => (Code::EVEX_Vfmadd132ps_zmm_k1z_zmm_zmmm512b32_er, Code::VEX_Vfmadd132ps_ymm_ymm_ymmm256),
            FmaForm::F213 => (Code::EVEX_Vfmadd213ps_zmm_k1z_zmm_zmmm512b32_er, Code::VEX_Vfmadd213ps_ymm_ymm_ymmm256),
            FmaForm::F231 => (Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er, Code::VEX_Vfmadd231ps_ymm_ymm_ymmm256),
        };
        let code = self.by_isa(avx512, avx2);
        self.three(code, d, a, b);
    }

    /// The instruction before this changes only the lanes of a mask register. AVX-512 only.
    pub fn mask_last(&mut self, mask: Register) {
        if let Some(last) = self.code.last_mut() {
            last.set_op_mask(mask);
        }
    }

    /// `d = if a pred b { yes } else { no }`. With AVX2, `d` must be none of `yes` and `no`. Uses k2 with AVX-512.
    pub fn select(&mut self, pred: Pred, d: VReg, a: VReg, b: Src, yes: VReg, no: VReg) {
        let (vd, va, vy, vn) = (self.v(d), self.v(a), self.v(yes), self.v(no));
        let avx512 = self.isa == Isa::Avx512;
        let to = if avx512 { Register::K2 } else { vd };
        let code = self.by_isa(Code::EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae, Code::VEX_Vcmpps_ymm_ymm_ymmm256_imm8);
        let imm = pred.immediate();
        let compare = match b {
            Src::Reg(b) => Instruction::with4(code, to, va, self.v(b), imm),
            Src::Const(bits) => {
                let m = self.constant(bits);
                let m = self.operand(m, avx512);
                Instruction::with4(code, to, va, m, imm)
            }
            Src::Mem(m) => Instruction::with4(code, to, va, self.operand(m, false), imm),
            Src::Broadcast(m) => Instruction::with4(code, to, va, self.operand(m, true), imm),
        };
        self.try_push(compare);
        if avx512 {
            let blend = Instruction::with3(Code::EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32, vd, vn, vy).map(|mut i| {
                i.set_op_mask(Register::K2);
                i
            });
            self.try_push(blend);
        } else {
            self.try_push(Instruction::with4(Code::VEX_Vblendvps_ymm_ymm_ymmm256_ymm, vd, vn, vy, vd));
        }
    }

    pub fn copy(&mut self, d: VReg, a: VReg) {
        let code = self.by_isa(Code::EVEX_Vmovaps_zmm_k1z_zmmm512, Code::VEX_Vmovaps_ymm_ymmm256);
        let (d, a) = (self.v(d), self.v(a));
        self.try_push(Instruction::with2(code, d, a));
    }

    pub fn zero(&mut self, d: VReg) {
        self.bin(Bin::Xor, d, d, Src::Reg(d));
    }

    pub fn constant_to(&mut self, d: VReg, bits: u32) {
        if bits == 0 {
            return self.zero(d);
        }
        let m = self.constant(bits);
        match self.isa {
            Isa::Avx512 => self.broadcast(d, m),
            Isa::Avx2 => self.load(d, m, None),
        }
    }

    /// Every lane gets the element at `m`.
    pub fn broadcast(&mut self, d: VReg, m: Mem) {
        let code = self.by_isa(Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32, Code::VEX_Vbroadcastss_ymm_m32);
        let (d, m) = (self.v(d), self.operand(m, false));
        self.try_push(Instruction::with2(code, d, m));
    }

    /// Unaligned load; lanes outside the mask become zero and their memory is not touched.
    pub fn load(&mut self, d: VReg, m: Mem, mask: Option<Mask>) {
        let (vd, m) = (self.v(d), self.operand(m, false));
        let unmasked = self.by_isa(Code::EVEX_Vmovups_zmm_k1z_zmmm512, Code::VEX_Vmovups_ymm_ymmm256);
        self.try_push(match mask {
            None => Instruction::with2(unmasked, vd, m),
            Some(Mask::Predicate) => Instruction::with2(unmasked, vd, m).map(|mut i| {
                i.set_op_mask(Register::K1);
                i.set_zeroing_masking(true);
                i
            }),
            Some(Mask::Vector(k)) => Instruction::with3(Code::VEX_Vmaskmovps_ymm_ymm_m256, vd, self.v(k), m),
        });
    }

    pub fn store(&mut self, m: Mem, s: VReg, mask: Option<Mask>) {
        let (vs, m) = (self.v(s), self.operand(m, false));
        let unmasked = self.by_isa(Code::EVEX_Vmovups_zmmm512_k1z_zmm, Code::VEX_Vmovups_ymmm256_ymm);
        self.try_push(match mask {
            None => Instruction::with2(unmasked, m, vs),
            Some(Mask::Predicate) => Instruction::with2(unmasked, m, vs).map(|mut i| {
                i.set_op_mask(Register::K1);
                i
            }),
            Some(Mask::Vector(k)) => Instruction::with3(Code::VEX_Vmaskmovps_m256_ymm_ymm, m, self.v(k), vs),
        });
    }

    /// Past the caches, to a multiple of a vector's size. [`Asm::fence`] must follow before others may look.
    pub fn store_past(&mut self, m: Mem, s: VReg) {
        let code = self.by_isa(Code::EVEX_Vmovntps_m512_zmm, Code::VEX_Vmovntps_m256_ymm);
        let (s, m) = (self.v(s), self.operand(m, false));
        self.try_push(Instruction::with2(code, m, s));
    }

    pub fn fence(&mut self) {
        self.push(Instruction::with(Code::Sfence));
    }

    /// The first lane.
    pub fn store_first(&mut self, m: Mem, s: VReg) {
        let (code, m) = (self.by_isa(Code::EVEX_Vmovss_m32_k1_xmm, Code::VEX_Vmovss_m32_xmm), self.operand(m, false));
        self.try_push(Instruction::with2(code, m, Register::XMM0 + u32::from(s)));
    }

    /// Zeros in the lanes outside the mask.
    pub fn keep(&mut self, d: VReg, mask: Mask) {
        match mask {
            Mask::Predicate => {
                let v = self.v(d);
                let i = Instruction::with2(Code::EVEX_Vmovaps_zmm_k1z_zmmm512, v, v).map(|mut i| {
                    i.set_op_mask(Register::K1);
                    i.set_zeroing_masking(true);
                    i
                });
                self.try_push(i);
            }
            Mask::Vector(k) => self.bin(Bin::And, d, d, Src::Reg(k)),
        }
    }

    pub fn prefetch(&mut self, m: Mem) {
        let m = self.operand(m, false);
        self.try_push(Instruction::with1(Code::Prefetcht0_m8, m));
    }

    /// Into the L2 cache.
    pub fn prefetch_far(&mut self, m: Mem) {
        let m = self.operand(m, false);
        self.try_push(Instruction::with1(Code::Prefetcht1_m8, m));
    }

    pub fn zero_upper(&mut self) {
        self.push(Instruction::with(Code::VEX_Vzeroupper));
    }

    // ---- scalar ----

    pub fn mov(&mut self, d: Register, s: Register) {
        self.try_push(Instruction::with2(Code::Mov_r64_rm64, d, s));
    }

    pub fn load64(&mut self, d: Register, m: Mem) {
        let m = self.operand(m, false);
        self.try_push(Instruction::with2(Code::Mov_r64_rm64, d, m));
    }

    pub fn load_u32(&mut self, d: Register, m: Mem) {
        let m = self.operand(m, false);
        self.try_push(Instruction::with2(Code::Mov_r32_rm32, d, m));
    }

    pub fn store_u32(&mut self, m: Mem, bits: u32) {
        let m = self.operand(m, false);
        self.try_push(Instruction::with2(Code::Mov_rm32_imm32, m, bits));
    }

    pub fn load_i32(&mut self, d: Register, m: Mem) {
        let m = self.operand(m, false);
        self.try_push(Instruction::with2(Code::Movsxd_r64_rm32, d, m));
    }

    pub fn store64(&mut self, m: Mem, s: Register) {
        let m = self.operand(m, false);
        self.try_push(Instruction::with2(Code::Mov_rm64_r64, m, s));
    }

    pub fn mov_imm(&mut self, d: Register, n: i32) {
        self.try_push(Instruction::with2(Code::Mov_rm64_imm32, d, n));
    }

    pub fn lea(&mut self, d: Register, m: Mem) {
        let m = self.operand(m, false);
        self.try_push(Instruction::with2(Code::Lea_r64_m, d, m));
    }

    /// `d += n`; nothing for zero.
    pub fn add_imm(&mut self, d: Register, n: i64) {
        let Ok(small) = i32::try_from(n) else {
            self.failed = Some(format!("a step of {n} bytes is beyond 32 bits"));
            return;
        };
        if let Ok(tiny) = i8::try_from(small) {
            if tiny != 0 {
                self.try_push(Instruction::with2(Code::Add_rm64_imm8, d, i32::from(tiny)));
            }
            return;
        }
        self.try_push(Instruction::with2(Code::Add_rm64_imm32, d, small));
    }

    /// `d = s * n`.
    pub fn imul_imm(&mut self, d: Register, s: Register, n: i32) {
        self.try_push(Instruction::with3(Code::Imul_r64_rm64_imm32, d, s, n));
    }

    /// The leaf cannot be encoded, because of this.
    pub fn fail(&mut self, why: &str) {
        self.failed = Some(why.to_string());
    }

    pub fn add_imm_to_mem(&mut self, m: Mem, n: i64) {
        let Ok(small) = i32::try_from(n) else {
            self.failed = Some(format!("a step of {n} bytes is beyond 32 bits"));
            return;
        };
        let m = self.operand(m, false);
        self.try_push(Instruction::with2(Code::Add_rm64_imm32, m, small));
    }

    pub fn op_rr(&mut self, code: Code, a: Register, b: Register) {
        self.try_push(Instruction::with2(code, a, b));
    }

    pub fn op_ri(&mut self, code: Code, a: Register, n: i32) {
        self.try_push(Instruction::with2(code, a, n));
    }

    pub fn op_r(&mut self, code: Code, a: Register) {
        self.try_push(Instruction::with1(code, a));
    }

    pub fn jump(&mut self, code: Code, to: Label) {
        self.try_push(Instruction::with_branch(code, to.0));
    }

    pub fn ret(&mut self) {
        self.push(Instruction::with(Code::Retnq));
    }
}

/// Which lanes a load or store touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mask {
    /// k1.
    Predicate,
    /// Lanes whose top bit is set in this register.
    Vector(VReg),
}
