//! What an expression is while code is emitted: one value, or one per lane of the vector loop being emitted.
//!
//! Outside vector loops there is one lane and every value is [`Val::Uniform`]. Inside, whatever depends on the vector variable has one
//! of the other forms. The forms convert into each other, so an operation without a vector instruction is done lane by lane.

use super::emit::Emit;
use cranelift::prelude::*;
use lehr_ir::DType;

#[derive(Clone, Debug)]
pub(super) enum Val {
    /// The same in all lanes.
    Uniform(Value),
    /// An i64 that is `base + lane * stride`.
    Affine { base: Value, stride: i64 },
    /// 128-bit vectors that cover the lanes in order.
    Regs(Vec<Value>),
    /// A bool: integer vectors with lanes of `bytes` bytes, all ones or all zeros.
    Mask { bytes: u32, regs: Vec<Value> },
    /// A scalar per lane.
    Lanes(Vec<Value>),
}

/// The type of a scalar of a computing type. Bool is an i8 of 0 or 1.
pub(super) fn scalar_type(t: DType) -> Type {
    match t {
        DType::F64 => types::F64,
        DType::F32 => types::F32,
        DType::I8 | DType::U8 | DType::Bool => types::I8,
        DType::I16 | DType::U16 | DType::F16 | DType::BF16 => types::I16,
        DType::I32 | DType::U32 => types::I32,
        DType::I64 | DType::U64 => types::I64,
        other => unreachable!("{other} is not a type that kernels use"),
    }
}

/// The 128-bit vector of a computing type.
pub(super) fn vector_type(t: DType) -> Type {
    let scalar = scalar_type(t);
    scalar.by(16 / scalar.bytes()).expect("lanes of a 128-bit vector")
}

/// The integer vector whose lanes have `bytes` bytes.
pub(super) fn mask_type(bytes: u32) -> Type {
    Type::int(bytes as u16 * 8).and_then(|t| t.by(16 / bytes)).expect("lanes of a 128-bit vector")
}

/// Whether lanes of `t` are kept in vectors when there are `lanes` of them. 64-bit integers are not: they are mostly
/// indices, and vectors of them lack most operations. Neither are bools, which are masks.
pub(super) fn in_regs(t: DType, lanes: usize) -> bool {
    let wide_int = matches!(t, DType::I64 | DType::U64 | DType::Bool);
    !wide_int && lanes > 1 && (lanes * t.size()).is_multiple_of(16)
}

impl Emit<'_, '_> {
    pub fn splat(&mut self, t: DType, v: Value) -> Value {
        self.b.ins().splat(vector_type(t), v)
    }

    /// A value of type `t` as vectors; `in_regs(t)` holds.
    pub fn regs_of(&mut self, t: DType, v: &Val) -> Vec<Value> {
        let per_reg = 16 / t.size();
        match v {
            Val::Regs(regs) => regs.clone(),
            Val::Uniform(v) => {
                let splat = self.splat(t, *v);
                vec![splat; self.lanes / per_reg]
            }
            Val::Lanes(lanes) => lanes.chunks(per_reg).map(|chunk| self.gather_lanes(t, chunk)).collect(),
            Val::Affine { .. } | Val::Mask { .. } => unreachable!("64-bit integers and bools are not kept in vectors"),
        }
    }

    fn gather_lanes(&mut self, t: DType, lanes: &[Value]) -> Value {
        let mut vector = self.first_lane(vector_type(t), lanes[0]);
        for (k, &lane) in lanes.iter().enumerate().skip(1) {
            vector = self.b.ins().insertlane(vector, lane, k as u8);
        }
        vector
    }

    /// A vector that starts with `lane`; the rest is of no interest.
    fn first_lane(&mut self, t: Type, lane: Value) -> Value {
        if t.lane_bits() >= 32 {
            return self.b.ins().scalar_to_vector(t, lane);
        }
        // Cranelift moves whole words only.
        let word = self.b.ins().uextend(types::I32, lane);
        let vector = self.b.ins().scalar_to_vector(types::I32X4, word);
        self.cast_bits(t, vector)
    }

    /// A value as one scalar per lane.
    pub fn lanes_of(&mut self, v: &Val) -> Vec<Value> {
        match v {
            Val::Uniform(v) => vec![*v; self.lanes],
            Val::Lanes(lanes) => lanes.clone(),
            Val::Affine { base, stride } => (0..self.lanes as i64).map(|k| self.add_imm(*base, k * stride)).collect(),
            Val::Regs(regs) => regs.iter().flat_map(|&reg| self.split(reg)).collect(),
            Val::Mask { regs, .. } => {
                let wide: Vec<Value> = regs.iter().flat_map(|&reg| self.split(reg)).collect();
                wide.into_iter().map(|lane| self.mask_lane(lane)).collect()
            }
        }
    }

    fn mask_lane(&mut self, lane: Value) -> Value {
        let narrow = match self.b.func.dfg.value_type(lane) {
            types::I8 => lane,
            _ => self.b.ins().ireduce(types::I8, lane),
        };
        self.b.ins().band_imm_u(narrow, 1)
    }

    fn split(&mut self, reg: Value) -> Vec<Value> {
        let lanes = self.b.func.dfg.value_type(reg).lane_count();
        (0..lanes).map(|k| self.b.ins().extractlane(reg, k as u8)).collect()
    }

    /// A bool as masks with lanes of `bytes` bytes, which fill whole vectors.
    pub fn mask_of(&mut self, v: &Val, bytes: u32) -> Vec<Value> {
        let count = self.lanes * bytes as usize / 16;
        match v {
            Val::Mask { bytes: b, regs } if *b == bytes => regs.clone(),
            Val::Mask { bytes: b, regs } if *b < bytes => {
                let wide = regs.iter().flat_map(|&reg| self.widen_mask(*b, reg)).collect();
                self.mask_of(&Val::Mask { bytes: b * 2, regs: wide }, bytes)
            }
            Val::Mask { bytes: b, regs } => {
                let narrow = regs.chunks(2).map(|pair| self.narrow_mask(*b, pair[0], pair[1])).collect();
                self.mask_of(&Val::Mask { bytes: b / 2, regs: narrow }, bytes)
            }
            Val::Uniform(v) => {
                let zero = self.b.ins().iconst(types::I8, 0);
                let ones = self.b.ins().isub(zero, *v);
                let lane = mask_type(bytes).lane_type();
                let ones = if bytes == 1 { ones } else { self.b.ins().sextend(lane, ones) };
                let splat = self.b.ins().splat(mask_type(bytes), ones);
                vec![splat; count]
            }
            Val::Lanes(lanes) => {
                let (lane_type, per_reg) = (mask_type(bytes).lane_type(), 16 / bytes as usize);
                let mut regs = vec![];
                for chunk in lanes.chunks(per_reg) {
                    let mut reg = None;
                    for (k, &lane) in chunk.iter().enumerate() {
                        let lane = if bytes == 1 { lane } else { self.b.ins().uextend(lane_type, lane) };
                        reg = Some(match reg {
                            None => self.first_lane(mask_type(bytes), lane),
                            Some(reg) => self.b.ins().insertlane(reg, lane, k as u8),
                        });
                    }
                    let reg = reg.expect("a chunk is not empty");
                    let zero = self.zero_vector(mask_type(bytes));
                    regs.push(self.b.ins().icmp(IntCC::NotEqual, reg, zero));
                }
                regs
            }
            Val::Affine { .. } | Val::Regs(_) => unreachable!("not a bool"),
        }
    }

    pub fn zero_vector(&mut self, t: Type) -> Value {
        let zero = self.b.ins().iconst(t.lane_type(), 0);
        self.b.ins().splat(t, zero)
    }

    fn widen_mask(&mut self, bytes: u32, reg: Value) -> [Value; 2] {
        debug_assert!(bytes < 8);
        [self.b.ins().swiden_low(reg), self.b.ins().swiden_high(reg)]
    }

    fn narrow_mask(&mut self, bytes: u32, low: Value, high: Value) -> Value {
        match bytes {
            8 => self.even_words(low, high, types::I32X4),
            _ => self.b.ins().snarrow(low, high),
        }
    }

    /// The 32-bit words 0 and 2 of `low`, then of `high`.
    fn even_words(&mut self, low: Value, high: Value, to: Type) -> Value {
        self.shuffle(low, high, [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27], to)
    }

    /// Bytes picked from the 32 of two vectors.
    pub fn shuffle(&mut self, a: Value, b: Value, bytes: [u8; 16], to: Type) -> Value {
        let mask = self.b.func.dfg.immediates.push(bytes.as_slice().into());
        let (a, b) = (self.cast_bits(types::I8X16, a), self.cast_bits(types::I8X16, b));
        let picked = self.b.ins().shuffle(a, b, mask);
        self.cast_bits(to, picked)
    }

    /// The upper half of a vector in the lower one.
    pub fn high_half(&mut self, v: Value) -> Value {
        let t = self.b.func.dfg.value_type(v);
        self.shuffle(v, v, [8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15], t)
    }

    /// The lower halves of two vectors.
    pub fn low_halves(&mut self, a: Value, b: Value) -> Value {
        let t = self.b.func.dfg.value_type(a);
        self.shuffle(a, b, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23], t)
    }

    pub fn cast_bits(&mut self, to: Type, v: Value) -> Value {
        let from = self.b.func.dfg.value_type(v);
        if from == to {
            return v;
        }
        let mut flags = MemFlagsData::new();
        if from.is_vector() && to.is_vector() {
            flags.set_endianness(codegen::ir::Endianness::Little);
        }
        self.b.ins().bitcast(to, flags, v)
    }

    pub fn add_imm(&mut self, v: Value, n: i64) -> Value {
        if n == 0 { v } else { self.b.ins().iadd_imm_s(v, n) }
    }
}
