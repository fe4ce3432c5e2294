//! Reports for people who were not there: one HTML file each, with its pictures in it and nothing from anywhere else.
//!
//! `twill bench --out` and `make faults` write one. What is written is XML, too, so that tests can read it, and everything
//! that is text goes through [`Markup::text`], so that nothing in it is taken for a tag.

mod machine;
mod markup;
mod page;
mod scale;
mod table;

pub use machine::Machine;
pub use markup::Markup;
pub use page::{CHART, COLOURS, Page};
pub use scale::LogScale;
pub use table::{Cell, Table};
