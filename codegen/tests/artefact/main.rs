//! Artefacts from the outside: as libraries by both linkers, by their header from C and C++, the contract of every call, and the thread pool.

mod adder;
mod contract;
mod header;
mod library;
mod pool;
