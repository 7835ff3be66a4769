//! Artefacts from the outside: as libraries by both linkers, by their header from C and C++, and the contract of every call.

mod adder;
mod contract;
mod header;
mod library;
