//! Loads, stores and the barriers between them.

use super::emit::{Emit, in_reg};
use super::func::{Cmp, Func, Global, MmaType, ReadOnly, Space};
use super::index::{Index, IntReg};
use super::reg::*;
use super::schedule::Group;
use super::value::{Scalar, Val};
use crate::kernel::{Access, Expr};
use lehr_ir::DType;

impl Emit<'_> {
    /// Whether the kernel both reads and writes a buffer.
    fn is_shared(&self, buf: u32) -> bool {
        self.k.params[buf as usize].access == Access::ReadWrite
    }

    /// Orders what the threads of a group did to memory.
    pub fn group_barrier(&mut self) {
        match self.schedule.group {
            Group::Thread | Group::Tile => {}
            Group::Warp => self.f.warp_barrier(),
            Group::Block => self.f.barrier(),
        }
    }

    /// Address and offset in bytes of lane 0.
    pub fn address(&mut self, buf: u32, i: &Index) -> (Reg<B64>, i64) {
        let size = self.k.params[buf as usize].dtype.size() as i64;
        let base = self.bases[buf as usize];
        let offset = i.plus.wrapping_mul(size);
        let (i, offset) = match i32::try_from(offset) {
            Ok(_) => {
                (Index { plus: 0, low: i.low.wrapping_sub(i.plus), high: i.high.wrapping_sub(i.plus), ..*i }, offset)
            }
            Err(_) => (*i, 0),
        };
        let address = match i.reg {
            None if i.plus == 0 => base,
            Some(IntReg::Narrow(r)) if i.plus == 0 => self.f.mad_wide(r, size as i32, base),
            _ => {
                let wide = self.f.wide(&i);
                let bytes = self.f.mul_lo::<S64>(wide, size);
                self.f.add::<S64>(base, bytes)
            }
        };
        (address, offset)
    }

    pub fn load(&mut self, buf: u32, index: &Expr) -> Val {
        let at = self.eval(index);
        let stored = self.k.params[buf as usize].dtype;
        if let Some(i) = at.as_index() {
            if i.stride == 0 {
                let (address, offset) = self.address(buf, &i);
                return Val::Uniform(self.load_at(buf, stored, address, offset));
            }
            if let Some(n) = self.vector_of(stored, &i) {
                self.vectors += 1;
                let (address, offset) = self.address(buf, &i);
                if self.is_words(stored) {
                    return Val::Lanes(self.load_words(buf, stored, address, offset));
                }
                let size = stored.size() as i64;
                let parts = (0..self.width / n).flat_map(|k| {
                    let offset = offset + (k * n) as i64 * size;
                    self.load_vector(buf, stored, n, address, offset)
                });
                return Val::Lanes(parts.collect());
            }
        }
        self.singles += 1;
        let lanes = (0..self.width).map(|l| {
            let (address, offset) = self.address(buf, &at.lane(l).int());
            self.load_at(buf, stored, address, offset)
        });
        Val::Lanes(lanes.collect())
    }

    /// How many neighbouring lanes one access moves: up to 16 bytes, aligned.
    fn vector_of(&self, stored: DType, i: &Index) -> Option<usize> {
        if i.stride != 1 || i.multiple % self.width as i64 != 0 {
            return None;
        }
        [4, 2].into_iter().find(|&n| self.width.is_multiple_of(n) && n * stored.size() <= 16)
    }

    /// Whether the thread's lanes are eight elements of 16 bits: four words then, for there are no vectors of eight.
    fn is_words(&self, stored: DType) -> bool {
        self.width == 8 && matches!(stored, DType::F16 | DType::BF16)
    }

    fn load_words(&mut self, buf: u32, t: DType, address: Reg<B64>, offset: i64) -> Vec<Scalar> {
        let words = match self.k.params[buf as usize].access {
            Access::Read => self.f.ld_vector::<ReadOnly, B32>(4, address, offset),
            Access::Write | Access::ReadWrite => self.f.ld_vector::<Global, B32>(4, address, offset),
        };
        let f = &mut self.f;
        let two = |w: Reg<B32>| match t {
            DType::BF16 => {
                let high = f.and(w, 0xffff_0000u32 as i32);
                [widen_bf16(f, w), f.bits::<F32, B32>(high)]
            }
            DType::F16 => f.halves(w).map(|h| f.f16_to_f32(h)),
            other => unreachable!("{other} is not read by words"),
        };
        words.into_iter().flat_map(two).map(|v| Scalar::F32(v.into())).collect()
    }

    pub fn load_at(&mut self, buf: u32, t: DType, address: Reg<B64>, offset: i64) -> Scalar {
        match self.k.params[buf as usize].access {
            Access::Read => self.load_from::<ReadOnly>(t, address, offset),
            Access::Write | Access::ReadWrite => self.load_from::<Global>(t, address, offset),
        }
    }

    /// One or four f32 into variables, where `p` is true.
    pub fn load_into(&mut self, buf: u32, to: &[Reg<F32>], (address, offset): (Reg<B64>, i64), p: Option<Reg<Pred>>) {
        match self.k.params[buf as usize].access {
            Access::Read => self.when(p, |f| f.ld_into::<ReadOnly, F32>(to, address, offset)),
            Access::Write | Access::ReadWrite => self.when(p, |f| f.ld_into::<Global, F32>(to, address, offset)),
        }
    }

    fn load_from<S: Space<Base = B64>>(&mut self, t: DType, a: Reg<B64>, o: i64) -> Scalar {
        let f = &mut self.f;
        match t {
            DType::F64 => Scalar::F64(f.ld::<S, F64>(a, o).into()),
            DType::F32 => Scalar::F32(f.ld::<S, F32>(a, o).into()),
            DType::F16 => {
                let h = f.ld::<S, B16>(a, o);
                Scalar::F32(f.f16_to_f32(h).into())
            }
            DType::BF16 => {
                let h = f.ld::<S, U16>(a, o);
                Scalar::F32(widen_bf16(f, h).into())
            }
            DType::I64 => Scalar::Int(Index::unknown(f.ld::<S, B64>(a, o))),
            DType::U64 => Scalar::B64(f.ld::<S, B64>(a, o).into()),
            DType::I32 | DType::U32 => Scalar::B32(f.ld::<S, B32>(a, o).into()),
            DType::I16 => Scalar::B32(f.ld::<S, S16>(a, o).into()),
            DType::U16 => Scalar::B32(f.ld::<S, U16>(a, o).into()),
            DType::I8 => Scalar::B32(f.ld::<S, S8>(a, o).into()),
            DType::U8 => Scalar::B32(f.ld::<S, U8>(a, o).into()),
            DType::Bool => {
                let v = f.ld::<S, U8>(a, o);
                Scalar::Pred(f.setp::<U32>(Cmp::Ne, v, 0))
            }
            other => unreachable!("{other} is refused before lowering"),
        }
    }

    fn load_vector(&mut self, buf: u32, t: DType, n: usize, address: Reg<B64>, offset: i64) -> Vec<Scalar> {
        match self.k.params[buf as usize].access {
            Access::Read => self.vector_from::<ReadOnly>(t, n, address, offset),
            Access::Write | Access::ReadWrite => self.vector_from::<Global>(t, n, address, offset),
        }
    }

    fn vector_from<S: Space<Base = B64>>(&mut self, t: DType, n: usize, a: Reg<B64>, o: i64) -> Vec<Scalar> {
        let f = &mut self.f;
        let b32 = |regs: Vec<Reg<B32>>| regs.into_iter().map(|r| Scalar::B32(r.into())).collect();
        match t {
            DType::F64 => f.ld_vector::<S, F64>(n, a, o).into_iter().map(|r| Scalar::F64(r.into())).collect(),
            DType::F32 => f.ld_vector::<S, F32>(n, a, o).into_iter().map(|r| Scalar::F32(r.into())).collect(),
            DType::F16 => {
                let halves = f.ld_vector::<S, B16>(n, a, o);
                halves.into_iter().map(|h| Scalar::F32(f.f16_to_f32(h).into())).collect()
            }
            DType::BF16 => {
                let halves = f.ld_vector::<S, U16>(n, a, o);
                halves.into_iter().map(|h| Scalar::F32(widen_bf16(f, h).into())).collect()
            }
            DType::I64 => f.ld_vector::<S, B64>(n, a, o).into_iter().map(|r| Scalar::Int(Index::unknown(r))).collect(),
            DType::U64 => f.ld_vector::<S, B64>(n, a, o).into_iter().map(|r| Scalar::B64(r.into())).collect(),
            DType::I32 | DType::U32 => b32(f.ld_vector::<S, B32>(n, a, o)),
            DType::I16 => b32(f.ld_vector::<S, S16>(n, a, o)),
            DType::U16 => b32(f.ld_vector::<S, U16>(n, a, o)),
            DType::I8 => b32(f.ld_vector::<S, S8>(n, a, o)),
            DType::U8 => b32(f.ld_vector::<S, U8>(n, a, o)),
            DType::Bool => {
                let bytes = f.ld_vector::<S, U8>(n, a, o);
                bytes.into_iter().map(|v| Scalar::Pred(f.setp::<U32>(Cmp::Ne, v, 0))).collect()
            }
            other => unreachable!("{other} is refused before lowering"),
        }
    }

    pub(super) fn store(&mut self, buf: u32, index: &Expr, value: &Expr) {
        let (at, v) = (self.eval(index), self.eval(value));
        let alone = self.spreads();
        let ordered = alone && self.is_shared(buf);
        if ordered {
            self.group_barrier();
        }
        let stored = self.k.params[buf as usize].dtype;
        let index = at.as_index();
        if self.width > 1
            && let Some(i) = index
            && let Some(n) = self.vector_of(stored, &i)
        {
            self.vectors += 1;
            let (address, offset) = self.address(buf, &i);
            if self.is_words(stored) {
                let rounded = if stored == DType::BF16 { MmaType::Bf16 } else { MmaType::F16 };
                let pair = |k: usize| {
                    let [low, high] = [2 * k, 2 * k + 1].map(|l| in_reg(&mut self.f, v.lane(l).f32()));
                    self.f.round_to_pair(rounded, low.into(), high.into())
                };
                let words: Vec<Reg<B32>> = (0..4).map(pair).collect();
                return self.f.st_vector::<Global, B32>(address, offset, &words);
            }
            for k in 0..self.width / n {
                let lanes: Vec<Scalar> = (k * n..(k + 1) * n).map(|l| v.lane(l)).collect();
                self.store_vector(stored, address, offset + (k * n * stored.size()) as i64, &lanes);
            }
            return;
        }
        let lanes = if index.is_some_and(|i| i.stride == 0) { 1 } else { self.width };
        if lanes > 1 {
            self.singles += 1;
        }
        for l in 0..lanes {
            let (address, offset) = self.address(buf, &at.lane(l).int());
            let only = if alone { self.thread.map(|(_, first)| first) } else { None };
            self.store_at(stored, address, offset, v.lane(l), only);
        }
        if ordered {
            self.group_barrier();
        }
    }

    fn store_at(&mut self, t: DType, a: Reg<B64>, o: i64, v: Scalar, only: Option<Reg<Pred>>) {
        /// What is stored, in the class of its element.
        enum Stored {
            B16(Reg<B16>),
            B32(Src<B32>),
            B64(Src<B64>),
            F32(Src<F32>),
            F64(Src<F64>),
        }
        let f = &mut self.f;
        let stored = match (t, v) {
            (DType::F16, v) => Stored::B16(f.f32_to_f16(v.f32())),
            (DType::BF16, v) => Stored::B16(f.f32_to_bf16(v.f32())),
            (_, Scalar::F32(v)) => Stored::F32(v),
            (_, Scalar::F64(v)) => Stored::F64(v),
            (_, Scalar::Int(i)) => Stored::B64(f.wide(&i)),
            (_, Scalar::B64(v)) => Stored::B64(v),
            (_, Scalar::B32(v)) => Stored::B32(v),
            (_, Scalar::Pred(p)) => Stored::B32(f.selp::<B32>(p, 1, 0).into()),
        };
        let put = |f: &mut Func| match stored {
            Stored::B16(v) => f.st::<Global, B16>(a, o, v),
            Stored::B32(v) if t.size() == 1 => f.st::<Global, U8>(a, o, v),
            Stored::B32(v) if t.size() == 2 => f.st::<Global, U16>(a, o, v),
            Stored::B32(v) => f.st::<Global, B32>(a, o, v),
            Stored::B64(v) => f.st::<Global, B64>(a, o, v),
            Stored::F32(v) => f.st::<Global, F32>(a, o, v),
            Stored::F64(v) => f.st::<Global, F64>(a, o, v),
        };
        match only {
            Some(p) => f.guarded(p, true, put),
            None => put(f),
        }
    }

    fn store_vector(&mut self, t: DType, a: Reg<B64>, o: i64, lanes: &[Scalar]) {
        let f = &mut self.f;
        match t {
            DType::F16 | DType::BF16 => {
                let halves: Vec<Reg<B16>> = lanes
                    .iter()
                    .map(|v| if t == DType::F16 { f.f32_to_f16(v.f32()) } else { f.f32_to_bf16(v.f32()) })
                    .collect();
                f.st_vector::<Global, B16>(a, o, &halves);
            }
            DType::F32 => {
                let regs: Vec<Reg<F32>> = lanes.iter().map(|v| in_reg(f, v.f32())).collect();
                f.st_vector::<Global, F32>(a, o, &regs);
            }
            DType::F64 => {
                let regs: Vec<Reg<F64>> = lanes.iter().map(|v| in_reg(f, v.f64())).collect();
                f.st_vector::<Global, F64>(a, o, &regs);
            }
            DType::I64 | DType::U64 => {
                let regs: Vec<Reg<B64>> = lanes
                    .iter()
                    .map(|v| {
                        let v = if let Scalar::Int(i) = v { f.wide(i) } else { v.b64() };
                        in_reg(f, v)
                    })
                    .collect();
                f.st_vector::<Global, B64>(a, o, &regs);
            }
            _ => {
                let regs: Vec<Reg<B32>> = lanes
                    .iter()
                    .map(|v| match v {
                        Scalar::Pred(p) => f.selp::<B32>(*p, 1, 0),
                        v => in_reg(f, v.b32()),
                    })
                    .collect();
                match t.size() {
                    1 => f.st_vector::<Global, U8>(a, o, &regs),
                    2 => f.st_vector::<Global, U16>(a, o, &regs),
                    _ => f.st_vector::<Global, B32>(a, o, &regs),
                }
            }
        }
    }
}

fn widen_bf16(f: &mut Func, h: Reg<B32>) -> Reg<F32> {
    let bits: Reg<B32> = f.shl(h, 16);
    f.bits::<F32, B32>(bits)
}
