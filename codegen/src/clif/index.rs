//! Index arithmetic as linear forms, loads and stores.
//!
//! An index is `constant + sum of factor * value + lane * stride`. Its terms are added from the outermost loop inwards, so that each
//! partial sum is invariant in the loops further in and Cranelift hoists it; the constant goes into the instruction.

use super::emit::Emit;
use super::value::{Val, in_regs, mask_type, scalar_type, vector_type};
use crate::kernel::{BinOp, Expr};
use cranelift::prelude::*;
use lehr_ir::DType;

#[derive(Clone, Debug, Default)]
pub(super) struct Lin {
    constant: i64,
    terms: Vec<Term>,
    /// Per lane.
    stride: i64,
}

#[derive(Clone, Copy, Debug)]
struct Term {
    factor: i64,
    value: Value,
    /// Loops around the value's definition.
    depth: u32,
}

/// Where the lanes of an access are.
enum Place {
    /// Lane `k` is at `address + offset + k * stride` (bytes).
    Strided { address: Value, offset: i32, stride: i64 },
    /// An address for each lane.
    Scattered(Vec<Value>),
}

impl Emit<'_, '_> {
    /// `None` if lanes are not a fixed distance apart.
    pub fn lin(&mut self, e: &Expr) -> Option<Lin> {
        let mut lin = Lin::default();
        self.add_terms(e, 1, &mut lin).then_some(lin)
    }

    fn add_terms(&mut self, e: &Expr, factor: i64, lin: &mut Lin) -> bool {
        match e {
            Expr::Int(_, n) => {
                lin.constant = lin.constant.wrapping_add(n.wrapping_mul(factor));
                true
            }
            Expr::Binary(BinOp::Add, a, b) => self.add_terms(a, factor, lin) && self.add_terms(b, factor, lin),
            Expr::Binary(BinOp::Sub, a, b) => {
                self.add_terms(a, factor, lin) && self.add_terms(b, factor.wrapping_neg(), lin)
            }
            Expr::Binary(BinOp::Mul, a, b) => match (a.as_i64(), b.as_i64()) {
                (Some(n), _) => self.add_terms(b, factor.wrapping_mul(n), lin),
                (_, Some(n)) => self.add_terms(a, factor.wrapping_mul(n), lin),
                (None, None) => self.add_atom(e, factor, lin),
            },
            Expr::Var(v) => match self.linear.get(v).cloned() {
                Some(known) => {
                    lin.constant = lin.constant.wrapping_add(known.constant.wrapping_mul(factor));
                    lin.stride = lin.stride.wrapping_add(known.stride.wrapping_mul(factor));
                    for term in known.terms {
                        lin.add(Term { factor: term.factor.wrapping_mul(factor), ..term });
                    }
                    true
                }
                None => self.add_atom(e, factor, lin),
            },
            _ => self.add_atom(e, factor, lin),
        }
    }

    fn add_atom(&mut self, e: &Expr, factor: i64, lin: &mut Lin) -> bool {
        let depth = self.depth_of_expr(e);
        match self.eval(e) {
            Val::Uniform(value) => lin.add(Term { factor, value, depth }),
            Val::Affine { base, stride } => {
                lin.add(Term { factor, value: base, depth });
                lin.stride = lin.stride.wrapping_add(stride.wrapping_mul(factor));
            }
            Val::Regs(_) | Val::Mask { .. } | Val::Lanes(_) => return false,
        }
        true
    }

    /// In how many loops an expression has to be computed.
    fn depth_of_expr(&self, e: &Expr) -> u32 {
        match e {
            Expr::Int(..) | Expr::Float(..) => 0,
            Expr::Var(v) if self.changes(*v) => self.depth,
            Expr::Var(v) => self.depth_of[*v as usize],
            Expr::Load { .. } => self.depth,
            Expr::Unary(_, a) | Expr::Cast(_, a) => self.depth_of_expr(a),
            Expr::Binary(_, a, b) | Expr::Compare(_, a, b) => self.depth_of_expr(a).max(self.depth_of_expr(b)),
            Expr::Select(c, a, b) => self.depth_of_expr(c).max(self.depth_of_expr(a)).max(self.depth_of_expr(b)),
        }
    }

    /// The form as a value.
    pub fn lin_value(&mut self, lin: &Lin) -> Val {
        let base = self.sum(None, lin, 1);
        let base = match base {
            Some(base) => self.add_imm(base, lin.constant),
            None => self.b.ins().iconst(types::I64, lin.constant),
        };
        match lin.stride {
            0 => Val::Uniform(base),
            stride => Val::Affine { base, stride },
        }
    }

    /// `start + terms * scale`, without the constant.
    fn sum(&mut self, start: Option<Value>, lin: &Lin, scale: i64) -> Option<Value> {
        let mut terms = lin.terms.clone();
        terms.sort_by_key(|t| t.depth);
        let mut sum = start;
        for term in terms {
            let scaled = self.scale(term.value, term.factor.wrapping_mul(scale));
            sum = Some(match sum {
                None => scaled,
                Some(sum) => self.b.ins().iadd(sum, scaled),
            });
        }
        sum
    }

    fn scale(&mut self, v: Value, factor: i64) -> Value {
        match factor {
            1 => v,
            f if f > 0 && (f as u64).is_power_of_two() => self.b.ins().ishl_imm_u(v, f.trailing_zeros() as i64),
            f => self.b.ins().imul_imm_s(v, f),
        }
    }

    fn place(&mut self, buf: u32, index: &Expr) -> Place {
        let size = self.k.params[buf as usize].dtype.size() as i64;
        let base = self.bases[buf as usize];
        if let Some(lin) = self.lin(index) {
            let address = self.sum(Some(base), &lin, size).expect("there is a start");
            let stride = lin.stride.wrapping_mul(size);
            return match i32::try_from(lin.constant.wrapping_mul(size)) {
                // Room for the lanes' own offsets.
                Ok(offset) if offset.unsigned_abs() < 1 << 30 => Place::Strided { address, offset, stride },
                _ => {
                    let address = self.add_imm(address, lin.constant.wrapping_mul(size));
                    Place::Strided { address, offset: 0, stride }
                }
            };
        }
        let index = self.eval(index);
        let lanes = self.lanes_of(&index);
        let at = |e: &mut Self, lane| {
            let offset = e.scale(lane, size);
            e.b.ins().iadd(base, offset)
        };
        Place::Scattered(lanes.into_iter().map(|lane| at(self, lane)).collect())
    }

    /// The address of one element.
    pub fn element_address(&mut self, buf: u32, index: &Expr) -> Value {
        match self.place(buf, index) {
            Place::Strided { address, offset, stride: 0 } => self.add_imm(address, offset as i64),
            Place::Strided { .. } | Place::Scattered(_) => unreachable!("leaves are not called from vector loops"),
        }
    }

    pub fn load(&mut self, buf: u32, index: &Expr) -> Val {
        let stored = self.k.params[buf as usize].dtype;
        let (flags, scalar) = (self.load_flags(buf), scalar_type(stored));
        let (address, offset, stride) = match self.place(buf, index) {
            Place::Strided { address, offset, stride } => (address, offset, stride),
            Place::Scattered(addresses) => {
                let lanes = addresses.into_iter().map(|a| {
                    let v = self.b.ins().load(scalar, flags, a, 0);
                    self.widen_half(stored, v)
                });
                return Val::Lanes(lanes.collect());
            }
        };
        if stride == 0 {
            let v = self.b.ins().load(scalar, flags, address, offset);
            return Val::Uniform(self.widen_half(stored, v));
        }
        let dense = stride == stored.size() as i64 && (self.lanes * stored.size()).is_multiple_of(16);
        match stored {
            DType::F16 | DType::BF16 if dense => {
                let halves = self.load_vectors(types::I16X8, flags, address, offset);
                Val::Regs(halves.into_iter().flat_map(|h| self.widen_halves(stored, h)).collect())
            }
            DType::Bool if dense => {
                let bytes = self.load_vectors(types::I8X16, flags, address, offset);
                let zero = self.zero_vector(types::I8X16);
                let regs = bytes.into_iter().map(|v| self.b.ins().icmp(IntCC::NotEqual, v, zero)).collect();
                Val::Mask { bytes: 1, regs }
            }
            t if dense && in_regs(t, self.lanes) => {
                Val::Regs(self.load_vectors(vector_type(t), flags, address, offset))
            }
            DType::F32 | DType::I32 | DType::U32 if stride == 8 && in_regs(stored, self.lanes) => {
                let t = vector_type(stored);
                Val::Regs(
                    (0..self.lanes as i32 / 4).map(|k| self.load_even(t, flags, address, offset + 32 * k)).collect(),
                )
            }
            _ => {
                let lanes = (0..self.lanes as i64).map(|k| {
                    let (address, offset) = self.lane_address(address, offset, k * stride);
                    let v = self.b.ins().load(scalar, flags, address, offset);
                    self.widen_half(stored, v)
                });
                Val::Lanes(lanes.collect())
            }
        }
    }

    fn load_vectors(&mut self, t: Type, flags: MemFlagsData, address: Value, offset: i32) -> Vec<Value> {
        let count = self.lanes as u32 / t.lane_count();
        (0..count as i32).map(|k| self.load_vector(t, flags, address, offset + 16 * k)).collect()
    }

    fn load_vector(&mut self, t: Type, flags: MemFlagsData, address: Value, offset: i32) -> Value {
        if self.target.compares_memory || !t.lane_type().is_float() {
            return self.b.ins().load(t, flags, address, offset);
        }
        let bits = self.b.ins().load(mask_type(t.lane_type().bytes()), flags, address, offset);
        self.cast_bits(t, bits)
    }

    /// Words 0, 2, 4 and 6. The second vector starts at word 3, so that nothing behind word 6 is read.
    fn load_even(&mut self, t: Type, flags: MemFlagsData, address: Value, offset: i32) -> Value {
        let low = self.load_vector(t, flags, address, offset);
        let high = self.load_vector(t, flags, address, offset + 12);
        self.shuffle(low, high, [0, 1, 2, 3, 8, 9, 10, 11, 20, 21, 22, 23, 28, 29, 30, 31], t)
    }

    fn lane_address(&mut self, address: Value, offset: i32, distance: i64) -> (Value, i32) {
        match i32::try_from(offset as i64 + distance) {
            Ok(offset) => (address, offset),
            Err(_) => (self.add_imm(address, distance), offset),
        }
    }

    pub fn store(&mut self, buf: u32, index: &Expr, value: &Expr) {
        let stored = self.k.params[buf as usize].dtype;
        let v = self.eval(value);
        let flags = MemFlagsData::new().with_notrap();
        let (address, offset, stride) = match self.place(buf, index) {
            Place::Strided { address, offset, stride } => (address, offset, stride),
            Place::Scattered(addresses) => {
                let lanes = self.lanes_of(&v);
                for (lane, address) in lanes.into_iter().zip(addresses) {
                    let lane = self.narrow_half(stored, lane);
                    self.b.ins().store(flags, lane, address, 0);
                }
                return;
            }
        };
        if self.lanes == 1 {
            let v = self.uniform(&v);
            let v = self.narrow_half(stored, v);
            self.b.ins().store(flags, v, address, offset);
            return;
        }
        let dense = stride == stored.size() as i64 && (self.lanes * stored.size()).is_multiple_of(16);
        let vectors = match stored {
            DType::F16 | DType::BF16 if dense => {
                let regs = self.regs_of(DType::F32, &v);
                regs.chunks(2).map(|pair| self.narrow_halves(stored, pair[0], pair[1])).collect()
            }
            DType::Bool if dense => {
                let one = self.b.ins().iconst(types::I8, 1);
                let one = self.b.ins().splat(mask_type(1), one);
                let masks = self.mask_of(&v, 1);
                masks.into_iter().map(|m| self.b.ins().band(m, one)).collect()
            }
            t if dense && in_regs(t, self.lanes) => self.regs_of(t, &v),
            _ => {
                for (k, lane) in self.lanes_of(&v).into_iter().enumerate() {
                    let lane = self.narrow_half(stored, lane);
                    let (address, offset) = self.lane_address(address, offset, k as i64 * stride);
                    self.b.ins().store(flags, lane, address, offset);
                }
                return;
            }
        };
        for (k, v) in vectors.into_iter().enumerate() {
            self.b.ins().store(flags, v, address, offset + 16 * k as i32);
        }
    }
}

impl Lin {
    fn add(&mut self, term: Term) {
        match self.terms.iter_mut().find(|t| t.value == term.value) {
            Some(same) => same.factor = same.factor.wrapping_add(term.factor),
            None => self.terms.push(term),
        }
        self.terms.retain(|t| t.factor != 0);
    }
}
