//! Order between blocks: what one publishes by a flag in global memory and another hears from it (PTX ISA 8.8, 8.9).
//!
//! Known by block and by flag, not by thread: after a block has fenced and written a flag, all that it does counts as
//! published there; after another has read the flag and fenced, all its threads have heard. So a race may be missed
//! where flags are used, but a correct use of them is never called one.

use std::collections::{BTreeSet, HashMap};

use crate::inst::Strength;

use super::Machine;

/// The flags of a launch: by address, the blocks whose work is published there.
#[derive(Default)]
pub struct Flags {
    published: HashMap<u64, BTreeSet<u32>>,
}

/// What one block makes of flags.
#[derive(Default)]
pub struct Hearing {
    fenced: bool,
    /// Blocks heard of since the last fence.
    heard: BTreeSet<u32>,
}

impl Machine<'_> {
    /// An atomic, volatile, relaxed or ordered access to global memory.
    pub(super) fn touch_flag(&mut self, address: u64, strength: Strength, reads: bool, writes: bool) {
        if strength == Strength::Weak || !self.cx.options.global_races {
            return;
        }
        let ordered = strength == Strength::Ordered;
        if reads && let Some(blocks) = self.flags.published.get(&address) {
            if ordered {
                self.clocks.seen.extend(blocks);
            } else {
                self.hearing.heard.extend(blocks);
            }
        }
        if writes && (ordered || self.hearing.fenced) {
            let blocks = self.flags.published.entry(address).or_default();
            blocks.extend(&self.clocks.seen);
            blocks.insert(self.number);
        }
    }

    pub(super) fn fence(&mut self) {
        self.hearing.fenced = true;
        self.clocks.seen.append(&mut self.hearing.heard);
    }
}
