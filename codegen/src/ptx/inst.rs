//! The instructions: one typed method each, so that operands of the wrong class, or an operation that a type does not have, do not
//! compile.

use super::func::{Cmp, Func, Global, Label, MmaType, Round, Shared, Space, Special};
use super::reg::*;

impl Func {
    // Moves.

    pub fn mov<C: Class>(&mut self, a: impl Into<Src<C>>) -> Reg<C> {
        let r = self.variable::<C>();
        self.set(r, a);
        r
    }

    /// Gives a register of [`mov`](Func::mov) a new value.
    pub fn set<C: Class>(&mut self, r: Reg<C>, a: impl Into<Src<C>>) {
        let a: Src<C> = a.into();
        let bits = C::ID.declared();
        self.written(r);
        self.push(format!("mov{bits}"), vec![r.into(), a.into()]);
    }

    pub fn special(&mut self, s: Special) -> Reg<B32> {
        self.result("mov.u32", vec![Operand::Symbol(s.name().into())])
    }

    /// Address of a shared array within shared memory.
    pub fn shared_address(&mut self, name: &str) -> Reg<B32> {
        self.result("mov.u32", vec![Operand::Symbol(name.into())])
    }

    /// Address of a module's array in constant memory.
    pub fn constant_address(&mut self, name: &str) -> Reg<B64> {
        self.result("mov.u64", vec![Operand::Symbol(name.into())])
    }

    /// The same bits in another class of that size.
    pub fn bits<To: Class, From: Class>(&mut self, a: impl Into<Src<From>>) -> Reg<To> {
        let size = |c: ClassId| match c {
            ClassId::B64 | ClassId::F64 => 64,
            ClassId::B32 | ClassId::F32 => 32,
            ClassId::B16 => 16,
            ClassId::Pred => 1,
        };
        assert_eq!(size(To::ID), size(From::ID), "mov keeps every bit");
        let a: Src<From> = a.into();
        self.result(format!("mov.b{}", size(To::ID)), vec![a.into()])
    }

    /// The low and high words of 64 bits.
    pub fn split(&mut self, a: Reg<B64>) -> (Reg<B32>, Reg<B32>) {
        let (low, high) = (self.reg(), self.reg());
        self.push("mov.b64", vec![Operand::Vector(vec![low.into(), high.into()]), a.into()]);
        (low, high)
    }

    /// The low and high halves of a word.
    pub fn halves(&mut self, a: Reg<B32>) -> [Reg<B16>; 2] {
        let (low, high) = (self.reg(), self.reg());
        self.push("mov.b32", vec![Operand::Vector(vec![low.into(), high.into()]), a.into()]);
        [low, high]
    }

    pub fn join(&mut self, low: Reg<B32>, high: Reg<B32>) -> Reg<B64> {
        self.result("mov.b64", vec![Operand::Vector(vec![low.into(), high.into()])])
    }

    // Arithmetic.

    fn two<T: Type>(&mut self, op: String, a: impl Into<Src<T::Class>>, b: impl Into<Src<T::Class>>) -> Reg<T::Class> {
        let (a, b) = (a.into(), b.into());
        self.result(op, vec![a.into(), b.into()])
    }

    pub fn add<T: Number>(&mut self, a: impl Into<Src<T::Class>>, b: impl Into<Src<T::Class>>) -> Reg<T::Class> {
        self.two::<T>(format!("add{}.{}", T::ROUND, T::NAME), a, b)
    }

    pub fn sub<T: Number>(&mut self, a: impl Into<Src<T::Class>>, b: impl Into<Src<T::Class>>) -> Reg<T::Class> {
        self.two::<T>(format!("sub{}.{}", T::ROUND, T::NAME), a, b)
    }

    pub fn mul<T: Float>(&mut self, a: impl Into<Src<T::Class>>, b: impl Into<Src<T::Class>>) -> Reg<T::Class> {
        self.two::<T>(format!("mul{}.{}", T::ROUND, T::NAME), a, b)
    }

    /// The low half of a product.
    pub fn mul_lo<T: Integer>(&mut self, a: impl Into<Src<T::Class>>, b: impl Into<Src<T::Class>>) -> Reg<T::Class> {
        self.two::<T>(format!("mul.lo.{}", T::NAME), a, b)
    }

    pub fn mul_hi<T: Integer>(&mut self, a: impl Into<Src<T::Class>>, b: impl Into<Src<T::Class>>) -> Reg<T::Class> {
        self.two::<T>(format!("mul.hi.{}", T::NAME), a, b)
    }

    /// `a * b + c` of 32-bit integers.
    pub fn mad<T: Integer<Class = B32>>(
        &mut self,
        a: impl Into<Src<B32>>,
        b: impl Into<Src<B32>>,
        c: impl Into<Src<B32>>,
    ) -> Reg<B32> {
        let (a, b, c) = (a.into(), b.into(), c.into());
        self.result(format!("mad.lo.{}", T::NAME), vec![a.into(), b.into(), c.into()])
    }

    /// `a * b + c` in 64 bits, of signed 32-bit factors.
    pub fn mad_wide(&mut self, a: impl Into<Src<B32>>, b: impl Into<Src<B32>>, c: impl Into<Src<B64>>) -> Reg<B64> {
        let (a, b, c) = (a.into(), b.into(), c.into());
        self.result("mad.wide.s32", vec![a.into(), b.into(), c.into()])
    }

    /// `a * b + c`, rounded once.
    pub fn fma<T: Float>(
        &mut self,
        a: impl Into<Src<T::Class>>,
        b: impl Into<Src<T::Class>>,
        c: impl Into<Src<T::Class>>,
    ) -> Reg<T::Class> {
        let (a, b, c) = (a.into(), b.into(), c.into());
        self.result(format!("fma.rn.{}", T::NAME), vec![a.into(), b.into(), c.into()])
    }

    /// `sum += a * b`, rounded once.
    pub fn accumulate(&mut self, sum: Reg<F32>, a: Reg<F32>, b: Reg<F32>) {
        self.written(sum);
        self.push("fma.rn.f32", vec![sum.into(), a.into(), b.into(), sum.into()]);
    }

    pub fn div_float<T: Float>(&mut self, a: impl Into<Src<T::Class>>, b: impl Into<Src<T::Class>>) -> Reg<T::Class> {
        self.two::<T>(format!("div.rn.{}", T::NAME), a, b)
    }

    /// Truncated; the divisor is not 0.
    pub fn div_int<T: Integer>(&mut self, a: impl Into<Src<T::Class>>, b: impl Into<Src<T::Class>>) -> Reg<T::Class> {
        self.two::<T>(format!("div.{}", T::NAME), a, b)
    }

    pub fn rem<T: Integer>(&mut self, a: impl Into<Src<T::Class>>, b: impl Into<Src<T::Class>>) -> Reg<T::Class> {
        self.two::<T>(format!("rem.{}", T::NAME), a, b)
    }

    pub fn min_int<T: Integer>(&mut self, a: impl Into<Src<T::Class>>, b: impl Into<Src<T::Class>>) -> Reg<T::Class> {
        self.two::<T>(format!("min.{}", T::NAME), a, b)
    }

    pub fn max_int<T: Integer>(&mut self, a: impl Into<Src<T::Class>>, b: impl Into<Src<T::Class>>) -> Reg<T::Class> {
        self.two::<T>(format!("max.{}", T::NAME), a, b)
    }

    /// The smaller one, NaN if one of them is.
    pub fn min_f32(&mut self, a: impl Into<Src<F32>>, b: impl Into<Src<F32>>) -> Reg<F32> {
        self.two::<F32>("min.NaN.f32".into(), a, b)
    }

    pub fn max_f32(&mut self, a: impl Into<Src<F32>>, b: impl Into<Src<F32>>) -> Reg<F32> {
        self.two::<F32>("max.NaN.f32".into(), a, b)
    }

    pub fn neg<T: Number>(&mut self, a: impl Into<Src<T::Class>>) -> Reg<T::Class> {
        let a = a.into();
        self.result(format!("neg.{}", T::NAME), vec![a.into()])
    }

    pub fn abs<T: Number>(&mut self, a: impl Into<Src<T::Class>>) -> Reg<T::Class> {
        let a = a.into();
        self.result(format!("abs.{}", T::NAME), vec![a.into()])
    }

    pub fn sqrt<T: Float>(&mut self, a: impl Into<Src<T::Class>>) -> Reg<T::Class> {
        let a = a.into();
        self.result(format!("sqrt.rn.{}", T::NAME), vec![a.into()])
    }

    // Bits.

    pub fn and<C: Bits>(&mut self, a: impl Into<Src<C>>, b: impl Into<Src<C>>) -> Reg<C> {
        let (a, b) = (a.into(), b.into());
        self.result(format!("and.{}", C::NAME), vec![a.into(), b.into()])
    }

    pub fn or<C: Bits>(&mut self, a: impl Into<Src<C>>, b: impl Into<Src<C>>) -> Reg<C> {
        let (a, b) = (a.into(), b.into());
        self.result(format!("or.{}", C::NAME), vec![a.into(), b.into()])
    }

    pub fn xor<C: Bits>(&mut self, a: impl Into<Src<C>>, b: impl Into<Src<C>>) -> Reg<C> {
        let (a, b) = (a.into(), b.into());
        self.result(format!("xor.{}", C::NAME), vec![a.into(), b.into()])
    }

    pub fn not<C: Bits>(&mut self, a: impl Into<Src<C>>) -> Reg<C> {
        let a = a.into();
        self.result(format!("not.{}", C::NAME), vec![a.into()])
    }

    pub fn shl<C: Bits>(&mut self, a: impl Into<Src<C>>, by: impl Into<Src<B32>>) -> Reg<C> {
        let (a, by) = (a.into(), by.into());
        self.result(format!("shl.{}", C::NAME), vec![a.into(), by.into()])
    }

    /// With the sign for signed types, with zeros for others.
    pub fn shr<T: Integer>(&mut self, a: impl Into<Src<T::Class>>, by: impl Into<Src<B32>>) -> Reg<T::Class> {
        let (a, by) = (a.into(), by.into());
        self.result(format!("shr.{}", T::NAME), vec![a.into(), by.into()])
    }

    /// Leading zeros.
    pub fn clz<C: Bits>(&mut self, a: impl Into<Src<C>>) -> Reg<B32> {
        let a = a.into();
        self.result(format!("clz.{}", C::NAME), vec![a.into()])
    }

    // Predicates.

    pub fn and_pred(&mut self, a: Reg<Pred>, b: Reg<Pred>) -> Reg<Pred> {
        self.result("and.pred", vec![a.into(), b.into()])
    }

    pub fn or_pred(&mut self, a: Reg<Pred>, b: Reg<Pred>) -> Reg<Pred> {
        self.result("or.pred", vec![a.into(), b.into()])
    }

    pub fn xor_pred(&mut self, a: Reg<Pred>, b: Reg<Pred>) -> Reg<Pred> {
        self.result("xor.pred", vec![a.into(), b.into()])
    }

    pub fn not_pred(&mut self, a: Reg<Pred>) -> Reg<Pred> {
        self.result("not.pred", vec![a.into()])
    }

    pub fn setp<T: Number>(&mut self, cmp: Cmp, a: impl Into<Src<T::Class>>, b: impl Into<Src<T::Class>>) -> Reg<Pred> {
        let (a, b) = (a.into(), b.into());
        self.result(format!("setp.{}.{}", cmp.name(), T::NAME), vec![a.into(), b.into()])
    }

    /// `p ? a : b`
    pub fn selp<C: Class>(&mut self, p: Reg<Pred>, a: impl Into<Src<C>>, b: impl Into<Src<C>>) -> Reg<C> {
        let (a, b) = (a.into(), b.into());
        assert!(C::ID != ClassId::Pred, "selp does not choose between predicates");
        self.result(format!("selp{}", C::ID.declared()), vec![a.into(), b.into(), p.into()])
    }

    // Conversions.

    /// Between numbers of two types.
    pub fn cvt<To: Number, From: Number>(&mut self, round: Round, a: impl Into<Src<From::Class>>) -> Reg<To::Class> {
        let a = a.into();
        self.result(format!("cvt{}.{}.{}", round.name(), To::NAME, From::NAME), vec![a.into()])
    }

    /// The low bits of a register as a small integer, extended.
    pub fn extend<E: Element<Class = B32>>(&mut self, a: impl Into<Src<B32>>) -> Reg<B32> {
        let a = a.into();
        let wide = if E::NAME.starts_with('s') { "s32" } else { "u32" };
        self.result(format!("cvt.{wide}.{}", E::NAME), vec![a.into()])
    }

    pub fn f16_to_f32(&mut self, a: Reg<B16>) -> Reg<F32> {
        self.result("cvt.f32.f16", vec![a.into()])
    }

    pub fn f32_to_f16(&mut self, a: impl Into<Src<F32>>) -> Reg<B16> {
        let a = a.into();
        self.result("cvt.rn.f16.f32", vec![a.into()])
    }

    pub fn f32_to_bf16(&mut self, a: impl Into<Src<F32>>) -> Reg<B16> {
        let a = a.into();
        self.result("cvt.rn.bf16.f32", vec![a.into()])
    }

    /// A tensor-core operand from f32: rounded to tf32.
    pub fn round_to_tf32(&mut self, a: Reg<F32>) -> Reg<B32> {
        self.result("cvt.rna.tf32.f32", vec![a.into()])
    }

    /// Likewise a pair of f16 or bf16; `low` is the element with the lower index.
    pub fn round_to_pair(&mut self, t: MmaType, low: Src<F32>, high: Src<F32>) -> Reg<B32> {
        let name = if t == MmaType::Bf16 { "bf16x2" } else { "f16x2" };
        self.result(format!("cvt.rn.{name}.f32"), vec![high.into(), low.into()])
    }

    // Memory.

    pub fn param_pointer(&mut self, name: &str) -> Reg<B64> {
        let generic: Reg<B64> = self.result("ld.param.u64", vec![Operand::Named(name.into(), 0)]);
        self.result("cvta.to.global.u64", vec![generic.into()])
    }

    pub fn param_u32(&mut self, name: &str) -> Reg<B32> {
        self.result("ld.param.u32", vec![Operand::Named(name.into(), 0)])
    }

    fn address<S: Space>(base: Reg<S::Base>, offset: i64) -> Operand {
        Operand::Address(<S::Base as Class>::ID, base.n, offset)
    }

    pub fn ld<S: Space, E: Element>(&mut self, base: Reg<S::Base>, offset: i64) -> Reg<E::Class> {
        self.loaded(format!("ld.{}.{}", S::NAME, E::NAME), vec![Self::address::<S>(base, offset)])
    }

    /// 2 or 4 neighbouring elements, aligned to all of them.
    pub fn ld_vector<S: Space, E: Element>(&mut self, n: usize, base: Reg<S::Base>, offset: i64) -> Vec<Reg<E::Class>> {
        assert!(matches!(n, 2 | 4), "vectors have 2 or 4 elements");
        let regs: Vec<Reg<E::Class>> = (0..n).map(|_| self.reg()).collect();
        let vector = Operand::Vector(regs.iter().map(|&r| r.into()).collect());
        self.push(format!("ld.{}.v{n}.{}", S::NAME, E::NAME), vec![vector, Self::address::<S>(base, offset)]);
        regs
    }

    /// Into [variables](Func::variable): one element, or 2 or 4 neighbouring ones.
    pub fn ld_into<S: Space, E: Element>(&mut self, to: &[Reg<E::Class>], base: Reg<S::Base>, offset: i64) {
        to.iter().for_each(|&r| self.written(r));
        let from = Self::address::<S>(base, offset);
        let regs: Vec<Operand> = to.iter().map(|&r| r.into()).collect();
        match <[Operand; 1]>::try_from(regs) {
            Ok([one]) => self.push(format!("ld.{}.{}", S::NAME, E::NAME), vec![one, from]),
            Err(regs) => {
                assert!(matches!(regs.len(), 2 | 4), "vectors have 2 or 4 elements");
                let opcode = format!("ld.{}.v{}.{}", S::NAME, regs.len(), E::NAME);
                self.push(opcode, vec![Operand::Vector(regs), from]);
            }
        }
    }

    /// Four matrices of 8x8 elements of 16 bits: lane l has the address of row `l % 8` of matrix `l / 8`, 16 bytes, and gets, of each
    /// matrix, the two elements `2 * (l % 4)` on of row `l / 4`.
    pub fn ldmatrix(&mut self, base: Reg<B32>, offset: i64) -> [Reg<B32>; 4] {
        let regs: [Reg<B32>; 4] = std::array::from_fn(|_| self.reg());
        let vector = Operand::Vector(regs.iter().map(|&r| r.into()).collect());
        self.push("ldmatrix.sync.aligned.m8n8.x4.shared.b16", vec![vector, Self::address::<Shared>(base, offset)]);
        regs
    }

    pub fn st<S: Space, E: Element>(&mut self, base: Reg<S::Base>, offset: i64, v: impl Into<Src<E::Class>>) {
        let v = v.into();
        self.push(format!("st.{}.{}", S::NAME, E::NAME), vec![Self::address::<S>(base, offset), v.into()]);
    }

    pub fn st_vector<S: Space, E: Element>(&mut self, base: Reg<S::Base>, offset: i64, v: &[Reg<E::Class>]) {
        assert!(matches!(v.len(), 2 | 4), "vectors have 2 or 4 elements");
        let vector = Operand::Vector(v.iter().map(|&r| r.into()).collect());
        self.push(format!("st.{}.v{}.{}", S::NAME, v.len(), E::NAME), vec![Self::address::<S>(base, offset), vector]);
    }

    /// Copies 4 or 16 bytes from global to shared memory in the background; only the first `given` of them are read, the rest
    /// are zeros.
    pub fn cp_async(
        &mut self,
        (to, to_offset): (Reg<B32>, i64),
        (from, from_offset): (Reg<B64>, i64),
        bytes: u32,
        given: Option<Reg<B32>>,
    ) {
        // Past L1 where that is possible.
        let cache = if bytes == 16 { "cg" } else { "ca" };
        let mut operands = vec![
            Self::address::<Shared>(to, to_offset),
            Self::address::<Global>(from, from_offset),
            Operand::Literal(bytes as i64),
        ];
        operands.extend(given.map(Operand::from));
        self.push(format!("cp.async.{cache}.shared.global"), operands);
    }

    pub fn cp_async_commit(&mut self) {
        self.push("cp.async.commit_group", vec![]);
    }

    /// Waits until at most `pending` groups are under way.
    pub fn cp_async_wait(&mut self, pending: u32) {
        self.push("cp.async.wait_group", vec![Operand::Literal(pending as i64)]);
    }

    // Several threads.

    /// All threads of the block.
    pub fn barrier(&mut self) {
        self.push("bar.sync", vec![Operand::Literal(0)]);
    }

    /// All threads of the warp; orders their accesses to memory.
    pub fn warp_barrier(&mut self) {
        self.push("bar.warp.sync", vec![Operand::Literal(0xffff_ffff)]);
    }

    /// The value of the lane whose number differs by `mask`, in a whole warp.
    pub fn shuffle_xor(&mut self, a: Reg<B32>, mask: u32) -> Reg<B32> {
        self.loaded(
            "shfl.sync.bfly.b32",
            vec![a.into(), Operand::Literal(mask as i64), Operand::Literal(0x1f), Operand::Literal(0xffff_ffff)],
        )
    }

    /// `sums += a * b` on the tensor cores: 16x8 sums of a warp, by fragments as the PTX ISA lays them out.
    pub fn mma(&mut self, t: MmaType, sums: &[Reg<F32>; 4], a: &[Reg<B32>; 4], b: &[Reg<B32>; 2]) {
        let opcode = match t {
            MmaType::Tf32 => "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
            MmaType::F16 => "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
            MmaType::Bf16 => "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
        };
        sums.iter().for_each(|&r| self.written(r));
        let vector = |regs: Vec<Operand>| Operand::Vector(regs);
        let sums = vector(sums.iter().map(|&r| r.into()).collect());
        let a = vector(a.iter().map(|&r| r.into()).collect());
        let b = vector(b.iter().map(|&r| r.into()).collect());
        self.push(opcode, vec![sums.clone(), a, b, sums]);
    }

    // Control.

    pub fn jump(&mut self, to: Label) {
        self.jumped(to);
        self.push("bra", vec![Operand::Label(to.0)]);
    }

    pub fn jump_if(&mut self, p: Reg<Pred>, when: bool, to: Label) {
        self.guarded(p, when, |f| f.jump(to));
    }

    pub fn ret(&mut self) {
        self.push("ret", vec![]);
    }
}
