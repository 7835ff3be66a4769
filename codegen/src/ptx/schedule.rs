//! Which threads of the GPU run an iteration of a kernel's parallel loop: one, a warp, or a block.
//!
//! Vector loops are independent iterations or reductions by the kernel IR's promise. Where they are long, the threads of a
//! group share them, neighbours taking neighbouring elements; where there are none, or short ones, an iteration is a thread's own.

use super::Gpu;
use crate::kernel::{BinOp, Contract, Expr, Kernel, LoopKind, Stmt, Tile};

/// Threads that run one iteration together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Thread,
    Warp,
    Block,
    /// A block for each tile of a product.
    Tile,
}

impl Group {
    /// As the launch plan has it.
    pub fn name(self) -> &'static str {
        match self {
            Group::Thread => "thread",
            Group::Warp => "warp",
            Group::Block => "block",
            Group::Tile => "tile",
        }
    }
}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub group: Group,
    /// Of a product.
    pub tile: Option<Tile>,
    /// Of a block.
    pub threads: u32,
    /// Blocks by axis.
    pub grid: [u32; 3],
}

/// Longest loops that a thread runs alone though they could be shared.
const SHORT: i64 = 8;
/// Loops below this are a thread's own where there are many iterations of the parallel loop.
const WARP: i64 = 32;
/// Loops from here on are for a whole block.
const LONG: i64 = 1024;
/// Iterations of the parallel loop that fill a GPU with a thread each.
const MANY: i64 = 1 << 14;
/// Iterations that fill a GPU with a warp each.
const WARPS: i64 = 1 << 9;
/// Statements of a loop that is written out: short windows, whose taps are then constant offsets from one address.
const UNROLLED: i64 = 96;
/// What is taken for the length of a loop whose bounds are computed.
const UNKNOWN: i64 = 64;

impl Schedule {
    pub fn of(k: &Kernel) -> Schedule {
        if let Some(c) = k.body.iter().find_map(contraction) {
            let across = |n: i64, tile: u32| (n + tile as i64 - 1) / tile as i64;
            let tiles = across(c.rows, c.tile.rows) * across(c.columns, c.tile.columns);
            return Schedule {
                group: Group::Tile,
                tile: Some(c.tile),
                threads: c.tile.threads(),
                grid: [blocks(tiles * k.extent.max(1), 1), 1, 1],
            };
        }
        let mut longest = 0;
        shared_loops(&k.body, &mut longest);
        let extent = k.extent.max(1);
        let alone = longest <= SHORT || (longest < WARP && extent >= MANY);
        if alone || extent > i32::MAX as i64 {
            let threads = if extent >= MANY { 256 } else { 64 };
            return Schedule {
                group: Group::Thread,
                tile: None,
                threads,
                grid: [blocks(extent, threads as i64), 1, 1],
            };
        }
        if longest >= LONG || (longest >= LONG / 4 && extent < WARPS) {
            let most = if longest >= 8 * LONG { 1024 } else { 256 };
            // Each has a vector of four at least.
            let threads = (longest as u32 / 4).next_power_of_two().clamp(64, most);
            return Schedule { group: Group::Block, tile: None, threads, grid: [blocks(extent, 1), 1, 1] };
        }
        let warps = extent.min(4);
        Schedule { group: Group::Warp, tile: None, threads: 32 * warps as u32, grid: [blocks(extent, warps), 1, 1] }
    }

    pub fn describe(&self, gpu: Gpu) -> String {
        let blocks = self.grid.iter().product::<u32>();
        let what = match (self.group, self.tile) {
            (Group::Thread, _) => "a thread per iteration".into(),
            (Group::Warp, _) => "a warp per iteration".into(),
            (Group::Block, _) => "a block per iteration".into(),
            (Group::Tile, None) => "a block per tile".into(),
            (Group::Tile, Some(t)) => {
                let (by, each) = if t.tensor { ("tensor cores", "warp") } else { ("fma", "thread") };
                format!(
                    "a block per tile of {}x{}x{}, {}x{} a {each}, {by}",
                    t.rows, t.columns, t.depth, t.part_rows, t.part_columns
                )
            }
        };
        let room = self.tile.map_or(String::new(), |t| {
            let (each, all) = (super::side_by_side(&t, gpu.precision, gpu.sm), gpu.sm.multiprocessors());
            let waves = blocks as f64 / (each as usize * all) as f64;
            format!(": {waves:.2} waves of {each} on each of {all} multiprocessors")
        });
        format!("{what}, {blocks} blocks of {} threads{room}", self.threads)
    }
}

fn blocks(extent: i64, each: i64) -> u32 {
    // A grid has at most 2^31 - 1 blocks, more than there are elements in any tensor that fits on a GPU over 256.
    u32::try_from((extent + each - 1) / each).unwrap_or(i32::MAX as u32)
}

/// The product that a statement is.
pub fn contraction(s: &Stmt) -> Option<&Contract> {
    match s {
        Stmt::Contract(c) => Some(c),
        _ => None,
    }
}

/// Iterations of a loop, if they are a number.
pub fn trip(start: &Expr, end: &Expr, step: i64) -> Option<i64> {
    if let (Some(a), Some(b)) = (start.as_i64(), end.as_i64()) {
        return Some(((b - a).max(0) + step - 1) / step);
    }
    match end {
        Expr::Binary(BinOp::Add, a, n) if **a == *start => n.as_i64().map(|n| (n.max(0) + step - 1) / step),
        _ => None,
    }
}

/// Whether a loop is written out, iteration by iteration.
pub fn unrolled(s: &Stmt) -> bool {
    written_out(s).is_some_and(|n| n <= UNROLLED)
}

/// Statements of a loop that is written out with all the loops in it; `None` if one has no bounds that are numbers.
fn written_out(s: &Stmt) -> Option<i64> {
    let all = |body: &[Stmt]| body.iter().try_fold(0i64, |n, s| Some(n.saturating_add(written_out(s)?)));
    match s {
        Stmt::For { start, end, step, body, .. } => {
            let n = trip(start, end, *step).filter(|_| start.as_i64().is_some() && end.as_i64().is_some())?;
            Some(n.saturating_mul(all(body)?))
        }
        Stmt::If { then, otherwise, .. } => Some(1 + all(then)? + all(otherwise)?),
        Stmt::Let { .. } | Stmt::Set { .. } | Stmt::Store { .. } | Stmt::Fault(_) => Some(1),
        Stmt::While { .. } | Stmt::Leaf { .. } | Stmt::Contract(_) => None,
    }
}

/// The longest vector loop that is not inside another.
fn shared_loops(body: &[Stmt], longest: &mut i64) {
    for s in body {
        match s {
            Stmt::For { kind: LoopKind::Vector, start, end, step, .. } => {
                *longest = (*longest).max(trip(start, end, *step).unwrap_or(UNKNOWN));
            }
            Stmt::For { body, .. } | Stmt::While { body, .. } => shared_loops(body, longest),
            Stmt::If { then, otherwise, .. } => {
                shared_loops(then, longest);
                shared_loops(otherwise, longest);
            }
            Stmt::Let { .. }
            | Stmt::Set { .. }
            | Stmt::Store { .. }
            | Stmt::Fault(_)
            | Stmt::Leaf { .. }
            | Stmt::Contract(_) => {}
        }
    }
}
