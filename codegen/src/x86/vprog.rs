//! A small straight-line program over vectors of f32: what a leaf does to each vector before it stores it.
//!
//! It is in SSA form: a [`Val`] is a position in the list of nodes. Building the same node twice gives the same value. Equal
//! programs are equal as data, so leaves can be shared by their specification.

use super::asm::{Bin, Pred, Un};
use super::{Isa, LeafError};

/// A value of a [`VProg`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Val(pub(super) u16);

/// Where the vectors of an operand lie, for the output vector of pixel `p` and channel block `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// With the strides of the output: a residual.
    Same,
    /// At `p*pixel + n*block` bytes. In a map leaf an error.
    Strided { pixel: i32, block: i32 },
    /// One vector per channel block, `n * lanes * 4` bytes on: bias, slope. In a map leaf the same vector throughout.
    Channel,
    /// One element for all.
    Splat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// The accumulator, or in a map leaf the element of the first argument.
    Input,
    /// A vector of the operand of this number.
    Load(u8),
    Const(u32),
    Bin(Bin, Val, Val),
    Un(Un, Val),
    /// `a * b + c`, rounded once.
    Fma(Val, Val, Val),
    Select {
        pred: Pred,
        a: Val,
        b: Val,
        yes: Val,
        no: Val,
    },
}

/// A program of one input, any operands and one result. [`VProg::identity`] stores what comes in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VProg {
    pub(super) nodes: Vec<Node>,
    pub(super) operands: Vec<Access>,
    pub(super) result: Val,
}

impl VProg {
    pub fn identity() -> Self {
        VProg { nodes: vec![Node::Input], operands: Vec::new(), result: Val(0) }
    }

    /// Builds a program: `f` gets the builder and the input and gives the result.
    pub fn build(f: impl FnOnce(&mut VProg, Val) -> Val) -> Self {
        let mut p = VProg::identity();
        let result = f(&mut p, Val(0));
        p.result = result;
        p
    }

    /// This program, and then `next` of its result; operands of `next` come behind.
    pub fn then(&self, next: &VProg) -> VProg {
        let mut p = self.clone();
        let operands = p.operands.len() as u8;
        p.operands.extend(&next.operands);
        let mut map: Vec<Val> = Vec::with_capacity(next.nodes.len());
        for node in &next.nodes {
            let at = match node {
                Node::Input => p.result,
                Node::Load(k) => p.push(Node::Load(operands + k)),
                node => {
                    let node = node.of(|v| map[usize::from(v.0)]);
                    p.push(node)
                }
            };
            map.push(at);
        }
        p.result = map[usize::from(next.result.0)];
        p
    }

    pub fn is_identity(&self) -> bool {
        self.result == Val(0)
    }

    /// Instructions for each vector, roughly: those that compute or load an operand.
    pub fn operations(&self) -> usize {
        self.nodes.iter().filter(|n| !matches!(n, Node::Input | Node::Const(_))).count()
    }

    /// How the operands are addressed, in the order of their pointers among the arguments.
    pub fn operands(&self) -> &[Access] {
        &self.operands
    }

    /// A vector of a new operand.
    pub fn operand(&mut self, access: Access) -> Val {
        self.operands.push(access);
        self.push(Node::Load((self.operands.len() - 1) as u8))
    }

    pub fn constant(&mut self, x: f32) -> Val {
        self.bits(x.to_bits())
    }

    pub(super) fn bits(&mut self, bits: u32) -> Val {
        self.push(Node::Const(bits))
    }

    pub fn add(&mut self, a: Val, b: Val) -> Val {
        self.bin(Bin::Add, a, b)
    }

    pub fn sub(&mut self, a: Val, b: Val) -> Val {
        self.bin(Bin::Sub, a, b)
    }

    pub fn mul(&mut self, a: Val, b: Val) -> Val {
        self.bin(Bin::Mul, a, b)
    }

    pub fn div(&mut self, a: Val, b: Val) -> Val {
        self.bin(Bin::Div, a, b)
    }

    /// `a * b + c`, rounded once.
    pub fn fma(&mut self, a: Val, b: Val, c: Val) -> Val {
        let (a, b) = if self.is_const(a) { (b, a) } else { (a, b) };
        self.push(Node::Fma(a, b, c))
    }

    /// The smaller; NaN if either is NaN.
    pub fn min(&mut self, a: Val, b: Val) -> Val {
        self.extreme(Bin::Min, a, b)
    }

    /// The larger; NaN if either is NaN.
    pub fn max(&mut self, a: Val, b: Val) -> Val {
        self.extreme(Bin::Max, a, b)
    }

    pub fn neg(&mut self, a: Val) -> Val {
        let sign = self.bits(0x8000_0000);
        self.bin(Bin::Xor, a, sign)
    }

    pub fn abs(&mut self, a: Val) -> Val {
        let rest = self.bits(0x7fff_ffff);
        self.bin(Bin::And, a, rest)
    }

    pub fn sqrt(&mut self, a: Val) -> Val {
        self.un(Un::Sqrt, a)
    }

    /// `1/sqrt(a)` for positive normal numbers: within 2 ulps with AVX-512, where it is an estimate and a step of Newton's.
    pub fn inverse_sqrt(&mut self, a: Val) -> Val {
        let (half, minus_half) = (self.constant(0.5), self.constant(-0.5));
        let y = self.un(Un::InverseRootEstimate, a);
        let h = self.mul(a, minus_half);
        let h = self.mul(h, y);
        let e = self.fma(h, y, half);
        self.fma(y, e, y)
    }

    /// To nearest, ties to even.
    pub fn round(&mut self, a: Val) -> Val {
        self.un(Un::Round, a)
    }

    pub fn floor(&mut self, a: Val) -> Val {
        self.un(Un::Floor, a)
    }

    pub fn ceil(&mut self, a: Val) -> Val {
        self.un(Un::Ceil, a)
    }

    pub fn trunc(&mut self, a: Val) -> Val {
        self.un(Un::Trunc, a)
    }

    /// `if a pred b { yes } else { no }`.
    pub fn select(&mut self, pred: Pred, a: Val, b: Val, yes: Val, no: Val) -> Val {
        self.push(Node::Select { pred, a, b, yes, no })
    }

    /// 1 where `a pred b`, else 0.
    pub fn truth(&mut self, pred: Pred, a: Val, b: Val) -> Val {
        let (one, zero) = (self.constant(1.0), self.constant(0.0));
        self.select(pred, a, b, one, zero)
    }

    /// -1, 0 or 1; NaN stays, and so does the sign of zero.
    pub fn sign(&mut self, a: Val) -> Val {
        let (zero, one, minus_one) = (self.constant(0.0), self.constant(1.0), self.constant(-1.0));
        let y = self.select(Pred::Lt, a, zero, minus_one, a);
        self.select(Pred::Gt, a, zero, one, y)
    }

    pub(super) fn bin(&mut self, op: Bin, a: Val, b: Val) -> Val {
        // A constant is a memory operand in second place only.
        let commutes = matches!(op, Bin::Add | Bin::Mul | Bin::And | Bin::Or | Bin::Xor | Bin::AddInt);
        let (a, b) = if commutes && self.is_const(a) { (b, a) } else { (a, b) };
        self.push(Node::Bin(op, a, b))
    }

    pub(super) fn un(&mut self, op: Un, a: Val) -> Val {
        self.push(Node::Un(op, a))
    }

    fn is_const(&self, a: Val) -> bool {
        matches!(self.nodes[usize::from(a.0)], Node::Const(_))
    }

    /// The instruction gives its second operand where either is NaN, so a constant goes first, unless it is NaN itself.
    fn extreme(&mut self, op: Bin, a: Val, b: Val) -> Val {
        let is_nan =
            |v: &Val| matches!(self.nodes[usize::from(v.0)], Node::Const(bits) if f32::from_bits(bits).is_nan());
        if let Some(nan) = [a, b].into_iter().find(is_nan) {
            return nan;
        }
        if self.is_const(a) {
            return self.push(Node::Bin(op, a, b));
        }
        if self.is_const(b) {
            return self.push(Node::Bin(op, b, a));
        }
        let m = self.push(Node::Bin(op, a, b));
        self.select(Pred::Unordered, a, a, a, m)
    }

    fn push(&mut self, node: Node) -> Val {
        if let Some(i) = self.nodes.iter().position(|n| *n == node) {
            return Val(i as u16);
        }
        self.nodes.push(node);
        Val((self.nodes.len() - 1) as u16)
    }

    /// The same program with only what the instruction set has, and without unused nodes.
    pub(super) fn legal(&self, isa: Isa) -> Result<VProg, LeafError> {
        if self.nodes.len() > usize::from(u16::MAX) / 8 || self.operands.len() > MAX_OPERANDS {
            return Err(LeafError::TooManyOperands { operands: self.operands.len(), most: MAX_OPERANDS });
        }
        let mut used = vec![false; self.nodes.len()];
        used[usize::from(self.result.0)] = true;
        for i in (0..self.nodes.len()).rev() {
            if used[i] {
                self.nodes[i].uses().iter().for_each(|u| used[usize::from(u.0)] = true);
            }
        }
        let mut out = VProg { nodes: vec![Node::Input], operands: self.operands.clone(), result: Val(0) };
        let mut map = vec![Val(0); self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate().filter(|(i, _)| used[*i]) {
            let m = |v: &Val| map[usize::from(v.0)];
            map[i] = match node {
                Node::Bin(Bin::Scale, a, n) if isa == Isa::Avx2 => out.scale_by_halves(m(a), m(n)),
                Node::Un(Un::InverseRootEstimate, a) if isa == Isa::Avx2 => {
                    let (one, root) = (out.constant(1.0), out.sqrt(m(a)));
                    out.div(one, root)
                }
                node => out.push(node.of(|v| m(&v))),
            };
        }
        out.result = map[usize::from(self.result.0)];
        Ok(out)
    }

    /// `a * 2^n` as two factors, neither of which leaves the range of normal numbers: the first product is exact.
    fn scale_by_halves(&mut self, a: Val, n: Val) -> Val {
        let n = self.un(Un::ToInt, n);
        let half = self.un(Un::ShiftRightSigned(1), n);
        let rest = self.bin(Bin::SubInt, n, half);
        let bias = self.bits(127);
        let power = |p: &mut VProg, e: Val| {
            let e = p.bin(Bin::AddInt, e, bias);
            p.un(Un::ShiftLeft(23), e)
        };
        let (f, g) = (power(self, half), power(self, rest));
        let a = self.mul(a, f);
        self.mul(a, g)
    }
}

/// Pointers of operands live in registers while a program runs.
pub const MAX_OPERANDS: usize = 5;

impl Node {
    /// The same of other values.
    fn of(&self, m: impl Fn(Val) -> Val) -> Node {
        match *self {
            Node::Input | Node::Load(_) | Node::Const(_) => *self,
            Node::Bin(op, a, b) => Node::Bin(op, m(a), m(b)),
            Node::Un(op, a) => Node::Un(op, m(a)),
            Node::Fma(a, b, c) => Node::Fma(m(a), m(b), m(c)),
            Node::Select { pred, a, b, yes, no } => Node::Select { pred, a: m(a), b: m(b), yes: m(yes), no: m(no) },
        }
    }

    pub(super) fn uses(&self) -> Vec<Val> {
        match *self {
            Node::Input | Node::Load(_) | Node::Const(_) => Vec::new(),
            Node::Un(_, a) => vec![a],
            Node::Bin(_, a, b) => vec![a, b],
            Node::Fma(a, b, c) => vec![a, b, c],
            Node::Select { a, b, yes, no, .. } => vec![a, b, yes, no],
        }
    }
}
