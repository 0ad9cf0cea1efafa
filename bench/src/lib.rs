//! Headwater measured.
//!
//! ```text
//! corpus ──▶ nodes ──▶ works/* ──▶ rows ──▶ table, JSON lines, plots
//!                        ▲
//!         bare, singles, peers: what it is measured against
//! ```
//!
//! Every repetition measures every subject of a work once, one after the other, so that noise on
//! the machine meets all of them; ratios are taken round by round. What is reported are medians
//! with the least and the most. Unless a work says otherwise both endpoints live in one process on
//! loopback, and CPU time is that of both sides together.

pub mod bare;
pub mod child;
pub mod corpus;
pub mod link;
pub mod machine;
pub mod nodes;
pub mod page;
pub mod peers;
pub mod plot;
pub mod row;
pub mod sample;
pub mod singles;
pub mod table;
pub mod works;

/// Why a measurement could not be taken.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
