//! Operators on channel-blocked tensors and constant matrices, by machine-code leaves.
//!
//! Which operator comes here, and which of its operands lie in blocks, the [layout pass](crate::layout) has decided; a lowering
//! here may rely on it. Outer loops are kernels like any other; what they call is assembled for the shape.

mod concat;
mod conv;
mod convert;
mod decide;
pub(crate) mod direct;
pub(crate) mod epilogue;
mod frame;
pub(crate) mod gather;
mod grouped;
mod lrn;
mod map;
pub(crate) mod mean;
mod operands;
pub(crate) mod positions;
pub(crate) mod product;
pub(crate) mod reduce;
mod right_operand;
pub(crate) mod rows;
pub(crate) mod statistics;
pub(crate) mod wide;
pub(crate) mod window;
pub(crate) mod winograd;

pub(super) use convert::{in_blocks, new_view, plain};
pub(super) use map::Prologue;

use super::Lowering;
use super::cx::{KernelCx, NodeCx};
use crate::kernel::{Blocks, CmpOp, Expr};
use crate::layout::Role;
use crate::x86::{Isa, LeafError, LeafSpec};
use lehr_ir::Diag;

/// Parallel iterations of a kernel that are wanted, so that any sensible number of threads gets an even share. Kernels whose iterations
/// have scratch of their own, or are short, have numbers of their own.
const SHARES: usize = 16;
/// Elements from which on threads are to share out sums, by parts of what is summed if need be.
const MANY: usize = 1 << 17;
/// Parallel iterations that a strategy keeps, where there are so many.
const MIN_ITERATIONS: usize = 4;

pub(super) fn lower(role: Role, cx: &mut NodeCx) -> Result<(), Diag> {
    match role {
        Role::Conv => conv::lower(cx),
        Role::Grouped => grouped::lower(cx),
        Role::Winograd(kind) => winograd::lower(cx, kind),
        Role::Map => map::lower(cx),
        Role::Prologue => map::postpone(cx),
        Role::Wide => wide::lower(cx),
        Role::Window => window::lower(cx),
        Role::Mean => mean::lower(cx),
        Role::Lrn => lrn::lower(cx),
        Role::Rows => rows::lower(cx),
        Role::Statistics => statistics::lower(cx),
        Role::Reduce => reduce::lower(cx),
        Role::Positions => positions::lower(cx),
        Role::Concat => concat::lower(cx),
        Role::Product => product::lower(cx),
        Role::Pooled => unreachable!("the convolution before it has computed it"),
        Role::Other => unreachable!("lowered to plain loops"),
    }
}

impl Lowering {
    /// The instruction set of the leaves.
    ///
    /// # Panics
    /// Without one: nothing has a role then.
    pub(super) fn isa(&self) -> Isa {
        self.layouts.isa().expect("roles are given with an instruction set only")
    }

    /// The position of a leaf in the program's table.
    pub(super) fn leaf(&mut self, spec: &LeafSpec) -> Result<u32, LeafError> {
        let isa = self.isa();
        let name = spec.name(isa);
        if let Some(&at) = self.leaves.get(&name) {
            return Ok(at);
        }
        let at = self.program.leaves.len() as u32;
        self.program.leaves.push(spec.emit(isa)?);
        self.program.leaf_features |= isa.features();
        self.leaves.insert(name, at);
        Ok(at)
    }
}

/// A leaf that cannot be emitted, although the layout pass chose it: our own mistake, told with the operator's name.
fn leaf_diag(cx: &NodeCx, error: &LeafError) -> Diag {
    let at = cx.anchor.unwrap_or(cx.outputs[0].0.node);
    Diag::new("lower.leaf", format!("its machine code could not be made: {error}"))
        .note("compile with -O0, and report this")
        .at(cx.graph.location(at))
}

/// A stride of so many elements in bytes.
///
/// # Panics
/// Beyond 31 bits, which the layout pass keeps away.
fn bytes(elements: i64) -> i32 {
    i32::try_from(4 * elements).expect("tensors are small enough for 32-bit strides")
}

/// Equal parts of two sizes, the larger first.
#[derive(Clone, Copy, Debug)]
struct Parts {
    size: usize,
    count: usize,
    /// Parts of one less.
    smaller: usize,
}

impl Parts {
    fn of(total: usize, most: usize) -> Parts {
        Parts::into(total, total.div_ceil(most.max(1)))
    }

    /// So many parts.
    fn into(total: usize, parts: usize) -> Parts {
        let larger = total % parts;
        match larger {
            0 => Parts { size: total / parts, count: parts, smaller: 0 },
            _ => Parts { size: total / parts + 1, count: larger, smaller: parts - larger },
        }
    }

    /// As [`Parts::of`] for each of so many images, but of an even number in all, if there can be, so that two threads get as much.
    fn even(total: usize, most: usize, images: usize) -> Parts {
        let parts = total.div_ceil(most.max(1));
        Parts::into(total, parts + usize::from(parts % 2 == 1 && images % 2 == 1 && parts < total))
    }

    fn total(&self) -> usize {
        self.count + self.smaller
    }

    /// What the parts are parts of.
    fn whole(&self) -> usize {
        self.size * self.count + (self.size - 1) * self.smaller
    }

    /// The parts' sizes in order.
    fn list(&self) -> Vec<u32> {
        self.sizes().into_iter().flat_map(|(size, count)| std::iter::repeat_n(size as u32, count)).collect()
    }

    /// Where a part of the larger (0) or smaller (1) size starts.
    fn start(&self, size: usize, part: Expr) -> Expr {
        match size {
            0 => part * self.size as i64,
            _ => part * (self.size as i64 - 1) + self.count as i64,
        }
    }

    /// Where a part of either size starts.
    fn start_of_any(&self, part: Expr) -> Expr {
        let start = part.clone() * self.size as i64;
        // What is not among the larger parts is one shorter.
        if self.smaller == 0 { start } else { start - (part - self.count as i64).max(Expr::i64(0)) }
    }

    /// Where a part starts if the smaller ones lie evenly among the larger ones, as threads share them out.
    fn spread(&self, part: Expr) -> Expr {
        part * self.whole() as i64 / self.total() as i64
    }

    /// Code for part `part` where parts lie spread: `f` is told which size it has (0: larger, 1: smaller), and where it starts.
    fn each_spread(&self, k: &mut KernelCx, part: Expr, f: impl Fn(&mut KernelCx, usize, Expr)) {
        let (start, end) = (k.let_(self.spread(part.clone())), self.spread(part + 1));
        let is_larger = Expr::compare(CmpOp::Eq, end - start.clone(), Expr::i64(self.size as i64));
        self.either(k, is_larger, |k, size| f(k, size, start.clone()));
    }

    /// Code for part `part` of either size: `f` is told which (0: larger, 1: smaller).
    fn each_size(&self, k: &mut KernelCx, part: &Expr, f: impl Fn(&mut KernelCx, usize)) {
        self.either(k, Expr::compare(CmpOp::Lt, part.clone(), Expr::i64(self.count as i64)), f);
    }

    fn either(&self, k: &mut KernelCx, is_larger: Expr, f: impl Fn(&mut KernelCx, usize)) {
        match self.smaller {
            0 => f(k, 0),
            _ => k.if_else(is_larger, |k| f(k, 0), |k| f(k, 1)),
        }
    }

    /// Code for part `part` of either size, and for the last one: `f` is told which (0: larger, 1: smaller).
    fn each_kind(&self, k: &mut KernelCx, part: &Expr, f: impl Fn(&mut KernelCx, usize, bool)) {
        let (last, sizes) = (self.total() as i64 - 1, self.sizes().len());
        let below = |bound: i64| Expr::compare(CmpOp::Lt, part.clone(), Expr::i64(bound));
        // The last part is of the smaller size where there are two.
        let tail = |k: &mut KernelCx| match last {
            0 => f(k, 0, true),
            _ => k.if_else(below(last), |k| f(k, sizes - 1, false), |k| f(k, sizes - 1, true)),
        };
        match sizes {
            1 => tail(k),
            _ => k.if_else(below(self.count as i64), |k| f(k, 0, false), tail),
        }
    }

    /// The sizes that occur, and how often.
    fn sizes(&self) -> Vec<(usize, usize)> {
        let sizes = [(self.size, self.count), (self.size - 1, self.smaller)];
        sizes.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value of an expression of constants.
    fn value(e: Expr) -> i64 {
        use crate::kernel::{Access, KernelBuilder, interp};
        let mut k = KernelBuilder::new("value");
        let out = k.param(lehr_ir::DType::I64, 1, Access::Write);
        k.store(out, Expr::i64(0), e);
        let mut buffers = [vec![0; 8]];
        interp::run(&k.finish(Default::default()), &mut buffers, 0..1).expect("a run");
        i64::from_le_bytes(buffers[0][..].try_into().expect("8 bytes"))
    }

    #[test]
    fn parts_lie_spread_and_are_even_in_number() {
        for (total, most) in (1..40).flat_map(|total| (1..=total).map(move |most| (total, most))) {
            for images in [1, 2] {
                let parts = Parts::even(total, most, images);
                let starts: Vec<i64> = (0..=parts.total() as i64).map(|i| value(parts.spread(Expr::i64(i)))).collect();
                let sizes: Vec<usize> = starts.windows(2).map(|s| (s[1] - s[0]) as usize).collect();
                let of = |size: usize| sizes.iter().filter(|&&n| n == size).count();
                assert_eq!((starts[0], starts[parts.total()]), (0, total as i64));
                assert_eq!((of(parts.size), of(parts.size - 1)), (parts.count, parts.smaller), "{parts:?}: {sizes:?}");
                assert!(sizes.iter().all(|&n| (1..=most).contains(&n)), "{total} by {most}: {sizes:?}");
                assert!(
                    images == 2 || parts.total().is_multiple_of(2) || parts.total() == total,
                    "{total} by {most}: {sizes:?}"
                );
                // Two threads get as much, but for one.
                let half: usize = sizes[..sizes.len() / 2].iter().sum();
                assert!(sizes.len() % 2 == 1 || (2 * half).abs_diff(total) <= 1, "{sizes:?}");
            }
        }
    }
}
