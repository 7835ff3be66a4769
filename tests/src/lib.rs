//! What several test programs share.

pub mod analyse;
pub mod compare;
pub mod interpret;
pub mod plain;
pub mod random_graph;
pub mod sheet;
pub mod simulate;
