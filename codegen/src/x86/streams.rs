//! Which operands leaves go over in step with their results, so that the plan may have them in one place.

use super::brgemm::{BatchReduceGemm, Tiles};
use super::vprog::{Access, VProg};
use super::winograd::OutputTransform;
use super::{Isa, LeafSpec, map_slots, slots, winograd_slots};
use crate::kernel::in_place::{Streams, Trips};

impl LeafSpec {
    /// `None` where a leaf reads again what lies where it has stored, or where nothing is known.
    pub(super) fn streams(&self, isa: Isa) -> Option<Streams> {
        match self {
            LeafSpec::Gemm(s) => of_tile(s, isa),
            LeafSpec::Matrix(s) => of_tile(&s.tile, isa),
            LeafSpec::Map(s) => Some(Streams {
                result: position(map_slots::OUT),
                operands: [position(map_slots::IN)]
                    .into_iter()
                    .chain(alike(&s.program, map_slots::OPERANDS, |a| *a == Access::Same))
                    .collect(),
                run: Trips::Argument { position: position(map_slots::COUNT), each: 4 },
                axes: vec![],
            }),
            LeafSpec::WinogradOutput(s) => of_transform(s, isa),
            // Rows keep terms in their result and read them again.
            LeafSpec::Rows(_)
            | LeafSpec::Panel(_)
            | LeafSpec::Gather(_)
            | LeafSpec::Lrn(_)
            | LeafSpec::Columns(_)
            | LeafSpec::Positions(_)
            | LeafSpec::WinogradInput(_)
            | LeafSpec::Touch(_) => None,
        }
    }
}

fn position(slot: i64) -> usize {
    slot as usize / 8
}

/// Positions of a program's operands that lie as the result does.
fn alike(program: &VProg, first: i64, as_result: impl Fn(&Access) -> bool) -> Vec<usize> {
    let operands = program.operands().iter().enumerate();
    operands.filter(|(_, a)| as_result(a)).map(|(k, _)| position(first) + k).collect()
}

/// Each accumulator's vector is loaded and stored by itself, tile by tile.
fn of_tile(s: &BatchReduceGemm, isa: Isa) -> Option<Streams> {
    if s.last_lanes.is_some() {
        return None;
    }
    let (pixel, block) = (s.out_pixel_stride, s.out_block_stride);
    let as_result = |a: &Access| match a {
        Access::Same => true,
        Access::Strided { pixel: p, block: b } => *p == pixel && (*b == block || s.blocks == 1),
        Access::Channel | Access::Splat => false,
    };
    let pixels = i64::from(s.pixels);
    let all = match s.tiles {
        Tiles::Fixed(n) => Trips::Fixed(i64::from(n) * pixels),
        Tiles::Runtime => Trips::Argument { position: position(slots::TILES), each: pixels },
    };
    Some(Streams {
        result: position(slots::OUT),
        operands: alike(&s.epilogue, slots::OPERANDS, as_result),
        run: Trips::Fixed(isa.bytes() as i64),
        axes: vec![(all, i64::from(pixel)), (Trips::Fixed(i64::from(s.blocks)), i64::from(block))],
    })
}

/// What is pooled is not in step with its operands.
fn of_transform(s: &OutputTransform, isa: Isa) -> Option<Streams> {
    if s.pool.is_some() {
        return None;
    }
    let vector = isa.bytes() as i64;
    let as_result = |a: &Access| match a {
        Access::Same => true,
        Access::Strided { pixel, block } => i64::from(*pixel) == vector && (*block == s.row || s.rows == 1),
        Access::Channel | Access::Splat => false,
    };
    let tile = s.winograd.outputs() as i64 * vector;
    Some(Streams {
        result: position(winograd_slots::OUT),
        operands: alike(&s.epilogue, winograd_slots::OPERANDS, as_result),
        run: Trips::Fixed(i64::from(s.cols) * vector),
        axes: vec![(Trips::Fixed(i64::from(s.tiles)), tile), (Trips::Fixed(i64::from(s.rows)), i64::from(s.row))],
    })
}
