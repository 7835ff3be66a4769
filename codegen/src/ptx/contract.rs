//! Products of matrices in tiles: a block of threads brings slices of both factors into shared memory, several slices ahead, and
//! each thread (on tensor cores: each warp) multiplies its part of them.
//!
//! ```text
//! for s in 0..stages-1: copy slice s                  // in the background
//! for s in 0..slices:
//!   wait for slice s; barrier
//!   copy slice s + stages - 1                         // over what slice s - 1 was in
//!   for k in 0..depth: sums += left[k][rows] * right[k][columns]
//! for every row and column of the thread: body
//! ```

use super::Precision;
use super::copy::{Copy, Side};
use super::emit::Emit;
use super::func::{Cmp, MmaType, Shared, SharedArray, Special};
use super::index::{Index, IntReg};
use super::lanes::same_flow;
use super::occupancy::Slices;
use super::reg::*;
use super::value::{Scalar, Val};
use crate::kernel::{BinOp, CmpOp, Contract, Tile};
use lehr_ir::DType;

pub(super) const TILES: &str = "tiles";

/// Where the rows and columns of a thread's sums lie in the tile.
pub(super) struct Place {
    pub row: Reg<B32>,
    pub column: Reg<B32>,
}

/// The sums of a thread: neighbouring columns of one row, and where they are from its place on.
pub(super) struct Group {
    row: i64,
    column: i64,
    pub sums: Vec<Reg<F32>>,
}

impl Emit<'_> {
    pub(super) fn contract(&mut self, c: &Contract) {
        self.f.wants_registers = true;
        let tile = c.tile;
        let mma = self.tensor_type(&tile);
        if let Some(t @ (MmaType::F16 | MmaType::Bf16)) = mma {
            return self.contract_halves(c, t);
        }
        let Slices { pad, left: left_bytes, stage, stages } = Slices::of(&tile, self.precision);
        let (left_stride, right_stride) = (tile.rows + pad, tile.columns + pad);
        let dtype = |p: u32| self.k.params[p as usize].dtype;
        let background = dtype(c.left.buf) == DType::F32 && dtype(c.right.buf) == DType::F32;
        let stages = if background { stages } else { 1 };
        self.f.shared.push(SharedArray { name: TILES.into(), bytes: stages * stage });

        let thread = self.f.special(Special::ThreadX);
        let (row, column) = self.tile_origin(c);
        let left_at = self.f.shared_address(TILES);
        let right_at = self.f.add::<S32>(left_at, left_bytes as i32);
        let left = Side { factor: &c.left, var: c.row, limit: c.rows, size: tile.rows, stride: left_stride };
        let right =
            Side { factor: &c.right, var: c.column, limit: c.columns, size: tile.columns, stride: right_stride };
        let (first, end) = (self.index(&c.first), self.index(&c.end));
        let whole = |i: &Index| i.multiple % tile.depth as i64 == 0;
        let slices = (tile.depth, whole(&first));
        let copies = [
            Copy::new(self, left, c.step, thread, row, left_at, slices),
            Copy::new(self, right, c.step, thread, column, right_at, slices),
        ];

        let (place, mut groups) = match mma {
            Some(_) => self.tensor_place(&tile, thread),
            None => self.thread_place(&tile, thread),
        };
        let read = |e: &mut Self, base: Reg<B32>, at: Reg<B32>| e.f.mad::<S32>(at, 4, base);
        let (left_from, right_from) = match mma {
            Some(_) => self.fragment_bases(&tile, thread, (left_at, left_stride), (right_at, right_stride)),
            None => (read(self, left_at, place.row), read(self, right_at, place.column)),
        };
        let multiply = |e: &mut Self, at: Src<B32>, groups: &mut [Group]| {
            let (a, b) = (e.f.add::<S32>(left_from, at), e.f.add::<S32>(right_from, at));
            match mma {
                Some(_) => e.tensor_slice(&tile, (a, left_stride), (b, right_stride), groups),
                None => e.thread_slice(&tile, (a, left_stride), (b, right_stride), groups),
            }
        };
        self.slices(c, &copies, (first, end), (stages, stage), background, |e, at| multiply(e, at, &mut groups));
        self.results(c, (row, column), &place, &groups);
    }

    /// First row and column of the block's tile.
    pub(super) fn tile_origin(&mut self, c: &Contract) -> (Index, Index) {
        let block = self.block.expect("a kernel of a product numbers its tiles");
        let down = Index::constant((c.rows + c.tile.rows as i64 - 1) / c.tile.rows as i64);
        let (row, column) = (self.one(BinOp::Rem, &block, &down), self.one(BinOp::Div, &block, &down));
        (self.f.scale_index(&row, c.tile.rows as i64), self.f.scale_index(&column, c.tile.columns as i64))
    }

    fn one(&mut self, op: BinOp, a: &Index, b: &Index) -> Index {
        self.f.index_op(op, a, b, 1).expect("one value")
    }

    pub(super) fn steps(&mut self, first: &Index, end: &Index) -> Index {
        let minus = self.f.scale_index(first, -1);
        self.f.add_index(end, &minus)
    }

    pub(super) fn slice_count(&mut self, steps: &Index, depth: i64) -> Index {
        let up = self.f.add_index(steps, &Index::constant(depth - 1));
        self.one(BinOp::Div, &up, &Index::constant(depth))
    }

    /// The loop over the slices; `multiply` gets where in shared memory, from its start, a slice lies.
    fn slices(
        &mut self,
        c: &Contract,
        copies: &[Copy; 2],
        (first, end): (Index, Index),
        (stages, stage): (u32, u32),
        background: bool,
        mut multiply: impl FnMut(&mut Self, Src<B32>),
    ) {
        let depth = c.tile.depth as i64;
        let steps = self.steps(&first, &end);
        let count = self.slice_count(&steps, depth);
        let ragged = first.multiple % depth != 0 || end.multiple % depth != 0;
        let bound = ragged.then_some(end);
        let copy = |e: &mut Self, slice: Index, to: Src<B32>| {
            let at = e.f.scale_index(&slice, depth);
            let at = e.f.add_index(&first, &at);
            for copy in copies {
                copy.tile(e, c.step, at, bound, to, background);
            }
        };
        let slice = self.f.mov(0);
        let slices = (i32::MAX as i64 / depth / 2).min(count.high.max(1));
        let slice_at = Index::register(IntReg::Narrow(slice), 1, 0, slices - 1);
        let again = self.f.label();
        if !background {
            self.f.place(again);
            self.f.no_unrolling();
            self.f.barrier();
            copy(self, slice_at, 0.into());
            self.f.barrier();
            multiply(self, 0.into());
            self.next(slice, &count, again);
            return;
        }
        let ahead = stages as i64 - 1;
        for s in 0..ahead {
            let skip = self.f.label();
            if count.low <= s {
                let missing = self.f.compare_index(CmpOp::Le, &count, &Index::constant(s));
                self.f.jump_if(missing, true, skip);
            }
            copy(self, Index::constant(s), ((s as u32 * stage) as i32).into());
            self.f.place(skip);
            self.f.cp_async_commit();
        }
        let (from, to) = (self.f.mov(0), self.f.mov((ahead as u32 * stage) as i32));
        self.f.place(again);
        self.f.no_unrolling();
        self.f.cp_async_wait(stages - 2);
        self.f.barrier();
        let later = self.f.add_index(&slice_at, &Index::constant(ahead));
        let skip = self.f.label();
        let none = self.f.compare_index(CmpOp::Ge, &later, &count);
        self.f.jump_if(none, true, skip);
        copy(self, later, to.into());
        self.f.place(skip);
        self.f.cp_async_commit();
        multiply(self, from.into());
        for at in [from, to] {
            let next = self.f.add::<S32>(at, stage as i32);
            let wrapped = self.f.setp::<S32>(Cmp::Eq, next, (stages * stage) as i32);
            let next = self.f.selp::<B32>(wrapped, 0, next);
            self.f.set(at, next);
        }
        self.next(slice, &count, again);
    }

    pub(super) fn next(&mut self, slice: Reg<B32>, count: &Index, again: super::func::Label) {
        let next = self.f.add::<S32>(slice, 1);
        self.f.set(slice, next);
        let at = Index::register(IntReg::Narrow(slice), 1, 0, i32::MAX as i64);
        let more = self.f.compare_index(CmpOp::Lt, &at, count);
        self.f.jump_if(more, true, again);
    }

    // Threads.

    /// Remainder and quotient by a power of two.
    fn across(&mut self, n: Reg<B32>, across: i32) -> (Reg<B32>, Reg<B32>) {
        (self.f.and(n, across - 1), self.f.shr::<U32>(n, across.trailing_zeros() as i32))
    }

    /// A thread has rows and columns by fours, as far apart as there are threads' fours between them.
    fn thread_place(&mut self, tile: &Tile, thread: Reg<B32>) -> (Place, Vec<Group>) {
        let across = (tile.columns / tile.part_columns) as i32;
        let (x, y) = self.across(thread, across);
        let place = Place { row: self.f.shl(y, 2), column: self.f.shl(x, 2) };
        let mut groups = vec![];
        for row in rows_of(tile.rows, tile.part_rows) {
            for four in (0..tile.part_columns / 4).map(|g| g * (tile.columns / (tile.part_columns / 4))) {
                let sums = (0..4).map(|_| self.f.mov(0f32)).collect();
                groups.push(Group { row, column: four as i64, sums });
            }
        }
        (place, groups)
    }

    fn thread_slice(
        &mut self,
        tile: &Tile,
        (a, left_stride): (Reg<B32>, u32),
        (b, right_stride): (Reg<B32>, u32),
        groups: &mut [Group],
    ) {
        for k in 0..tile.depth {
            let mut fours = |at: Reg<B32>, stride: u32, size: u32, part: u32| -> Vec<Reg<F32>> {
                let four_stride = size / (part / 4);
                let load = |g: u32| self.f.ld_vector::<Shared, F32>(4, at, ((k * stride + g * four_stride) * 4) as i64);
                (0..part / 4).flat_map(load).collect()
            };
            let left = fours(a, left_stride, tile.rows, tile.part_rows);
            let right = fours(b, right_stride, tile.columns, tile.part_columns);
            let across = (tile.part_columns / 4) as usize;
            for (n, group) in groups.iter().enumerate() {
                let (row, four) = (n / across, n % across);
                for (i, &sum) in group.sums.iter().enumerate() {
                    self.f.accumulate(sum, left[row], right[4 * four + i]);
                }
            }
        }
    }

    // Tensor cores.

    fn tensor_type(&self, tile: &Tile) -> Option<MmaType> {
        if !tile.tensor {
            return None;
        }
        match self.precision {
            Precision::Fp32 => unreachable!("the lowering cuts tiles for the precision that is generated"),
            Precision::Tf32 => Some(MmaType::Tf32),
            Precision::F16 => Some(MmaType::F16),
            Precision::Bf16 => Some(MmaType::Bf16),
        }
    }

    /// The warp's row and column in the tile.
    pub(super) fn warp_place(&mut self, tile: &Tile, thread: Reg<B32>) -> Place {
        let across = (tile.columns / tile.part_columns) as i32;
        let warp = self.f.shr::<U32>(thread, 5);
        let (x, y) = self.across(warp, across);
        Place {
            row: self.f.mul_lo::<S32>(y, tile.part_rows as i32),
            column: self.f.mul_lo::<S32>(x, tile.part_columns as i32),
        }
    }

    /// Of each 16x8 sums, a lane has two columns of row `lane / 4` and of the eighth row after it.
    pub(super) fn tensor_place(&mut self, tile: &Tile, thread: Reg<B32>) -> (Place, Vec<Group>) {
        let warp = self.warp_place(tile, thread);
        let lane = self.f.and(thread, 31);
        let (group, member) = (self.f.shr::<U32>(lane, 2), self.f.and(lane, 3));
        let place =
            Place { row: self.f.add::<S32>(warp.row, group), column: self.f.mad::<S32>(member, 2, warp.column) };
        let mut groups = vec![];
        for row in (0..tile.part_rows).step_by(16) {
            for column in (0..tile.part_columns).step_by(8) {
                for half in [0, 8] {
                    let sums = (0..2).map(|_| self.f.mov(0f32)).collect();
                    groups.push(Group { row: (row + half) as i64, column: column as i64, sums });
                }
            }
        }
        (place, groups)
    }

    /// Where the lane's first elements of both factors lie: row `lane / 4` of the warp's, and step `lane % 4`.
    fn fragment_bases(
        &mut self,
        tile: &Tile,
        thread: Reg<B32>,
        (left, left_stride): (Reg<B32>, u32),
        (right, right_stride): (Reg<B32>, u32),
    ) -> (Reg<B32>, Reg<B32>) {
        let warp = self.warp_place(tile, thread);
        let lane = self.f.and(thread, 31);
        let (group, member) = (self.f.shr::<U32>(lane, 2), self.f.and(lane, 3));
        let mut base = |base: Reg<B32>, first: Reg<B32>, stride: u32| {
            let row = self.f.add::<S32>(first, group);
            let words = self.f.mad::<S32>(member, stride as i32, row);
            self.f.mad::<S32>(words, 4, base)
        };
        (base(left, warp.row, left_stride), base(right, warp.column, right_stride))
    }

    fn tensor_slice(
        &mut self,
        tile: &Tile,
        (a, left_stride): (Reg<B32>, u32),
        (b, right_stride): (Reg<B32>, u32),
        groups: &mut [Group],
    ) {
        for k in (0..tile.depth).step_by(8) {
            // One operand: an element, and with `later` the one four steps after it.
            let mut operand = |at: Reg<B32>, stride: u32, row: u32, later: u32| -> Reg<B32> {
                let v = self.f.ld::<Shared, F32>(at, (((k + 4 * later) * stride + row) * 4) as i64);
                self.f.round_to_tf32(v)
            };
            let left: Vec<[Reg<B32>; 4]> = (0..tile.part_rows)
                .step_by(16)
                .map(|r| [(0, 0), (8, 0), (0, 1), (8, 1)].map(|(row, later)| operand(a, left_stride, r + row, later)))
                .collect();
            let right: Vec<[Reg<B32>; 2]> = (0..tile.part_columns)
                .step_by(8)
                .map(|column| [0, 1].map(|later| operand(b, right_stride, column, later)))
                .collect();
            let across = right.len();
            for (n, pair) in groups.chunks(2).enumerate() {
                let sums = [pair[0].sums[0], pair[0].sums[1], pair[1].sums[0], pair[1].sums[1]];
                self.f.mma(MmaType::Tf32, &sums, &left[n / across], &right[n % across]);
            }
        }
    }

    // Results.

    /// The body at every row and column of the thread's sums.
    pub(super) fn results(&mut self, c: &Contract, (row, column): (Index, Index), place: &Place, groups: &[Group]) {
        let tile = c.tile;
        let lanes = groups.first().map_or(1, |g| g.sums.len());
        let own = |e: &mut Self, origin: &Index, at: Reg<B32>, multiple: i64, size: u32| {
            let at = Index::register(IntReg::Narrow(at), multiple, 0, size as i64 - multiple);
            e.f.add_index(origin, &at)
        };
        let row = own(self, &row, place.row, 1, tile.rows);
        let column = own(self, &column, place.column, lanes as i64, tile.columns);
        let wide = c.columns % lanes as i64 == 0 && same_flow(c.column, &c.body);
        for g in groups {
            let skip = self.f.label();
            let at = |e: &mut Self, first: &Index, by: i64, limit: i64, size: u32| {
                let sum = e.f.add_index(first, &Index::constant(by));
                let sum = Index { high: sum.high.min(limit - 1), ..sum };
                // Whole tiles have every row.
                if limit % size as i64 != 0 {
                    let past = Index { high: i32::MAX as i64, ..sum };
                    let outside = e.f.compare_index(CmpOp::Ge, &past, &Index::constant(limit));
                    e.f.jump_if(outside, true, skip);
                }
                sum
            };
            let row = at(self, &row, g.row, c.rows, tile.rows);
            let first = at(self, &column, g.column, c.columns, tile.columns);
            self.values[c.row as usize] = Some(Val::index(row));
            let sums: Vec<Scalar> = g.sums.iter().map(|&s| Scalar::F32(s.into())).collect();
            let done = wide
                && self.attempt(|e| {
                    e.width = lanes;
                    e.values[c.column as usize] = Some(Val::index(Index { stride: 1, ..first }));
                    e.values[c.sum as usize] = Some(Val::Lanes(sums.clone()));
                    e.block(&c.body);
                    e.width = 1;
                });
            if !done {
                for (lane, &sum) in sums.iter().enumerate() {
                    let column = Index { stride: 1, ..first }.lane(lane);
                    if c.columns % lanes as i64 != 0 && lane > 0 {
                        let past = Index { high: i32::MAX as i64, ..column };
                        let outside = self.f.compare_index(CmpOp::Ge, &past, &Index::constant(c.columns));
                        self.f.jump_if(outside, true, skip);
                    }
                    self.values[c.column as usize] = Some(Val::index(column));
                    self.values[c.sum as usize] = Some(Val::Uniform(sum));
                    self.block(&c.body);
                }
            }
            self.f.place(skip);
        }
    }
}

/// Rows of a thread from its first on.
fn rows_of(size: u32, part: u32) -> impl Iterator<Item = i64> {
    let four_stride = size / (part / 4);
    (0..part / 4).flat_map(move |g| (0..4).map(move |i| (g * four_stride + i) as i64))
}
