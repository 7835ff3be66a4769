//! Choices, from which random graphs are built: bytes, so that fewer and smaller ones make a simpler graph.

/// Choices, used up one by one while a graph is built; 0 when none are left.
pub struct Choices<'c>(std::slice::Iter<'c, u8>);

impl<'c> Choices<'c> {
    pub fn new(bytes: &'c [u8]) -> Choices<'c> {
        Choices(bytes.iter())
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0.next().map_or(0, |&c| c as usize % n.max(1))
    }

    pub fn flag(&mut self) -> bool {
        self.below(2) == 1
    }
}
