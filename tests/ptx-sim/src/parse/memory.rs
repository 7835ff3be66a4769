//! Decodes loads, stores, atomics, asynchronous copies and matrix instructions (PTX ISA 9.7.9, 9.7.13, 9.7.14).

use crate::inst::{
    Address, AtomOp, Atomic, Base, CpAsync, Load, Mma, MmaAcc, MmaType, Op, PredSrc, Src, Store, Strength,
};
use crate::types::{
    Space,
    Type::{self, *},
};

use super::operand::{Decoder, Operand, Result};

const SPACES: [(&str, Space); 8] = [
    ("global", Space::Global),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    ("const", Space::Const),
    ("local", Space::Local),
    ("param", Space::Param),
    ("param::entry", Space::Param),
    ("param::func", Space::Param),
];
const SHARED: [(&str, ()); 2] = [("shared", ()), ("shared::cta", ())];
/// Hints that change time, not meaning.
const HINTS: [(&str, ()); 17] = [
    ("ca", ()),
    ("cg", ()),
    ("cs", ()),
    ("lu", ()),
    ("cv", ()),
    ("nc", ()),
    ("wb", ()),
    ("wt", ()),
    ("L1::evict_normal", ()),
    ("L1::evict_unchanged", ()),
    ("L1::evict_first", ()),
    ("L1::evict_last", ()),
    ("L1::no_allocate", ()),
    ("L2::64B", ()),
    ("L2::128B", ()),
    ("L2::256B", ()),
    ("weak", ()),
];
const CACHES: [(&str, ()); 4] = [("L1", ()), ("L2", ()), ("L2::evict_last", ()), ("L2::evict_normal", ())];
const SCOPES: [(&str, ()); 4] = [("cta", ()), ("cluster", ()), ("gpu", ()), ("sys", ())];
const MEMORY_TYPES: [Type; 14] = [B8, B16, B32, B64, U8, U16, U32, U64, S8, S16, S32, S64, F32, F64];

impl<'a> Decoder<'a, '_> {
    pub fn memory(&mut self, name: &str) -> Result<Option<Op>> {
        let op = match name {
            "ld" | "ldu" => self.load()?,
            "st" => self.store()?,
            "atom" => self.atomic(false)?,
            "red" => self.atomic(true)?,
            "cvta" => self.cvta()?,
            "isspacep" => {
                let space = self.require("a state space", &SPACES)?;
                Op::IsSpace { space, d: self.pred_dst()?, a: self.src(U64)? }
            }
            "prefetch" | "prefetchu" | "discard" => {
                let space = self.choice(&SPACES).unwrap_or(Space::Generic);
                self.require("a cache level", &CACHES)?;
                self.address(space)?;
                if name == "discard" {
                    self.next()?; // how many bytes
                }
                Op::Nothing
            }
            "cp" => self.async_copy()?,
            "ldmatrix" => {
                let (count, trans) = self.matrix_modifiers()?;
                let mut d = Vec::new();
                for operand in self.vector(count)? {
                    d.push(self.reg_of(operand, B32, false)?);
                }
                let space = self.matrix_space();
                Op::LdMatrix { d: d.into(), address: self.address(space)?, trans, space }
            }
            "stmatrix" => {
                let (count, trans) = self.matrix_modifiers()?;
                let space = self.matrix_space();
                let address = self.address(space)?;
                let mut a = Vec::new();
                for operand in self.vector(count)? {
                    a.push(self.src_of(operand, B32, false)?);
                }
                Op::StMatrix { a: a.into(), address, trans, space }
            }
            "mma" => self.mma()?,
            _ => return Ok(None),
        };
        Ok(Some(op))
    }

    fn hints(&mut self) {
        while self.choice(&HINTS).is_some() {}
    }

    /// `.volatile`, or `.relaxed.gpu` and the like; `ordered` is what this instruction has beside relaxed.
    fn strength(&mut self, ordered: &str) -> Result<Strength> {
        if self.flag("volatile") {
            return Ok(Strength::Strong);
        }
        let order = self.choice(&[("relaxed", Strength::Strong), (ordered, Strength::Ordered)]);
        if order.is_some() {
            self.require("a scope", &SCOPES)?;
        }
        Ok(order.unwrap_or(Strength::Weak))
    }

    /// The operand of a `.L2::cache_hint`.
    fn cache_policy(&mut self, hint: bool) -> Result<()> {
        if hint {
            self.src(B64)?;
        }
        Ok(())
    }

    fn vector_width(&mut self, ty: Type) -> Result<usize> {
        let width = self.choice(&[("v2", 2), ("v4", 4)]).unwrap_or(1);
        if width as u32 * ty.size() > 16 {
            return Err("a vector has at most 16 bytes".into());
        }
        Ok(width)
    }

    fn load(&mut self) -> Result<Op> {
        let strength = self.strength("acquire")?;
        let space = self.choice(&SPACES).unwrap_or(Space::Generic);
        self.hints();
        let hint = self.flag("L2::cache_hint");
        let ty = self.type_in(&MEMORY_TYPES)?;
        let width = self.vector_width(ty)?;
        let mut regs = Vec::new();
        for operand in self.vector(width)? {
            regs.push(match operand {
                Operand::Sink if width > 1 => None,
                operand => Some(self.reg_of(operand, ty, true)?),
            });
        }
        let address = self.address(space)?;
        self.cache_policy(hint)?;
        Ok(Op::Load(Box::new(Load { space, ty, regs: regs.into(), address, strength })))
    }

    fn store(&mut self) -> Result<Op> {
        let strength = self.strength("release")?;
        let space = self.choice(&SPACES).unwrap_or(Space::Generic);
        if space == Space::Const {
            return Err("constant memory cannot be written".into());
        }
        self.hints();
        let hint = self.flag("L2::cache_hint");
        let ty = self.type_in(&MEMORY_TYPES)?;
        let width = self.vector_width(ty)?;
        let address = self.address(space)?;
        let mut regs = Vec::new();
        for operand in self.vector(width)? {
            regs.push(self.src_of(operand, ty, true)?);
        }
        self.cache_policy(hint)?;
        Ok(Op::Store(Box::new(Store { space, ty, regs: regs.into(), address, strength })))
    }

    fn atomic(&mut self, reduction: bool) -> Result<Op> {
        let order = self.choice(&[
            ("relaxed", Strength::Strong),
            ("acquire", Strength::Ordered),
            ("release", Strength::Ordered),
            ("acq_rel", Strength::Ordered),
        ]);
        let strength = order.unwrap_or(Strength::Strong);
        self.choice(&SCOPES);
        let space =
            self.choice(&[("global", Space::Global), ("shared", Space::Shared), ("shared::cta", Space::Shared)]);
        let space = space.unwrap_or(Space::Generic);
        let op = self.require(
            "an operation",
            &[
                ("add", AtomOp::Add),
                ("min", AtomOp::Min),
                ("max", AtomOp::Max),
                ("and", AtomOp::And),
                ("or", AtomOp::Or),
                ("xor", AtomOp::Xor),
                ("exch", AtomOp::Exch),
                ("cas", AtomOp::Cas),
                ("inc", AtomOp::Inc),
                ("dec", AtomOp::Dec),
            ],
        )?;
        let noftz = self.flag("noftz");
        let hint = self.flag("L2::cache_hint");
        let allowed: &[Type] = match op {
            AtomOp::Add => &[U32, S32, U64, F32, F64, F16, F16x2, Bf16, Bf16x2],
            AtomOp::Min | AtomOp::Max => &[U32, S32, U64, S64],
            AtomOp::And | AtomOp::Or | AtomOp::Xor => &[B32, B64],
            AtomOp::Exch | AtomOp::Cas if reduction => &[],
            AtomOp::Exch => &[B32, B64],
            AtomOp::Cas => &[B16, B32, B64],
            AtomOp::Inc | AtomOp::Dec => &[U32],
        };
        let ty = self.type_in(allowed)?;
        if noftz != matches!(ty, F16 | F16x2 | Bf16 | Bf16x2) {
            return Err("add of half precision, and no other, takes .noftz".into());
        }
        let d = if reduction { None } else { Some(self.dst(ty)?) };
        let address = self.address(space)?;
        let b = self.src(ty)?;
        let c = if op == AtomOp::Cas { self.src(ty)? } else { Src::Imm(0) };
        self.cache_policy(hint)?;
        Ok(Op::Atomic(Box::new(Atomic { space, op, ty, strength, d, address, b, c })))
    }

    fn cvta(&mut self) -> Result<Op> {
        let to_space = self.flag("to");
        let space = self.require("a state space", &SPACES)?;
        if space == Space::Param {
            return Err("addresses of parameters are not supported".into());
        }
        let ty = self.type_in(&[U64])?;
        let d = self.dst(ty)?;
        let a = match self.next()? {
            Operand::Reg(reg, declared) if declared.may_hold(ty, false) => Address { base: Base::Reg(reg), offset: 0 },
            operand => {
                let address = self.address_value(operand)?;
                let Base::Var(var) = address.base else { return Err("expected a variable".into()) };
                if self.body.var(var).space != space || to_space {
                    return Err("the variable lies in another state space".into());
                }
                address
            }
        };
        Ok(Op::Cvta { space, to_space, d, a })
    }

    fn async_copy(&mut self) -> Result<Op> {
        if !self.flag("async") {
            return Err("only cp.async is supported".into());
        }
        if self.flag("commit_group") {
            return Ok(Op::CpCommit);
        }
        if self.flag("wait_all") {
            return Ok(Op::CpWaitAll);
        }
        if self.flag("wait_group") {
            let Src::Imm(n) = self.src(U32)? else { return Err("the number of groups is a literal".into()) };
            return Ok(Op::CpWait(n as u32));
        }
        let bypass = self.require("a cache operator", &[("ca", false), ("cg", true)])?;
        self.require("the destination's space", &SHARED)?;
        self.require("the source's space", &[("global", ())])?;
        let hint = self.flag("L2::cache_hint");
        self.choice(&[("L2::64B", ()), ("L2::128B", ()), ("L2::256B", ())]);
        let (dst, src) = (self.address(Space::Shared)?, self.address(Space::Global)?);
        let Src::Imm(size) = self.src(U32)? else { return Err("the size is a literal".into()) };
        if !matches!(size, 4 | 8 | 16) || (bypass && size != 16) {
            return Err(format!("{size} bytes cannot be copied so: .ca copies 4, 8 or 16 and .cg 16"));
        }
        let (mut src_size, mut ignore_src): (Option<Src>, Option<PredSrc>) = (None, None);
        if self.operands_left() > usize::from(hint) {
            match self.next()? {
                operand @ Operand::Pred { .. } => ignore_src = Some(Self::pred_src_of(operand)?),
                operand => src_size = Some(self.src_of(operand, U32, false)?),
            }
        }
        self.cache_policy(hint)?;
        Ok(Op::CpAsync(Box::new(CpAsync { dst, src, size: size as u8, src_size, ignore_src })))
    }

    fn matrix_modifiers(&mut self) -> Result<(usize, bool)> {
        self.require("the alignment", &[("sync", ())])?;
        self.require("the alignment", &[("aligned", ())])?;
        self.require("the shape", &[("m8n8", ())])?;
        let count = self.require("a number of matrices", &[("x1", 1), ("x2", 2), ("x4", 4)])?;
        let trans = self.flag("trans");
        self.type_in(&[B16])?;
        Ok((count, trans))
    }

    fn matrix_space(&mut self) -> Space {
        if self.choice(&SHARED).is_some() { Space::Shared } else { Space::Generic }
    }

    fn mma(&mut self) -> Result<Op> {
        self.require("the alignment", &[("sync", ())])?;
        self.require("the alignment", &[("aligned", ())])?;
        let k: u8 = self.require("the shape", &[("m16n8k4", 4), ("m16n8k8", 8), ("m16n8k16", 16), ("m16n8k32", 32)])?;
        self.require("the layout of A", &[("row", ())])?;
        self.require("the layout of B", &[("col", ())])?;
        let sat = self.flag("satfinite");
        let types: Vec<Type> = (0..4).map(|_| self.any_type()).collect::<Result<_>>()?;
        let mma_type = |ty: Type| match ty {
            Tf32 => Ok(MmaType::Tf32),
            F16 => Ok(MmaType::F16),
            Bf16 => Ok(MmaType::Bf16),
            S8 => Ok(MmaType::S8),
            U8 => Ok(MmaType::U8),
            _ => Err(format!("multiplicands of type .{} are not supported", ty.name())),
        };
        let (a_type, b_type) = (mma_type(types[1])?, mma_type(types[2])?);
        let acc = match types[3] {
            F32 => MmaAcc::F32,
            F16 => MmaAcc::F16,
            S32 => MmaAcc::S32,
            other => return Err(format!("accumulators of type .{} are not supported", other.name())),
        };
        let integer = |t| matches!(t, MmaType::S8 | MmaType::U8);
        // Elements of A in a register, and the depths that the shape may have.
        let (per_reg, depths): (usize, &[u8]) = match a_type {
            MmaType::Tf32 => (1, &[4, 8]),
            MmaType::F16 | MmaType::Bf16 => (2, &[8, 16]),
            MmaType::S8 | MmaType::U8 => (4, &[16, 32]),
        };
        let acc_ok = match a_type {
            MmaType::F16 => acc != MmaAcc::S32,
            MmaType::Tf32 | MmaType::Bf16 => acc == MmaAcc::F32,
            MmaType::S8 | MmaType::U8 => acc == MmaAcc::S32,
        };
        let same = a_type == b_type || (integer(a_type) && integer(b_type));
        if types[0] != types[3] || !same || !acc_ok || !depths.contains(&k) || (sat && acc != MmaAcc::S32) {
            return Err("this combination of shape and types is not one of mma".into());
        }
        let (acc_regs, acc_type) = match acc {
            MmaAcc::F32 => (4, F32),
            MmaAcc::F16 => (2, B32),
            MmaAcc::S32 => (4, S32),
        };
        let a_regs = 16 * usize::from(k) / 32 / per_reg;
        let mut d = Vec::new();
        for operand in self.vector(acc_regs)? {
            d.push(self.reg_of(operand, acc_type, false)?);
        }
        let a = self.fragment(a_regs, B32)?;
        let b = self.fragment(a_regs / 2, B32)?;
        let c = self.fragment(acc_regs, acc_type)?;
        Ok(Op::Mma(Box::new(Mma { k, a_type, b_type, acc, sat, d: d.into(), a, b, c })))
    }

    fn fragment(&mut self, count: usize, ty: Type) -> Result<Box<[Src]>> {
        let mut regs = Vec::new();
        for operand in self.vector(count)? {
            if ty == B32 {
                Self::no_float(&operand)?;
            }
            regs.push(self.src_of(operand, ty, false)?);
        }
        Ok(regs.into())
    }
}
