//! What several test programs share.

pub mod analyse;
pub mod compare;
pub mod interpret;
pub mod random_graph;
