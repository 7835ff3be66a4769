//! Products on the tensor cores with factors of 16 bits.
//!
//! In shared memory, rows of both factors have 32 steps each, 64 bytes in four chunks of 16. Chunk c of row r lies at chunk
//! `c ^ (r / 2 % 4)`: the eight rows of one chunk that `ldmatrix` reads at a time, and what eight threads write, then lie in all 32
//! banks.
//!
//! ```text
//! fetch slice 0; put it into stage 0
//! for s in 0..slices:
//!   wait; barrier
//!   fetch slice s + 1                          // on its way while the tensor cores work
//!   fragments by ldmatrix from stage s % 2; mma
//!   put slice s + 1 into the other stage
//! ```
//!
//! What has 16 bits, aligned, goes to shared memory directly; all else through registers, a thread taking eight steps of a row, where it
//! is rounded. Neighbouring threads have neighbouring rows, or neighbouring steps, whichever lie together in global memory.

use super::contract::{Group, TILES};
use super::copy::{Side, even_steps, stride_of, stride_within};
use super::emit::Emit;
use super::func::{MmaType, Shared, SharedArray, Special};
use super::index::{Index, IntReg};
use super::occupancy::Slices;
use super::reg::*;
use super::value::Val;
use crate::kernel::{BinOp, CmpOp, Contract, Var};
use lehr_ir::DType;

/// Steps of a chunk, and of a slice.
const CHUNK: i64 = 8;
const DEPTH: i64 = 32;
/// Bytes of a row of a slice.
const ROW: u32 = 64;

/// What a thread moves of a factor's slices.
struct Mover<'c> {
    side: Side<'c>,
    way: Way,
    units: Vec<Unit>,
    /// Threads beyond the tile have none.
    active: Option<Reg<Pred>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// 16 bytes by `cp.async`.
    Direct,
    /// Eight f32 by two loads.
    Vectors,
    /// Element by element.
    Singles,
}

/// Eight steps of a row.
struct Unit {
    /// The row's part of the position, and that of the chunk where the slice's steps are evenly spaced.
    at: Index,
    bounds: Vec<Index>,
    valid: Option<Reg<Pred>>,
    /// The chunk's first step in the slice.
    step: Index,
    /// From the start of a stage.
    to: Reg<B32>,
}

/// A chunk in registers, on its way.
type Fetched = Vec<[Src<F32>; CHUNK as usize]>;

impl Emit<'_> {
    pub(super) fn contract_halves(&mut self, c: &Contract, t: MmaType) {
        let tile = c.tile;
        assert_eq!(tile.depth as i64, DEPTH, "the lowering cuts slices of one row of chunks");
        let Slices { left: left_bytes, stage, stages, .. } = Slices::of(&tile, self.precision);
        self.f.shared.push(SharedArray { name: TILES.into(), bytes: stages * stage });
        let thread = self.f.special(Special::ThreadX);
        let (row, column) = self.tile_origin(c);
        let tiles_at = self.f.shared_address(TILES);
        let (first, end) = (self.index(&c.first), self.index(&c.end));
        let left = Side { factor: &c.left, var: c.row, limit: c.rows, size: tile.rows, stride: ROW };
        let right = Side { factor: &c.right, var: c.column, limit: c.columns, size: tile.columns, stride: ROW };
        let movers = [
            Mover::new(self, left, c.step, (thread, t), row, (0, tiles_at), (&first, &end)),
            Mover::new(self, right, c.step, (thread, t), column, (left_bytes, tiles_at), (&first, &end)),
        ];
        let (place, groups) = self.tensor_place(&tile, thread);
        let fragments = self.fragment_addresses(c, thread, (tiles_at, left_bytes));

        let steps = self.steps(&first, &end);
        let count = self.slice_count(&steps, DEPTH);
        let ragged = first.multiple % DEPTH != 0 || end.multiple % DEPTH != 0;
        let bound = ragged.then_some(end);
        let fetch = |e: &mut Self, slice: Index, to: Src<B32>| {
            let at = e.f.scale_index(&slice, DEPTH);
            let at = e.f.add_index(&first, &at);
            let fetched: [Fetched; 2] = [0, 1].map(|i| movers[i].fetch(e, c.step, at, bound, to));
            e.f.cp_async_commit();
            fetched
        };
        let put = |e: &mut Self, fetched: [Fetched; 2], to: Src<B32>| {
            movers.iter().zip(fetched).for_each(|(m, f)| m.put(e, t, &f, to));
        };
        let fetched = fetch(self, Index::constant(0), 0.into());
        put(self, fetched, 0.into());
        let (slice, from) = (self.f.mov(0), self.f.mov(0));
        let slices = (i32::MAX as i64 / DEPTH / 2).min(count.high.max(1));
        let slice_at = Index::register(IntReg::Narrow(slice), 1, 0, slices - 1);
        let again = self.f.label();
        self.f.place(again);
        self.f.no_unrolling();
        self.f.cp_async_wait(0);
        self.f.barrier();
        let later = self.f.add_index(&slice_at, &Index::constant(1));
        let last = self.f.compare_index(CmpOp::Ge, &later, &count);
        let to: Src<B32> = self.f.sub::<S32>(stage as i32, from).into();
        let skip = self.f.label();
        self.f.jump_if(last, true, skip);
        let fetched = fetch(self, later, to);
        self.f.place(skip);
        self.multiply_halves(t, c, &fragments, from, &groups);
        let skip = self.f.label();
        self.f.jump_if(last, true, skip);
        put(self, fetched, to);
        self.f.place(skip);
        self.f.set(from, to);
        self.next(slice, &count, again);
        self.results(c, (row, column), &place, &groups);
    }

    /// Where a lane's rows of fragments begin in a stage: of both factors, for the first and the second 16 steps.
    fn fragment_addresses(
        &mut self,
        c: &Contract,
        thread: Reg<B32>,
        (tiles_at, left_bytes): (Reg<B32>, u32),
    ) -> [[Reg<B32>; 2]; 2] {
        let warp = self.warp_place(&c.tile, thread);
        let lane = self.f.and(thread, 31);
        let within = self.f.and(lane, 7);
        let pair = self.f.shr::<U32>(within, 1);
        let bit = |e: &mut Self, n: i32| {
            let high = e.f.shr::<U32>(lane, n);
            e.f.and(high, 1)
        };
        let (third, fourth) = (bit(self, 3), bit(self, 4));
        // Matrices of the left factor: rows 0 and 8, then the same with later steps; of the right one, steps come first.
        [(warp.row, third, fourth, 0), (warp.column, fourth, third, left_bytes)].map(|(first, eighth, later, bytes)| {
            let row = self.f.add::<S32>(first, within);
            let row = self.f.mad::<S32>(eighth, 8, row);
            let chunk = self.f.xor(later, pair);
            let chunk: Reg<B32> = self.f.shl(chunk, 4);
            let at = self.f.mad::<S32>(row, ROW as i32, chunk);
            [0, 32].map(|later| {
                let at = if later == 0 { at } else { self.f.xor(at, later) };
                let at = if bytes == 0 { at } else { self.f.add::<S32>(at, bytes as i32) };
                self.f.add::<S32>(tiles_at, at)
            })
        })
    }

    fn multiply_halves(
        &mut self,
        t: MmaType,
        c: &Contract,
        fragments: &[[Reg<B32>; 2]; 2],
        stage: Reg<B32>,
        groups: &[Group],
    ) {
        let tile = c.tile;
        let [left_from, right_from] = fragments;
        for (&left, &right) in left_from.iter().zip(right_from) {
            let (left, right) = (self.f.add::<S32>(left, stage), self.f.add::<S32>(right, stage));
            let sixteen = |size: u32| (0..size / 16).map(|n| (n * 16 * ROW) as i64);
            let a: Vec<[Reg<B32>; 4]> = sixteen(tile.part_rows).map(|offset| self.f.ldmatrix(left, offset)).collect();
            let b: Vec<[Reg<B32>; 2]> = sixteen(tile.part_columns)
                .flat_map(|offset| {
                    let [b0, b1, b2, b3] = self.f.ldmatrix(right, offset);
                    [[b0, b1], [b2, b3]]
                })
                .collect();
            for (n, pair) in groups.chunks(2).enumerate() {
                let sums = [pair[0].sums[0], pair[0].sums[1], pair[1].sums[0], pair[1].sums[1]];
                self.f.mma(t, &sums, &a[n / b.len()], &b[n % b.len()]);
            }
        }
    }

    /// Whether every chunk of a factor is aligned to 16 bytes (or, of f32, twice 16), and its steps neighbours.
    fn chunks_are_aligned(&mut self, side: &Side, step: Var) -> bool {
        let at = &side.factor.at;
        if stride_within(&at.inner, step, CHUNK) != Some(1) {
            return false;
        }
        // Values are only looked at: what is emitted for them is taken back.
        let mark = self.f.mark();
        let reg = IntReg::Narrow(self.f.reg());
        self.values[side.var as usize] = Some(Val::index(Index::register(reg, 1, 0, side.limit - 1)));
        self.values[step as usize] = Some(Val::index(Index::register(reg, CHUNK, 0, i32::MAX as i64)));
        let elements = 16 / self.k.params[side.factor.buf as usize].dtype.size() as i64;
        let aligned = [&at.outer, &at.inner].into_iter().all(|e| self.index(e).multiple % elements == 0);
        self.f.rewind(mark);
        aligned
    }
}

impl<'c> Mover<'c> {
    fn new(
        e: &mut Emit,
        side: Side<'c>,
        step: Var,
        (thread, t): (Reg<B32>, MmaType),
        origin: Index,
        (bytes, tiles_at): (u32, Reg<B32>),
        (first, end): (&Index, &Index),
    ) -> Mover<'c> {
        let (threads, size) = (e.schedule.threads as i64, side.size as i64);
        assert!(threads >= size && threads % 32 == 0, "a thread has one row, or several of them");
        let (chunks, whole) = (DEPTH / CHUNK, first.multiple % DEPTH == 0);
        let own_type = if t == MmaType::Bf16 { DType::BF16 } else { DType::F16 };
        let dtype = e.k.params[side.factor.buf as usize].dtype;
        // A chunk lies on one side of the end, or has zeros after it.
        let even = even_steps(side.factor, step, CHUNK).is_some() && (end.multiple % CHUNK == 0 || side.factor.padded);
        let way = match e.chunks_are_aligned(&side, step) && even && whole {
            true if dtype == own_type => Way::Direct,
            true if dtype == DType::F32 => Way::Vectors,
            _ => Way::Singles,
        };
        let lead = Index::register(IntReg::Narrow(thread), 1, 0, threads - 1);
        let op = |e: &mut Emit, op, n| e.f.index_op(op, &lead, &Index::constant(n), 1).expect("one value");
        let along_steps = stride_of(&side.factor.at.inner, step) == Some(1);
        let count = (size * chunks + threads - 1) / threads;
        let (row, chunk, rows_apart, chunks_apart) = match along_steps {
            true => (op(e, BinOp::Div, chunks), op(e, BinOp::Rem, chunks), threads / chunks, 0),
            false => (op(e, BinOp::Rem, size), op(e, BinOp::Div, size), 0, threads / size),
        };
        let beyond = if along_steps { (row, size) } else { (chunk, chunks) };
        let active =
            (threads > size * chunks).then(|| e.f.compare_index(CmpOp::Lt, &beyond.0, &Index::constant(beyond.1)));
        // The row's turn: rows that are some threads apart have the same, for they are a multiple of 8 apart.
        let (r, k) = (e.f.narrow(&row), e.f.narrow(&chunk));
        let turn = e.f.shr::<U32>(r, 1);
        let turn = e.f.and(turn, 3);
        let turned = e.f.xor(k, turn);
        let turned: Reg<B32> = e.f.shl(turned, 4);
        let start = e.f.mad::<S32>(r, ROW as i32, turned);
        let slice_even = even_steps(side.factor, step, DEPTH).filter(|_| whole);
        let tiles = (side.limit + size - 1) / size;
        let units = (0..count)
            .map(|j| {
                let row = e.f.add_index(&row, &Index::constant(j * rows_apart));
                let chunk = e.f.add_index(&chunk, &Index::constant(j * chunks_apart));
                let step = e.f.scale_index(&chunk, CHUNK);
                let step = Index { high: DEPTH - CHUNK, ..step };
                // Chunks that are apart by a power of two differ in one bit.
                let to = if chunks_apart * j == 0 { start } else { e.f.xor(start, (chunks_apart * j * 16) as i32) };
                let to = e.f.add::<S32>(to, bytes as i32 + (j * rows_apart) as i32 * ROW as i32);
                let to = e.f.add::<S32>(tiles_at, to);
                let row = e.f.add_index(&origin, &row);
                let row = Index { high: tiles * size - 1, ..row };
                let valid =
                    (side.limit % size != 0).then(|| e.f.compare_index(CmpOp::Lt, &row, &Index::constant(side.limit)));
                e.values[side.var as usize] = Some(Val::index(row));
                let mut at = e.index(&side.factor.at.outer);
                if let Some(stride) = slice_even {
                    let own = e.f.scale_index(&step, stride);
                    at = e.f.add_index(&at, &own);
                }
                let bounds = side.factor.bounds.iter().map(|b| e.index(&b.at.outer)).collect();
                Unit { at, bounds, valid, step, to }
            })
            .collect();
        Mover { side, way, units, active }
    }

    /// Starts to bring the slice whose first step is `first`: to shared memory, or into registers.
    fn fetch(&self, e: &mut Emit, step: Var, first: Index, end: Option<Index>, stage: Src<B32>) -> Fetched {
        let skip = self.active.map(|active| {
            let skip = e.f.label();
            e.f.jump_if(active, false, skip);
            skip
        });
        let factor = self.side.factor;
        let whole = first.multiple % DEPTH == 0;
        let slice_even = even_steps(factor, step, DEPTH).filter(|_| whole);
        let chunk_even = even_steps(factor, step, CHUNK).filter(|_| whole);
        let mut fetched = vec![];
        for u in &self.units {
            let place = e.f.add_index(&first, &u.step);
            // Position of the element at step `at`, and whether it exists, which the slice's end leaves to step `past`.
            let element = |e: &mut Emit, at: Index, past: Index| {
                e.values[step as usize] = Some(Val::index(at));
                let inner = e.index(&factor.at.inner);
                let mut valid = u.valid;
                for (outer, b) in u.bounds.iter().zip(&factor.bounds) {
                    let inner = e.index(&b.at.inner);
                    let at = e.f.add_index(outer, &inner);
                    let inside = super::copy::within(&mut e.f, &at, b.size);
                    valid = super::copy::both(&mut e.f, valid, inside);
                }
                let before = end.map(|end| e.f.compare_index(CmpOp::Lt, &past, &end));
                let valid = super::copy::both(&mut e.f, valid, before);
                (e.f.add_index(&u.at, &inner), valid)
            };
            let at_step = if slice_even.is_some() { first } else { place };
            if self.way != Way::Singles {
                let (at, valid) = element(e, at_step, place);
                let (address, offset) = e.address(factor.buf, &at);
                if self.way == Way::Direct {
                    let to = match stage {
                        Src::Imm(n) => (u.to, n as i64),
                        Src::Reg(stage) => (e.f.add::<S32>(u.to, stage), 0),
                    };
                    let given = valid.map(|p| e.f.selp::<B32>(p, 16, 0));
                    e.f.cp_async(to, (address, offset), 16, given);
                    continue;
                }
                let regs: [Reg<F32>; CHUNK as usize] = std::array::from_fn(|_| e.f.mov(0f32));
                for (four, part) in regs.chunks(4).enumerate() {
                    e.load_into(factor.buf, part, (address, offset + 16 * four as i64), valid);
                }
                fetched.push(regs.map(Src::Reg));
                continue;
            }
            let even_chunk = chunk_even.filter(|_| end.is_none_or(|end| end.multiple % CHUNK == 0));
            let one = even_chunk.map(|stride| (element(e, at_step, place), stride));
            fetched.push(std::array::from_fn(|i| {
                let i = Index::constant(i as i64);
                let (at, valid) = match one {
                    Some(((at, valid), stride)) => (e.f.add_index(&at, &Index::constant(i.plus * stride)), valid),
                    None => {
                        let place = e.f.add_index(&place, &i);
                        let at = if slice_even.is_some() { e.f.add_index(&first, &i) } else { place };
                        element(e, at, place)
                    }
                };
                if e.k.params[factor.buf as usize].dtype != DType::F32 {
                    return e.element(factor.buf, &at, valid);
                }
                let (address, offset) = e.address(factor.buf, &at);
                let reg = e.f.mov(0f32);
                e.load_into(factor.buf, &[reg], (address, offset), valid);
                Src::Reg(reg)
            }));
        }
        if let Some(skip) = skip {
            e.f.place(skip);
        }
        fetched
    }

    /// Rounds what was fetched, and stores it to a stage.
    fn put(&self, e: &mut Emit, t: MmaType, fetched: &Fetched, stage: Src<B32>) {
        if fetched.is_empty() {
            return;
        }
        let skip = self.active.map(|active| {
            let skip = e.f.label();
            e.f.jump_if(active, false, skip);
            skip
        });
        for (u, values) in self.units.iter().zip(fetched) {
            let pairs: Vec<Reg<B32>> = values.chunks(2).map(|p| e.f.round_to_pair(t, p[0], p[1])).collect();
            let (to, offset) = match stage {
                Src::Imm(n) => (u.to, n as i64),
                Src::Reg(stage) => (e.f.add::<S32>(u.to, stage), 0),
            };
            e.f.st_vector::<Shared, B32>(to, offset, &pairs);
        }
        if let Some(skip) = skip {
            e.f.place(skip);
        }
    }
}
