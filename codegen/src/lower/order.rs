//! Where the channels of a value in blocks are: channel `c` in slot `s` is lane `s % lanes` of block `s / lanes`.
//!
//! Most values have their channels in order. A shuffle, a slice or a concatenation of parts that do not fill their blocks gives a
//! value other slots instead of copying it: who reads it with constant weights (convolutions) has these packed by slot, who works
//! channel by channel (pools, depthwise convolutions, elementwise groups) passes the order on.

use std::sync::Arc;

/// The slots of the channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    channels: usize,
    /// `None`: channel `c` is in slot `c`.
    slots: Option<Arc<[u32]>>,
    /// Blocks that the value takes.
    blocks: usize,
    lanes: usize,
    loose: bool,
}

impl Order {
    /// Channel after channel.
    pub fn plain(channels: usize, lanes: usize) -> Order {
        Order { channels, slots: None, blocks: channels.div_ceil(lanes), lanes, loose: false }
    }

    fn of(slots: Vec<u32>, blocks: usize, lanes: usize, loose: bool) -> Order {
        let channels = slots.len();
        let plain = slots.iter().enumerate().all(|(c, &s)| s as usize == c) && blocks == channels.div_ceil(lanes);
        Order { channels, slots: (!plain).then(|| slots.into()), blocks, lanes, loose }
    }

    pub fn slot(&self, channel: usize) -> usize {
        self.slots.as_ref().map_or(channel, |s| s[channel] as usize)
    }

    pub fn blocks(&self) -> usize {
        self.blocks
    }

    pub fn slots(&self) -> usize {
        self.blocks * self.lanes
    }

    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Whether channel `c` is in slot `c`, and other slots hold zeros.
    pub fn is_plain(&self) -> bool {
        self.slots.is_none() && !self.loose
    }

    /// Whether slots without a channel may hold anything, as where they are another value's. Otherwise they hold zeros: anything
    /// else may be infinite, and a zero weight makes NaN of it.
    pub fn is_loose(&self) -> bool {
        self.loose
    }

    /// Whether there are slots without a channel.
    pub fn is_padded(&self) -> bool {
        self.slots() > self.channels
    }

    /// Whether channels are in order and fill their blocks.
    pub fn is_whole(&self) -> bool {
        self.is_plain() && !self.is_padded()
    }

    /// Channel `c` becomes channel `to(c)`.
    pub fn permuted(&self, to: impl Fn(usize) -> usize) -> Order {
        let mut slots = vec![0; self.channels];
        (0..self.channels).for_each(|c| slots[to(c)] = self.slot(c) as u32);
        Order::of(slots, self.blocks, self.lanes, self.loose)
    }

    /// Channels `from..from + count`, and the first of the blocks that they are in.
    pub fn slice(&self, from: usize, count: usize) -> (Order, usize) {
        let slots: Vec<usize> = (from..from + count).map(|c| self.slot(c)).collect();
        let first = slots.iter().min().map_or(0, |s| s / self.lanes);
        let end = slots.iter().max().map_or(0, |s| s / self.lanes + 1);
        let (blocks, shift) = (end - first, first * self.lanes);
        let loose = self.loose || blocks * self.lanes > count;
        (Order::of(slots.iter().map(|s| (s - shift) as u32).collect(), blocks, self.lanes, loose), first)
    }

    /// One value behind the other.
    pub fn concat(parts: &[Order], lanes: usize) -> Order {
        let (mut slots, mut blocks) = (vec![], 0);
        for part in parts {
            slots.extend((0..part.channels).map(|c| (blocks * lanes + part.slot(c)) as u32));
            blocks += part.blocks;
        }
        Order::of(slots, blocks, lanes, parts.iter().any(|p| p.loose))
    }

    /// The channel of each slot.
    pub fn by_slot(&self) -> Vec<Option<usize>> {
        let mut channels = vec![None; self.slots()];
        (0..self.channels).for_each(|c| channels[self.slot(c)] = Some(c));
        channels
    }

    /// Rows of `width` numbers, one for each channel, by slot.
    pub fn spread(&self, rows: &[f32], width: usize, padding: f32) -> Vec<f32> {
        let mut out = vec![padding; self.slots() * width];
        for (c, row) in rows.chunks(width).enumerate() {
            out[self.slot(c) * width..][..width].copy_from_slice(row);
        }
        out
    }

    /// The slots, as text.
    pub fn describe(&self) -> Option<String> {
        let slots = self.slots.as_ref()?;
        let shown: Vec<String> = slots.iter().take(4).map(u32::to_string).collect();
        Some(format!("channels in slots {}... of {}", shown.join(" "), self.slots()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_concatenations_and_permutations() {
        let x = Order::plain(12, 8);
        assert!(x.is_plain() && x.is_padded() && x.blocks() == 2);
        let swapped = x.permuted(|c| (c + 6) % 12);
        assert_eq!((swapped.slot(0), swapped.slot(6)), (6, 0));
        assert_eq!(swapped.permuted(|c| (c + 6) % 12), x);
        let (part, first) = x.slice(9, 3);
        assert_eq!((first, part.blocks(), part.slot(0), part.is_loose()), (1, 1, 1, true));
        let whole = Order::concat(&[x.clone(), Order::plain(4, 8)], 8);
        assert_eq!((whole.blocks(), whole.slot(11), whole.slot(12)), (3, 11, 16));
        assert!(Order::concat(&[Order::plain(8, 8), x], 8).is_plain());
        assert_eq!(part.by_slot()[..5], [None, Some(0), Some(1), Some(2), None]);
        assert_eq!(part.spread(&[1.0, 2.0, 3.0], 1, 9.0)[..5], [9.0, 1.0, 2.0, 3.0, 9.0]);
    }
}
