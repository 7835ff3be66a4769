//! What several test programs share.

pub mod compare;
pub mod interpret;
pub mod random_graph;
pub mod simulate;
