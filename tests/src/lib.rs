//! What several test programs share.

pub mod compare;
pub mod random_graph;
