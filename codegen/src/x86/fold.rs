//! How the elements of a cell come together, lane by lane.

use super::asm::{Asm, Bin, Pred, Src, VReg};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fold {
    Sum,
    /// NaN may be lost.
    Max,
    /// The maximum; NaN if there is one.
    Largest,
    /// The minimum; NaN if there is one.
    Smallest,
}

/// Sets a total to what does not count.
pub(super) fn start_fold(asm: &mut Asm, fold: Fold, total: VReg) {
    match fold {
        Fold::Sum => asm.zero(total),
        Fold::Max | Fold::Largest => asm.constant_to(total, f32::NEG_INFINITY.to_bits()),
        Fold::Smallest => asm.constant_to(total, f32::INFINITY.to_bits()),
    }
}

/// `total = fold(total, term)`, with a register that is free.
pub(super) fn fold_into(asm: &mut Asm, fold: Fold, total: VReg, term: VReg, free: VReg) {
    let extreme = match fold {
        Fold::Sum => return asm.bin(Bin::Add, total, total, Src::Reg(term)),
        Fold::Max => return asm.bin(Bin::Max, total, total, Src::Reg(term)),
        Fold::Largest => Bin::Max,
        Fold::Smallest => Bin::Min,
    };
    // The instruction gives its second operand where either is NaN, so a NaN in the total stays; one in the term is put back.
    asm.bin(extreme, free, term, Src::Reg(total));
    asm.select(Pred::Unordered, total, term, Src::Reg(term), term, free);
}
