//! What several test programs share.

pub mod analyse;
pub mod choices;
pub mod compare;
pub mod differential;
pub mod forced;
pub mod guarded;
pub mod interpret;
pub mod plain;
pub mod random_affine;
pub mod random_cells;
pub mod random_graph;
pub mod random_net;
pub mod random_product;
pub mod sheet;
pub mod simulate;
